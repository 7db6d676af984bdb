"""Prices from the AWS price list: the offer files AmazonBedrock and AmazonBedrockFoundationModels (index.json).

What a price is for stands in its `usagetype`, in two ways of writing: `USE1-NovaLite-input-tokens-batch`, and
`USE1-MP:USE1_InputTokenCount_Batch-Units`. Words that are not known make it another price, which is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation

from lowtide.connectors.prices import reasons
from lowtide.connectors.prices.documents import document, fingerprint, rows, since, text
from lowtide.connectors.prices.imported import Imported, Skipped, Stated, collected
from lowtide.connectors.prices.names import BEDROCK, normal
from lowtide.errors import ConfigError
from lowtide.prices.entries import Mode, TokenType

_LISTED = re.compile(
    r"[A-Z0-9]+-(?P<model>.+?)-(?P<what>(?:cache-(?:read|write)-)?(?:input|output)-tokens?(?:-.+)?)", re.IGNORECASE
)
_MARKETPLACE = re.compile(r"[A-Z0-9]+-MP:[A-Z0-9]+_(?P<what>.+)-Units")
_EDITION = " (Amazon Bedrock Edition)"
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+[a-z]*")
_MODEL_ID = re.compile(r"[a-z][a-z0-9]*\.[a-z][a-z0-9.-]*")
_UNIT = re.compile(
    r"(?:per )?(?P<scale>1k|1,?000|thousand|1m|1,?000,?000|million)(?:batch)? ?(?:input|output)? ?tokens?"
)
_DESCRIBED = re.compile(r"per (?P<scale>1k|1,?000|thousand|1m|1,?000,?000|million) (?:\w+ ){0,3}tokens?")
_SCALES = {"1k": 10**3, "1000": 10**3, "thousand": 10**3, "1m": 10**6, "1000000": 10**6, "million": 10**6}
_UNDERSTOOD = {
    "input", "output", "cache", "read", "write", "token", "tokens", "count", "batch", "standard", "global", "million",
}  # fmt: skip
_REASONS = (
    ({"flex", "priority"}, reasons.OTHER_TIER),
    ({"latency", "optimized"}, reasons.OTHER_TIER),
    ({"reserved", "tpm", "provisioned", "minute"}, reasons.RESERVED),
    ({"custom"}, "a customized model"),
    ({"long", "context", "ctx", "lctx"}, reasons.LONG_PROMPTS),
    ({"1h", "30m", "12h"}, reasons.KEPT_LONGER),
    ({"geo", "region"}, "does not say which inference profile it is for"),
    ({"image", "audio", "video", "speech", "second", "seconds", "character", "characters"}, reasons.NOT_TEXT),
)


@dataclass(frozen=True)
class _Use:
    """What is paid for."""

    model: str
    mode: Mode
    token_type: TokenType
    says_million: bool


def read_aws(data: bytes, name: str, *, made: date) -> Imported:
    """Read an offer file. Prices are valid from `made`, or from a later day that the file gives.

    Raises ConfigError for a file that is something else.
    """
    offer = document(data, name)
    if not isinstance(offer, dict) or "products" not in offer or "terms" not in offer:
        raise ConfigError(f"{name}: is not an offer file of the AWS price list: it has no products and terms")
    code, terms = text(offer, "offerCode"), rows(rows(offer["terms"]).get("OnDemand"))
    stated: list[Stated] = []
    skipped: list[Skipped] = []
    for sku, product in rows(offer["products"]).items():
        attributes = rows({"": product.get("attributes")}).get("", {})
        label = f"AWS {code} {sku} {text(attributes, 'usagetype')}"
        use = _use(attributes)
        if isinstance(use, str):
            skipped.append(Skipped(use, label))
            continue
        if not text(attributes, "regionCode"):
            skipped.append(Skipped("names no region", label))
            continue
        for found in _terms(use, terms.get(sku, {}), made):
            if isinstance(found, str):
                skipped.append(Skipped(found, label))
            else:
                usd, valid_from = found
                region = text(attributes, "regionCode")
                stated.append(Stated("aws", use.model, region, use.mode, use.token_type, usd, valid_from, label))
    version = f"version {text(offer, 'version')}, published {text(offer, 'publicationDate')[:10]}"
    return collected(f"AWS price list {code}, {version}, {fingerprint(data)}", stated, skipped)


def _use(attributes: dict[str, object]) -> _Use | str:
    """What is paid for, or why that is not for the book."""
    usage = text(attributes, "usagetype")
    listed, sold = _LISTED.fullmatch(usage), _MARKETPLACE.fullmatch(usage)
    if sold:
        words = {word.lower() for word in _WORD.findall(sold["what"])}
        names = [text(attributes, "servicename").removesuffix(_EDITION)]
    elif listed:
        words = {word.lower() for word in _WORD.findall(listed["what"])}
        if listed["model"].endswith("-mantle"):
            return "another endpoint: mantle"
        names = [listed["model"].removesuffix("-text"), text(attributes, "model")]
        if words & {"cross", "region"} and "global" in words:
            words -= {"cross", "region"}
    else:
        return reasons.NOT_TEXT
    why = _not_plain(words)
    if why:
        return why
    models = {known for name in names if (known := name if _MODEL_ID.fullmatch(name) else BEDROCK.get(normal(name)))}
    if len(models) != 1:
        return "its names stand for different models" if models else reasons.UNKNOWN_MODEL
    model = models.pop()
    return _Use(
        f"global.{model}" if "global" in words else model,
        "batch" if "batch" in words else "on_demand",
        _token_type(words),
        "million" in words,
    )


def _not_plain(words: set[str]) -> str:
    if why := reasons.ruled_out(words, _REASONS):
        return why
    if words - _UNDERSTOOD or len(words & {"input", "output"}) > 1 or not words & {"token", "tokens"}:
        return reasons.NOT_UNDERSTOOD
    return "" if words & {"input", "output", "cache"} else reasons.NOT_UNDERSTOOD


def _token_type(words: set[str]) -> TokenType:
    if "cache" in words:
        return "cache_write" if "write" in words else "cached_input"
    return "input" if "input" in words else "output"


def _terms(use: _Use, terms: dict[str, object], made: date) -> Iterator[tuple[Decimal, date] | str]:
    """The prices of a product for one token, with their first days, or why there is none."""
    found = rows(terms)
    if not found:
        yield "has no price on demand"
    for term in found.values():
        for dimension in rows(term.get("priceDimensions")).values():
            scale = _scale(text(dimension, "unit"), text(dimension, "description"), says_million=use.says_million)
            if scale is None:
                yield f"the unit {text(dimension, 'unit')!r} is not a number of tokens"
            elif text(dimension, "beginRange") not in ("", "0") or text(dimension, "endRange") not in ("", "Inf"):
                yield reasons.SOME_AMOUNTS
            else:
                yield _price(dimension, scale, text(term, "effectiveDate"), made)


def _price(dimension: dict[str, object], scale: int, effective: str, made: date) -> tuple[Decimal, date] | str:
    per_unit = dimension.get("pricePerUnit")
    amount = text(per_unit, "USD") if isinstance(per_unit, dict) else ""
    try:
        return Decimal(amount) / scale, since(made, effective) if effective else made
    except (InvalidOperation, ValueError):
        return "has no price in USD, or no date"


def _scale(unit: str, description: str, *, says_million: bool) -> int | None:
    """How many tokens a price is for. `Units` says nothing: then the usage type or the description has to."""
    found = _UNIT.fullmatch(unit.lower())
    if found is None and unit.lower() == "units":
        if says_million:
            return 10**6
        found = _DESCRIBED.search(description.lower())
    return _SCALES[found["scale"].replace(",", "")] if found else None
