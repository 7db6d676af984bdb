"""A backend's price is looked up by the names that providers use, and what is not stated is never made up."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from lowtide.errors import ConfigError
from lowtide.prices import PriceBook, backend_price, on_demand_price
from lowtide.prices.entries import Entry, encode

DAY = date(2026, 11, 21)
NOVA = "amazon.nova-lite-v1:0"


def stated(
    provider: str, model: str, region: str, mode: str = "batch", *, without: str = "", **usd: str
) -> list[Entry]:
    """Prices of a model: input 1 and output 2 USD, unless said otherwise."""
    prices = {"input": "1", "output": "2"} | usd
    return [
        Entry(provider, model, region, mode, kind, price, DAY, f"list {model}")  # type: ignore[arg-type]
        for kind, price in prices.items()
        if kind != without
    ]


def book(*groups: list[Entry]) -> PriceBook:
    return PriceBook.read(encode(DAY, [], [each for group in groups for each in group]), "book.json")


def test_the_price_of_a_batch_comes_with_the_price_on_demand_and_says_where_both_are_from() -> None:
    prices = book(stated("aws", NOVA, "us-east-1"), stated("aws", NOVA, "us-east-1", "on_demand", input="3"))
    price = backend_price(prices, provider="aws", model=NOVA, region="us-east-1", at=DAY)

    assert price.price_id == f"{prices.book_id}: aws/us-east-1/{NOVA}/batch"
    assert price.source.startswith(f"list {NOVA}; ")
    assert price.of(on_demand=True).unit("input") == 3
    assert price.of(on_demand=True).price_id.endswith("/on_demand")


def test_without_a_price_on_demand_none_is_made_up() -> None:
    prices = book(stated("aws", NOVA, "us-east-1"), stated("aws", NOVA, "us-east-1", "on_demand", without="output"))

    assert backend_price(prices, provider="aws", model=NOVA, region="us-east-1", at=DAY).on_demand is None
    assert on_demand_price(prices, provider="aws", model="other", region="us-east-1", at=DAY) is None


def test_cached_input_that_is_not_stated_is_charged_as_input_and_reasoning_as_output() -> None:
    price = backend_price(book(stated("openai", "gpt", "")), provider="openai", model="gpt", region="", at=DAY)

    assert price.per_unit == {
        "input": Decimal(1), "cached_input": Decimal(1), "cache_write": Decimal(1),
        "output": Decimal(2), "reasoning": Decimal(2),
    }  # fmt: skip
    assert "cached_input and cache_write charged as input" in price.source
    assert "reasoning charged as output" in price.source


def test_what_is_stated_is_charged_as_stated() -> None:
    prices = book(stated("openai", "gpt", "", cached_input="0.5", cache_write="1.25", reasoning="3"))
    price = backend_price(prices, provider="openai", model="gpt", region="", at=DAY)

    assert [price.unit(kind) for kind in ("cached_input", "cache_write", "reasoning")] == [
        Decimal("0.5"), Decimal("1.25"), Decimal(3),
    ]  # fmt: skip
    assert "charged as" not in price.source


@pytest.mark.parametrize("missing", ["input", "output"])
def test_a_batch_price_without_its_other_half_is_no_price(missing: str) -> None:
    prices = book(stated("azure", "gpt", "us", without=missing))

    with pytest.raises(ConfigError, match=f"states no {missing} price for model 'gpt'.*none is guessed.*set `price:`"):
        backend_price(prices, provider="azure", model="gpt", region="us", at=DAY)


PROFILES = book(
    stated("aws", NOVA, "us-east-1", input="1"),
    stated("aws", f"us.{NOVA}", "", input="4"),
    stated("aws", f"apac.{NOVA}", "", "on_demand", input="5"),
)


@pytest.mark.parametrize(
    ("model", "region", "price"),
    [
        (NOVA, "us-east-1", "1"),
        (f"us.{NOVA}", "us-east-1", "4"),
        (f"us.{NOVA}", "us-west-2", "4"),
        (f"jp.{NOVA}", "us-east-1", "1"),
        (f"arn:aws:bedrock:us-east-1::foundation-model/{NOVA}", "us-east-1", "1"),
        (f"arn:aws:bedrock:us-east-1::foundation-model/{NOVA}", "", "1"),
        (f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.{NOVA}", "us-east-1", "4"),
    ],
)
def test_bedrock_s_names_lead_to_their_price(model: str, region: str, price: str) -> None:
    assert backend_price(PROFILES, provider="aws", model=model, region=region, at=DAY).unit("input") == Decimal(price)


def test_the_price_of_a_model_that_stands_in_for_its_profile_says_so() -> None:
    price = backend_price(PROFILES, provider="aws", model=f"jp.{NOVA}", region="us-east-1", at=DAY)

    assert f"no price of the profile jp.{NOVA} is stated, so that of its model in us-east-1" in price.source
    assert price.price_id.endswith(f"aws/us-east-1/{NOVA}/batch")


@pytest.mark.parametrize(
    ("model", "region", "said"),
    [
        (f"global.{NOVA}", "us-east-1", "near names"),
        (f"apac.{NOVA}", "us-east-1", "of this model it has on_demand in any region from 2026-11-21"),
        (f"jp.{NOVA}", "ap-northeast-1", "near names"),
        (f"jp.{NOVA}", "", "near names"),
        (NOVA, "eu-west-1", "of this model it has batch in us-east-1"),
        ("amazon.nova-light-v1:0", "us-east-1", f"near names are {NOVA!r}"),
        ("zzz", "us-east-1", "price book"),
        ("arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abc", "us-east-1", "does not say which model"),
        ("arn:aws:bedrock:us-east-1:1:application-inference-profile/abc", "us-east-1", "does not say which model"),
    ],
)
def test_a_bedrock_model_without_a_price_is_an_error_that_says_what_there_is(
    model: str, region: str, said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        backend_price(PROFILES, provider="aws", model=model, region=region, at=DAY)

    assert said in str(error.value)
    assert "set `price:` in the job file" in str(error.value)
    assert "lowtide prices import" in str(error.value)


def test_an_error_names_provider_model_region_mode_and_day() -> None:
    with pytest.raises(ConfigError) as error:
        backend_price(PROFILES, provider="aws", model=NOVA, region="eu-west-1", at=DAY)

    for word in ("'aws'", repr(NOVA), "'eu-west-1'", "'batch'", "2026-11-21", PROFILES.book_id):
        assert word in str(error.value)


def test_a_regional_price_of_every_region_does_not_stand_in_for_a_profile() -> None:
    with pytest.raises(ConfigError):
        backend_price(book(stated("aws", NOVA, "")), provider="aws", model=f"jp.{NOVA}", region="us-east-1", at=DAY)


def test_a_snapshot_has_the_price_of_its_model_only_if_nothing_is_said_of_it() -> None:
    plain = stated("openai", "gpt-4o", "", input="1")
    own = stated("openai", "gpt-4o-2024-05-13", "", "on_demand", input="5")
    snapshot = backend_price(book(plain), provider="openai", model="gpt-4o-2024-05-13", region="", at=DAY)

    assert snapshot.unit("input") == 1
    assert "no price of gpt-4o-2024-05-13 itself is stated" in snapshot.source
    with pytest.raises(ConfigError, match="of this model it has on_demand"):
        backend_price(book(plain, own), provider="openai", model="gpt-4o-2024-05-13", region="", at=DAY)


def test_a_model_of_one_s_own_has_the_price_of_tuned_models_and_not_of_plain_ones() -> None:
    prices = book(stated("openai", "gpt-4o", "", input="1"), stated("openai", "ft:gpt-4o", "", input="2"))
    own = backend_price(prices, provider="openai", model="ft:gpt-4o:acme::a1", region="", at=DAY)

    assert own.unit("input") == 2
    assert "tuned" in own.source
    with pytest.raises(ConfigError):
        backend_price(prices, provider="openai", model="ft:gpt-3:acme::a1", region="", at=DAY)


AZURE = book(
    stated("azure", "gpt-4o-mini", "", input="1"),
    stated("azure", "gpt-4o-mini", "eu", input="2"),
)


@pytest.mark.parametrize(
    ("model", "region", "price", "as_global"),
    [
        ("gpt-4o-mini", "", "1", True),
        ("gpt-4o-mini", "eastus", "1", True),
        ("gpt-4o-mini", "East US", "1", True),
        ("gpt-4o-mini-2024-07-18", "", "1", True),
        ("gpt-4o-mini", "global", "1", False),
        ("gpt-4o-mini", "eu", "2", False),
    ],
)
def test_azure_batches_are_priced_as_global_unless_a_data_zone_is_named(
    model: str, region: str, price: str, as_global: bool
) -> None:
    found = backend_price(AZURE, provider="azure", model=model, region=region, at=DAY)

    assert found.unit("input") == Decimal(price)
    assert ("priced as a Global deployment" in found.source) == as_global


@pytest.mark.parametrize("region", ["us", "US Gov Virginia"])
def test_a_data_zone_or_a_government_s_cloud_never_has_the_price_of_global_deployments(region: str) -> None:
    with pytest.raises(ConfigError):
        backend_price(AZURE, provider="azure", model="gpt-4o-mini", region=region, at=DAY)


def test_a_day_before_the_first_price_has_none_and_is_told_from_when_there_is_one() -> None:
    with pytest.raises(ConfigError, match="of this model it has batch in us-east-1 from 2026-11-21"):
        backend_price(PROFILES, provider="aws", model=NOVA, region="us-east-1", at=date(2026, 11, 20))


@pytest.mark.parametrize(
    ("provider", "model", "region", "batch", "on_demand"),
    [
        ("openai", "gpt-4o-mini", "", ("0.000000075", "0.0000003"), ("0.00000015", "0.0000006")),
        ("azure", "gpt-4o-mini", "", ("0.000000075", "0.0000003"), ("0.00000015", "0.0000006")),
        ("azure", "gpt-4.1", "us", ("0.0000011", "0.0000044"), ("0.0000022", "0.0000088")),
        ("aws", NOVA, "us-east-1", ("0.00000003", "0.00000012"), ("0.00000006", "0.00000024")),
        ("aws", f"us.{NOVA}", "us-west-2", ("0.00000003", "0.00000012"), ("0.00000006", "0.00000024")),
        (
            "aws",
            "us.amazon.nova-2-lite-v1:0",
            "us-east-1",
            ("0.000000165", "0.000001375"),
            ("0.00000033", "0.00000275"),
        ),
        (
            "aws",
            "global.amazon.nova-2-lite-v1:0",
            "us-east-1",
            ("0.00000015", "0.00000125"),
            ("0.0000003", "0.0000025"),
        ),
    ],
)
def test_the_bundled_book_has_the_published_prices(
    provider: str, model: str, region: str, batch: tuple[str, str], on_demand: tuple[str, str]
) -> None:
    bundled = PriceBook.bundled()
    price = backend_price(bundled, provider=provider, model=model, region=region, at=bundled.made)

    assert price.on_demand is not None
    for one, expected in ((price, batch), (price.on_demand, on_demand)):
        assert (one.unit("input"), one.unit("output")) == tuple(map(Decimal, expected))
        assert one.source.startswith("litellm 1.")


@pytest.mark.parametrize(
    ("provider", "model", "region"),
    [
        ("aws", "us.anthropic.claude-sonnet-4-6", "us-east-1"),  # litellm's code would take half of it
        ("aws", NOVA, "eu-west-1"),  # the price that is stated is that of us-east-1
        ("aws", "global.amazon.nova-2-lite-v1:0", "ap-northeast-1"),  # likewise: it is dearer from there
        ("azure", "gpt-4o-mini", "us"),  # the batch price of input is stated, and that of output is not
    ],
)
def test_the_bundled_book_guesses_nothing(provider: str, model: str, region: str) -> None:
    bundled = PriceBook.bundled()

    with pytest.raises(ConfigError):
        backend_price(bundled, provider=provider, model=model, region=region, at=bundled.made)
