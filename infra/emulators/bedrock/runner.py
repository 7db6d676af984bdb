"""What happens to a job: Submitted, Validating, Scheduled, InProgress, and an end. One thread for each live job."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from lowtide.emulators.app import App
from lowtide.emulators.bedrock.intake import BadInput, Taken, records, take_in
from lowtide.emulators.bedrock.jobs import Counts, Job, Jobs
from lowtide.emulators.bedrock.rows import Output, Rows
from lowtide.emulators.bedrock.settings import Settings
from lowtide.emulators.bedrock.storage import NoAccess, Place, Storage
from lowtide.emulators.faults import Fault

_STEPS = 20
_LONGEST_STEP = 1000
_BAD_END = "The job failed due to an internal error. Try again."
_OUT_OF_TIME = "The job timed out before all records were processed."


class Halted(Exception):
    """The job was stopped, or forgotten."""


@dataclass(frozen=True, slots=True)
class _Cut:
    """Where the work ends before all records are done, and what becomes of the job and of the records left."""

    after: int
    status: str
    message: str
    listed: bool


class Run:
    """Takes one job through its states. `start` it once."""

    def __init__(self, app: App, jobs: Jobs, job: Job, settings: Settings, storage: Storage) -> None:
        self._app, self._jobs, self._job = app, jobs, job
        self._settings, self._storage = settings, storage
        self._counts = Counts()

    def start(self) -> None:
        """Return at once, and go on in a thread of its own."""
        self._jobs.work(self._job, self._run)

    def _run(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="job-", dir=self._app.folder))
        try:
            self._work(folder)
        except Halted:
            self._stopped()
        except (BadInput, NoAccess) as error:
            self._end("Failed", str(error))
        except Exception:
            # A fault of the emulator's own: told in full, and the job ends, so that nobody waits for it for ever.
            traceback.print_exc()
            self._end("Failed", "The emulator failed; its standard error says how.")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _work(self, folder: Path) -> None:
        latency = self._settings.latency
        self._rest(latency.submitted)
        self._move("Validating")
        fault = self._fault("validate")
        self._rest(latency.validating + _slow(fault))
        taken = take_in(self._job, self._settings, self._storage, folder, self._job.halt)
        if fault is not None and fault.do in {"fail_validation", "fail", "quota"}:
            raise BadInput(fault.message or _validation_message(fault))
        self._move("Scheduled")
        self._rest(latency.scheduled)
        if self._app.clock.now() >= self._job.expires or (fault is not None and fault.do == "expire"):
            self._end("Expired", "The job timed out before it began.")
            return
        self._move("InProgress")
        self._job.total = sum(file.records for file in taken)
        self._process(folder, taken)

    def _process(self, folder: Path, taken: Sequence[Taken]) -> None:
        fault = self._fault("process")
        output = self._fault("output")
        shuffle = self._settings.shuffle or (output is not None and output.do == "reorder")
        outputs = [
            Output(folder / f"{number}.out", shuffle=shuffle, seed=f"{self._app.seed}/{self._job.id}/{number}")
            for number in range(len(taken))
        ]
        halted = False
        cut: _Cut | None = None
        with ExitStack() as stack:
            for written in outputs:
                stack.enter_context(written)
            try:
                cut = self._answer_all(taken, outputs, fault)
            except Halted:
                halted = True
        if self._job.forgotten.is_set():
            raise Halted
        if halted and not self._counts.processed:
            raise Halted
        status, message = (cut.status, cut.message) if cut else ("Completed", "")
        delay = (output.seconds or 1.0) if output is not None and output.do == "late" else 0.0
        if not delay:
            self._store(folder, taken, outputs)
        if halted:
            self._stopped()
        else:
            self._end(status, message)
        self._deliver_late(folder, taken, outputs, delay)

    def _answer_all(self, taken: Sequence[Taken], outputs: Sequence[Output], fault: Fault | None) -> _Cut | None:
        """Answer record after record, evenly over the time there is. Raises Halted in between."""
        rows = Rows(self._app, self._job, self._settings)
        total = self._job.total
        cut = self._planned_cut(fault, total)
        step = max(1, min(_LONGEST_STEP, total // _STEPS))
        begun = self._job.modified
        lasts = self._settings.latency.in_progress + _slow(fault)
        # A job that has begun shows its total, and nothing done.
        self._count(Counts())
        for number, (record, written) in enumerate(_numbered(taken, outputs), 1):
            if cut is not None and number > cut.after:
                if cut.listed:
                    written.add(rows.too_late(record, number))
                    continue
                break
            if self._job.forgotten.is_set():
                raise Halted
            line = rows.answer(record, number)
            written.add(line.data, line.late)
            counts = self._counts
            self._counts = dataclasses.replace(
                counts,
                processed=number,
                success=counts.success + line.success,
                error=counts.error + (not line.success),
                input_tokens=counts.input_tokens + line.input_tokens,
                output_tokens=counts.output_tokens + line.output_tokens,
            )
            if number % step == 0 or number == total:
                self._count(self._counts)
                self._rest_until(begun + lasts * number / total)
                if cut is None and number < total and self._app.clock.now() >= self._job.expires:
                    cut = _Cut(number, "PartiallyCompleted", _OUT_OF_TIME, self._settings.expired_rows == "listed")
        self._count(self._counts)
        return cut

    def _planned_cut(self, fault: Fault | None, total: int) -> _Cut | None:
        if fault is None or fault.do not in {"fail", "expire", "partial"}:
            return None
        share = 0.2 + 0.6 * self._app.faults.chance("cut", self._job.name)
        after = max(1, min(total - 1, int(total * share)))
        if fault.do == "fail":
            return _Cut(after, "Failed", fault.message or _BAD_END, listed=False)
        return _Cut(after, "PartiallyCompleted", fault.message or _OUT_OF_TIME, listed=fault.do == "expire")

    def _store(self, folder: Path, taken: Sequence[Taken], outputs: Sequence[Output]) -> None:
        config = self._job.request["outputDataConfig"]["s3OutputDataConfig"]
        to, key = Place.of(config["s3Uri"]), config.get("s3EncryptionKeyId")
        prefix = "/".join(filter(None, (to.key.rstrip("/"), self._job.id)))
        for file, output in zip(taken, outputs, strict=True):
            self._storage.store(output.path, Place(to.bucket, f"{prefix}/{file.name}.out"), key)
        manifest = folder / "manifest"
        manifest.write_bytes(orjson.dumps(self._manifest()))
        self._storage.store(manifest, Place(to.bucket, f"{prefix}/manifest.json.out"), key)

    def _deliver_late(self, folder: Path, taken: Sequence[Taken], outputs: Sequence[Output], delay: float) -> None:
        """After the job's end: the whole output, where it is late, and then the lines that are."""
        late = max(output.late for output in outputs)
        if delay and self._app.clock.sleep(delay, self._job.forgotten):
            self._store(folder, taken, outputs)
        if late and self._app.clock.sleep(late, self._job.forgotten):
            for output in outputs:
                output.join_late()
            self._store(folder, taken, outputs)

    def _manifest(self) -> Mapping[str, int]:
        counts = self._counts
        return {
            "totalRecordCount": self._job.total,
            "processedRecordCount": counts.processed,
            "successRecordCount": counts.success,
            "errorRecordCount": counts.error,
            "inputTokenCount": counts.input_tokens,
            "outputTokenCount": counts.output_tokens,
        }

    def _stopped(self) -> None:
        lasts = self._job.modified + self._settings.latency.stopping
        if self._app.clock.sleep_until(lasts, self._job.forgotten):
            self._end("Stopped", "")

    def _count(self, counts: Counts) -> None:
        with self._jobs.lock:
            self._job.counts.append(dataclasses.replace(counts, at=self._app.clock.now()))

    def _fault(self, point: str) -> Fault | None:
        return self._app.faults.take(point, **self._job.facts)

    def _rest(self, seconds: float) -> None:
        """Stay in the state that the job is in until it has lasted that long. Raises Halted."""
        self._rest_until(self._job.modified + seconds)

    def _rest_until(self, moment: float) -> None:
        if not self._app.clock.sleep_until(moment, self._job.halt):
            raise Halted

    def _move(self, status: str) -> None:
        self._jobs.move(self._job, status, self._app.clock.now())

    def _end(self, status: str, message: str) -> None:
        self._jobs.move(self._job, status, self._app.clock.now(), message)


def _numbered(taken: Sequence[Taken], outputs: Sequence[Output]) -> Iterator[tuple[Mapping[str, Any], Output]]:
    for file, output in zip(taken, outputs, strict=True):
        for record in records(file.path):
            yield record, output


def _slow(fault: Fault | None) -> float:
    return (fault.seconds or 1.0) if fault is not None and fault.do == "slow" else 0.0


def _validation_message(fault: Fault) -> str:
    if fault.do == "quota":
        return "The job exceeds a quota of the account."
    return f"The job failed validation{': ' + fault.code if fault.code else ''}."
