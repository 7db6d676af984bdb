"""What the domain asks of the outside world. Connectors implement these; tests implement them too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from lowtide.operations import Operation
    from lowtide.records import (
        Answer,
        BatchStatus,
        DocumentBatch,
        FileContent,
        FileInfo,
        Finding,
        Limits,
        OutputFile,
        Request,
        Shard,
    )


class Backend(Protocol):
    """Somewhere requests are answered in batches.

    Creating a batch is the one step that costs money, so `submit` promises: it returns only once the provider has said
    yes, raises `SubmitUnknown` if it cannot know, and any other error only if nothing was accepted.
    """

    @property
    def name(self) -> str:
        """`local`, `bedrock`, `azure-batch` and so on."""

    @property
    def provider(self) -> str:
        """Who sends the bill."""

    @property
    def region(self) -> str:
        """Where the work is done; "" where that means nothing."""

    @property
    def model(self) -> str:
        """The model, with its version: what another one would have answered is not taken for its answer."""

    @property
    def parameters(self) -> Mapping[str, str | int | float | bool]:
        """What else changes the answers."""

    @property
    def limits(self) -> Limits:
        """What one batch may hold."""

    @property
    def places(self) -> tuple[str, ...]:
        """Where its batches may lie, region and address: a run does not go on where it cannot see them."""

    def refusal(self, operation: Operation) -> str | None:
        """Why this backend cannot do the operation, and what can; None if it can."""

    def encode(self, request: Request) -> bytes:
        """One JSONL line, without its line end. Strings of the request stand in it only as JSON strings."""

    def submit(self, shard: Shard, token: str) -> str:
        """Create the batch and return its id. Raises SubmitUnknown, QuotaFull, Transient or Terminal.

        A create call is sent once: whoever retries it pays twice.
        """

    def find(self, token: str) -> Sequence[str]:
        """The ids of all batches that were created with this token, wherever they stand, the oldest first.

        Raises Transient: then nothing is known.
        """

    def poll(self, batch_id: str) -> BatchStatus:
        """Where the batch stands. Raises Transient; an error here says nothing about the batch."""

    def outputs(self, batch_id: str) -> Iterator[OutputFile]:
        """The files that the provider wrote, partial ones included, streamed as they came."""

    def parse(self, line: bytes) -> Answer | None:
        """What one line of an output file says; None for a line that answers no record. Raises ValueError if broken."""

    def cancel(self, batch_id: str) -> None:
        """Ask the provider to stop. Returns before it has; what was answered is kept. No error if it has ended."""

    def discard(self, batch_id: str) -> None:
        """Remove what was uploaded and written for an ended batch, whose answers are kept elsewhere by now.

        May be called again, and for what is gone. Never touches the user's own files.
        """

    def examine(self) -> Iterator[Finding]:
        """Look, with the cheapest calls, whether everything is there that a run needs. Creates no batch."""


class Store(Protocol):
    """A tree of objects. Paths are relative, with `/`; parents need not exist. Nothing is ever seen half written.

    Raises NotFound, Transient, or StoreError.
    """

    @property
    def uri(self) -> str:
        """The address of the tree, without a slash at its end."""

    def uri_of(self, path: str) -> str:
        """The whole address of one object."""

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[FileInfo]:
        """Objects whose path starts with `prefix` and sorts behind `after`, in the order of their UTF-8 paths."""

    def info(self, path: str) -> FileInfo | None:
        """The object's size, etag and time, or None if there is none."""

    def read(self, path: str) -> bytes:
        """The whole object."""

    def open(self, path: str) -> BinaryIO:
        """A seekable stream over the object, in bounded memory."""

    def read_many(self, files: Iterable[FileInfo], *, largest: int) -> Iterator[FileContent]:
        """Each file's bytes, in the order given, reading ahead in bounded memory.

        A file over `largest` bytes, or one that cannot be read, comes with an `error` and no bytes.
        """

    def write(self, path: str, data: bytes) -> None:
        """Create or replace the object in one step."""

    def writer(self, path: str) -> AbstractContextManager[BinaryIO]:
        """A stream whose object appears, or is replaced, in one step when the block ends, and never if it raises."""

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Create the object with this content; False, and no change, if it exists. Of many writers exactly one wins."""

    def replace(self, path: str, source: Path, *, expected: str | None) -> bool:
        """Put a local file in the object's place in one step, if its etag is still `expected` (None: does not exist).

        False, and no change, if it is not.
        """

    def delete(self, path: str) -> None:
        """Remove the object; no error if there is none."""


class Documents(Protocol):
    """The source of a job: which files there are, and the documents inside them."""

    def files(self) -> Iterator[FileInfo]:
        """Every file of the window, in a stable order."""

    def read(self, files: Iterable[FileInfo]) -> Iterator[DocumentBatch]:
        """The documents of those files, in order, in batches of bounded size. Never raises for a bad document.

        A file that cannot be read gives one document with its reason.
        """
