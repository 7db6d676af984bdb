"""Batches: make, look at, list, cancel."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lowtide.emulators.faults import Fault
from lowtide.emulators.openai.blobs import Blobs
from lowtide.emulators.openai.call import Call
from lowtide.emulators.openai.errors import RowError, not_found, over_quota, refusal, throttled
from lowtide.emulators.openai.files import checked_expiry, found_file, new_file_id
from lowtide.emulators.openai.machine import Machine
from lowtide.emulators.openai.quota import limit_of
from lowtide.emulators.openai.rules import (
    AZURE,
    COMPLETION_WINDOW,
    DAY,
    HOUR,
    METADATA_KEY,
    METADATA_PAIRS,
    METADATA_VALUE,
)
from lowtide.emulators.openai.settings import Settings
from lowtide.emulators.openai.state import Account, Batch, StoredFile
from lowtide.emulators.openai.validation import Catalogue, count_tokens, first_model
from lowtide.emulators.web import Response

_MOST_LISTED = 100
_LISTED = 20


@dataclass(frozen=True)
class Batches:
    """The calls. `settings` gives the settings of the moment; `blobs` is None where no Blob storage is known."""

    settings: Callable[[], Settings]
    blobs: Blobs | None

    def create(self, call: Call) -> Response:
        """POST /batches. Every call makes a new batch, whatever was asked before."""
        body = call.json()
        return call.guarded(
            "create",
            lambda: self._created(call, body, None),
            lambda fault: self._created(call, body, fault),
            name=str(body.get("input_file_id") or body.get("input_blob") or ""),
        )

    def _created(self, call: Call, body: Mapping[str, object], fault: Fault | None) -> Response:
        now = call.now
        endpoint = _checked(call, body)
        source = self._source(call, body)
        expiry = body.get("output_expires_after")
        policy = expiry if isinstance(expiry, Mapping) else {}
        batch = Batch(
            id=f"batch_{uuid.uuid4()}" if call.mode is AZURE else f"batch_{uuid.uuid4().hex}",
            endpoint=endpoint,
            input_file_id=source.file.id if source.file else None,
            input_name=source.file.filename if source.file else source.blob,
            metadata=_metadata(call, body.get("metadata"), blob=source.file is None),
            created_at=now,
            expires_at=now + DAY,
            input_blob=None if source.file else source.blob,
            output_folder=source.folder,
            output_expires_after=checked_expiry(
                call, policy.get("anchor"), policy.get("seconds"), "output_expires_after"
            ),
        )
        path = call.account.folder / uuid.uuid4().hex
        machine = Machine(
            app=call.app,
            account=call.account,
            batch=batch,
            settings=self.settings,
            lock=call.lock,
            keep=lambda account, kept, name, seconds: _kept(call, account, kept, name, seconds),
            blobs=self.blobs,
            input_path=path,
        )
        claim = self._claim(call, source)
        with call.lock:
            _check_pace(call)
            if claim is not None:
                _hold(call, batch, claim)
            if source.file is not None:
                # The batch's own name for the bytes: they outlive the file that the user sees.
                path.hardlink_to(source.file.path)
            call.account.batches[batch.id] = batch
            view = batch.view(call.mode, call.settings, _forms(fault), _skew(fault))
        machine.start()
        call.app.calls.created(
            call.mode.name,
            "create",
            id=batch.id,
            name=batch.input_name,
            account=call.account.key,
            metadata=batch.metadata,
        )
        return Response.of(view)

    def _source(self, call: Call, body: Mapping[str, object]) -> _Source:
        file_id, blob = body.get("input_file_id"), body.get("input_blob")
        if isinstance(file_id, str) and file_id:
            file = found_file(call, file_id)
            if file.purpose != "batch":
                raise call.bad(f"The file '{file_id}' has the purpose '{file.purpose}', not 'batch'.", "input_file_id")
            if call.now < file.ready_at:
                raise call.bad(f"The file '{file_id}' has not been processed yet.", "input_file_id")
            return _Source(file, "", None)
        folder = body.get("output_folder")
        url = folder.get("url") if isinstance(folder, Mapping) else None
        if call.mode is not AZURE or not isinstance(blob, str) or not blob:
            raise call.bad(
                "Missing required parameter: 'input_file_id'.", "input_file_id", "missing_required_parameter"
            )
        if not isinstance(url, str) or not url:
            raise call.bad("'output_folder.url' is required with 'input_blob'.", "output_folder")
        return _Source(None, blob, url)

    def _claim(self, call: Call, source: _Source) -> _Claim | None:
        """What the batch will hold of its quota, where the region compares the two before there is a batch."""
        if call.mode is not AZURE or source.file is None or not call.settings.fails_fast(call.account.resource):
            return None
        name = first_model(source.file.path)
        model = Catalogue.of(call.mode, call.settings, call.account.resource).model(name)
        if not isinstance(model, str):
            return None
        if source.file.tokens is None:
            source.file.tokens = count_tokens(source.file.path)
        return _Claim(name, source.file.tokens, limit_of(call.settings, call.account, name, model))

    def retrieve(self, call: Call) -> Response:
        """GET /batches/{id}."""

        def work(fault: Fault | None = None) -> Response:
            with call.lock:
                batch = _found(call)
                return Response.of(batch.view(call.mode, call.settings, _forms(fault), _skew(fault)))

        return call.guarded("get", work, work, batch=call.request.params["id"])

    def listing(self, call: Call) -> Response:
        """GET /batches, the newest first; the very newest may be missing for a while."""

        def work(fault: Fault | None = None) -> Response:
            now, lag = call.now, call.settings.visible_after
            with call.lock:
                views = [
                    batch.view(call.mode, call.settings, _forms(fault), _skew(fault))
                    for batch in reversed(call.account.batches.values())
                    if batch.created_at + lag <= now
                ]
            return call.page(views, _MOST_LISTED, _LISTED)

        return call.guarded("list", work, work)

    def cancel(self, call: Call) -> Response:
        """POST /batches/{id}/cancel."""

        def work(fault: Fault | None = None) -> Response:
            with call.lock:
                batch = _found(call)
                if not batch.is_live:
                    raise refusal(RowError(409, f"Cannot cancel a batch with status '{batch.status}'."))
                if fault is not None and fault.do == "stop_late":
                    batch.cancel_seconds += fault.seconds
                if not batch.cancelled:
                    batch.cancelled = True
                    batch.enter("cancelling", call.now)
                    batch.stop.set()
                return Response.of(batch.view(call.mode, call.settings, _forms(fault), _skew(fault)))

        return call.guarded("cancel", work, work, batch=call.request.params["id"])


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the requests are: a file of the account, or a blob with a folder for the results."""

    file: StoredFile | None
    blob: str
    folder: str | None


