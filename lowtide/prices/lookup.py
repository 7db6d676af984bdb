"""From a backend's model and region to its price: names that the book knows, and what counts where it says nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from difflib import get_close_matches

from lowtide.errors import ConfigError
from lowtide.prices.book import BookPrice, PriceBook
from lowtide.prices.price import Price

GEOGRAPHIES = frozenset({"us", "us-gov", "eu", "apac", "jp", "au", "ca", "in", "sa", "mx", "me", "il", "af"})
"""First parts of the ids of Bedrock's geographic inference profiles, as in `us.amazon.nova-lite-v1:0`."""

_ARN = re.compile(r"arn:aws[a-z-]*:bedrock:(?P<region>[a-z0-9-]*):[0-9]*:(?P<kind>[a-z-]+)/(?P<name>.+)")
_NAMED_KINDS = ("foundation-model", "inference-profile")
_SNAPSHOT = re.compile(r"(?P<name>.+)-\d{4}-\d{2}-\d{2}")
_TUNED = re.compile(r"(?P<base>ft:[^:]+):.+")
_AS_INPUT = ("cached_input", "cache_write")


@dataclass(frozen=True)
class _Candidate:
    """A name under which the price may stand. `note` says why another name than the one asked for counts."""

    model: str
    region: str
    note: str = ""
    exact_region: bool = False


def backend_price(book: PriceBook, *, provider: str, model: str, region: str, at: date) -> Price:
    """What a batch costs, with the price outside batches as `on_demand` if the book has it.

    Cached input and cache writes whose price is not stated are charged as input, and reasoning as output: the
    providers count them as such. `source` says so. Raises ConfigError where no price of input or output is stated.
    """
    found = _find(book, provider=provider, model=model, region=region, mode="batch", at=at)
    if found is None:
        raise _unpriced(book, provider, model, region, at)
    missing = [kind for kind in ("input", "output") if kind not in found.per_unit]
    if missing:
        raise ConfigError(
            f"price book {found.book_id} states no {' and no '.join(missing)} price for model {found.model!r} of "
            f"{provider!r}, region {found.region or 'any'!r}, mode 'batch', and none is guessed: {_REMEDY}"
        )
    demanded = on_demand_price(book, provider=provider, model=model, region=region, at=at)
    return replace(_priced(found, provider, "batch"), on_demand=demanded)


def on_demand_price(book: PriceBook, *, provider: str, model: str, region: str, at: date) -> Price | None:
    """What the same model costs outside batches. None where the price of input or output is not stated."""
    found = _find(book, provider=provider, model=model, region=region, mode="on_demand", at=at)
    if found is None or not {"input", "output"} <= found.per_unit.keys():
        return None
    return _priced(found, provider, "on_demand")


def _priced(found: BookPrice, provider: str, mode: str) -> Price:
    per_unit = dict(found.per_unit)
    as_input = [kind for kind in _AS_INPUT if kind not in per_unit]
    per_unit |= dict.fromkeys(as_input, per_unit["input"])
    said = [f"{' and '.join(as_input)} charged as input"] if as_input else []
    if "reasoning" not in per_unit:
        per_unit["reasoning"] = per_unit["output"]
        said.append("reasoning charged as output")
    return Price(
        f"{found.book_id}: {provider}/{found.region or 'any'}/{found.model}/{mode}",
        "; ".join([found.source, *said]),
        per_unit,
    )


def _find(book: PriceBook, *, provider: str, model: str, region: str, mode: str, at: date) -> BookPrice | None:
    for each in _candidates(book, provider, model, region):
        found = book.find(provider=provider, model=each.model, region=each.region, mode=mode, at=at)
        if found and not (each.exact_region and found.region != each.region):
            notes = [each.note] if each.note else []
            if provider == "azure" and found.region in ("", "global") and region != "global":
                notes.append("priced as a Global deployment")
            return replace(found, source="; ".join([found.source, *notes]))
    return None


def _candidates(book: PriceBook, provider: str, model: str, region: str) -> Iterator[_Candidate]:
    if provider == "aws":
        yield from _bedrock(book, model, region)
        return
    # The name of a place may be written as Azure's portal shows it: "US Gov Virginia".
    region = region.replace(" ", "").lower() if provider == "azure" else region
    yield _Candidate(model, region)
    if next(book.stated(provider, model), None) is not None:
        return
    tuned, snapshot = _TUNED.fullmatch(model), _SNAPSHOT.fullmatch(model)
    if tuned:
        yield _Candidate(tuned["base"], region, f"{model} is a model of your own, tuned from it")
    elif snapshot:
        yield _Candidate(snapshot["name"], region, f"no price of {model} itself is stated")


def _bedrock(book: PriceBook, model: str, region: str) -> Iterator[_Candidate]:
    arn = _ARN.fullmatch(model)
    if arn:
        if arn["kind"] not in _NAMED_KINDS:
            return
        model, region = arn["name"], region or arn["region"]
    yield _Candidate(model, region)
    geography, _, base = model.partition(".")
    # A global profile has prices of its own, and so has a geographic one that the book says anything about.
    if region and geography in GEOGRAPHIES and next(book.stated("aws", model), None) is None:
        note = f"no price of the profile {model} is stated, so that of its model in {region}"
        yield _Candidate(base, region, note, exact_region=True)


_REMEDY = "set `price:` in the job file, or bring the book up to date with `lowtide prices import`"


def _unpriced(book: PriceBook, provider: str, model: str, region: str, at: date) -> ConfigError:
    arn = _ARN.fullmatch(model) if provider == "aws" else None
    if arn and arn["kind"] not in _NAMED_KINDS:
        return ConfigError(f"{model!r} does not say which model it stands for, so no price can be looked up: {_REMEDY}")
    name = arn["name"] if arn else model
    where = region or (arn["region"] if arn else "")
    return ConfigError(
        f"no price for provider {provider!r}, model {name!r}, region {where or 'any'!r}, mode 'batch' on {at} in price "
        f"book {book.book_id}: {_nearest(book, provider, name)}{_REMEDY}"
    )


def _nearest(book: PriceBook, provider: str, model: str) -> str:
    """What the book has instead: other modes, regions and days of the model, else models of like names."""
    others = dict.fromkeys(
        f"{each.mode} in {each.region or 'any region'} from {each.valid_from}"
        + (f" until {each.valid_to}" if each.valid_to else "")
        for each in book.stated(provider, model)
    )
    if others:
        return f"of this model it has {', '.join(list(others)[:4])}{', …' if len(others) > 4 else ''}; "
    names = sorted({each.model for each in book.stated(provider) if each.mode == "batch"})
    near = get_close_matches(model, names, n=3, cutoff=0.6)
    return f"near names are {', '.join(map(repr, near))}; " if near else ""
