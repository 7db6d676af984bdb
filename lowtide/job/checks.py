"""What no single value of a job file can tell: names that clash, slots without a field, files that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lowtide.errors import ConfigError
from lowtide.job import times
from lowtide.job.backends import SpotBackend
from lowtide.job.model import ROW_FORMATS, JobFile, Prompt
from lowtide.job.problems import FieldPath, shown
from lowtide.job.spot_checks import check_spot
from lowtide.operations.schemas import load_schema
from lowtide.operations.template import Template

# The results contract, and the two names that stand in the path. Additive only, as the contract is.
RESULT_COLUMNS = frozenset(
    (
        "job",
        "window",
        "run_id",
        "window_start",
        "window_end",
        "document_id",
        "document_uri",
        "document_modified",
        "operation",
        "operation_kind",
        "operation_version",
        "status",
        "status_reason",
        "output_text",
        "output",
        "label",
        "confidence",
        "language",
        "model",
        "backend",
        "input_tokens",
        "output_tokens",
        "cached_tokens",
        "cost_usd",
        "cost_usd_float",
        "cost_if_realtime_usd",
        "cached",
        "attempts",
        "requested_at",
        "answered_at",
        "content_sha256",
    )
)
_SLOTS = ("text", "marker")
_ROW_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet")
_COMPRESSED = (".gz", ".zst", ".bz2")

Finding = tuple[FieldPath, str]


def check_job(job: JobFile, base: Path) -> Iterator[Finding]:
    """Everything that is wrong, each with the field to blame. `base` is the folder that schema files start from."""
    yield from _check_source(job)
    yield from _check_schedule(job)
    yield from _check_fields(job)
    yield from _check_names(job)
    for number, backend in enumerate(job.backends):
        if isinstance(backend, SpotBackend):
            for key, message in check_spot(backend):
                yield ("backends", number, backend.kind, *key), message
    for number, operation in enumerate(job.operations):
        path: FieldPath = ("operations", number, operation.kind)
        if isinstance(operation, Prompt):
            yield from _check_prompt(operation, job.source.fields, path)
        source = getattr(operation, "json_schema", None)
        if source is not None:
            try:
                load_schema(source, base)
            except ConfigError as error:
                yield (*path, "schema"), str(error)


def _check_source(job: JobFile) -> Iterator[Finding]:
    source = job.source
    if source.text is None and reads_rows(source.format, source.uri):
        why = "the ending of uri" if source.format == "auto" else f"format {source.format}"
        yield ("source", "text"), f"missing, though {why} means rows; expected the name of the field with the text"
    if source.window_by.startswith("field:") and source.format not in ("auto", *ROW_FORMATS):
        yield (
            ("source", "window_by"),
            f"found {shown(source.window_by)}, but {source.format} files have no fields; expected modified or "
            f"path:<pattern>, or one of the formats {', '.join(ROW_FORMATS)}",
        )


def _check_schedule(job: JobFile) -> Iterator[Finding]:
    at, cron = job.schedule.at, job.schedule.cron
    if at is not None and cron is not None:
        yield ("schedule", "cron"), f"found {shown(cron)} beside at: {shown(at)}; expected one of the two, or neither"
    try:
        if at is not None:
            times.parse_at(at, job.schedule.length)
    except ConfigError as error:
        yield ("schedule", "at"), str(error)
    try:
        if cron is not None:
            times.check_cron(cron)
    except ConfigError as error:
        yield ("schedule", "cron"), str(error)


def reads_rows(format_: str, uri: str) -> bool:
    """Whether a source's files hold many documents each, as far as its format and address say."""
    name = uri.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return format_ in ROW_FORMATS or (format_ == "auto" and name.endswith(_ROW_SUFFIXES))


def _check_fields(job: JobFile) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for number, name in enumerate(job.source.fields):
        path: FieldPath = ("source", "fields", number)
        # Athena and DuckDB do not tell capitals from small letters in the name of a column.
        folded = name.casefold()
        if folded in RESULT_COLUMNS:
            yield path, f"found {shown(name)}, which is a column of the results; expected any other name"
        elif folded in _SLOTS:
            yield path, f"found {shown(name)}, which means the document in prompts; expected any other name"
        elif folded in seen:
            yield (
                path,
                f"found {shown(name)} beside {shown(seen[folded])}; expected names that differ in more than capitals",
            )
        seen.setdefault(folded, name)


def _check_names(job: JobFile) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for number, operation in enumerate(job.operations):
        if operation.name in first:
            yield (
                ("operations", number, operation.kind, "name"),
                f"found {shown(operation.name)}, which operations[{first[operation.name]}] is called too; "
                "expected a name: of its own for each",
            )
        first.setdefault(operation.name, number)
    kinds: dict[str, int] = {}
    for number, backend in enumerate(job.backends):
        if backend.kind in kinds:
            yield (
                ("backends", number, backend.kind),
                f"found a second {backend.kind} backend (first: backends[{kinds[backend.kind]}]); expected one of each",
            )
        kinds.setdefault(backend.kind, number)


def _check_prompt(prompt: Prompt, fields: tuple[str, ...], path: FieldPath) -> Iterator[Finding]:
    allowed = ("text", *(name for name in fields if name.isidentifier()))
    try:
        slots = Template.parse(prompt.user).slots
    except ConfigError as error:
        yield (*path, "user"), str(error)
        return
    if "text" not in slots:
        yield (
            (*path, "user"),
            "found a prompt without the document; expected {{ text }} in it",
        )
    for slot in dict.fromkeys(slots):
        if slot not in allowed:
            yield (
                (*path, "user"),
                f"found the slot {{{{ {slot} }}}}; allowed: {', '.join(allowed)} (text, and what source.fields names)",
            )
    if "{{" in (prompt.system or ""):
        try:
            has_slots = bool(Template.parse(prompt.system or "").slots)
        except ConfigError:
            has_slots = True
        if has_slots:
            yield (
                (*path, "system"),
                "found a slot; expected plain text, the same for every document: slots belong into user",
            )
