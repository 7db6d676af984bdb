"""The backend `local`: batches in a folder of this machine, each answered by a worker process of its own."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from lowtide.connectors.backends.folders import examine_folder, exclusive
from lowtide.connectors.backends.local import engine
from lowtide.connectors.backends.local.folder import BatchFolder, Description, sync_folder
from lowtide.errors import ConfigError, QuotaFull, Terminal, Transient
from lowtide.records import Answer, BatchStatus, Finding, Limits, OutputFile, Request, Shard

if TYPE_CHECKING:
    from lowtide.operations import Operation

KEPT_DAYS = 30
"""Days after its end for which a batch stays on disk: as long as the output files of OpenAI's batches."""

_RECORDS_PER_SECOND = {"tfidf": 200.0, "minilm": 7.0}
"""Summaries that one core makes, about, of documents of 12 kB: measured on READMEs of installed packages, 2026-11."""

_CHUNK = 1 << 20
_BATCH_ID = re.compile(r"local-[0-9a-f]{20}")
_HEEDED = {"summarize": ("words",), "classify": ("labels",)}
_CAN = "backends with a language model can: bedrock, azure-batch, openai-batch and spot"
_REFUSALS = {
    "translate": f"local cannot translate: it holds no model that writes text; {_CAN}",
    "extract": f"local cannot extract facts by a schema: it holds no model that writes text; {_CAN}",
    "prompt": f"local cannot follow a prompt: it holds no model that writes text; {_CAN}",
}
# What a worker needs to find its interpreter and packages, and no credentials.
_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
)
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "RAYON_NUM_THREADS")


