"""The process that answers one batch: `python -m lowtide.connectors.backends.local.worker FOLDER [LOCK]`.

It may be killed at any instruction. Answers are appended in the order of the requests, so what it has done is what
stands in the file; the next worker cuts off a torn line and goes on behind the last whole one. LOCK is the descriptor
of the batch's lock, inherited; without it the worker takes the lock itself, and leaves at once if another holds it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import os
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from lowtide.connectors.backends.local import answering, engine
from lowtide.connectors.backends.local.answering import Reading, UnanswerableError
from lowtide.connectors.backends.local.folder import BatchFolder, RequestLine
from lowtide.connectors.backends.local.progress import Progress, line_id
from lowtide.records import Answer

DEATHS = 3
"""Workers that may die at a record before it gets an error for an answer."""

# Records that are read ahead so that their sentences are embedded together, and the bytes that end such a group.
_GROUP_RECORDS = 32
_GROUP_BYTES = 1 << 18
_READINGS = 64

_REQUEST = msgspec.json.Decoder(RequestLine)


def main(arguments: list[str]) -> int:
    """Answer the batch. What goes wrong is said in one line on standard error, never what a document says."""
    faulthandler.enable()
    folder = BatchFolder(Path(arguments[0]))
    lock = int(arguments[1]) if len(arguments) > 1 else folder.lock()
    if lock is None or folder.status() is not None:
        return 0
    os.set_inheritable(lock, False)
    os.truncate(lock, 0)
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    try:
        work(folder)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        sys.stderr.write(f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}\n")
        return 1
    return 0


def work(folder: BatchFolder) -> None:
    """Take the batch from where it stands to its end, or to the record at which it is cancelled."""
    with Progress(folder) as progress, folder.requests.open("rb") as requests:
        requests.seek(progress.found.offset)
        if folder.cancelled:
            done = not requests.read(1)
        else:
            asked = folder.description()
            chosen = engine.choose(asked.kind)
            if chosen.name != asked.model:
                progress.end("failed", f"submitted for the model {asked.model!r}, and {chosen.name!r} is installed now")
                return
            try:
                model = chosen.load()
            except Exception as error:
                progress.end("failed", f"{asked.model!r} could not be loaded: {type(error).__name__}")
                return
            done = _answer_all(requests, Clerk(model), progress)
        progress.end("completed" if done else "cancelled")


def _answer_all(requests: BinaryIO, clerk: Clerk, progress: Progress) -> bool:
    """Answer what is left; False if that was cancelled."""
    if progress.found.deaths >= DEATHS:
        poison = requests.readline()
        progress.add(_error(line_id(poison), f"the worker died {DEATHS} times at this record"))
    suspects = progress.found.suspects
    while lines := list(_group(requests, 1 if suspects > 0 else _GROUP_RECORDS)):
        suspects -= len(lines)
        progress.begin(len(lines))
        clerk.prepare(lines)
        for line in lines:
            if progress.folder.cancelled:
                return False
            progress.add(clerk.answer(line))
    return True


def _group(requests: BinaryIO, records: int) -> Iterator[bytes]:
    size = 0
    for _ in range(records):
        line = requests.readline()
        if line:
            yield line
        size += len(line)
        if not line or size >= _GROUP_BYTES:
            return


class Clerk:
    """Answers request lines, and remembers what it has read: a job asks several things about the same document."""

    def __init__(self, model: engine.Engine) -> None:
        self._engine = model
        self._readings: OrderedDict[bytes, Reading] = OrderedDict()

    def prepare(self, lines: Sequence[bytes]) -> None:
        """Read a group's documents and embed their sentences together. What fails here fails again in `answer`."""
        texts: list[str] = []
        for line in lines:
            try:
                request = _REQUEST.decode(line)
                texts += self._read(request.text).texts
            except Exception:  # noqa: S112 (`answer` says what is wrong with it)
                continue
        with contextlib.suppress(Exception):
            self._engine.prepare(texts)

    def answer(self, line: bytes) -> Answer:
        """The answer to one line. Never raises for what stands in it."""
        try:
            request = _REQUEST.decode(line)
        except msgspec.MsgspecError:
            return _error(line_id(line), "the request line is not valid: JSON with id, kind, text and parameters")
        tokens = 0
        try:
            reading = self._read(request.text)
            tokens = reading.tokens
            text = msgspec.json.encode(self._answer(request, reading)).decode()
            written = self._engine.count_tokens(text)
        except UnanswerableError as error:
            return _error(request.id, str(error), tokens)
        except Exception as error:
            # The message of a stranger's exception may quote the document.
            return _error(request.id, f"{type(error).__name__} while the record was answered", tokens)
        return Answer(
            request.id, "ok", text=text, input_tokens=tokens, output_tokens=written, answered_at=round(time.time(), 3)
        )

    def _answer(self, request: RequestLine, reading: Reading) -> dict[str, str] | dict[str, str | float]:
        match request.kind:
            case "summarize":
                return answering.summarize(reading, self._engine, request.parameters.words or answering.SUMMARY_WORDS)
            case "classify":
                labels = {name: told or "" for name, told in request.parameters.labels.items()}
                return answering.classify(reading, self._engine, labels)
            case kind:
                raise UnanswerableError(f"local cannot do {kind!r}")

    def _read(self, text: str) -> Reading:
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        reading = self._readings.get(digest)
        if reading is None:
            reading = self._readings[digest] = Reading.of(text, self._engine)
            if len(self._readings) > _READINGS:
                self._readings.popitem(last=False)
        return reading


def _error(record_id: str, reason: str, tokens: int = 0) -> Answer:
    return Answer(record_id, "error", error=reason, input_tokens=tokens, answered_at=round(time.time(), 3))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
