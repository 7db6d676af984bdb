"""The records of a job: each read, answered, billed and written as a line, or as several under a fault."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from lowtide.emulators.app import App
from lowtide.emulators.bedrock import answering
from lowtide.emulators.bedrock.bodies import BadBody
from lowtide.emulators.bedrock.jobs import Job
from lowtide.emulators.bedrock.models import short_id
from lowtide.emulators.bedrock.settings import Settings
from lowtide.emulators.bedrock.wire import ACCOUNT
from lowtide.emulators.bill import Charge, request_hash
from lowtide.emulators.faults import Fault

_SHUFFLED = 1000
_TOO_LATE = {
    "errorCode": 408,
    "errorMessage": "The record was not processed before the job timed out.",
    "expired": True,
}
_ERRORS: Mapping[str, Mapping[str, object]] = {
    "row_error": {"errorCode": 400, "errorMessage": "The request was rejected by the model."},
    "row_server_error": {"errorCode": 500, "errorMessage": "The system encountered an unexpected error."},
    "row_throttled": {"errorCode": 429, "errorMessage": "Too many requests, please wait before trying again."},
    "row_expired": _TOO_LATE,
    "poison": {"errorCode": 400, "errorMessage": "The model could not process this record."},
}


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one record. `late` is for how many seconds after the job's end the line is missing."""

    data: bytes
    success: bool
    input_tokens: int = 0
    output_tokens: int = 0
    late: float = 0.0


class Rows:
    """Answers the records of one job, and bills what it answers."""

    def __init__(self, app: App, job: Job, settings: Settings) -> None:
        self._app, self._job, self._settings = app, job, settings
        self._by = job.asks
        self._billed_as = short_id(self._by.model_id)

    def answer(self, record: Mapping[str, Any], number: int) -> Line:
        """The line for a record, which is the job's `number`-th. What was asked of the model is on the bill."""
        record_id = record.get("recordId") or self._made_up_id(number)
        body = record["modelInput"]
        try:
            asked = answering.read(body, self._by, self._settings, batch=True)
        except BadBody as error:
            return self._failed(record_id, body, {"errorCode": 400, "errorMessage": str(error)})
        fault: Fault | None = None
        if self._app.faults.wants("row"):
            fault = self._app.faults.take("row", **self._job.facts, record=record_id, text=asked.user)
        if fault is not None and fault.do in _ERRORS:
            said = {"errorMessage": fault.message} if fault.message else {}
            return self._failed(record_id, body, {**_ERRORS[fault.do], **said})
        given = answering.answer(asked, self._app.tokens, fault.do if fault else "")
        self._app.bill.record(
            Charge(
                service="bedrock",
                account=f"{ACCOUNT}:{self._job.region}",
                model=self._billed_as,
                tier="batch",
                batch_id=self._job.id,
                record_id=str(record_id),
                request_sha256=request_hash(body),
                input_tokens=given.input_tokens,
                cached_tokens=given.cached_tokens,
                output_tokens=given.output_tokens,
                reasoning_tokens=given.reasoning_tokens,
            )
        )
        output = answering.write(
            asked, given, self._by, self._made_up_id(number), null_members=self._settings.null_members
        )
        data = orjson.dumps(
            {"recordId": record_id, "modelInput": body, "modelOutput": output}, option=orjson.OPT_APPEND_NEWLINE
        )
        late = (fault.seconds or 1.0) if fault is not None and fault.do == "late" else 0.0
        return Line(_damaged(data, fault), True, given.input_tokens, given.output_tokens, late)

    def too_late(self, record: Mapping[str, Any], number: int) -> bytes:
        """The line for a record that there was no time for. It costs nothing."""
        record_id = record.get("recordId") or self._made_up_id(number)
        return self._failed(record_id, record["modelInput"], _TOO_LATE).data

    def _failed(self, record_id: object, body: object, error: Mapping[str, object]) -> Line:
        line = {"recordId": record_id, "modelInput": body, "error": error}
        return Line(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE), False)

    def _made_up_id(self, number: int) -> str:
        return blake2b(f"{self._job.id}/{number}".encode(), digest_size=12).hexdigest().upper()


def _damaged(data: bytes, fault: Fault | None) -> bytes:
    match fault.do if fault else "":
        case "lose":
            return b""
        case "duplicate":
            return data * 2
        case "truncate":
            return data[: len(data) // 2] + b"\n"
        case "malform":
            middle = len(data) // 2
            return data[:middle] + b"\xff\x00\xfe{" + data[middle + 4 :]
    return data


class Output:
    """The output of one input file, on disk: lines in another order than they came, and late ones apart."""

    def __init__(self, path: Path, *, shuffle: bool, seed: str) -> None:
        self.path, self.late_path = path, path.with_suffix(".late")
        self.late = 0.0
        self._shuffle = shuffle
        # Not for secrets: the order of lines only has to differ from that of the records.
        self._random = random.Random(seed)  # noqa: S311
        self._held: list[bytes] = []

    def __enter__(self) -> Output:
        self._file, self._late_file = self.path.open("wb"), self.late_path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flush()
        self._file.close()
        self._late_file.close()

    def add(self, data: bytes, late: float = 0.0) -> None:
        """One more line, or none or two; a late one is kept apart."""
        if late:
            self.late = max(self.late, late)
            self._late_file.write(data)
            return
        self._held.append(data)
        if len(self._held) >= _SHUFFLED:
            self._flush()

    def join_late(self) -> None:
        """Put the late lines at the end of the others."""
        with self.path.open("ab") as file, self.late_path.open("rb") as late:
            while part := late.read(1 << 20):
                file.write(part)

    def _flush(self) -> None:
        if self._shuffle:
            self._random.shuffle(self._held)
        self._file.writelines(self._held)
        self._held.clear()
