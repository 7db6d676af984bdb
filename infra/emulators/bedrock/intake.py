"""The validation of a job's input: files, sizes, records and their JSON, but never what a record asks of a model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from lowtide.emulators.bedrock.jobs import Job
from lowtide.emulators.bedrock.settings import Settings
from lowtide.emulators.bedrock.storage import Input, Storage

_GB = 1_000_000_000
_LOOK_EVERY = 5000


class BadInput(ValueError):
    """Why the job fails in validation; the message is the job's. The providers' own texts are not known."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One input file that was found good, as a copy on disk."""

    path: Path
    name: str
    records: int


def take_in(job: Job, settings: Settings, storage: Storage, folder: Path, halt: threading.Event) -> list[Taken]:
    """Copy the job's input to `folder` and check it. Raises BadInput, NoAccess. Ends early once `halt` is set."""
    quotas, model = settings.quotas, job.named.model
    uri = job.request["inputDataConfig"]["s3InputDataConfig"]["s3Uri"]
    files = _jsonl(storage.inputs(uri))
    job_bytes = quotas.job_bytes if quotas.job_bytes is not None else model.job_gb * _GB
    for file in files:
        if file.size > quotas.file_bytes:
            raise BadInput(f"The input file {file.name} has {file.size} bytes; the quota is {quotas.file_bytes}.")
    size = sum(file.size for file in files)
    if size > job_bytes:
        raise BadInput(f"The input of the job has {size} bytes; the quota is {job_bytes}.")
    taken = []
    for number, file in enumerate(files):
        path = folder / f"{number}.in"
        storage.fetch(file.place, path)
        count = _checked(path, file.name, halt)
        if count > quotas.records_per_file:
            raise BadInput(f"The input file {file.name} has {count} records; the quota is {quotas.records_per_file}.")
        taken.append(Taken(path, file.name, count))
    total = sum(file.records for file in taken)
    least = model.minimum if quotas.minimum_records is None else quotas.minimum_records
    if total < least:
        raise BadInput(f"The job has {total} records; the minimum for {model.title} is {least}.")
    if total > quotas.records_per_job:
        raise BadInput(f"The job has {total} records; the quota is {quotas.records_per_job}.")
    return taken


def records(path: Path) -> Iterator[Mapping[str, Any]]:
    """The records of a file that was found good, one after the other."""
    with path.open("rb") as file:
        for line in file:
            if not line.isspace():
                yield orjson.loads(line)


def _jsonl(files: list[Input]) -> list[Input]:
    if not files:
        raise BadInput("The input location holds no file.")
    kept = [file for file in files if file.name.endswith(".jsonl")]
    if not kept:
        raise BadInput("The input location holds no file whose name ends in .jsonl.")
    return kept


def _checked(path: Path, name: str, halt: threading.Event) -> int:
    count = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number % _LOOK_EVERY == 0 and halt.is_set():
                break
            if line.isspace():
                continue
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError:
                raise BadInput(f"Line {number} of {name} is not valid JSON.") from None
            if not isinstance(record, dict) or not isinstance(record.get("modelInput"), dict):
                raise BadInput(f"Line {number} of {name} has no modelInput object.")
            if not isinstance(record.get("recordId") or "", str):
                raise BadInput(f"Line {number} of {name} has a recordId that is no string.")
            count += 1
    return count
