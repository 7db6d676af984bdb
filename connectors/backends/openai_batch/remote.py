"""The calls of the batch API, through the openai SDK. What comes back is read here, without trust in its types.

Calls that only look are tried again by the SDK; creating, cancelling and uploading are sent once. The SDK sends a
failed `POST /batches` up to three times, without an idempotency key: two batches, two bills.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

import httpx2
import openai

from lowtide.connectors.backends.openai_batch.account import Account
from lowtide.connectors.backends.openai_batch.batches import RemoteBatch, read_batch
from lowtide.connectors.backends.openai_batch.failures import calling, creating, looking
from lowtide.connectors.backends.openai_batch.services import WINDOW
from lowtide.errors import SubmitUnknown, Transient

PAGE = 100
"""Batches on one page of a listing: the most that OpenAI gives (documented)."""

_CHUNK = 1 << 18
_LOOKS = 2
_LONGEST_WAIT = 10.0
_CONNECT_SECONDS = 10.0
_SECONDS = 60.0
_CREATE_SECONDS = 90.0
# A provider may look through the whole file before it answers.
_UPLOAD_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """An uploaded file. `state` is in lower case, "" where the provider does not say."""

    id: str
    state: str


class Remote:
    """One account's files and batches. Raises Transient, Terminal, QuotaFull and SubmitUnknown, as each call says."""

    def __init__(self, account: Account) -> None:
        self._account = account

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        # Reading all certificates takes a while, and both clients trust the same ones.
        return httpx2.create_ssl_context()

    @cached_property
    def _looking(self) -> openai.OpenAI:
        hooks = {"response": [_leave_long_waits]}
        return _client(self._account, _LOOKS, openai.DefaultHttpxClient(event_hooks=hooks, verify=self._tls))

    @cached_property
    def _once(self) -> openai.OpenAI:
        # A connection that was left open may be closed while a call is on its way: then nobody knows what became of it.
        limits = httpx2.Limits(max_connections=20, max_keepalive_connections=0)
        once = openai.DefaultHttpxClient(limits=limits, follow_redirects=False, verify=self._tls)
        return _client(self._account, 0, once)

    def upload(self, name: str, content: BinaryIO) -> RemoteFile:
        """Upload an input file, streamed. Raises Transient or Terminal: nothing costs anything yet."""
        timeout = httpx2.Timeout(_UPLOAD_SECONDS, connect=_CONNECT_SECONDS)
        with calling(self._account, "upload a batch's requests", private=True):
            answer = self._once.files.with_raw_response.create(
                file=(name, content, "application/jsonl"),
                purpose="batch",
                expires_after={"anchor": "created_at", "seconds": self._account.service.input_seconds},
                timeout=timeout,
            )
        return _file(_json(answer.http_response))

    def file(self, file_id: str) -> RemoteFile | None:
        """The file, or None if it is not there. Raises Transient or Terminal."""
        with looking(self._account, "look at an uploaded file"):
            try:
                answer = self._looking.files.with_raw_response.retrieve(file_id)
            except openai.NotFoundError:
                return None
        return _file(_json(answer.http_response))

    def create(self, body: Mapping[str, object]) -> RemoteBatch:
        """Create a batch: one call. Raises SubmitUnknown, QuotaFull, Transient or Terminal."""
        with creating(self._account):
            answer = self._once.batches.with_raw_response.create(
                completion_window=WINDOW,
                endpoint="/v1/chat/completions",
                input_file_id="",
                extra_body=dict(body),
                timeout=httpx2.Timeout(_CREATE_SECONDS, connect=_CONNECT_SECONDS),
            )
        try:
            return read_batch(_json(answer.http_response))
        except (ValueError, Transient):
            raise SubmitUnknown(
                f"{self._account.address} accepted a batch, and its answer does not say which"
            ) from None

    def batch(self, batch_id: str) -> RemoteBatch:
        """The batch as it stands. Raises Transient, or Terminal where credentials are refused."""
        with looking(self._account, f"look at batch {batch_id!r}"):
            answer = self._looking.batches.with_raw_response.retrieve(batch_id)
        return self._batch(_json(answer.http_response))

    def batches(self, *, most: int | None = None) -> Iterator[RemoteBatch]:
        """Every batch of the account, the newest first, or the first page with at most so many.

        All pages are read: no provider can be asked for a batch by its metadata. Raises as `batch`.
        """
        seen: set[str] = set()
        after: str | openai.Omit = openai.omit
        while True:
            with looking(self._account, "list batches"):
                answer = self._looking.batches.with_raw_response.list(limit=most or PAGE, after=after)
            page = _json(answer.http_response)
            # Azure's older samples say `value`.
            data = page.get("data", page.get("value")) if isinstance(page, Mapping) else None
            if not isinstance(data, list):
                raise Transient(f"a listing of batches at {self._account.address} cannot be read")
            listed = [self._batch(entry) for entry in data]
            yield from (batch for batch in listed if batch.id not in seen)
            # A server that does not know `after` gives the same page for ever.
            new = {batch.id for batch in listed} - seen
            if most or not new or (isinstance(page, Mapping) and page.get("has_more") is False):
                return
            seen |= new
            after = listed[-1].id

    def content(self, file_id: str) -> Iterator[bytes]:
        """A file's bytes, as they arrive. Raises Transient, also for a file that is not there, or Terminal."""
        with (
            looking(self._account, f"read file {file_id!r}"),
            self._looking.files.with_streaming_response.content(file_id) as answer,
        ):
            yield from answer.iter_bytes(_CHUNK)

    def cancel(self, batch_id: str) -> bool:
        """Ask for the batch to be stopped. False if it cannot be: it may have ended. Raises Transient or Terminal."""
        with looking(self._account, f"cancel batch {batch_id!r}"):
            try:
                self._once.batches.with_raw_response.cancel(batch_id)
            except (openai.BadRequestError, openai.NotFoundError, openai.ConflictError):
                return False
        return True

    def delete_file(self, file_id: str) -> None:
        """Delete a file; no error if it is not there. Raises Transient or Terminal."""
        with looking(self._account, f"delete file {file_id!r}"):
            try:
                self._looking.files.with_raw_response.delete(file_id)
            except openai.NotFoundError:
                return

    def can_list_files(self) -> None:
        """Try to list files. Raises Transient or Terminal."""
        with calling(self._account, "list files"):
            self._looking.files.with_raw_response.list(limit=1)

    def can_list_batches(self) -> int:
        """Try to list batches; how many of the newest have not ended. Raises Transient or Terminal."""
        return sum(batch.outcome is None for batch in self.batches(most=PAGE))

    def has_model(self, name: str) -> bool:
        """Whether the API knows the model. Raises Transient or Terminal."""
        with calling(self._account, "look up the model"):
            try:
                self._looking.models.with_raw_response.retrieve(name)
            except openai.NotFoundError:
                # Servers that speak the same often have the list only.
                listed = _json(self._looking.models.with_raw_response.list().http_response)
            else:
                return True
        data = listed.get("data") if isinstance(listed, Mapping) else None
        return isinstance(data, list) and any(isinstance(one, Mapping) and one.get("id") == name for one in data)

    def has_deployment(self, name: str) -> bool:
        """Whether a deployment of that name answers. It is asked an empty question, which is refused and costs nothing.

        Raises Transient or Terminal.
        """
        with calling(self._account, "look up the deployment"):
            try:
                self._once.chat.completions.with_raw_response.create(model=name, messages=[], max_completion_tokens=1)
            except openai.NotFoundError:
                return False
            except openai.BadRequestError:
                return True
        return True

    def _batch(self, data: object) -> RemoteBatch:
        try:
            return read_batch(data)
        except ValueError as error:
            raise Transient(f"a batch at {self._account.address} cannot be read: {error}") from None