class LocalBackend:
    """Summaries and classification on this machine, by embeddings: see docs/backends/local.md for what they are worth.

    `directory` keeps the batches, by default `$LOWTIDE_LOCAL_DIR`, else `lowtide/local` in the user's state folder; it
    has to be on a local disk (its locks are `flock`) and holds the documents' text, so only its owner can read it.
    `model` is auto, minilm or tfidf; `workers` bounds the batches that run at once, by default one for each core.
    Raises ConfigError if the model is unknown or not installed.
    """

    name = "local"
    provider = "local"
    region = ""
    places: tuple[str, ...] = ()

    def __init__(
        self, directory: Path | None = None, *, model: engine.Choice = "auto", workers: int | None = None
    ) -> None:
        if workers is not None and workers < 1:
            raise ConfigError(f"backends.local.workers: found {workers}, needs at least 1")
        self.directory = _default_directory() if directory is None else directory.absolute()
        self._engine = engine.choose(model)
        self._counted: dict[str, tuple[int, int]] = {}
        self.limits = Limits(
            records=10_000,
            bytes=1 << 30,
            request_bytes=16 << 20,
            live_batches=workers or _cores(),
            consistent_lookup=True,
            poll_seconds=1.0,
            records_per_second=_RECORDS_PER_SECOND[self._engine.kind] * (workers or _cores()),
        )

    @cached_property
    def model(self) -> str:
        """`all-MiniLM-L6-v2@` and 8 hex digits of its files' hash, or `tfidf-1`."""
        return self._engine.name

    @property
    def parameters(self) -> Mapping[str, str | int | float | bool]:
        """The version of the method that makes answers of vectors."""
        return {"method": engine.METHOD}

    def refusal(self, operation: Operation) -> str | None:
        """Translate, extract and prompt need a language model. A summary stays in the document's language."""
        if operation.kind in _HEEDED:
            return None
        return _REFUSALS.get(operation.kind, f"local does not know the operation {operation.kind!r}; {_CAN}")

    def encode(self, request: Request) -> bytes:
        """`{"id", "kind", "parameters", "text"}`: the prompt is left out, since nobody would read it."""
        operation = request.operation
        heeded = {key: operation.parameters[key] for key in _HEEDED[operation.kind] if key in operation.parameters}
        return orjson.dumps(
            {"id": request.record_id, "kind": operation.kind, "parameters": heeded, "text": request.text}
        )

    def submit(self, shard: Shard, token: str) -> str:
        """Copy the shard, then start a worker and return without waiting for it.

        The same token gives the same batch, however often and from however many processes it is submitted. Raises
        QuotaFull while `limits.live_batches` workers run, Transient if the disk refuses, Terminal if the shard is torn.
        """
        batch_id = _batch_id(token)
        folder = self._folder(batch_id)
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with exclusive(self.directory / ".submit.lock"):
                if not folder.exists:
                    self._make_room()
                    self._create(folder, shard, token)
        except OSError as error:
            raise Transient(
                f"{self.directory}: {error.strerror or type(error).__name__}: nothing was submitted"
            ) from error
        # The batch exists from here on: whatever goes wrong now, the next poll mends it.
        with contextlib.suppress(OSError):
            self._ensure_worker(folder)
        return batch_id

    def find(self, token: str) -> Sequence[str]:
        """The batch with this token, seen as soon as it was submitted. There is never more than one."""
        batch_id = _batch_id(token)
        return [batch_id] if self._folder(batch_id).exists else []

    def poll(self, batch_id: str) -> BatchStatus:
        """Where the batch stands; starts its worker again if that has died. Raises Transient if it cannot.

        A batch that is not in `directory` has failed.
        """
        folder = self._folder(batch_id)
        if not folder.exists:
            reason = f"{self.directory} holds no batch {batch_id!r}; is it the folder that it was submitted to?"
            return BatchStatus("missing", "failed", reason=reason)
        try:
            started = self._ensure_worker(folder)
            status = folder.status()
            answered = self._count_answers(folder) if status is None else status.answered
        except OSError as error:
            raise Transient(f"{folder.path}: {error.strerror or type(error).__name__}") from error
        if status is None:
            return BatchStatus("starting" if started else "working", answered=answered)
        self._counted.pop(batch_id, None)
        return BatchStatus(
            provider_state=status.outcome,
            outcome=status.outcome,
            answered=status.answered,
            reason=status.reason,
            compute_seconds=math.ceil(status.cpu_seconds),
            charged=status.answered,
        )

    def outputs(self, batch_id: str) -> Iterator[OutputFile]:
        """`answers.jsonl`, whole lines only; nothing if no record was answered."""
        path = self._folder(batch_id).answers
        if path.exists():
            yield OutputFile("answers.jsonl", _whole_lines(path))

    def parse(self, line: bytes) -> Answer | None:
        """One line of `answers.jsonl`. Raises ValueError if it is broken."""
        answer = _ANSWER.decode(line)
        return answer if answer.record_id else None

    def cancel(self, batch_id: str) -> None:
        """The worker stops behind the record it is at. No effect on a batch that has ended or is not there."""
        self._folder(batch_id).cancel()

    def discard(self, batch_id: str) -> None:
        """Nothing: a batch's folder goes KEPT_DAYS after its end, and serves until then who has lost a root."""

    def examine(self) -> Iterator[Finding]:
        """Whether batches can be kept in `directory`."""
        yield examine_folder("batches", self.directory, "LOWTIDE_LOCAL_DIR")

    def _folder(self, batch_id: str) -> BatchFolder:
        # An id is a name of our own making; anything else must not become a path.
        safe = batch_id if _BATCH_ID.fullmatch(batch_id) else "unknown"
        return BatchFolder(self.directory / safe)

    def _make_room(self) -> None:
        """Drop what ended long ago. Raises QuotaFull if as many workers run as may."""
        now = time.time()
        live = 0
        for path in self.directory.iterdir():
            folder = BatchFolder(path)
            if path.name.startswith(".new-"):
                shutil.rmtree(path, ignore_errors=True)  # a submit that died: we hold the lock, so nobody writes there
            elif _BATCH_ID.fullmatch(path.name):
                ended = folder.ended_at()
                if ended is not None and now - ended > KEPT_DAYS * 86_400:
                    shutil.rmtree(path, ignore_errors=True)
                live += ended is None and folder.has_worker()
        if live >= self.limits.live_batches:
            raise QuotaFull(f"{live} local batches are running, and {self.limits.live_batches} may")

    def _create(self, folder: BatchFolder, shard: Shard, token: str) -> None:
        draft = BatchFolder(Path(tempfile.mkdtemp(prefix=".new-", dir=self.directory)))
        try:
            with shard.open() as source, draft.requests.open("wb") as target:
                shutil.copyfileobj(source, target, _CHUNK)
                size = target.tell()
                target.flush()
                os.fsync(target.fileno())
            if size != shard.size:
                raise Terminal(f"{shard.uri} holds {size} bytes, and the plan says {shard.size}: build the shard again")
            draft.describe(Description(token, self._engine.kind, self.model, shard.records))
            sync_folder(draft.path)
            draft.path.rename(folder.path)
            sync_folder(self.directory)
        finally:
            shutil.rmtree(draft.path, ignore_errors=True)

    def _ensure_worker(self, folder: BatchFolder) -> bool:
        """Start a worker if the batch has neither ended nor a worker; True if it was started."""
        if folder.ended_at() is not None:
            return False
        lock = folder.lock()
        if lock is None:
            return False
        try:
            if folder.ended_at() is not None:
                return False
            _start_worker(folder, lock)
            return True
        finally:
            os.close(lock)

    def _count_answers(self, folder: BatchFolder) -> int:
        """Lines of the answers so far, read from where the last count ended."""
        offset, count = self._counted.get(folder.path.name, (0, 0))
        try:
            with folder.answers.open("rb") as file:
                if offset > os.fstat(file.fileno()).st_size:
                    offset, count = 0, 0  # a new worker has cut off what it could not trust
                file.seek(offset)
                while chunk := file.read(_CHUNK):
                    offset += len(chunk)
                    count += chunk.count(b"\n")
        except FileNotFoundError:
            return 0
        self._counted[folder.path.name] = (offset, count)
        return count


