"""Prices from litellm's model_prices_and_context_window JSON, as a file or in litellm's wheel.

The file states batch prices in fields of their own. Where one is missing litellm's code takes half of the price on
demand; that is a guess, and is not made here. Rows are for every region unless their key names one. Models of Bedrock
have a price for each region, and are taken only where the key or the row's source names it; geographic inference
profiles count for their geography.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from io import BytesIO
from zipfile import BadZipFile, ZipFile

from lowtide.connectors.prices import reasons
from lowtide.connectors.prices.documents import document, fingerprint, rows, text
from lowtide.connectors.prices.imported import Imported, Skipped, Stated, collected
from lowtide.errors import ConfigError
from lowtide.prices.entries import Mode, Provider, TokenType
from lowtide.prices.lookup import GEOGRAPHIES

_PROVIDERS: dict[str, Provider] = {"openai": "openai", "azure": "azure", "bedrock": "aws", "bedrock_converse": "aws"}
_MODES = ("chat", "responses")
_TOKENS: dict[str, TokenType] = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cached_input",
    "cache_creation_input_token_cost": "cache_write",
    "output_cost_per_reasoning_token": "reasoning",
}
_FIELDS: dict[str, tuple[Mode, TokenType]] = {
    **{field: ("on_demand", kind) for field, kind in _TOKENS.items()},
    **{f"{field}_batches": ("batch", kind) for field, kind in _TOKENS.items()},
}
_BATCH_FIELDS = {field for field, (mode, _) in _FIELDS.items() if mode == "batch"}
_PROFILES = GEOGRAPHIES | {"global"}
_LONG_PROMPTS = re.compile(r"(?:input|output)_cost_per_token_above_(\d+k)_tokens")
_AZURE_PLACES = {"global": "global", "global-standard": "global"} | {
    zone: zone for zone in ("us", "eu", "apac", "us-gov")
}
_AWS_REGION = re.compile(r"[a-z]{2}(-gov)?-[a-z]+-\d")
_SOURCE_REGION = re.compile(rf"/current/({_AWS_REGION.pattern})/index\.json")
_BEDROCK_ID = re.compile(r"[a-z0-9-]+\.[A-Za-z0-9.:-]+")
_WHEEL = re.compile(r"litellm-([^-]+)-.*\.whl")


@dataclass(frozen=True)
class _Place:
    """Whose price a row is. `stated_for` is the one region that a geographic profile's price was read in."""

    provider: Provider
    model: str
    region: str
    stated_for: str = ""

    @property
    def base(self) -> tuple[str, str]:
        """The model, whatever profile it is called by."""
        first, _, rest = self.model.partition(".")
        return (self.provider, rest if self.provider == "aws" and first in _PROFILES else self.model)


def read_litellm(
    data: bytes, name: str, *, made: date, providers: Iterable[Provider] = (), batched: bool = False
) -> Imported:
    """Read the file, or the one in a wheel, whose name gives the version. Prices are valid from `made`.

    `providers` and `batched` (only models that have a batch price, in some region or profile) keep the book small.
    Raises ConfigError for a file that is something else.
    """
    found, source = _rows(data, name)
    wanted = set(providers) or set(_PROVIDERS.values())
    skipped: list[Skipped] = []
    places: dict[str, _Place] = {}
    for key, row in found.items():
        provider = _PROVIDERS.get(text(row, "litellm_provider"))
        if provider not in wanted or text(row, "mode") not in _MODES:
            continue
        place = _place(provider, key, text(row, "source"))
        if isinstance(place, str):
            skipped.append(Skipped(place, key))
        else:
            places[key] = place
    if batched:
        in_batches = {place.base for key, place in places.items() if _BATCH_FIELDS & found[key].keys()}
        places = {key: place for key, place in places.items() if place.base in in_batches}
    stated: list[Stated] = []
    for key, place in places.items():
        stated += _prices(place, found[key], f"{source.split(',')[0]} {key}", made)
        skipped += _other_costs(key, found[key])
    return collected(source, stated, skipped)


