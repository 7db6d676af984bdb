"""A price book says what it was told, for the day it was told of, and refuses what is ambiguous."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.errors import ConfigError
from lowtide.prices import PriceBook
from lowtide.prices.entries import MODES, PROVIDERS, TOKEN_TYPES, Entry, encode, problems, usd

DAY = date(2026, 11, 21)
AFTER = DAY + timedelta(days=10)


def entry(**other: object) -> Entry:
    """An entry in which one thing or another differs."""
    usual: dict[str, object] = {
        "provider": "aws", "model": "nova", "region": "us-east-1", "mode": "batch", "token_type": "input",
        "usd": "0.00000003", "valid_from": DAY, "source": "a list",
    }  # fmt: skip
    return Entry(**(usual | other))  # type: ignore[arg-type]


def book(*entries: Entry, name: str = "book.json") -> PriceBook:
    """A book with these entries, by way of its file."""
    return PriceBook.read(encode(DAY, ["a list"], entries), name)


def changed(**other: object) -> bytes:
    """A file whose second entry is wrong."""
    plain = msgspec.to_builtins(entry())
    wrong = msgspec.to_builtins(entry(token_type="output")) | other
    entries = [plain, {key: value for key, value in wrong.items() if value != "absent"}]
    return msgspec.json.encode({"version": 1, "made": "2026-11-21", "sources": [], "entries": entries})


def found(
    books: PriceBook, *, region: str = "us-east-1", mode: str = "batch", at: date = DAY
) -> Mapping[str, Decimal] | None:
    price = books.find(provider="aws", model="nova", region=region, mode=mode, at=at)
    return price.per_unit if price else None


def test_a_price_is_found_with_where_it_comes_from() -> None:
    price = book(entry(), entry(token_type="output", usd="0.00000012")).find(
        provider="aws", model="nova", region="us-east-1", mode="batch", at=AFTER
    )

    assert price is not None
    assert price.per_unit == {"input": Decimal("3E-8"), "output": Decimal("1.2E-7")}
    assert (price.source, price.valid_from, price.region, price.model) == ("a list", DAY, "us-east-1", "nova")


def test_a_region_s_own_price_comes_before_that_of_every_region() -> None:
    both = book(entry(), entry(region="", usd="0.00000009"))

    assert found(both) == {"input": Decimal("3E-8")}
    assert found(both, region="eu-west-1") == {"input": Decimal("9E-8")}
    assert found(book(entry()), region="eu-west-1") is None
    assert found(book(entry()), region="") is None
    assert found(book(entry()), mode="on_demand") is None


def test_a_price_holds_from_its_first_day_until_before_the_day_that_ends_it() -> None:
    dated = book(entry(valid_to=AFTER), entry(valid_from=AFTER, usd="0.00000004"))

    assert found(dated, at=DAY - timedelta(days=1)) is None
    assert found(dated) == {"input": Decimal("3E-8")}
    assert found(dated, at=AFTER - timedelta(days=1)) == {"input": Decimal("3E-8")}
    assert found(dated, at=AFTER) == {"input": Decimal("4E-8")}


@pytest.mark.parametrize(
    ("region", "price"),
    [("eastus", "1"), ("westus", "2"), ("global", "2"), ("", "2"), ("us", "3"), ("eu", None), ("usgovvirginia", None)],
)
def test_an_azure_region_without_prices_has_those_of_global_deployments_and_a_data_zone_has_its_own(
    region: str, price: str | None
) -> None:
    placed = book(*(entry(provider="azure", region=name, usd=usd) for name, usd in AZURE.items()))
    answer = placed.find(provider="azure", model="nova", region=region, mode="batch", at=DAY)

    assert (answer.per_unit["input"] if answer else None) == (Decimal(price) if price else None)


AZURE = {"eastus": "1", "global": "2", "us": "3", "": "4"}


def test_an_azure_price_without_a_place_counts_where_there_is_none_for_global_deployments() -> None:
    placed = book(entry(provider="azure", region="", usd="4"))
    places = {
        region: placed.find(provider="azure", model="nova", region=region, mode="batch", at=DAY) is not None
        for region in ("", "eastus", "global", "us", "eu")
    }

    assert places == {"": True, "eastus": True, "global": True, "us": False, "eu": False}


def test_what_a_book_states_replaces_all_that_the_book_below_says_of_the_same() -> None:
    listed = book(
        entry(), entry(token_type="cached_input", usd="0.00000001"), entry(mode="on_demand", usd="0.00000006")
    )
    contract = book(entry(usd="0.00000002"), name="ours.json")
    both = contract.over(listed)

    assert found(both) == {"input": Decimal("2E-8")}
    assert found(both, mode="on_demand") == {"input": Decimal("6E-8")}
    assert both.book_id == f"{contract.book_id}+{listed.book_id}"
    named = both.find(provider="aws", model="nova", region="us-east-1", mode="on_demand", at=DAY)
    assert named is not None
    assert named.book_id == listed.book_id


def test_a_contract_for_every_region_comes_before_the_listed_price_of_one() -> None:
    assert found(book(entry(region="", usd="0.00000001")).over(book(entry()))) == {"input": Decimal("1E-8")}


def test_the_id_of_a_book_follows_its_prices_and_not_how_they_are_written() -> None:
    one, other = entry(), entry(token_type="output")
    loose = msgspec.json.format(encode(DAY, ["another"], [other, one]), indent=4)

    assert book(one, other).book_id == PriceBook.read(loose, "b").book_id
    assert book(one, other).book_id.startswith("2026-11-21-")
    assert book(one, other).book_id != book(one, entry(token_type="output", usd="0.00000004")).book_id


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"usd": "-0.1"}, 'usd: found "-0.1"'),
        ({"usd": "0.0000000000001"}, 'usd: found "0.0000000000001"'),
        ({"usd": 0.1}, "usd: found 0.1"),
        ({"usd": "1e-7"}, 'usd: found "1e-7"'),
        ({"usd": "0.1\n"}, 'usd: found "0.1\\n"'),
        ({"usd": "NaN"}, 'usd: found "NaN"'),
        ({"usd": "absent"}, "usd: missing"),
        ({"mode": "flex"}, 'mode: found "flex"'),
        ({"provider": "gcp"}, 'provider: found "gcp"'),
        ({"token_type": "tokens"}, 'token_type: found "tokens"'),
        ({"valid_from": "21.11.2026"}, 'valid_from: found "21.11.2026"'),
        ({"valid_to": "2026-11-21"}, "valid_to: found 2026-11-21"),
        ({"source": ""}, 'source: found ""'),
        ({"region": None}, "region: found null"),
        ({"region": "absent"}, "region: missing"),
        ({"note": "x"}, "note: is no field"),
        ({"token_type": "input", "valid_from": "2027-01-01"}, "valid_from: found 2027-01-01, when entry 1"),
        (
            {"token_type": "input", "valid_from": "2026-01-01", "valid_to": "2026-11-22"},
            "found 2026-01-01, when entry 1",
        ),
    ],
)
def test_what_is_wrong_with_an_entry_is_said_with_its_number_and_field(other: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        PriceBook.read(changed(**other), "prices/book.json")

    assert str(error.value).startswith("prices/book.json: entry 2 (nova): ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_entries_that_follow_each_other_do_not_overlap() -> None:
    assert problems(changed(token_type="input", valid_from="2026-01-01", valid_to="2026-11-21"), "b") == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "b: is no JSON"),
        (b"[]", "b: found []"),
        (b'{"version": 2, "made": "2026-11-21", "sources": [], "entries": []}', "b: version: found 2"),
        (b'{"version": 1, "made": "yesterday", "sources": [], "entries": []}', 'b: made: found "yesterday"'),
        (b'{"version": 1, "made": "2026-11-21", "sources": "x", "entries": []}', 'b: sources: found "x"'),
        (b'{"version": 1, "made": "2026-11-21", "sources": []}', "b: entries: missing"),
        (b'{"version": 1, "made": "2026-11-21", "sources": [], "entries": [7]}', "b: entry 1: found 7"),
        (b'{"version": 1, "made": "2026-11-21", "sources": [], "entries": [], "v": 1}', "b: v: is no field"),
    ],
)
def test_a_file_that_is_no_book_is_refused(data: bytes, said: str) -> None:
    assert any(line.startswith(said) for line in problems(data, "b"))
    with pytest.raises(ConfigError):
        PriceBook.read(data, "b")


def test_every_problem_of_a_file_is_found_in_one_go() -> None:
    raw = msgspec.json.decode(changed(usd="-1", mode="flex"))
    raw["entries"].append(raw["entries"][0])

    assert len(problems(msgspec.json.encode(raw), "b")) == 3


moments = st.integers(0, 30).map(lambda days: DAY + timedelta(days=days))
amounts = st.integers(0, 10**9).map(lambda pico: usd(Decimal(pico).scaleb(-12)) or "")


@st.composite
def histories(draw: st.DrawFn) -> list[Entry]:
    """Entries that never overlap: for each thing, days in order, some with gaps."""
    made = []
    for model in draw(st.sets(st.sampled_from(["a", "b"]))):
        for region in draw(st.sets(st.sampled_from(["", "r", "s"]))):
            for kind in draw(st.sets(st.sampled_from(["input", "output"]))):
                days = sorted(draw(st.sets(moments, min_size=1, max_size=4)))
                for first, then in zip(days, [*days[1:], None], strict=True):
                    end = then if draw(st.booleans()) or then else None
                    made.append(
                        entry(
                            model=model,
                            region=region,
                            token_type=kind,
                            usd=draw(amounts),
                            valid_from=first,
                            valid_to=end,
                        )
                    )
    return made


@given(histories(), histories(), st.sampled_from(["a", "b"]), st.sampled_from(["", "r", "s"]), moments)
def test_a_book_over_another_finds_its_own_or_else_what_the_other_finds(
    own: list[Entry], base: list[Entry], model: str, region: str, at: date
) -> None:
    upper, lower = book(*own), book(*base)

    def ask(one: PriceBook) -> Mapping[str, Decimal] | None:
        price = one.find(provider="aws", model=model, region=region, mode="batch", at=at)
        return price.per_unit if price else None

    assert ask(upper.over(lower)) == (ask(upper) or ask(lower))


@given(histories(), st.sampled_from(["a", "b"]), st.sampled_from(["", "r", "s"]), moments)
def test_what_is_found_is_what_stands_in_the_file_for_that_day(
    entries: list[Entry], model: str, region: str, at: date
) -> None:
    def stated(place: str) -> dict[str, Decimal]:
        return {each.token_type: each.price for each in entries if each.key[1:3] == (model, place) and each.holds(at)}

    price = book(*entries).find(provider="aws", model=model, region=region, mode="batch", at=at)

    assert (dict(price.per_unit) if price else {}) == (stated(region) or stated(""))


@given(st.lists(st.tuples(moments, moments), max_size=4))
def test_prices_are_refused_exactly_when_two_hold_on_one_day(spans: list[tuple[date, date]]) -> None:
    entries = [entry(valid_from=first, valid_to=last) for first, last in spans if first < last]
    days = [DAY + timedelta(days=number) for number in range(31)]
    overlapping = any(sum(each.holds(day) for each in entries) > 1 for day in days)

    assert bool(problems(encode(DAY, [], entries), "b")) == overlapping


@given(st.decimals(allow_nan=True, allow_infinity=True))
def test_a_price_is_written_exactly_or_not_at_all(price: Decimal) -> None:
    text = usd(price)

    assert text is None or Decimal(text) == price
    if price.is_finite() and 0 <= price < 10**9 and price == price.quantize(Decimal("1e-12")):
        assert text is not None


def test_the_bundled_book_is_sound_and_named() -> None:
    bundled = PriceBook.bundled()
    data = encode(bundled.made, bundled.sources, bundled.entries)

    assert problems(data, "b") == []
    assert bundled is PriceBook.bundled()
    assert all(source.startswith("litellm 1.") for source in bundled.sources)
    assert {each.provider for each in bundled.entries} == set(PROVIDERS)
    assert {each.mode for each in bundled.entries} <= set(MODES)
    assert {each.token_type for each in bundled.entries} <= set(TOKEN_TYPES)


def test_reading_the_bundled_book_takes_no_time_worth_mentioning() -> None:
    timed = (
        "import time; from lowtide.prices import PriceBook; before = time.process_time(); "
        "book = PriceBook.bundled(); "
        "assert book.find(provider='openai', model='gpt-4o-mini', region='', mode='batch', at=book.made); "
        "print(time.process_time() - before)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, timeout=120, check=True)
        for _ in range(3)
    ]

    assert min(float(run.stdout) for run in runs) < 0.04
