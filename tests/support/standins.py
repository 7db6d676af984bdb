"""Injected stand-ins: a store in memory, and a provider whose faults the test chooses. Nothing here is patched in."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO

import msgspec
import orjson

from lowtide.errors import NotFound, SubmitUnknown
from lowtide.operations import Invalid, Operation, Output, Template
from lowtide.plan import Work
from lowtide.prices import Price
from lowtide.records import (
    Answer,
    BatchStatus,
    DocumentBatch,
    FileContent,
    FileInfo,
    Finding,
    Limits,
    Outcome,
    OutputFile,
    Request,
    Shard,
)
from lowtide.windows import Window

PRICE = Price("test", "made up", {"input": Decimal("0.000001"), "output": Decimal("0.000002")})
"""What tests pay if they do not say otherwise."""


class MemoryStore:
    """A store in memory, safe for threads."""

    def __init__(self, uri: str = "memory://store") -> None:
        self.uri = uri
        self.objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def uri_of(self, path: str) -> str:
        return f"{self.uri}/{path}"

    def _info(self, path: str) -> FileInfo:
        data = self.objects[path]
        etag = hashlib.sha256(data).hexdigest()[:16]
        return FileInfo(path, self.uri_of(path), len(data), etag, datetime(2026, 11, 1, tzinfo=UTC))

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[FileInfo]:
        with self._lock:
            found = sorted(path for path in self.objects if path.startswith(prefix) and path > after)
            infos = [self._info(path) for path in found]
        yield from infos

    def info(self, path: str) -> FileInfo | None:
        with self._lock:
            return self._info(path) if path in self.objects else None

    def read(self, path: str) -> bytes:
        with self._lock:
            if path not in self.objects:
                raise NotFound(f"{self.uri_of(path)}: no such object", self.uri_of(path))
            return self.objects[path]

    def open(self, path: str) -> BinaryIO:
        return io.BytesIO(self.read(path))

    def read_many(self, files: Iterable[FileInfo], *, largest: int) -> Iterator[FileContent]:
        for info in files:
            yield FileContent(info, self.read(info.path))

    def write(self, path: str, data: bytes) -> None:
        with self._lock:
            self.objects[path] = data

    @contextmanager
    def writer(self, path: str) -> Iterator[BinaryIO]:
        out = io.BytesIO()
        yield out
        self.write(path, out.getvalue())

    def put_if_absent(self, path: str, data: bytes) -> bool:
        with self._lock:
            if path in self.objects:
                return False
            self.objects[path] = data
            return True

    def replace(self, path: str, source: Path, *, expected: str | None) -> bool:
        data = source.read_bytes()
        with self._lock:
            there = self._info(path).etag if path in self.objects else None
            if there != expected:
                return False
            self.objects[path] = data
            return True

    def delete(self, path: str) -> None:
        with self._lock:
            self.objects.pop(path, None)


@dataclass
class ListedDocuments:
    """Documents given as a mapping from address to text; None stands for one that cannot be read."""

    texts: Mapping[str, str | None]
    batch: int = 3
    fields: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def files(self) -> Iterator[FileInfo]:
        for uri, text in sorted(self.texts.items()):
            etag = hashlib.sha256((text or "").encode()).hexdigest()[:8]
            yield FileInfo(uri, uri, len(text or ""), etag, datetime(2026, 11, 2, tzinfo=UTC))

    def read(self, files: Iterable[FileInfo]) -> Iterator[DocumentBatch]:
        batch = DocumentBatch(fields={name: [] for name in self.fields})
        for info in files:
            text = self.texts[info.uri]
            batch.uris.append(info.uri)
            batch.keys.append("")
            batch.modified.append(info.modified)
            batch.texts.append(text or "")
            batch.reasons.append("broken" if text is None else None)
            for name, values in self.fields.items():
                batch.fields[name].append(values.get(info.uri))
            if len(batch) >= self.batch:
                yield batch
                batch = DocumentBatch(fields={name: [] for name in self.fields})
        if len(batch):
            yield batch


@dataclass
class ProviderBatch:
    """What the provider knows of a batch."""

    token: str
    lines: list[bytes]
    outcome: Outcome | None = None
    output: bytes = b""


class Provider:
    """The other side: keeps batches and a bill, whoever calls. `answer` makes one output line from a request line."""

    def __init__(self, answer: Callable[[dict[str, str], int], list[dict[str, object]]] | None = None) -> None:
        self.batches: dict[str, ProviderBatch] = {}
        self.bill: Counter[str] = Counter()
        self.processed: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._answer = answer or (lambda request, nth: [ok(request)])
        self._lock = threading.Lock()

    def create(self, token: str, data: bytes) -> str:
        with self._lock:
            batch_id = f"b{len(self.batches) + 1}"
            self.batches[batch_id] = ProviderBatch(token, data.splitlines(keepends=False))
            return batch_id

    def finish(self, batch_id: str, outcome: Outcome = "completed", upto: int | None = None) -> None:
        """Process the batch, or its first records only, and put them on the bill."""
        batch = self.batches[batch_id]
        if batch.outcome is not None:
            return
        out = bytearray()
        for line in batch.lines[:upto]:
            request = orjson.loads(line)
            text = request["text"]
            self.processed[text] += 1
            for answer in self._answer(request, self.processed[text]):
                self.bill["input"] += int(answer.get("input_tokens", 0))  # type: ignore[call-overload]
                self.bill["output"] += int(answer.get("output_tokens", 0))  # type: ignore[call-overload]
                out += orjson.dumps(answer) + b"\n"
        batch.output = bytes(out)
        batch.outcome = outcome


def ok(request: dict[str, str], text: str | None = None) -> dict[str, object]:
    """A good answer: ten tokens in, two out."""
    said = orjson.dumps({"echo": request["text"] if text is None else text}).decode()
    return {"record_id": request["id"], "status": "ok", "text": said, "input_tokens": 10, "output_tokens": 2}


SMALL = Limits(records=1000, bytes=1_000_000, request_bytes=100_000, live_batches=4, consistent_lookup=True)


class StandInBackend:
    """A backend over a Provider. `on_submit(token)` may raise, before or after the provider has accepted."""

    name = "stand-in"
    provider = "nobody"
    region = "here"
    model = "echo-1"
    places: tuple[str, ...] = ()
    parameters: Mapping[str, str | int | float | bool] = {}

    def __init__(
        self,
        provider: Provider,
        *,
        limits: Limits = SMALL,
        before: Callable[[str], None] = lambda token: None,
        after: Callable[[str], None] = lambda token: None,
        instantly: bool = True,
    ) -> None:
        self.other_side = provider
        self.limits = limits
        self._before, self._after, self._instantly = before, after, instantly
        self._decoder = msgspec.json.Decoder(Answer)

    def refusal(self, operation: Operation) -> str | None:
        return "the stand-in does not translate" if operation.kind == "translate" else None

    def encode(self, request: Request) -> bytes:
        return orjson.dumps({"id": request.record_id, "op": request.operation.name, "text": request.text})

    def submit(self, shard: Shard, token: str) -> str:
        self.other_side.calls["submit"] += 1
        self._before(token)
        with shard.open() as source:
            batch_id = self.other_side.create(token, source.read())
        self._after(token)
        return batch_id

    def find(self, token: str) -> list[str]:
        return [batch_id for batch_id, batch in self.other_side.batches.items() if batch.token == token]

    def poll(self, batch_id: str) -> BatchStatus:
        if self._instantly:
            self.other_side.finish(batch_id)
        batch = self.other_side.batches[batch_id]
        return BatchStatus("Ended" if batch.outcome else "InProgress", batch.outcome)

    def outputs(self, batch_id: str) -> Iterator[OutputFile]:
        data = self.other_side.batches[batch_id].output
        # Small chunks, so that lines lie across their borders.
        yield OutputFile("out.jsonl", iter([data[at : at + 97] for at in range(0, len(data), 97)]))

    def parse(self, line: bytes) -> Answer | None:
        try:
            return self._decoder.decode(line)
        except msgspec.DecodeError as error:
            raise ValueError("not an answer") from error

    def cancel(self, batch_id: str) -> None:
        self.other_side.finish(batch_id, "cancelled", upto=1)

    def discard(self, batch_id: str) -> None:
        self.other_side.calls["discard"] += 1

    def examine(self) -> Iterator[Finding]:
        yield Finding("stand-in", True, "there")


def lost_acknowledgement(token: str) -> None:
    """For `after`: the provider has accepted, and the answer is lost on the way."""
    raise SubmitUnknown("connection reset after the request was sent")


def echo_operation(name: str = "echo") -> Operation:
    """Asks for the text again."""

    def validate(text: str) -> Output | Invalid:
        try:
            said = orjson.loads(text)
        except orjson.JSONDecodeError:
            return Invalid("not JSON")
        return Output(text=said["echo"], document=text)

    # Two operations of other names ask other things: what is the same question is asked once.
    task = f"Say it again, as {name}."
    return Operation("prompt", name, task, Template.parse("{{ marker }} {{ text }}"), validate)


def work_on(
    store: MemoryStore,
    backend: StandInBackend,
    documents: ListedDocuments,
    *,
    operations: tuple[Operation, ...] | None = None,
    shard_records: int = 4,
    attempts: int = 3,
    run_usd: Decimal | None = None,
    price: Price | None = None,
) -> Work:
    """A job over the documents, with the stand-ins in place."""
    return Work(
        job="test",
        window=Window("all", None, None),
        operations=operations or (echo_operation(),),
        backend=backend,
        documents=documents,
        root=store,
        price=price or PRICE,
        reading={"uri": "memory"},
        fields=tuple(documents.fields),
        shard_records=shard_records,
        attempts=attempts,
        run_usd=run_usd,
    )
