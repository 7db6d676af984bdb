"""A batch from `validating` to its end: one thread for each, which sleeps by the emulator's clock."""

from __future__ import annotations

import os
import random
import threading
import traceback
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from lowtide.emulators.app import App
from lowtide.emulators.faults import Fault
from lowtide.emulators.openai.blobs import Blobs, NoAccess
from lowtide.emulators.openai.errors import over_quota
from lowtide.emulators.openai.outputs import Outputs
from lowtide.emulators.openai.quota import limit_of
from lowtide.emulators.openai.rows import Asker, Row, answer_row, unanswered_line
from lowtide.emulators.openai.rules import AZURE
from lowtide.emulators.openai.settings import Settings
from lowtide.emulators.openai.state import Account, Batch, LineError, StoredFile
from lowtide.emulators.openai.validation import Catalogue, Lines, validate

_SLICE = 200

Ending = Literal["completed", "expired", "cancelled", "failed"]


class _Stopped(Exception):
    """The batch is to end now: it was cancelled, or the emulator is reset."""


class _Failed(Exception):
    """The batch fails; carries what stands under `errors`."""

    def __init__(self, errors: list[LineError]) -> None:
        super().__init__()
        self.errors = errors


@dataclass
class Machine:
    """Runs one batch.

    `lock` guards the account; `keep` takes a finished file into the account. `input_path` is the batch's own, and is
    removed at the end; a blob is fetched to it.
    """

    app: App
    account: Account
    batch: Batch
    settings: Callable[[], Settings]
    lock: threading.RLock
    keep: Callable[[Account, Path, str, int | None], StoredFile]
    blobs: Blobs | None
    input_path: Path
    slow: float = 0.0

    def start(self) -> threading.Thread:
        """Begin, in a thread of its own."""
        thread = threading.Thread(target=self._run, name=self.batch.id, daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        outputs: Outputs | None = None
        etag = ""
        try:
            fault = self._take("validate")
            self._sleep(self.settings().validating_seconds + self.slow)
            etag = self._fetch()
            descriptor = os.open(self.input_path, os.O_RDONLY)
            try:
                lines = self._validated(descriptor, fault)
                outputs = Outputs(self.account.folder, self.batch.id)
                ending = self._processed(lines, outputs)
            finally:
                os.close(descriptor)
            self._finish(outputs, ending, etag)
        except _Failed as failed:
            self._fail(failed.errors)
        except _Stopped:
            self._cancel(outputs)
        except Exception:
            # A fault of the emulator's own: told in full, and the batch ends, so that nobody waits for it for ever.
            traceback.print_exc()
            self._fail([LineError("server_error", "The server had an error while processing the batch.")])
        finally:
            self.input_path.unlink(missing_ok=True)

    def _take(self, point: str) -> Fault | None:
        """The fault of this batch at a point. One that only changes how long things take is put in place."""
        batch = self.batch
        facts = {
            "service": self.account.mode.name,
            "account": self.account.key,
            "batch": batch.id,
            "name": batch.input_name,
        }
        if batch.model:
            facts |= {"model": batch.model, "deployment": batch.deployment}
        fault = self.app.faults.take(point, **facts)
        if fault is not None and fault.do == "stop_late":
            batch.cancel_seconds += fault.seconds
        self.slow = fault.seconds if fault is not None and fault.do == "slow" else 0.0
        return fault

    def _sleep(self, seconds: float) -> None:
        if not self.app.clock.sleep(seconds, self.batch.stop):
            raise _Stopped

    def _fetch(self) -> str:
        """Bring the input here, if it lies in a blob, and give the blob's ETag."""
        url = self.batch.input_blob
        if url is None:
            return ""
        try:
            if self.blobs is None:
                raise NoAccess(url)
            return self.blobs.fetch(url, self.input_path)
        except NoAccess as error:
            raise _Failed([_no_permissions()]) from error

    def _validated(self, descriptor: int, fault: Fault | None) -> Lines:
        """The lines of a valid input, their tokens held against the quota. Raises _Failed."""
        settings, mode = self.settings(), self.account.mode
        if fault is not None and fault.do in {"fail", "fail_validation"}:
            code = fault.code or ("server_error" if fault.do == "fail" else "invalid_request")
            raise _Failed([LineError(code, fault.message or "The batch failed.", 1 if fault.do != "fail" else None)])
        size = os.fstat(descriptor).st_size
        most_bytes = settings.max_file_bytes or (mode.blob_bytes if self.batch.input_blob else mode.file_bytes)
        if most_bytes is not None and size > most_bytes:
            raise _Failed([LineError("invalid_request", f"The input is larger than {most_bytes} bytes.")])
        catalogue = Catalogue.of(mode, settings, self.account.resource)
        found = validate(descriptor, catalogue, self.batch.endpoint, settings.max_requests or mode.max_requests)
        if isinstance(found, list):
            raise _Failed(found)
        with self.lock:
            batch = self.batch
            batch.model, batch.deployment = found.model, found.deployment
            if not batch.tokens_held:
                limit = limit_of(settings, self.account, found.deployment, found.model)
                held = self.account.enqueued(found.deployment)
                if (fault is not None and fault.do == "quota") or (limit is not None and held + found.tokens > limit):
                    raise _Failed([LineError(*over_quota(mode, found.deployment, limit or held))])
                batch.tokens, batch.tokens_held = found.tokens, True
            batch.total = len(found)
            self._enter("in_progress")
        return found

    def _processed(self, lines: Lines, outputs: Outputs) -> Ending:
        """Answer the rows in an order of the service's own, as far as time and faults allow."""
        fault = self._take("process")
        do = fault.do if fault is not None else ""
        if do == "fail":
            message = (fault.message if fault else "") or "The batch failed."
            raise _Failed([LineError((fault.code if fault else "") or "server_error", message)])
        order = array("L", range(len(lines)))
        random.Random(self.batch.id).shuffle(order)  # noqa: S311 - an order, and no secret
        most = len(order) // 2 if do in {"expire", "partial"} else len(order)
        ending = self._answer(lines, order, most, outputs)
        if do == "expire":
            ending = "expired"
        if do == "partial":
            self.batch.errors = [LineError("server_error", "The batch ended before all requests were processed.")]
            ending = "failed"
        if ending == "expired":
            self._expire_rest(lines, order, outputs)
        return ending

    def _answer(self, lines: Lines, order: array[int], most: int, outputs: Outputs) -> Ending:
        batch, clock, mode = self.batch, self.app.clock, self.account.mode
        asker = Asker(self.app, mode, self.account.key, lines.deployment, lines.model, batch.id, batch.input_name)
        faulty = self.app.faults.wants("row")
        seconds = max(self.settings().processing_seconds + self.slow, 1e-6)
        begun = batch.stamps["in_progress"]
        rate = len(order) / seconds
        # What is processed before a batch expires depends on its pace alone, and not on how fast this machine is.
        in_time = most
        if mode.batches_expire and begun + seconds > batch.expires_at:
            in_time = min(most, max(0, int(rate * (batch.expires_at - begun))))
        done = 0
        while done < in_time:
            if batch.stop.is_set():
                raise _Stopped
            due = max(done, min(in_time, int(rate * (clock.now() - begun))))
            for number in order[done : min(due, done + _SLICE)]:
                key = f"{batch.id[-12:]}{number:06x}"
                row = answer_row(asker, lines.api, lines.read(number), key, faulty=faulty)
                outputs.add(row)
                done += 1
                self._count(row)
            if done >= due and done < in_time:
                self._wait(begun + (done + 1) / rate)
        if in_time == most:
            return "completed"
        self._wait(batch.expires_at)
        return "expired"

    def _wait(self, moment: float) -> None:
        if not self.app.clock.sleep_until(moment, self.batch.stop):
            raise _Stopped

    def _count(self, row: Row) -> None:
        batch = self.batch
        if row.answered is None:
            batch.failed += 1
        else:
            batch.completed += 1
            batch.usage.add(row.answered)

    def _expire_rest(self, lines: Lines, order: array[int], outputs: Outputs) -> None:
        for number in order[self.batch.completed + self.batch.failed :]:
            custom_id = orjson.loads(lines.read(number))["custom_id"]
            line = unanswered_line(self.account.mode, custom_id, f"{self.batch.id[-12:]}{number:06x}")
            outputs.add(Row(line, ok=False))
            self.batch.failed += 1

    def _finish(self, outputs: Outputs, ending: Ending, etag: str) -> None:
        outputs.close()
        self._unmodified(etag)
        with self.lock:
            self._enter("finalizing")
        fault = self._take("output")
        self._sleep(self.settings().finalizing_seconds + self.slow)
        if fault is not None and fault.do == "reorder":
            outputs.reverse()
        late = fault.seconds if fault is not None and fault.do == "late" else None
        if late is None:
            self._publish(outputs)
        with self.lock:
            self._enter(ending)
        if late is not None:
            self._wait(self.batch.stamps[ending] + late)
            self._publish(outputs)
        self._release_late(outputs, self.batch.stamps[ending], self.batch.stop)

    def _unmodified(self, etag: str) -> None:
        url = self.batch.input_blob
        if url is None or self.blobs is None:
            return
        try:
            now = self.blobs.etag(url)
        except NoAccess as error:
            raise _Failed([_no_permissions()]) from error
        if now != etag:
            raise _Failed([LineError("input_modified", "The input blob was modified after the batch was submitted.")])

    def _publish(self, outputs: Outputs) -> None:
        """Make the files visible: in the account, or in the user's own storage."""
        batch, azure = self.batch, self.account.mode is AZURE
        results, errors = outputs.results.stat().st_size, outputs.errors.stat().st_size
        if batch.output_folder is not None and self.blobs is not None:
            folder = f"{batch.output_folder.rstrip('/')}/{batch.id.removeprefix('batch_')}"
            try:
                for name, path, size in (
                    ("results.jsonl", outputs.results, results),
                    ("errors.jsonl", outputs.errors, errors),
                ):
                    if size:
                        self.blobs.put(folder, name, path)
            except NoAccess as error:
                raise _Failed([_no_permissions()]) from error
            with self.lock:
                batch.output_blob, batch.error_blob = f"{folder}/results.jsonl", f"{folder}/errors.jsonl"
            return
        empty_error_file = azure and self.settings().empty_error_file == "file"
        # A line that is still to come needs the file it will be in.
        if results > 0 or azure or outputs.next_late is not None:
            batch.output_file_id = self._kept(outputs.results, "output")
        if errors > 0 or empty_error_file:
            batch.error_file_id = self._kept(outputs.errors, "error")

    def _kept(self, path: Path, kind: str) -> str:
        batch = self.batch
        file = self.keep(self.account, path, f"{batch.id}_{kind}.jsonl", batch.output_expires_after)
        if file.size == 0:
            batch.empty_files.add(file.id)
        return file.id

    def _release_late(self, outputs: Outputs, ended: float, stop: threading.Event) -> None:
        while (seconds := outputs.next_late) is not None:
            if not self.app.clock.sleep_until(ended + seconds, stop):
                return
            with self.lock:
                outputs.release()
                file = self.account.files.get(self.batch.output_file_id or "")
                if file is not None:
                    file.size = outputs.results.stat().st_size
            if self.batch.output_folder is not None and self.blobs is not None:
                folder = self.batch.output_blob.rpartition("/")[0]
                self.blobs.put(folder, "results.jsonl", outputs.results)

    def _fail(self, errors: list[LineError]) -> None:
        with self.lock:
            self.batch.errors = errors
            self._enter("failed")

    def _cancel(self, outputs: Outputs | None) -> None:
        """Some time after the call, what was answered until then is in the files."""
        batch = self.batch
        if not batch.cancelled:
            return
        since = batch.stamps["cancelling"]
        self.app.clock.sleep_until(since + self.settings().cancelling_seconds + batch.cancel_seconds, self.app.stopping)
        if outputs is not None:
            outputs.close()
            try:
                self._publish(outputs)
            except _Failed as failed:
                self._fail(failed.errors)
                return
        with self.lock:
            self._enter("cancelled")
        if outputs is not None:
            self._release_late(outputs, batch.stamps["cancelled"], self.app.stopping)

    def _enter(self, status: str) -> None:
        if self.batch.cancelled and status not in {"cancelled", "failed"}:
            raise _Stopped
        self.batch.enter(status, self.app.clock.now())


def _no_permissions() -> LineError:
    return LineError("input_no_permissions", "The input or output blob cannot be accessed. Please check permissions.")
