"""The job file as typed, frozen records. The names of the fields are the keys of the file: a contract with its users.

Descriptions go into the JSON Schema that editors show, and into the errors that name a missing key.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeAlias
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field

from lowtide import calendars, windows
from lowtide.calendars import Calendar, Every
from lowtide.errors import ConfigError
from lowtide.job import values
from lowtide.job.backends import BACKENDS, LATER_BACKENDS, BackendSpec
from lowtide.job.problems import shown
from lowtide.job.section import Section

Format = Literal["auto", "text", "markdown", "html", "pdf", "docx", "eml", "jsonl", "csv", "parquet"]
ROW_FORMATS = ("jsonl", "csv", "parquet")


def _window_by(value: str) -> str:
    try:
        windows.split_window_by(value)
    except ConfigError as error:
        # The reader of the file says what was found; what is allowed stands behind it.
        raise values.expected(str(error).partition("; ")[2].removeprefix("expected ")) from None
    return value


class Source(Section):
    """Which documents the job reads."""

    uri: values.Address = Field(
        description="Where the documents are: a path, file://, s3:// or abfs:// address, with * and ** if there are "
        "many. A relative path begins at the job file's folder."
    )
    format: Format = Field(default="auto", description="What the files hold; auto goes by each file's name.")
    text: values.Text | None = Field(
        default=None, description="For jsonl, csv and parquet: the field with the document's text."
    )
    id: values.Text | None = Field(
        default=None, description="For jsonl, csv and parquet: the field with the row's own key."
    )
    fields: Annotated[tuple[values.OneLine, ...], Field(strict=False)] = Field(
        default=(), description="Fields that are carried into the results and may be used in prompts."
    )
    window_by: Annotated[str, AfterValidator(_window_by)] = Field(
        default="modified",
        description="What tells the window of a document: modified, path:<pattern with {year} {month} {day} {hour} "
        "{week}>, or field:<name>.",
        examples=["modified", "path:{year}/{month}/{day}/", "field:created_at"],
    )


class _Operation(Section):
    name: values.OperationName = Field(description="The operation's name in the results, unique in the job.")
    max_output_tokens: Annotated[int, Field(ge=1, le=200_000), values.FROM_TEXT] | None = Field(
        default=None, description="The longest answer, in tokens. By default, what the kind needs."
    )


class _BuiltIn(_Operation):
    instructions: values.Text | None = Field(default=None, description="A sentence or more that is added to the task.")


class Summarize(_BuiltIn):
    """A summary in plain sentences."""

    kind: Literal["summarize"] = "summarize"
    name: values.OperationName = Field(default="summarize", description="The operation's name in the results.")
    words: Annotated[int, Field(ge=1, le=5_000), values.FROM_TEXT] = Field(
        default=60, description="About how long the summary may be, in words."
    )
    language: values.Language | None = Field(
        default=None, description="The summary's language, as a code such as en. By default, the document's own."
    )


class Classify(_BuiltIn):
    """One label out of a list."""

    kind: Literal["classify"] = "classify"
    name: values.OperationName = Field(default="classify", description="The operation's name in the results.")
    labels: values.Labels = Field(
        description="At least 2 labels: a mapping of label to what it means, or a list of labels."
    )


class Translate(_BuiltIn):
    """The whole document in another language."""

    kind: Literal["translate"] = "translate"
    name: values.OperationName = Field(default="translate", description="The operation's name in the results.")
    to: values.Language = Field(description="The language to translate into, as a code such as fr or pt-BR.")


class Extract(_BuiltIn):
    """Facts from the document, in the shape of a JSON Schema."""

    kind: Literal["extract"] = "extract"
    name: values.OperationName = Field(default="extract", description="The operation's name in the results.")
    json_schema: values.SchemaSource = Field(
        alias="schema",
        description="The answer's JSON Schema: a file, relative to the job file's folder, or the schema itself.",
    )


class Prompt(_Operation):
    """The user's own prompt."""

    kind: Literal["prompt"] = "prompt"
    name: values.OperationName = Field(default="prompt", description="The operation's name in the results.")
    system: values.Text | None = Field(
        default=None, description="The system prompt: plain text, the same for each document."
    )
    user: values.Text = Field(
        description="The prompt, with {{ text }} where the document goes and {{ name }} for one of source.fields."
    )
    json_schema: values.SchemaSource | None = Field(
        default=None, alias="schema", description="The answer's JSON Schema, as for extract. By default, plain text."
    )


OperationSpec: TypeAlias = Summarize | Classify | Translate | Extract | Prompt


class Budget(Section):
    """Caps on what may be spent. What would pass one is not submitted."""

    run_usd: values.Money | None = Field(default=None, description="The most that one run may cost, in USD.")
    month_usd: values.Money | None = Field(
        default=None, description="The most that this job's runs may cost in a calendar month (UTC), in USD."
    )
    approve_above_usd: values.Money | None = Field(
        default=None,
        description="A run whose plan costs more than this, in USD, waits for `lowtide approve`.",
    )


def _every(value: str) -> str:
    try:
        return str(calendars.parse_every(value))
    except ConfigError as error:
        raise values.expected(str(error).partition("; ")[2].removeprefix("expected ")) from None


