"""The kinds of values that a job file knows, each with what is allowed in it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Literal, TypeAlias
from zoneinfo import ZoneInfo, available_timezones

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from lowtide.job.interpolation import Interpolated

LONGEST_DURATION = timedelta(days=366)
_DURATION = re.compile(r"(?:[0-9]{1,9}[smhdw])+")
_DURATION_PART = re.compile(r"([0-9]+)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DIGITS = re.compile(r"[-+]?[0-9]{1,18}")
_MONEY = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,12})?")
_JOB_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_OPERATION_NAME = re.compile(r"[a-z0-9_-]{1,63}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}")
_ONE_SLASH = re.compile(r"(file|s3|abfss?|az|azure|wasbs?|adls?|https?):(?!//)", re.IGNORECASE)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_USER = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*@")
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/.*)?", re.DOTALL)
# Bedrock takes no other address for its input and output.
_ROOT_KEY = re.compile(r"(?:/[-!_*'().a-z0-9A-Z]+)*/?")
# https://learn.microsoft.com/azure/storage/blobs/data-lake-storage-introduction-abfs-uri, and adlfs's short form.
BLOB = re.compile(
    r"(?:abfss?|az)://(?P<container>(?=[^/@]{3,63}(?:[/@]|\Z))[a-z0-9](?:-?[a-z0-9])+)"
    r"(?:@(?P<account>[a-z0-9]{3,24})(?:\.(?P<zone>z[0-9]{1,2}))?\.(?:dfs|blob)"
    r"\.(?P<cloud>core\.windows\.net|core\.chinacloudapi\.cn|core\.usgovcloudapi\.net|storage\.azure\.net))?"
    r"(?:/(?P<path>.*))?",
    re.DOTALL,
)
_AZURE = {"abfs", "abfss", "az"}
_AZURE_TOO = {"azure", "wasb", "wasbs", "adl", "adls"}
_AZURE_FORM = "abfs://container@account.dfs.core.windows.net/path"
_CONTAINER = "3 to 63 lower-case letters, digits and single hyphens"
_SIGNATURE = re.compile(r"[?&](?:sig|sv|se|sp)=", re.IGNORECASE)
_NO_ZONE = re.compile(r"localtime|posixrules|Factory|(?:posix|right)/.*", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def expected(what: str, found: str | None = None) -> PydanticCustomError:
    """The error of a value that is not what is allowed; `found` is told in place of the value."""
    # As context, not as the template: pydantic would read braces as places of its own.
    return PydanticCustomError("expected", "{what}", {"what": what, "found": found})


def _version(value: object) -> object:
    # Python takes True and 1.0 for 1.
    if type(value) is not int or value != 1:
        raise expected("1")
    return value


def _not_empty(value: object) -> object:
    # Asked first: pydantic counts only what is valid, and would call a list of one bad entry too short.
    if isinstance(value, list) and not value:
        raise expected("at least one entry")
    return value


def closest(found: str, allowed: Iterable[str]) -> str:
    """What is allowed, with the nearest to what was found in front."""
    names = list(allowed)
    near = difflib.get_close_matches(found, names, n=1, cutoff=0.6)
    listed = ", ".join(names)
    return f"did you mean {near[0]!r}? Allowed: {listed}" if near else f"allowed: {listed}"


def _number(value: object) -> object:
    if isinstance(value, Interpolated) and _DIGITS.fullmatch(value):
        return int(value)
    return value


def _duration(value: object) -> timedelta:
    what = "a duration such as 90s, 60m, 24h or 7d"
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise expected(what)
    try:
        length = sum(
            (timedelta(**{_UNITS[unit]: int(count)}) for count, unit in _DURATION_PART.findall(value)), timedelta()
        )
    except OverflowError:
        length = timedelta.max
    if length > LONGEST_DURATION:
        raise expected(f"a duration of at most {LONGEST_DURATION.days}d")
    return length


def _money(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise expected("an amount in USD such as 25 or 2.50")
    # A float's shortest spelling is what stands in the file; through binary, 0.1 would become 0.1000000000000000055.
    text = format(Decimal(repr(value)), "f") if isinstance(value, float) else str(value)
    if not _MONEY.fullmatch(text):
        raise expected("an amount in USD from 0 up, with at most 15 digits before the point and 12 behind it")
    return Decimal(text)


def _job_name(value: str) -> str:
    if not _JOB_NAME.fullmatch(value):
        raise expected("1 to 63 lower-case letters, digits and hyphens, not a hyphen first (the name stands in paths)")
    return value


def _operation_name(value: str) -> str:
    if not _OPERATION_NAME.fullmatch(value):
        raise expected("1 to 63 lower-case letters, digits, hyphens and underscores")
    return value


def _language(value: str) -> str:
    if not _LANGUAGE.fullmatch(value):
        raise expected("a language code such as en, fr or pt-BR")
    return value


def _one_line(value: str) -> str:
    if not value.strip() or _CONTROL.search(value) or len(value) > 200:
        raise expected("1 to 200 characters on one line")
    return value


def _time_zone(value: str) -> str:
    """An IANA name that is the same zone on every machine: not `localtime`, and none that counts leap seconds."""
    try:
        if _NO_ZONE.fullmatch(value):
            raise KeyError(value)
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        folded = {name.casefold(): name for name in available_timezones()}
        near = difflib.get_close_matches(value.casefold(), folded, n=1, cutoff=0.6)
        hint = f"; did you mean {folded[near[0]]!r}?" if near else ""
        raise expected(f"an IANA time zone such as UTC, Europe/Paris or America/New_York{hint}") from None
    return value


def _text(value: str) -> str:
    if not value.strip():
        raise expected("a text that is not empty")
    return value


def _address(value: str) -> str:
    _text(value)
    if _CONTROL.search(value):
        raise expected("a path or URI without line ends or control characters")
    if start := _ONE_SLASH.match(value):
        raise expected(f"{start[1].lower()}:// with two slashes (./{start[0]}... for a folder of that name)")
    scheme = _SCHEME.match(value)
    name = scheme[1].lower() if scheme else ""
    if name in _AZURE_TOO or (name == "https" and ".blob.core." in value):
        raise expected(f"an Azure address of the form {_AZURE_FORM}")
    if name not in {"", "file", "s3", *_AZURE}:
        raise expected("a path, file://, s3:// or abfs://")
    if name and _SIGNATURE.search(value):
        raise expected("an address without a shared access signature: set AZURE_STORAGE_SAS_TOKEN instead")
    if name in _AZURE:
        if not BLOB.fullmatch(value):
            raise expected(f"{_AZURE_FORM} or abfs://container/path, the container {_CONTAINER}")
    elif _USER.match(value):
        raise expected("an address without user name and password: addresses are written into the results")
    if name == "file" and not value.startswith("file:///"):
        raise expected("file:// with a whole path, such as file:///data/documents")
    if name == "s3" and not _BUCKET.fullmatch(value):
        raise expected("s3://bucket/path, the bucket 3 to 63 lower-case letters, digits, dots and hyphens")
    return value


def _root(value: str) -> str:
    _address(value)
    key = value.removeprefix("s3://").partition("/")
    if value.startswith("s3://") and not _ROOT_KEY.fullmatch(key[1] + key[2]):
        raise expected("s3://bucket/path of letters, digits and -!_*'().  (Bedrock reads no other address)")
    blob = BLOB.fullmatch(value)
    path = (blob["path"] or "").removesuffix("/") if blob else ""
    if path and any(not part or part.endswith(".") or "\\" in part for part in path.split("/")):
        raise expected("abfs://container/path with no part that is empty, ends in a dot or has a backslash")
    if any(sign in value for sign in "*?["):
        raise expected("one folder, not a pattern")
    return value


def _bucket_folder(value: str) -> str:
    if not value.startswith("s3://"):
        raise expected("s3://bucket/folder (Bedrock reads its input there, and writes its output)")
    return _root(value)


def _container_folder(value: str) -> str:
    scheme = _SCHEME.match(value)
    if not scheme or scheme[1] not in _AZURE:
        raise expected(f"{_AZURE_FORM}, or abfs://container/path")
    return _root(value)


def _labels(value: object) -> object:
    what = "a mapping of label to description, or a list of labels; at least 2"
    if isinstance(value, list):
        for label in value:
            if not isinstance(label, str):
                raise expected(f"{what}, each of them text (quote numbers, true and false)")
        if len(set(value)) != len(value):
            raise expected(f"{what}, no label twice")
        labels: Mapping[str, object] = dict.fromkeys(value, "")
    elif isinstance(value, Mapping):
        labels = {label: "" if meaning is None else meaning for label, meaning in value.items()}
    else:
        raise expected(what)
    if len(labels) < 2:
        raise expected(what)
    if len(labels) > 200:
        raise expected("at most 200 labels")
    # Answers are matched without regard to case and space, so labels must differ in more.
    if len({" ".join(label.split()).casefold() for label in labels}) != len(labels):
        raise expected("labels that differ in more than capitals and spaces")
    return labels


def _path_or_schema(value: object) -> object:
    if not (isinstance(value, Mapping) or (isinstance(value, str) and value.strip())):
        raise expected("the path of a JSON Schema file, or a JSON Schema as a mapping")
    return orjson.loads(orjson.dumps(value)) if isinstance(value, Mapping) else value


def at_least(shortest: timedelta, text: str) -> AfterValidator:
    """A duration's lower bound, inclusive."""

    def check(value: timedelta) -> timedelta:
        if value < shortest:
            raise expected(f"a duration of at least {text}")
        return value

    return AfterValidator(check)