@dataclass(frozen=True, slots=True)
class _Claim:
    """Prompt tokens that a batch wants to hold of a deployment's quota."""

    deployment: str
    tokens: int
    limit: int | None


def _hold(call: Call, batch: Batch, claim: _Claim) -> None:
    if claim.limit is not None and call.account.enqueued(claim.deployment) + claim.tokens > claim.limit:
        code, message = over_quota(call.mode, claim.deployment, claim.limit)
        raise refusal(RowError(400, message, code=code))
    batch.deployment, batch.tokens, batch.tokens_held = claim.deployment, claim.tokens, True


def _check_pace(call: Call) -> None:
    most = call.mode.batches_an_hour
    if most is None:
        return
    recent = 0
    for batch in reversed(call.account.batches.values()):
        if batch.created_at <= call.now - HOUR:
            break
        recent += 1
    if recent >= most:
        raise throttled(call.mode, HOUR)


def _found(call: Call) -> Batch:
    batch_id = call.request.params["id"]
    batch = call.account.batches.get(batch_id)
    if batch is None:
        raise not_found(call.mode, "batch", batch_id)
    return batch


def _checked(call: Call, body: Mapping[str, object]) -> str:
    endpoint = body.get("endpoint")
    if not isinstance(endpoint, str) or endpoint not in call.mode.endpoints:
        supported = ", ".join(f"'{name}'" for name in sorted(call.mode.endpoints))
        raise call.bad(f"Invalid value: '{endpoint}'. Supported values are: {supported}.", "endpoint", "invalid_value")
    window = body.get("completion_window")
    if window != COMPLETION_WINDOW:
        raise call.bad(f"Invalid value: '{window}'. Supported values are: '24h'.", "completion_window", "invalid_value")
    return endpoint


def _metadata(call: Call, given: object, *, blob: bool) -> Mapping[str, str] | None:
    if given is None:
        return None
    if blob:
        raise call.bad("'metadata' is not supported with 'input_blob'.", "metadata")
    if not isinstance(given, Mapping) or len(given) > METADATA_PAIRS:
        raise call.bad(
            f"Invalid 'metadata': expected an object with at most {METADATA_PAIRS} properties.",
            "metadata",
            "object_above_max_properties",
        )
    for key, value in given.items():
        if len(key) > METADATA_KEY or not isinstance(value, str) or len(value) > METADATA_VALUE:
            raise call.bad(
                f"Invalid 'metadata.{key[:METADATA_KEY]}': keys are at most {METADATA_KEY} characters long, values are "
                f"strings of at most {METADATA_VALUE}.",
                "metadata",
                "string_above_max_length",
            )
    return dict(given)


def _kept(call: Call, account: Account, path: Path, name: str, seconds: int | None) -> StoredFile:
    now = call.app.clock.now()
    expiry = seconds if seconds is not None else account.mode.batch_file_expiry
    file = StoredFile(
        id=new_file_id(account),
        path=path,
        size=path.stat().st_size,
        filename=name,
        purpose="batch_output",
        created_at=now,
        expires_at=None if expiry is None else now + expiry,
        ready_at=now,
    )
    with call.lock:
        account.files[file.id] = file
    return file


def _forms(fault: Fault | None) -> frozenset[str]:
    return frozenset() if fault is None else frozenset({fault.do})


def _skew(fault: Fault | None) -> float:
    return fault.seconds if fault is not None and fault.do == "skew" else 0.0
