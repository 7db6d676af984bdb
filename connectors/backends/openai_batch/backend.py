"""The backends `openai-batch` and `azure-batch`: one class over one or more deployments of one model."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from lowtide.connectors.backends.openai_batch.answers import parse_answer
from lowtide.connectors.backends.openai_batch.batches import TOKEN_KEY, RemoteBatch, status_of
from lowtide.connectors.backends.openai_batch.blob import ANSWERS, REQUESTS, BlobFolder
from lowtide.connectors.backends.openai_batch.examine import blob_finding, findings
from lowtide.connectors.backends.openai_batch.places import Place, Room
from lowtide.connectors.backends.openai_batch.requests import RequestEncoder, Value
from lowtide.connectors.backends.openai_batch.services import WINDOW, Call, Service
from lowtide.connectors.backends.openai_batch.uploads import opened
from lowtide.errors import LowtideError, OurBug, QuotaFull, Terminal, Transient
from lowtide.operations import Operation
from lowtide.records import Answer, BatchStatus, Finding, Limits, OutputFile, Request, Shard

# Others look for a batch 10 minutes after its submission was announced, so nothing is created much later than that.
_CREATE_WITHIN = 420.0
_FILE_PAUSE = 1.0
_LONGEST_FILE_PAUSE = 10.0


class OpenAIBatch:
    """One model, asked through the batch API of OpenAI, of Azure, or of a server that speaks the same.

    `places` are its deployments, the first being the job's own. `parameters` are everything beside the prompt that
    changes answers. `clock` and `sleep` count in seconds. Safe for threads.
    """

    def __init__(
        self,
        service: Service,
        places: Sequence[Place],
        *,
        model: str,
        encoder: RequestEncoder,
        parameters: Mapping[str, Value],
        call: Call,
        limits: Limits,
        enqueued_tokens: int | None = None,
        blob: BlobFolder | None = None,
        keep_files: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._service = service
        self._places = tuple(places)
        self._by_region = {place.region: place for place in places}
        self._room = Room(places, clock)
        self._model = model
        self._encoder = encoder
        self._parameters = dict(parameters)
        self._endpoint = service.endpoints[call]
        self._limits = limits
        self._enqueued_tokens = enqueued_tokens
        self._blob = blob
        self._keep_files = keep_files
        self._clock = clock
        self._sleep = sleep
        # What was uploaded and is in no batch yet, so that a refused shard is not uploaded again.
        self._uploads: dict[tuple[str, str], str] = {}

    @property
    def name(self) -> str:
        """`openai-batch` or `azure-batch`."""
        return self._service.backend

    @property
    def provider(self) -> str:
        """`openai` or `azure`."""
        return self._service.provider

    @property
    def region(self) -> str:
        """That of the first deployment; "" for OpenAI."""
        return self._places[0].region

    @property
    def model(self) -> str:
        """The model's name, not the deployment's."""
        return self._model

    @property
    def parameters(self) -> Mapping[str, Value]:
        """The job's parameters, the API that is called, and how a schema is asked for."""
        return self._parameters

    @property
    def places(self) -> tuple[str, ...]:
        """Where batches may lie, without secrets: the API's host and path, or each deployment."""
        return tuple(place.name(self._service.backend) for place in self._places)

    @property
    def limits(self) -> Limits:
        """See `services`."""
        return self._limits

    def refusal(self, operation: Operation) -> str | None:
        """Language models can do every operation."""
        return None

    def encode(self, request: Request) -> bytes:
        """See `requests`."""
        return self._encoder.encode(request)

    def submit(self, shard: Shard, token: str) -> str:
        """Create the batch at the first deployment that has room.

        A deployment that was full is left alone for a while, so that not every shard is uploaded only to be refused.
        """
        self._check(shard)
        late = self._lateness()
        refusals: list[LowtideError] = []
        for place in self._room.candidates():
            try:
                batch_id = self._submit_at(place, shard, token, late)
            except QuotaFull as error:
                self._room.full(place)
                refusals.append(error)
            except Transient as error:
                refusals.append(error)
            else:
                self._room.took(place)
                self._clear_uploads(token, place)
                return self._outer_id(place, batch_id)
        told = "; ".join(map(str, refusals))
        if any(not isinstance(error, QuotaFull) for error in refusals):
            raise Transient(told)
        raise QuotaFull(told or f"every deployment was full a moment ago; asked again in {self._room.wait():.0f} s")

    def find(self, token: str) -> Sequence[str]:
        """Looks through every page of every deployment's batches. One that cannot be reached leaves nothing known."""
        found: list[tuple[float | None, str]] = []
        for place in self._places:
            here = [batch for batch in place.remote.batches() if self._is_of(batch, token, place)]
            # Listings have the newest first.
            found += [(batch.created_at, self._outer_id(place, batch.id)) for batch in reversed(here)]
        if all(created is not None for created, _ in found):
            found.sort(key=lambda entry: entry[0] or 0.0)
        return [batch_id for _, batch_id in found]

    def poll(self, batch_id: str) -> BatchStatus:
        """Where the batch stands. A state that nobody knows is one that has not ended."""
        place, inner = self._inner_id(batch_id)
        status = status_of(place.remote.batch(inner), region=place.region)
        if status.fault == "quota":
            self._room.full(place)
        elif status.outcome is not None:
            self._room.eased(place)
        return status

    def outputs(self, batch_id: str) -> Iterator[OutputFile]:
        """The output and the error file, whatever became of the batch; either may be absent or empty."""
        place, inner = self._inner_id(batch_id)
        batch = place.remote.batch(inner)
        for name, file_id in (("output.jsonl", batch.output_file), ("errors.jsonl", batch.error_file)):
            if file_id:
                yield OutputFile(name, place.remote.content(file_id))
        answered = batch.counts is not None and batch.counts.completed > 0
        for name, url in (("output.jsonl", batch.output_blob), ("errors.jsonl", batch.error_blob)):
            if url:
                needed = answered and name == "output.jsonl"
                yield OutputFile(name, self._own_blob(batch).read(url, needed=needed))

    def parse(self, line: bytes) -> Answer | None:
        """See `answers`."""
        return parse_answer(line)

    def cancel(self, batch_id: str) -> None:
        """Ask the provider to stop, which takes Azure up to 10 minutes."""
        place, inner = self._inner_id(batch_id)
        if place.remote.cancel(inner):
            return
        batch = place.remote.batch(inner)
        if batch.outcome is None and batch.state != "cancelling":
            raise Transient(f"batch {batch_id!r} could not be cancelled: it is {batch.state!r}")

    def discard(self, batch_id: str) -> None:
        """Delete the input, output and error files, or the blobs in their place, of a batch that Lowtide created."""
        if self._keep_files:
            return
        try:
            self._discard(batch_id)
        except Terminal as error:
            # A key that may not delete is no reason to stop a run: what is left expires by itself.
            raise Transient(str(error)) from None

    def examine(self) -> Iterator[Finding]:
        """Credentials, files, batches, model or deployment, and quota of every place, then the blob folder."""
        for place in self._places:
            yield from findings(
                place,
                named=len(self._places) > 1,
                model=self._model,
                limits=self._limits,
                asked_tokens=self._enqueued_tokens,
            )
        if self._blob is not None:
            yield blob_finding(self._blob)

    def _discard(self, batch_id: str) -> None:
        place, inner = self._inner_id(batch_id)
        batch = place.remote.batch(inner)
        if batch.outcome is None:
            raise Transient(f"batch {batch_id!r} is {batch.state!r} and still needs its files")
        if batch.token:
            for file_id in (batch.input_file, batch.output_file, batch.error_file):
                if file_id:
                    place.remote.delete_file(file_id)
        if self._blob is not None and batch.input_blob:
            self._blob.remove(batch.input_blob, REQUESTS)
            self._blob.remove(batch.output_blob, ANSWERS)
            self._blob.remove(batch.error_blob, ANSWERS)

    def _submit_at(self, place: Place, shard: Shard, token: str, late: Callable[[], bool]) -> str:
        body: dict[str, object] = {"completion_window": WINDOW, "endpoint": self._endpoint}
        if self._blob is not None:
            path = self._blob.request_path(token, self._suffix(place))
            self._blob.put(shard, path, place.model)
            folder = {"url": self._blob.url(ANSWERS)}
            body |= {"input_file_id": None, "input_blob": self._blob.url(path), "output_folder": folder}
        else:
            expiry = {"anchor": "created_at", "seconds": self._service.output_seconds}
            body |= {"input_file_id": self._uploaded(place, shard, token, late), "metadata": {TOKEN_KEY: token}}
            body |= {"output_expires_after": expiry}
        if late():
            raise Transient("writing a shard's requests took too long to create its batch safely; they are kept")
        try:
            return place.remote.create(body).id
        except Terminal:
            self._drop_upload(place, token)
            raise

    def _uploaded(self, place: Place, shard: Shard, token: str, late: Callable[[], bool]) -> str:
        """The id of the shard's file at that place, uploaded and processed."""
        remote, kept = place.remote, self._uploads.get((place.region, token))
        if kept is None:
            with opened(shard, place.model) as content:
                file = remote.upload(f"{token}.jsonl", content)
            self._uploads[place.region, token] = file.id
        else:
            looked = remote.file(kept)
            if looked is None:
                del self._uploads[place.region, token]
                raise Transient("an uploaded file is gone, and is uploaded again")
            file = looked
        pause = _FILE_PAUSE
        while self._service.processes_files and file.state not in {"processed", ""}:
            if file.state in {"error", "failed", "deleted", "deleting"}:
                self._drop_upload(place, token)
                raise Terminal(
                    f"{place.account.address} could not process an uploaded file: its status is {file.state}"
                )
            if late():
                raise Transient(f"an uploaded file is still {file.state!r}")
            self._sleep(pause)
            pause = min(2 * pause, _LONGEST_FILE_PAUSE)
            looked = remote.file(file.id)
            if looked is not None:
                file = looked
        return file.id

    def _drop_upload(self, place: Place, token: str) -> None:
        """Delete what no batch will read. A file expires by itself where that fails."""
        with contextlib.suppress(LowtideError):
            if self._blob is not None:
                path = self._blob.request_path(token, self._suffix(place))
                self._blob.remove(self._blob.url(path), REQUESTS)
        file_id = self._uploads.pop((place.region, token), None)
        if file_id is not None:
            with contextlib.suppress(LowtideError):
                place.remote.delete_file(file_id)

    def _clear_uploads(self, token: str, taken: Place) -> None:
        """The batch has what it needs; the other places need nothing any more."""
        self._uploads.pop((taken.region, token), None)
        for place in self._places:
            if place is not taken:
                self._drop_upload(place, token)

    def _check(self, shard: Shard) -> None:
        most = self._service.file_bytes if self._blob is None else self._service.blob_bytes
        if not 0 < shard.records <= self._service.records or shard.size > most:
            raise OurBug(
                f"{shard.uri!r} has {shard.records:,} requests and {shard.size:,} bytes; a batch takes "
                f"{self._service.records:,} and {most:,}"
            )

    def _lateness(self) -> Callable[[], bool]:
        """Tells whether too much time has passed since now to create a batch. A suspended machine's time counts too."""
        started, wall = self._clock(), time.time()
        return lambda: max(self._clock() - started, time.time() - wall) > _CREATE_WITHIN

    def _is_of(self, batch: RemoteBatch, token: str, place: Place) -> bool:
        if batch.token == token:
            return True
        if self._blob is None or not batch.input_blob:
            return False
        ours = {self._blob.request_path(token, region) for region in ("", place.region)}
        return self._blob.path_in(batch.input_blob) in ours

    def _own_blob(self, batch: RemoteBatch) -> BlobFolder:
        if self._blob is None:
            raise Terminal(
                f"batch {batch.id!r} has its answers in a storage account that the job file no longer names: put "
                "backends[0].azure-batch.blob back to read them"
            )
        return self._blob

    def _suffix(self, place: Place) -> str:
        return "" if place is self._places[0] else place.region

    def _outer_id(self, place: Place, batch_id: str) -> str:
        return f"{place.region}/{batch_id}" if len(self._places) > 1 else batch_id

    def _inner_id(self, batch_id: str) -> tuple[Place, str]:
        region, slash, inner = batch_id.rpartition("/")
        if not slash:
            return self._places[0], batch_id
        place = self._by_region.get(region)
        if place is None:
            raise Terminal(
                f"batch {inner!r} was created in {region!r}, which the job file no longer names: put it back under "
                "backends[0].azure-batch.regions until the run is done"
            )
        return place, inner