def _rows(data: bytes, name: str) -> tuple[dict[str, dict[str, object]], str]:
    wheel = _WHEEL.fullmatch(name.rpartition("/")[2])
    if data.startswith(b"PK"):
        member, data = _member(data, name)
    else:
        member = name.rpartition("/")[2]
    found = rows(document(data, name))
    if not any("litellm_provider" in row for row in found.values()):
        raise ConfigError(f"{name}: is not litellm's price file: no row has litellm_provider")
    version = f" {wheel[1]}" if wheel else ""
    return found, f"litellm{version}, {member}, {fingerprint(data)}"


def _member(data: bytes, name: str) -> tuple[str, bytes]:
    try:
        with ZipFile(BytesIO(data)) as archive:
            for member in archive.namelist():
                if re.fullmatch(r"(litellm/)?model_prices_and_context_window(_backup)?\.json", member):
                    return member.rpartition("/")[2], archive.read(member)
    except BadZipFile as error:
        raise ConfigError(f"{name}: is no wheel: {error}") from None
    raise ConfigError(f"{name}: holds no model_prices_and_context_window JSON: is it litellm's wheel?")


def _place(provider: Provider, key: str, source: str) -> _Place | str:
    """Whose price it is, or why that cannot be told."""
    if provider == "aws":
        return _bedrock(key, source)
    if provider == "openai":
        return _Place(provider, key, "") if "/" not in key else "the key is not the name of a model"
    named = key.removeprefix("azure/").split("/")
    if len(named) == 1:
        return _Place(provider, named[0], "")
    if len(named) == 2 and named[0] in _AZURE_PLACES:
        return _Place(provider, named[1], _AZURE_PLACES[named[0]])
    return "the key names no place that is known"


def _bedrock(key: str, source: str) -> _Place | str:
    place, _, model = key.removeprefix("bedrock/").rpartition("/")
    if not _BEDROCK_ID.fullmatch(model):
        return "the key is not the id of a Bedrock model"
    if place:
        return _Place("aws", model, place) if _AWS_REGION.fullmatch(place) else "the key names no region"
    named = _SOURCE_REGION.search(source)
    profile = model.partition(".")[0]
    if profile in GEOGRAPHIES or (profile == "global" and not named):
        return _Place("aws", model, "", named[1] if named else "")
    # AWS charges a global profile by the region that it is called from, so the price of one region is not for others.
    return _Place("aws", model, named[1]) if named else "neither the key nor the source names the region"


def _prices(place: _Place, row: dict[str, object], source: str, made: date) -> Iterator[Stated]:
    source += f", stated for {place.stated_for}" if place.stated_for else ""
    limits = sorted({found[1] for field in row if (found := _LONG_PROMPTS.match(field))})
    if limits:
        source += f", prompts up to {limits[0]} tokens"
    for field, (mode, kind) in _FIELDS.items():
        price = row.get(field)
        if isinstance(price, Decimal):
            yield Stated(place.provider, place.model, place.region, mode, kind, price, made, source)


def _other_costs(key: str, row: dict[str, object]) -> Iterator[Skipped]:
    """Costs that the book has no place for, and those that are no number."""
    for field, value in row.items():
        if field in _FIELDS:
            if not isinstance(value, Decimal):
                yield Skipped("is no number", f"{key} {field}")
        elif "cost" in field:
            yield Skipped(_why_not(field), f"{key} {field}")


def _why_not(field: str) -> str:
    for pattern, why in _UNKNOWN_COSTS:
        if re.search(pattern, field):
            return why
    return reasons.NOT_UNDERSTOOD


_UNKNOWN_COSTS = (
    (r"_(flex|priority|ultrafast|decisions)$", reasons.OTHER_TIER),
    (r"_above_\d+k_tokens", reasons.LONG_PROMPTS),
    (r"_above_\d+hr", reasons.KEPT_LONGER),
    (r"character|second|image|pixel|audio|video|query|page|session", reasons.NOT_TEXT),
)
