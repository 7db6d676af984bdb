"""The file that a price book is kept in, and everything that may be wrong with it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Annotated, Final, Literal, TypeAlias, get_args

import msgspec

VERSION: Final = 1
Provider: TypeAlias = Literal["aws", "azure", "openai"]
Mode: TypeAlias = Literal["batch", "on_demand", "provisioned", "spot"]
TokenType: TypeAlias = Literal["input", "cached_input", "cache_write", "output", "reasoning", "compute_second"]

PROVIDERS: tuple[Provider, ...] = get_args(Provider)
MODES: tuple[Mode, ...] = get_args(Mode)
TOKEN_TYPES: tuple[TokenType, ...] = get_args(TokenType)

USD_PATTERN: Final = r"\A[0-9]{1,9}(\.[0-9]{1,12})?\Z"
"""What the ledger can hold exactly: zero or more, in steps of 1e-12 USD."""

Key: TypeAlias = tuple[str, str, str, str, str]
"""Provider, model, region, mode, token type."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one unit of a token type costs, in USD, from `valid_from` on and before `valid_to` (days in UTC).

    `region` is "" for every region. `source` says where the number comes from.
    """

    provider: Provider
    model: Annotated[str, msgspec.Meta(min_length=1)]
    region: str
    mode: Mode
    token_type: TokenType
    usd: Annotated[str, msgspec.Meta(pattern=USD_PATTERN)]
    valid_from: date
    source: Annotated[str, msgspec.Meta(min_length=1)]
    valid_to: date | None = None

    @property
    def key(self) -> Key:
        """What it is the price of."""
        return (self.provider, self.model, self.region, self.mode, self.token_type)

    @property
    def price(self) -> Decimal:
        """USD for one unit."""
        return Decimal(self.usd)

    def holds(self, at: date) -> bool:
        """Whether this is the price on that day."""
        return self.valid_from <= at and (self.valid_to is None or at < self.valid_to)


class BookFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    version: Literal[1]
    made: date
    sources: tuple[str, ...]
    entries: tuple[Entry, ...]


def usd(price: Decimal) -> str | None:
    """A price as the file has it, without an exponent or zeros at its end; None if the file cannot hold it."""
    text = f"{price:f}"
    text = (text.rstrip("0").rstrip(".") or "0") if "." in text else text
    return text if re.match(USD_PATTERN, text) else None


def encode(made: date, sources: Sequence[str], entries: Iterable[Entry]) -> bytes:
    """The file: an entry on each line, in a fixed order, so that two books can be compared line by line."""
    head = msgspec.json.encode({"version": VERSION, "made": made, "sources": sources})
    return head[:-1] + b',"entries":[\n' + encode_entries(entries) + b"\n]}\n"


def encode_entries(entries: Iterable[Entry]) -> bytes:
    """The lines of the file that hold the prices."""
    ordered = sorted(entries, key=lambda each: (each.key, each.valid_from))
    return b",\n".join(msgspec.json.encode(each) for each in ordered)


_DECODER = msgspec.json.Decoder(BookFile)


def decode(data: bytes) -> BookFile:
    """Read the file. Raises msgspec.DecodeError for what `problems` puts into words; overlaps are not looked for."""
    return _DECODER.decode(data)


def clashes(entries: Iterable[tuple[int, Entry]]) -> Iterator[tuple[int, Entry, str]]:
    """Entries, with their numbers, that never hold, or hold on days when an entry before them does."""
    known: defaultdict[Key, list[tuple[int, Entry]]] = defaultdict(list)
    for number, entry in entries:
        if entry.valid_to is not None and entry.valid_to <= entry.valid_from:
            yield number, entry, f"valid_to: found {entry.valid_to}, which is not after valid_from {entry.valid_from}"
            continue
        for earlier, other in known[entry.key]:
            if (other.valid_to is None or entry.valid_from < other.valid_to) and (
                entry.valid_to is None or other.valid_from < entry.valid_to
            ):
                what = f"valid_from: found {entry.valid_from}, when entry {earlier} for the same holds as well"
                yield number, entry, f"{what}: end it with valid_to, or remove one"
                break
        known[entry.key].append((number, entry))


def problems(data: bytes, name: str) -> list[str]:
    """Everything that is wrong with a file, a line each: the file, the entry's number, the field, what was found."""
    try:
        raw = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        return [f"{name}: is no JSON: {error}"]
    if not isinstance(raw, dict):
        return [f"{name}: found {_shown(raw)}, where a price book is an object with version, made, sources and entries"]
    found = list(_wrong_fields(raw, _FILE_FIELDS, optional=()))
    entries = raw.get("entries")
    whole: list[tuple[int, Entry]] = []
    for number, each in enumerate(entries if isinstance(entries, list) else [], start=1):
        wrong = list(_wrong_entry(each))
        found += [f"entry {number}{_title(each)}: {what}" for what in wrong]
        if not wrong:
            whole.append((number, msgspec.convert(each, Entry)))
    found += [f"entry {number} ({entry.model}): {what}" for number, entry, what in clashes(whole)]
    return [f"{name}: {what}" for what in found]


def _wrong_entry(raw: object) -> Iterator[str]:
    if not isinstance(raw, dict):
        yield f"found {_shown(raw)}, where an entry is an object"
        return
    yield from _wrong_fields(raw, _ENTRY_FIELDS, optional=("valid_to",))


_Check: TypeAlias = tuple[Callable[[object], bool], str]


def _wrong_fields(raw: Mapping[str, object], fields: Mapping[str, _Check], optional: Sequence[str]) -> Iterator[str]:
    for field, (fits, wanted) in fields.items():
        if field not in raw:
            if field not in optional:
                yield f"{field}: missing; it is {wanted}"
        elif not fits(raw[field]):
            yield f"{field}: found {_shown(raw[field])}; it is {wanted}"
    for field in raw.keys() - fields.keys():
        yield f"{field}: is no field of a price book: remove it"


def _title(raw: object) -> str:
    """Whose price it is, as far as it says."""
    model = raw.get("model") if isinstance(raw, dict) else None
    return f" ({model})" if isinstance(model, str) and model else ""


def _shown(value: object, longest: int = 60) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= longest else f"{text[:longest]}…"


def _one_of(words: Sequence[str]) -> _Check:
    return (lambda value: value in words, f"one of {', '.join(words)}")


def _is_day(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(msgspec.convert(value, date))
    except msgspec.ValidationError:
        return False


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


_TEXT: _Check = (_is_text, "a text that is not empty")
_DAY: _Check = (_is_day, 'a day, such as "2026-11-21"')
_FILE_FIELDS: Mapping[str, _Check] = {
    "version": (lambda value: value == VERSION and type(value) is int, "1"),
    "made": _DAY,
    "sources": (
        lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
        "a list of texts",
    ),
    "entries": (lambda value: isinstance(value, list), "a list of entries"),
}
_ENTRY_FIELDS: Mapping[str, _Check] = {
    "provider": _one_of(PROVIDERS),
    "model": _TEXT,
    "region": (lambda value: isinstance(value, str), 'a region, or "" for every region'),
    "mode": _one_of(MODES),
    "token_type": _one_of(TOKEN_TYPES),
    "usd": (
        lambda value: isinstance(value, str) and re.match(USD_PATTERN, value) is not None,
        'a text such as "0.00000015": USD for one unit, zero or more, in steps of 0.000000000001',
    ),
    "valid_from": _DAY,
    "valid_to": (
        lambda value: value is None or _is_day(value),
        "a day, the first on which the price no longer holds, or null",
    ),
    "source": _TEXT,
}