# Bounds stand before it, so that they are checked behind it: Annotated[int, Field(ge=1), FROM_TEXT].
FROM_TEXT = BeforeValidator(_number)
Duration: TypeAlias = Annotated[
    timedelta,
    BeforeValidator(_duration),
    WithJsonSchema(
        {"type": "string", "pattern": r"^([0-9]{1,9}[smhdw])+$|\$\{", "examples": ["90s", "60m", "24h", "7d"]}
    ),
]
Money: TypeAlias = Annotated[
    Decimal,
    BeforeValidator(_money),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^[0-9]|\$\{"}]}),
]
NOT_EMPTY = BeforeValidator(_not_empty)
Version: TypeAlias = Annotated[Literal[1], BeforeValidator(_version)]
JobName: TypeAlias = Annotated[
    str, AfterValidator(_job_name), WithJsonSchema({"type": "string", "pattern": r"^[a-z0-9][a-z0-9-]{0,62}$|\$\{"})
]
OperationName: TypeAlias = Annotated[
    str, AfterValidator(_operation_name), WithJsonSchema({"type": "string", "pattern": r"^[a-z0-9_-]{1,63}$|\$\{"})
]
Language: TypeAlias = Annotated[str, AfterValidator(_language), Field(examples=["en", "fr", "pt-BR"])]
Text: TypeAlias = Annotated[str, AfterValidator(_text), Field(json_schema_extra={"minLength": 1})]
TimeZone: TypeAlias = Annotated[str, AfterValidator(_time_zone)]
OneLine: TypeAlias = Annotated[str, AfterValidator(_one_line)]
Address: TypeAlias = Annotated[str, AfterValidator(_address)]
Root: TypeAlias = Annotated[str, AfterValidator(_root)]
BucketFolder: TypeAlias = Annotated[str, AfterValidator(_bucket_folder)]
ContainerFolder: TypeAlias = Annotated[str, AfterValidator(_container_folder)]
Labels: TypeAlias = Annotated[
    dict[OneLine, str],
    BeforeValidator(_labels),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "object", "minProperties": 2, "additionalProperties": {"type": ["string", "null"]}},
                {"type": "array", "minItems": 2, "uniqueItems": True, "items": {"type": "string"}},
            ]
        }
    ),
]
SchemaSource: TypeAlias = Annotated[
    str | dict[str, object],
    BeforeValidator(_path_or_schema),
    WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, {"type": "object"}]}),
]
