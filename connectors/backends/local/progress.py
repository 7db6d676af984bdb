"""How far a batch has come: what a worker appends to its files, and what the next one makes of them."""

from __future__ import annotations

import io
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeVar

import msgspec

from lowtide.connectors.backends.local.folder import BatchFolder, BillLine, RequestId, StartLine, Status
from lowtide.records import Answer

T = TypeVar("T")

_ANSWER = msgspec.json.Decoder(Answer)
_BILL = msgspec.json.Decoder(BillLine)
_START = msgspec.json.Decoder(StartLine)
_REQUEST_ID = msgspec.json.Decoder(RequestId)
_ID = re.compile(rb'\{"id":"([^"\\]{1,200})"')


@dataclass(frozen=True, slots=True)
class Found:
    """What the workers before have left.

    `offset` is where the first unanswered request begins; `deaths` counts the workers that began with it and never
    ended it; the next `suspects` records are to be done one by one, since a worker died among them.
    """

    answered: int = 0
    errors: int = 0
    offset: int = 0
    deaths: int = 0
    suspects: int = 0
    cpu_seconds: float = 0.0


class Progress:
    """Appends to a batch's files. Only the process that holds the batch's lock may make one."""

    def __init__(self, folder: BatchFolder) -> None:
        """Mend the files where a worker died, and open them."""
        self.folder = folder
        self.found = _mend(folder)
        self.answered = self.found.answered
        self.errors = self.found.errors
        self._answers = _appender(folder.answers)
        self._bill = _appender(folder.bill)
        self._starts = _appender(folder.starts)
        self._noted = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._answers, self._bill, self._starts):
            file.close()

    def begin(self, records: int) -> None:
        """Note that work begins at the next record, and goes up to so many records on before the next note."""
        self._starts.write(_line(StartLine(self.answered, records)))

    def add(self, answer: Answer) -> None:
        """Append one answer, and its line of the bill."""
        self._answers.write(_line(answer))
        cpu = time.process_time()
        self._bill.write(_line(_billed(answer, round(cpu - self._noted, 6))))
        self._noted = cpu
        self.answered += 1
        self.errors += answer.status == "error"

    def end(self, outcome: Literal["completed", "cancelled", "failed"], reason: str = "") -> None:
        """Say that the batch has ended. Everything before it is on disk by then; the requests are dropped."""
        for file in (self._answers, self._bill):
            os.fsync(file.fileno())
        cpu = self.found.cpu_seconds + time.process_time()
        self.folder.end(Status(outcome, self.answered, self.errors, round(cpu, 6), reason))
        # Nobody reads the documents again, and they are none of the disk's business.
        self.folder.requests.unlink(missing_ok=True)


def line_id(line: bytes) -> str:
    """The record id of a request line, "" if even that cannot be read."""
    try:
        return _REQUEST_ID.decode(line).id
    except msgspec.MsgspecError:
        match = _ID.match(line)
        return match[1].decode(errors="replace") if match else ""


def _mend(folder: BatchFolder) -> Found:
    cpu_seconds, billed = _mend_bill(folder.bill)
    answered = errors = offset = end = 0
    unbilled: list[BillLine] = []
    folder.answers.touch(mode=0o600)
    with folder.requests.open("rb") as requests, folder.answers.open("rb") as answers:
        for line in answers:
            request = requests.readline()
            answer = _whole(line, _ANSWER)
            # After a power cut a file may hold anything: a line counts only if it answers the request in its place.
            if answer is None or not request or answer.record_id != line_id(request):
                break
            answered += 1
            errors += answer.status == "error"
            offset += len(request)
            end += len(line)
            if answer.record_id not in billed:
                unbilled.append(_billed(answer, 0.0))
    os.truncate(folder.answers, end)
    with folder.bill.open("ab") as bill:
        bill.writelines(_line(line) for line in unbilled)
    deaths, suspects = _deaths(folder.starts, answered)
    return Found(answered, errors, offset, deaths, suspects, cpu_seconds)


def _mend_bill(path: Path) -> tuple[float, set[str]]:
    """CPU seconds on the bill, and the ids; a torn line is cut off."""
    seconds, end = 0.0, 0
    ids: set[str] = set()
    path.touch(mode=0o600)
    with path.open("rb") as file:
        for line in file:
            entry = _whole(line, _BILL)
            if entry is None:
                break
            seconds += entry.cpu_seconds
            ids.add(entry.id)
            end += len(line)
    os.truncate(path, end)
    return seconds, ids


def _deaths(path: Path, answered: int) -> tuple[int, int]:
    deaths = reach = end = 0
    path.touch(mode=0o600)
    with path.open("rb") as file:
        for line in file:
            start = _whole(line, _START)
            if start is None:
                break
            deaths += start.record == answered
            reach = start.record + start.records
            end += len(line)
    os.truncate(path, end)
    return deaths, max(0, reach - answered)


def _whole(line: bytes, decoder: msgspec.json.Decoder[T]) -> T | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return decoder.decode(line)
    except msgspec.MsgspecError:
        return None


def _billed(answer: Answer, cpu_seconds: float) -> BillLine:
    return BillLine(answer.record_id, answer.input_tokens, answer.output_tokens, cpu_seconds)


def _line(entry: msgspec.Struct) -> bytes:
    return msgspec.json.encode(entry) + b"\n"


def _appender(path: Path) -> io.FileIO:
    # Unbuffered: a line is one write, so that only a power cut or a full disk can tear it.
    return path.open("ab", buffering=0)
