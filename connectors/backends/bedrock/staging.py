"""Where Bedrock reads requests and writes answers: folders of our own making below the staging address on S3."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from lowtide.connectors.backends.bedrock import names
from lowtide.connectors.backends.bedrock.answers import Manifest, parse_manifest
from lowtide.connectors.backends.bedrock.jobs import Job
from lowtide.connectors.stores import open_store
from lowtide.errors import ConfigError, LowtideError, NotFound, StoreError, Terminal, Transient
from lowtide.protocols import Store
from lowtide.records import FileInfo, OutputFile, Shard

_CHUNK = 1 << 20
_MANIFEST = "manifest.json.out"
_OURS = re.compile(r"s3://([^/]+)/((?:.+/)?bedrock/([^/]+)/)(?:requests\.jsonl|out)")


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a job is to read its requests. `made` is the path of the copy that was made for it, "" where none was."""

    uri: str
    made: str = ""


class Staging:
    """The staging address, and the folders of jobs that lie elsewhere because it was another one when they began."""

    def __init__(self, store: Store, environ: Mapping[str, str] | None) -> None:
        self._store = store
        self._environ = environ
        self._buckets: dict[str, Store] = {}

    @property
    def uri(self) -> str:
        """Its address, without a slash at its end."""
        return self._store.uri

    @property
    def store(self) -> Store:
        """The staging address as a store."""
        return self._store

    def output_uri(self, token: str) -> str:
        """The folder that a job of this token is to write to."""
        return f"{self._store.uri_of(f'bedrock/{token}/out')}/"

    def place(self, shard: Shard, token: str) -> Placed:
        """The shard's file for Bedrock: where it lies, if it can, or a copy.

        Raises Transient, or Terminal where that is of no use; nothing has been submitted then.
        """
        if names.is_batch_input(shard.uri):
            return Placed(shard.uri)
        if not names.is_token(token):
            raise Terminal(f"{token!r} cannot be the name of a Bedrock job: letters, digits and inner '-', at most 63")
        path = f"bedrock/{token}/requests.jsonl"
        try:
            there = self._store.info(path) is not None
            with shard.open() as source, self._store.writer(path) as target:
                shutil.copyfileobj(source, target, _CHUNK)
                if source.tell() != shard.size:
                    found = f"{shard.uri} holds {source.tell()} bytes, and the plan says {shard.size}"
                    raise Terminal(f"{found}: build the shard again")
        except StoreError as error:
            raise Terminal(f"the requests cannot be copied to {self.uri!r}: {error}") from error
        except OSError as error:
            raise Transient(f"the requests cannot be copied to {self.uri!r} now: {error.strerror or error}") from error
        # A copy from before may be what a job reads whose creation was not confirmed.
        return Placed(self._store.uri_of(path), "" if there else path)

    def take_back(self, placed: Placed) -> None:
        """Remove the copy that was made for a job that was refused. Raises nothing: one that stays does no harm."""
        if placed.made:
            with suppress(LowtideError):
                self._store.delete(placed.made)

    def manifest(self, job: Job) -> Manifest | None:
        """The job's own totals; None if they are not there (yet). Raises Transient."""
        store, files = self._output(job)
        for info in files:
            if info.path.endswith(f"/{_MANIFEST}"):
                try:
                    return parse_manifest(store.read(info.path))
                except NotFound:
                    return None
        return None

    def written(self, job: Job) -> bool:
        """Whether the job has written anything. Raises Transient."""
        return bool(self._output(job)[1])

    def outputs(self, job: Job) -> Iterator[OutputFile]:
        """The job's files, rows and manifest, in the order of their names. Raises Transient while some are missing."""
        store, files = self._output(job)
        wanted = [info for info in files if info.path.endswith((".jsonl.out", f"/{_MANIFEST}"))]
        if job.success_record_count and not any(info.path.endswith(".jsonl.out") for info in wanted):
            raise Transient(
                f"{job.output_uri!r} holds no rows of the job {names.job_id(job.job_arn)} now, and Bedrock says that "
                f"{job.success_record_count} were answered"
            )
        for info in wanted:
            yield OutputFile(info.path.rpartition("/")[2], _chunks(store, info))

    def clear(self, job: Job) -> None:
        """Remove what was copied for the job and what it wrote, and nothing that does not lie in a folder of ours."""
        copied, written = _OURS.fullmatch(job.input_uri), _OURS.fullmatch(job.output_uri)
        if written and written[3] == job.job_name:
            store, files = self._output(job)
            for info in files:
                store.delete(info.path)
        if copied and copied[3] == job.job_name:
            store, path = self._at(job.input_uri)
            store.delete(path)

    def _output(self, job: Job) -> tuple[Store, list[FileInfo]]:
        store, folder = self._at(job.output_uri)
        part = f"/{names.job_id(job.job_arn)}/"
        prefix = f"{folder}/" if folder else ""
        try:
            return store, [info for info in store.list(prefix) if part in f"/{info.path[len(prefix) :]}"]
        except NotFound as error:
            raise Transient(str(error)) from error

    def _at(self, uri: str) -> tuple[Store, str]:
        """The store that an address lies in, and its path there."""
        if uri.startswith(f"{self._store.uri}/"):
            return self._store, uri[len(self._store.uri) + 1 :]
        bucket, _, path = uri.removeprefix("s3://").partition("/")
        if bucket not in self._buckets:
            self._buckets[bucket] = open_store(f"s3://{bucket}", environ=self._environ)
        return self._buckets[bucket], path


def open_staging(spec_uri: str | None, root: Store, environ: Mapping[str, str] | None) -> Staging:
    """The staging address of a job file, by default the run's root. Raises ConfigError if that is not on S3."""
    if spec_uri is not None:
        return Staging(open_store(spec_uri, environ=environ), environ)
    if not root.uri.startswith("s3://"):
        raise ConfigError(
            f"{names.FIELD}.staging: missing; expected an s3:// folder for requests and raw answers, since output.root "
            f"is {root.uri!r}, which Bedrock cannot read"
        )
    return Staging(root, environ)


def _chunks(store: Store, info: FileInfo) -> Iterator[bytes]:
    try:
        with store.open(info.path) as source:
            while chunk := source.read(_CHUNK):
                yield chunk
    except StoreError as error:
        found = None if isinstance(error, NotFound) else store.info(info.path)
        if found is None or found.etag != info.etag:
            raise Transient(f"{info.uri!r} was replaced or removed while it was read") from error
        raise
