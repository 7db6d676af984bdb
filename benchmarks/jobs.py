"""What a benchmark hands to the engine: a folder as root, generated Parquet as the source, and stand-in backends."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import batch
from lowtide.connectors.documents import SourceDocuments
from lowtide.connectors.stores.local import LocalStore
from lowtide.operations import Operation
from lowtide.plan import Work
from lowtide.records import Answer, BatchStatus, Finding, Limits, OutputFile, Request, Shard
from lowtide.windows import Window

if TYPE_CHECKING:
    from lowtide.sharding import ShardBuilder
    from lowtide.sharding.reuse import Known

CHUNK = 1 << 20
SOURCE = "source/tickets.parquet"


class StandIn:
    """What the stand-in backends have in common: the shape of the lines, and limits like a provider's."""

    name = "bench"
    provider = "nobody"
    region = ""
    model = batch.MODEL
    places: tuple[str, ...] = ()
    parameters: Mapping[str, str | int | float | bool] = {}
    limits: Limits = batch.LIMITS

    def refusal(self, operation: Operation) -> str | None:
        return None

    def encode(self, request: Request) -> bytes:
        return batch.encode(request)

    def parse(self, line: bytes) -> Answer | None:
        return batch.parse(line)

    def find(self, token: str) -> Sequence[str]:
        return ()

    def cancel(self, batch_id: str) -> None:
        return None

    def discard(self, batch_id: str) -> None:
        return None

    def examine(self) -> Iterator[Finding]:
        yield from ()


class Shelf(StandIn):
    """Answers each batch into a file of shuffled lines at once, and says that it has ended once `ended` is set."""

    def __init__(self, folder: Path, *, ended: bool) -> None:
        self._folder = folder
        self._ended = ended

    def submit(self, shard: Shard, token: str) -> str:
        with shard.open() as source:
            records = [json.loads(line) for line in source]
        lines = [
            batch.answer_line(
                record["custom_id"],
                batch.fingerprint(record["body"]["messages"][1]["content"]),
                shard.number * 1_000_003 + number,
            )
            for number, record in enumerate(records)
        ]
        random.Random(shard.number).shuffle(lines)
        (self._folder / f"{token}.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        return token

    def poll(self, batch_id: str) -> BatchStatus:
        return BatchStatus("completed", "completed") if self._ended else BatchStatus("in_progress")

    def outputs(self, batch_id: str) -> Iterator[OutputFile]:
        with (self._folder / f"{batch_id}.jsonl").open("rb", buffering=0) as source:
            yield OutputFile("output.jsonl", iter(lambda: source.read(CHUNK), b""))


def work_on(folder: Path, root: Path, backend: StandIn) -> Work:
    """The job of all benchmarks: summarize the generated tickets under `folder`, and write to `root`."""
    source = LocalStore(folder / "source")
    documents = SourceDocuments(source, source.list, text="body", id="ticket", fields=("customer",))
    return Work(
        job="bench",
        window=Window("all", None, None),
        operations=(batch.OPERATION,),
        backend=backend,  # type: ignore[arg-type]  # the stand-ins' own methods make it one
        documents=documents,
        root=LocalStore(root),
        price=batch.PRICE,
        reading={"uri": "tickets.parquet"},
        fields=("customer",),
        shard_records=batch.SHARD_RECORDS,
    )


def shard_builder(known: Known | None = None) -> ShardBuilder:
    """The same job's, without an engine: for variants that have imported it."""
    from lowtide.sharding import ShardBuilder  # noqa: PLC0415 - each variant pays for its own imports only

    return ShardBuilder(
        StandIn(),  # type: ignore[arg-type]  # nothing is submitted here
        [batch.OPERATION],
        salt=b"salt",
        shard_records=batch.SHARD_RECORDS,
        field_names=("customer",),
        known=known,
    )


def close(work: Work) -> None:
    """End the processes that parse documents, so that their CPU is counted."""
    if isinstance(work.documents, SourceDocuments):
        work.documents.close()