_ANSWER: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


def _start_worker(folder: BatchFolder, lock: int) -> None:
    """Start a worker that inherits the lock and outlives this process. Raises OSError."""
    worker = [sys.executable, "-P", "-m", "lowtide.connectors.backends.local.worker", str(folder.path), str(lock)]
    with folder.log.open("ab") as log:
        # The shell leaves at once, so that the worker becomes nobody's child here and no zombie later.
        done = subprocess.run(
            ["/bin/sh", "-c", '"$@" &', "sh", *worker],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_worker_environment(os.environ),
            pass_fds=(lock,),
            start_new_session=True,
            check=False,
        )
    if done.returncode:
        raise OSError(done.returncode, "the worker could not be started")


def _worker_environment(ours: Mapping[str, str]) -> dict[str, str]:
    environment = {name: ours[name] for name in _PASSED_ON if name in ours}
    if ours.get("PYTHONPATH"):
        entries = ours["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in entries)
    # One worker, one core: as many workers run as there are cores.
    return environment | dict.fromkeys(_THREADS, "1") | {"TOKENIZERS_PARALLELISM": "false", "PYTHONUTF8": "1"}


def _whole_lines(path: Path) -> Iterator[bytes]:
    rest = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            end = chunk.rfind(b"\n") + 1
            if end:
                yield rest + chunk[:end]
                rest = chunk[end:]
            else:
                rest += chunk


def _batch_id(token: str) -> str:
    return f"local-{hashlib.sha256(token.encode()).hexdigest()[:20]}"


def _default_directory() -> Path:
    own = os.environ.get("LOWTIDE_LOCAL_DIR")
    if own:
        return Path(own).absolute()
    state = os.environ.get("XDG_STATE_HOME")
    base = Path(state) if state and Path(state).is_absolute() else Path.home() / ".local" / "state"
    return base / "lowtide" / "local"


def _cores() -> int:
    affinity: Any = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
