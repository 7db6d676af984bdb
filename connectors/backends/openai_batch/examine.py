"""What a run needs of a provider, looked at with calls that cost nothing."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

from lowtide.connectors.backends.openai_batch.blob import BlobFolder
from lowtide.connectors.backends.openai_batch.places import Place
from lowtide.errors import LowtideError
from lowtide.records import Finding, Limits


def findings(place: Place, *, named: bool, model: str, limits: Limits, asked_tokens: int | None) -> Iterator[Finding]:
    """One finding for each thing that a place must have. `named` puts its region before their names."""
    prefix = f"{place.region}: " if named else ""
    account, remote = place.account, None

    def look(name: str, call: Callable[[], str]) -> Finding:
        try:
            return Finding(prefix + name, True, call())
        except LowtideError as error:
            return Finding(prefix + name, False, str(error))

    def credentials() -> str:
        if callable(account.key):
            account.key()
        return f"{account.credentials}, for {account.address}"

    found = look("credentials", credentials)
    yield found
    if not found.ok:
        return
    remote = place.remote

    def files() -> str:
        remote.can_list_files()
        return "files can be listed; whether they may be written shows at the first upload"

    def batches() -> str:
        live = remote.can_list_batches()
        return f"batches can be listed; {live} of the newest hundred have not ended"

    yield look("files", files)
    yield look("batches", batches)
    yield _model(place, model, prefix)
    yield Finding(prefix + "quota", True, _quota(limits, asked_tokens, account.service.provider))


def blob_finding(folder: BlobFolder) -> Finding:
    """Whether the blob folder can be written, read and cleared by us; what Azure may do there shows only in a batch."""
    path = f"requests/lowtide-doctor-{secrets.token_hex(8)}"
    try:
        folder.store.write(path, b"{}\n")
        read = folder.store.read(path)
        folder.store.delete(path)
    except LowtideError as error:
        return Finding("blob", False, f"{error} (this identity needs Storage Blob Data Contributor on the container)")
    if read != b"{}\n":
        return Finding("blob", False, f"{folder.store.uri!r} gave back something else than was written")
    found = (
        f"{folder.store.uri} can be written and read; the resource's system-assigned identity needs Storage Blob Data "
        "Contributor there too, which cannot be seen from here"
    )
    return Finding("blob", True, found)


def _model(place: Place, model: str, prefix: str) -> Finding:
    azure = place.account.service.provider == "azure"
    kind = "deployment" if azure else "model"
    try:
        there = place.remote.has_deployment(place.model) if azure else place.remote.has_model(place.model)
    except LowtideError as error:
        return Finding(prefix + kind, False, str(error))
    if there:
        what = f"{place.model!r} is there" + (f", for {model}; its type must be Global-Batch" if azure else "")
        return Finding(prefix + kind, True, what + (" or Data Zone Batch" if azure else ""))
    where = place.account.address
    advice = "deploy it as Global-Batch or Data Zone Batch, or correct its name" if azure else "correct its name"
    return Finding(prefix + kind, False, f"there is no {kind} {place.model!r} at {where}: {advice}")


def _quota(limits: Limits, asked_tokens: int | None, provider: str) -> str:
    if asked_tokens is not None:
        return f"enqueued_tokens is {asked_tokens:,}, so that a shard holds at most {limits.tokens or 0:,} tokens"
    if limits.tokens is not None:
        return (
            f"the quota of enqueued tokens cannot be seen from here, so a shard holds at most {limits.tokens:,}: set "
            "enqueued_tokens to the deployment's quota for larger ones, and if it is smaller than that"
        )
    return (
        f"the quota of enqueued tokens cannot be seen from here: set enqueued_tokens to what {provider} shows under "
        "limits for the model, since a shard larger than that never fits"
    )
