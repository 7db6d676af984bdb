"""Prices from pages of the Azure retail prices API, for Azure OpenAI: JSON objects with `Items`.

What a price is for stands in the meter's name, which is written in many ways: `gpt-4o-mini-0718-Batch-Inp-glbl Tokens`,
`gpt 4o mini0718 BatchOutp DataZone Tokens`, `5.4 mini cd Inp Gl 1M Tokens`. A meter is taken only if every word of its
name is understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from lowtide.connectors.prices import reasons
from lowtide.connectors.prices.documents import document, fingerprint, since, text
from lowtide.connectors.prices.imported import Imported, Skipped, Stated, collected
from lowtide.connectors.prices.names import AZURE_OPENAI, AZURE_ZONES, normal
from lowtide.errors import ConfigError
from lowtide.prices.entries import Mode, TokenType

_GLUED = re.compile(r"(?<=[a-z])(?=[A-Z])")
_JOINED = re.compile(r"\b(data|short|sh|long|lng) (zone|co)\b")
_SPLIT = re.compile(r"[\s_-]+")
_SERIES = (
    "meterName", "armRegionName", "productName", "skuName", "type", "priceType", "currencyCode", "unitOfMeasure",
    "effectiveEndDate",
)  # fmt: skip
_SCALES = {"1K": 10**3, "1M": 10**6}
_INPUT, _OUTPUT = {"inp", "inpt", "input"}, {"outp", "outpt", "output", "out", "opt"}
_CACHED, _WRITTEN = {"cached", "cchd", "ccchd", "cd", "cache"}, {"wr", "write"}
_GLOBAL, _REGIONAL = {"glbl", "gl", "global"}, {"regnl", "regional"}
_ZONE = {"dz", "dzone", "datazone"}
_PLAIN = {"tokens", "token", "std", "standard", "shortco", "shco", "batch"}
_REASONS = (
    ({"pp", "priority", "flex", "fl"}, reasons.OTHER_TIER),
    ({"longco", "lngco", "l"}, reasons.LONG_PROMPTS),
    ({"ft", "finetuned", "finetune", "training", "hosting", "grader", "grdr", "dev"}, "a model of your own"),
    ({"aud", "audio", "rt", "realtime", "img", "image", "tts", "transcribe", "video"}, reasons.NOT_TEXT),
    ({"ptu", "provisioned"}, reasons.RESERVED),
)


@dataclass(frozen=True)
class _Meter:
    """What a meter counts."""

    models: tuple[str, ...]
    place: str
    mode: Mode
    token_type: TokenType


def read_azure(data: bytes, name: str, *, made: date) -> Imported:
    """Read a page of the API, or a list of pages. Prices are valid from `made`, or from a later day that it gives.

    Raises ConfigError for a file that is something else.
    """
    read = document(data, name)
    pages = read if isinstance(read, list) else [read]
    items: list[dict[str, object]] = []
    for page in pages:
        listed = page.get("Items") if isinstance(page, dict) else None
        if not isinstance(listed, list):
            raise ConfigError(f"{name}: is no page of the Azure retail prices API: it has no Items")
        items += [item if isinstance(item, dict) else {} for item in listed]
    found = [each for item in _latest(items, made) for each in _item(item, made)]
    stated = [each for each in found if isinstance(each, Stated)]
    skipped = [each for each in found if isinstance(each, Skipped)]
    last = pages[-1] if pages else {}
    if isinstance(last, dict) and text(last, "NextPageLink"):
        skipped.append(Skipped("more pages follow, and are not in the file", name))
    return collected(f"Azure retail prices, {name.rpartition('/')[2]}, {fingerprint(data)}", stated, skipped)


def _latest(items: list[dict[str, object]], made: date) -> Iterator[dict[str, object]]:
    """Rows without those that a later one has replaced by `made`: the API lists old prices of a meter as well."""

    def start(item: dict[str, object]) -> str:
        return text(item, "effectiveStartDate")[:10]

    def series(item: dict[str, object]) -> tuple[str, ...]:
        return tuple(text(item, field) for field in _SERIES)

    last: dict[tuple[str, ...], str] = {}
    for item in items:
        if start(item) <= made.isoformat():
            last[series(item)] = max(start(item), last.get(series(item), ""))
    for item in items:
        if start(item) >= last.get(series(item), ""):
            yield item


def _item(item: dict[str, object], made: date) -> Iterator[Stated | Skipped]:
    label = f"Azure {text(item, 'meterName')}, {text(item, 'armRegionName') or 'no region'}"
    price, scale = _price(item), _SCALES.get(text(item, "unitOfMeasure"))
    meter = _not_ours(item) or _meter(item)
    if isinstance(meter, str):
        yield Skipped(meter, label)
    elif scale is None:
        yield Skipped(f"the unit {text(item, 'unitOfMeasure')!r} is not a number of tokens", label)
    elif isinstance(price, str):
        yield Skipped(price, label)
    else:
        dates = _dates(item, made)
        if isinstance(dates, str):
            yield Skipped(dates, label)
            return
        for model in meter.models:
            yield Stated(
                "azure", model, meter.place, meter.mode, meter.token_type, price / scale, dates[0],
                f"Azure {text(item, 'meterName')}", dates[1],
            )  # fmt: skip


def _not_ours(item: dict[str, object]) -> str:
    """Why a row is no list price of Azure OpenAI that one pays by use, or ""."""
    if not text(item, "productName").startswith("Azure OpenAI"):
        return "not of Azure OpenAI"
    if (text(item, "type") or text(item, "priceType")) != "Consumption":
        return "not paid by use"
    if text(item, "currencyCode") != "USD":
        return "not in USD"
    return reasons.SOME_AMOUNTS if item.get("tierMinimumUnits", Decimal(0)) != 0 else ""


def _price(item: dict[str, object]) -> Decimal | str:
    """The list price for one unit of measure, or why there is none."""
    retail, unit = item.get("retailPrice"), item.get("unitPrice")
    if isinstance(retail, Decimal) and isinstance(unit, Decimal) and retail != unit:
        return "retailPrice and unitPrice differ"
    price = retail if isinstance(retail, Decimal) else unit
    return price if isinstance(price, Decimal) else "has no price"


def _dates(item: dict[str, object], made: date) -> tuple[date, date | None] | str:
    start, end = text(item, "effectiveStartDate"), text(item, "effectiveEndDate")
    try:
        last = date.fromisoformat(end[:10]) if end else None
        first = since(made, start) if start else made
    except ValueError:
        return "has a date that is none"
    return (first, last) if last is None or last > first else "is no longer the price"


def _meter(item: dict[str, object]) -> _Meter | str:
    """What the meter's name says, or why it is not for the book."""
    name = text(item, "meterName")
    spread = " ".join(_SPLIT.split(_GLUED.sub(" ", name))).lower()
    listed = _JOINED.sub(r"\1\2", spread).split()
    words = set(listed)
    if why := reasons.ruled_out(words, _REASONS):
        return why
    scale = text(item, "unitOfMeasure").lower()
    if words & {"1k", "1m"} and scale not in words:
        return f"the name and the unit {text(item, 'unitOfMeasure')!r} differ"
    # The product's and the SKU's names may say that it is a batch's price where the meter's does not.
    elsewhere = f"{text(item, 'productName')} {text(item, 'skuName')}".lower()
    if "batch" in elsewhere and "batch" not in words:
        return "the meter, the SKU and the product do not agree that it is for batches"
    kind, place = _token_type(words), _place(words, text(item, "armRegionName"))
    if kind is None or place is None:
        return reasons.NOT_UNDERSTOOD
    known = _INPUT | _OUTPUT | _CACHED | _WRITTEN | _GLOBAL | _REGIONAL | _ZONE | _PLAIN | {"1k", "1m"}
    models = AZURE_OPENAI.get(normal("".join(word for word in listed if word not in known)))
    if models is None:
        return reasons.UNKNOWN_MODEL
    return _Meter(models, place, "batch" if "batch" in words else "on_demand", kind)


def _token_type(words: set[str]) -> TokenType | None:
    if words & _CACHED:
        return "cache_write" if words & _WRITTEN else None if words & _OUTPUT else "cached_input"
    if bool(words & _INPUT) == bool(words & _OUTPUT):
        return None
    return "input" if words & _INPUT else "output"


def _place(words: set[str], region: str) -> str | None:
    """The region of the book: one of Azure's, a Data Zone, or `global`."""
    if region.startswith(("usgov", "usdod", "china")):
        return None
    kinds = [bool(words & _GLOBAL), bool(words & _ZONE), bool(words & _REGIONAL)]
    if sum(kinds) != 1:
        return None
    if kinds[0]:
        return "global"
    return AZURE_ZONES.get(region) if kinds[1] else region or None