def _client(account: Account, retries: int, http_client: httpx2.Client) -> openai.OpenAI:
    timeout = httpx2.Timeout(_SECONDS, connect=_CONNECT_SECONDS)
    if not account.version:
        return openai.OpenAI(
            api_key=account.key,
            base_url=account.base_url,
            organization=account.organization,
            project=account.project,
            max_retries=retries,
            timeout=timeout,
            http_client=http_client,
        )
    if callable(account.key):
        return openai.AzureOpenAI(
            azure_ad_token_provider=account.key,
            base_url=account.base_url,
            api_version=account.version,
            max_retries=retries,
            timeout=timeout,
            http_client=http_client,
        )
    return openai.AzureOpenAI(
        api_key=account.key,
        base_url=account.base_url,
        api_version=account.version,
        max_retries=retries,
        timeout=timeout,
        http_client=http_client,
    )


def _leave_long_waits(response: httpx2.Response) -> None:
    """Keep the SDK from sleeping for up to two minutes where a server asks for it: the run has other things to do."""
    if response.status_code < 400:
        return
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(response.headers.get(name, "0")) * unit
        except ValueError:
            seconds = _LONGEST_WAIT + 1
        if seconds > _LONGEST_WAIT:
            response.headers["x-should-retry"] = "false"


def _json(response: httpx2.Response) -> object:
    try:
        found: object = json.loads(response.content)
    except ValueError:
        raise Transient("the provider's answer is not JSON") from None
    return found


def _file(data: object) -> RemoteFile:
    identity = data.get("id") if isinstance(data, Mapping) else None
    state = data.get("status") if isinstance(data, Mapping) else None
    if not isinstance(identity, str) or not identity:
        raise Transient("the provider's answer to an upload has no file id")
    return RemoteFile(identity, state.strip().lower() if isinstance(state, str) else "")
