"""Files: upload, list, look at, download, delete."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from lowtide.emulators.openai.call import Call
from lowtide.emulators.openai.errors import not_found
from lowtide.emulators.openai.multipart import BadForm, FormFile, copy_file, read_form
from lowtide.emulators.openai.rules import AZURE
from lowtide.emulators.openai.state import Account, StoredFile
from lowtide.emulators.web import Hang, Reset, Response, file_parts

_PURPOSES = frozenset({"assistants", "batch", "fine-tune", "vision", "user_data", "evals"})
_MOST_LISTED = 10_000
_HANG_SECONDS = 30.0


def new_file_id(account: Account) -> str:
    """As the provider's own look."""
    return f"file-{uuid.uuid4().hex}" if account.mode is AZURE else f"file-{uuid.uuid4().hex[:24]}"


def checked_expiry(call: Call, anchor: object, seconds: object, name: str) -> int | None:
    """How long a file is to be kept, in seconds; None where nothing is asked. Raises Refused."""
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise call.bad(f"Invalid value for '{name}.anchor': supported values are: 'created_at'.", f"{name}.anchor")
    mode = call.mode
    try:
        wanted = int(str(seconds))
    except ValueError:
        wanted = -1
    if not mode.least_expiry <= wanted <= mode.longest_expiry:
        raise call.bad(
            f"Invalid '{name}.seconds': expected an integer from {mode.least_expiry} to {mode.longest_expiry}.",
            f"{name}.seconds",
        )
    return wanted


def upload(call: Call) -> Response:
    """POST /files."""
    try:
        form = read_form(call.request.body, call.request.header("Content-Type"))
    except BadForm as error:
        raise call.bad(f"Invalid form: {error}.", "file") from error
    if form.file is None or not form.file.filename:
        raise call.bad("Missing required parameter: 'file'.", "file", "missing_required_parameter")
    file = form.file
    return call.guarded("upload", lambda: _stored(call, form.fields, file), name=file.filename)


def _stored(call: Call, fields: Mapping[str, str], file: FormFile) -> Response:
    purpose = fields.get("purpose")
    if purpose not in _PURPOSES:
        raise call.bad(f"Invalid value: '{purpose}'. Supported values are: {sorted(_PURPOSES)}.", "purpose")
    # The SDK sends bracketed names, Azure's REST samples dotted ones.
    anchor = fields.get("expires_after[anchor]", fields.get("expires_after.anchor"))
    seconds = fields.get("expires_after[seconds]", fields.get("expires_after.seconds"))
    expiry = checked_expiry(call, anchor, seconds, "expires_after")
    most = call.settings.max_file_bytes or call.mode.file_bytes
    if file.size > most:
        raise call.bad(f"The file is too large: {file.size} bytes, and at most {most} are allowed.", "file")
    if expiry is None and purpose == "batch":
        expiry = call.mode.batch_file_expiry
    now = call.now
    stored = StoredFile(
        id=new_file_id(call.account),
        path=call.account.folder / uuid.uuid4().hex,
        size=file.size,
        filename=file.filename,
        purpose=purpose,
        created_at=now,
        expires_at=None if expiry is None else now + expiry,
        ready_at=now + call.settings.file_seconds,
    )
    copy_file(call.request.body, file, stored.path)
    with call.lock:
        _check_count(call, stored)
        call.account.files[stored.id] = stored
    call.app.calls.created(
        call.mode.name, "upload", id=stored.id, name=stored.filename, account=call.account.key, bytes=stored.size
    )
    return Response.of(stored.view(call.mode, now))


def _check_count(call: Call, new: StoredFile) -> None:
    expiring = new.expires_at is not None
    limit = call.mode.expiring_files if expiring else call.mode.files
    most = call.settings.max_files or limit
    call.account.sweep(call.now)
    held = sum(file.purpose == "batch" for file in call.account.files.values())
    if most is not None and new.purpose == "batch" and held >= most:
        new.path.unlink(missing_ok=True)
        hint = "" if expiring else " Set an expiration for more."
        raise call.bad(f"The limit of {most} input files of this resource is reached.{hint}", "file", "file_limit")


def found_file(call: Call, file_id: str) -> StoredFile:
    """The file, unless its time is over. Raises Refused with 404."""
    with call.lock:
        call.account.sweep(call.now)
        file = call.account.files.get(file_id)
    if file is None:
        raise not_found(call.mode, "file", file_id)
    return file


def retrieve(call: Call) -> Response:
    """GET /files/{id}."""
    file_id = call.request.params["id"]
    return call.guarded("get", lambda: Response.of(found_file(call, file_id).view(call.mode, call.now)), file=file_id)


def listing(call: Call) -> Response:
    """GET /files, the newest first unless `order` is `asc`."""

    def work() -> Response:
        purpose = call.request.query.get("purpose")
        with call.lock:
            call.account.sweep(call.now)
            files = list(call.account.files.values())
        if call.request.query.get("order") != "asc":
            files.reverse()
        views = [file.view(call.mode, call.now) for file in files if purpose in {None, file.purpose}]
        return call.page(views, _MOST_LISTED, _MOST_LISTED)

    return call.guarded("list", work)


def delete(call: Call) -> Response:
    """DELETE /files/{id}."""
    file_id = call.request.params["id"]

    def work() -> Response:
        file = found_file(call, file_id)
        with call.lock:
            call.account.files.pop(file.id, None)
            file.path.unlink(missing_ok=True)
        return Response.of({"id": file.id, "object": "file", "deleted": True})

    return call.guarded("delete", work, file=file_id)


def content(call: Call) -> Response:
    """GET /files/{id}/content, as a stream."""
    file_id = call.request.params["id"]
    file = found_file(call, file_id)
    fault = call.app.faults.take("download", **call.facts(), file=file_id, name=file.filename)
    whole = Response(200, _parts(file.path, file.size), {"Content-Type": "application/octet-stream"}, file.size)
    if fault is None:
        return whole
    seconds = fault.seconds or _HANG_SECONDS
    match fault.do:
        case "reset_before":
            raise Reset
        case "timeout_before":
            raise Hang(seconds)
        case "reset_after":
            return Response(200, _broken(file, Reset()), whole.headers, file.size)
        case "timeout_after":
            return Response(200, _broken(file, Hang(seconds)), whole.headers, file.size)
    return call.refused(fault)


def _parts(path: Path, size: int) -> Iterator[bytes]:
    return file_parts(path, 0, size)


def _broken(file: StoredFile, by: Exception) -> Iterator[bytes]:
    """Half of the file, and then the end of the connection."""
    yield from file_parts(file.path, 0, file.size // 2)
    raise by