class Schedule(Section):
    """Which windows the job goes through by itself, and when it starts their runs. Times are those of `timezone`."""

    every: Annotated[str, AfterValidator(_every)] = Field(
        default="week",
        description=f"How long the windows are: {calendars.EVERY}.",
        examples=["hour", "day", "week", "month", "year", "10d", "2w"],
    )
    at: values.OneLine | None = Field(
        default=None,
        description="When a run starts: 18:00 for day, fri 18:00 for week, 1 06:00 for month, 01-15 06:00 for year, "
        ":15 for hour. By default, shortly after the window ends.",
        examples=["fri 18:00"],
    )
    cron: values.OneLine | None = Field(
        default=None, description="When a run starts, as a crontab line of five fields, in place of at."
    )
    lateness: values.Duration = Field(
        default=timedelta(0),
        description="How long after its end a window is looked at again for documents that came late.",
    )

    @property
    def length(self) -> Every:
        """How long the windows are."""
        return calendars.parse_every(self.every)


class JobLimits(Section):
    """How hard the job tries, and in what portions."""

    attempts: Annotated[int, Field(ge=1, le=10), values.FROM_TEXT] = Field(
        default=3, description="How often a document is tried."
    )
    shard_records: Annotated[int, Field(ge=1, le=10_000_000), values.FROM_TEXT] = Field(
        default=10_000, description="The most requests in one batch; a backend's own limit counts too."
    )
    poll: Annotated[values.Duration, values.at_least(timedelta(seconds=1), "1s")] = Field(
        default=timedelta(seconds=60), description="How long to wait between two looks at an open batch."
    )
    grace: values.Duration = Field(
        default=timedelta(seconds=120),
        description="How long a batch whose submission was not confirmed is looked for before it is sent again.",
    )


class OutputSpec(Section):
    """Where the results go."""

    root: values.Root = Field(
        description="The folder for tables, ledger and the state of runs: a path, file://, s3:// or abfs:// address. "
        "A relative path begins at the job file's folder."
    )
    tags: dict[values.OneLine, str] = Field(
        default_factory=dict, max_length=50, description="Names and values that are copied into the cost ledger."
    )


OPERATIONS: Mapping[str, type[_Operation]] = {
    "summarize": Summarize,
    "classify": Classify,
    "translate": Translate,
    "extract": Extract,
    "prompt": Prompt,
}


def _single_key(what: str, kinds: Mapping[str, object], example: str) -> BeforeValidator:
    """Reads `{kind: {options}}` as options with a kind, so that the union is told apart by it."""

    def flatten(value: object) -> object:
        if not isinstance(value, Mapping) or len(value) != 1:
            raise values.expected(f"one {what} as a mapping with a single key, such as {example}")
        [(kind, options)] = value.items()
        if kind in LATER_BACKENDS and kinds is BACKENDS:
            raise values.expected(f"one of: {', '.join(kinds)} ({kind} is not available in this version)", shown(kind))
        if kind not in kinds:
            raise values.expected(f"a known {what}; {values.closest(kind, kinds)}", shown(kind))
        if options is not None and not isinstance(options, Mapping):
            raise values.expected(f"options of {kind} as a mapping, such as {example}", shown(options))
        # A key `kind` of the user's own must stay an unknown key.
        if options and "kind" in options:
            raise values.expected(f"options of {kind} without it", "the key 'kind'")
        return {**(options or {}), "kind": kind}

    return BeforeValidator(flatten)


OperationEntry: TypeAlias = Annotated[
    Annotated[OperationSpec, Field(discriminator="kind")],
    _single_key("operation", OPERATIONS, "summarize: {words: 60}"),
]
BackendEntry: TypeAlias = Annotated[
    Annotated[BackendSpec, Field(discriminator="kind")], _single_key("backend", BACKENDS, "local: {}")
]


class JobFile(Section):
    """A Lowtide job: what to read, what to ask about it, where to have it answered, and where to write."""

    version: values.Version = Field(description="The version of this format.")
    name: values.JobName = Field(description="The job's name: lower-case letters, digits and hyphens. Stands in paths.")
    source: Source
    timezone: values.TimeZone = Field(
        default="UTC",
        description="The IANA time zone whose midnights windows begin and end at, and whose times schedule names.",
        examples=["UTC", "Europe/Paris"],
    )
    schedule: Schedule = Field(default_factory=Schedule)
    operations: Annotated[tuple[OperationEntry, ...], Field(strict=False), values.NOT_EMPTY] = Field(
        json_schema_extra={"minItems": 1},
        description="What is asked about each document: one result row per document and operation.",
    )
    backends: Annotated[tuple[BackendEntry, ...], Field(strict=False), values.NOT_EMPTY] = Field(
        json_schema_extra={"minItems": 1}, description="Where requests may be answered."
    )
    deadline: Annotated[values.Duration, values.at_least(timedelta(seconds=1), "1s")] = Field(
        default=timedelta(hours=24), description="How long a run may take."
    )
    budget: Budget = Field(default_factory=Budget)
    limits: JobLimits = Field(default_factory=JobLimits)
    output: OutputSpec


class Job(JobFile):
    """A job file that was read. `file` is its path, `base` its folder; `source.uri` and `output.root` are absolute."""

    base: Path
    file: Path

    @property
    def zone(self) -> ZoneInfo:
        """The time zone that the job's windows and times are in."""
        return ZoneInfo(self.timezone)

    @property
    def calendar(self) -> Calendar:
        """The windows that the job goes through."""
        return Calendar(self.schedule.length, self.zone, self.schedule.lateness)
