"""Offer files of the AWS price list: usage types in every way that AWS writes them, and their units."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest

from lowtide.connectors.prices import Imported, read_aws
from lowtide.errors import ConfigError

DAY = date(2026, 11, 21)


def product(
    usage: str,
    usd: str | None,
    unit: str = "1K tokens",
    *,
    region: str = "us-east-1",
    effective: str = "2026-11-01T00:00:00Z",
    description: str = "",
    begin: str = "0",
    **attributes: str,
) -> tuple[dict[str, object], dict[str, object]]:
    """A product and its terms."""
    about = {"servicecode": "AmazonBedrock", "regionCode": region, "usagetype": usage, **attributes}
    dimension = {
        "rateCode": "x", "description": description, "beginRange": begin, "endRange": "Inf", "unit": unit,
        "pricePerUnit": {"USD": usd} if usd else {"CNY": "0.1"}, "appliesTo": [],
    }  # fmt: skip
    term = {"offerTermCode": "JRTCKXETXF", "effectiveDate": effective, "priceDimensions": {"d": dimension}}
    return {"productFamily": "Amazon Bedrock", "attributes": about}, {"t": term}


def read(*products: tuple[dict[str, object], dict[str, object]], code: str = "AmazonBedrock") -> Imported:
    skus = {f"SKU{number}": each for number, each in enumerate(products)}
    offer = {
        "formatVersion": "v1.0", "offerCode": code, "version": "20261120", "publicationDate": "2026-11-20T10:00:00Z",
        "products": {sku: {"sku": sku, **each[0]} for sku, each in skus.items()},
        "terms": {"OnDemand": {sku: each[1] for sku, each in skus.items()}},
    }  # fmt: skip
    return read_aws(json.dumps(offer).encode(), "index.json", made=DAY)


def only(imported: Imported) -> tuple[str, str, str, str, str]:
    assert imported.skipped == ()
    (entry,) = imported.entries
    return (entry.model, entry.region, entry.mode, entry.token_type, entry.usd)


NOVA = "amazon.nova-lite-v1:0"
SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"


@pytest.mark.parametrize(
    ("usage", "price", "unit", "expected"),
    [
        ("USE1-NovaLite-input-tokens", "0.0000600000", "1K tokens", (NOVA, "on_demand", "input", "0.00000006")),
        ("USE1-NovaLite-output-tokens-batch", "0.0001200000", "1K tokens", (NOVA, "batch", "output", "0.00000012")),
        ("USE1-NovaLite-output-tokens-batch", "0.12", "1M tokens", (NOVA, "batch", "output", "0.00000012")),
        ("USE1-NovaLite-output-tokens-batch", "0.12", "Million tokens", (NOVA, "batch", "output", "0.00000012")),
        ("USE1-NovaLite-output-tokens-batch", "0.00012", "Thousand tokens", (NOVA, "batch", "output", "0.00000012")),
        ("USE1-NovaLite-output-tokens-batch", "0.00012", "1k tokens", (NOVA, "batch", "output", "0.00000012")),
        (
            "USE1-NovaLite-cache-read-input-token-count", "0.000015", "1K tokens",
            (NOVA, "on_demand", "cached_input", "0.000000015"),
        ),
        (
            "USE1-NovaLite-cache-write-input-token-count", "0.00006", "1K tokens",
            (NOVA, "on_demand", "cache_write", "0.00000006"),
        ),
        (
            "USE1-Nova2.0Lite-input-tokens-cross-region-global-batch", "0.00015", "1K tokens",
            ("global.amazon.nova-2-lite-v1:0", "batch", "input", "0.00000015"),
        ),
        (
            "USE1-Llama3-3-70B-input-tokens-batch", "0.00036", "1K tokens",
            ("meta.llama3-3-70b-instruct-v1:0", "batch", "input", "0.00000036"),
        ),
        (
            "USE1-deepseek.v3.2-input-tokens-batch", "0.00031", "1K tokens",
            ("deepseek.v3.2", "batch", "input", "0.00000031"),
        ),
    ],
)  # fmt: skip
def test_a_usage_type_says_model_mode_and_token_type(
    usage: str, price: str, unit: str, expected: tuple[str, str, str, str]
) -> None:
    model, mode, kind, usd = expected

    assert only(read(product(usage, price, unit))) == (model, "us-east-1", mode, kind, usd)


@pytest.mark.parametrize(
    ("usage", "unit", "expected"),
    [
        ("InputTokenCount", "1M tokens", (SONNET, "on_demand", "input")),
        ("InputTokenCount_Batch", "1M tokens", (SONNET, "batch", "input")),
        ("MillionBatchInputTokens", "MillionBatchInputTokens", (SONNET, "batch", "input")),
        ("MillionBatchOutputTokens", "Units", (SONNET, "batch", "output")),
        ("OutputTokenCount_Global", "1M tokens", (f"global.{SONNET}", "on_demand", "output")),
        ("CacheReadInputTokenCount", "1M tokens", (SONNET, "on_demand", "cached_input")),
        ("CacheWriteInputTokenCount_Global", "1M tokens", (f"global.{SONNET}", "on_demand", "cache_write")),
        ("output_tokens_standard", "1M tokens", (SONNET, "on_demand", "output")),
        ("input_tokens_batch", "1M tokens", (SONNET, "batch", "input")),
        ("cache_read_tokens_global_standard", "1M tokens", (f"global.{SONNET}", "on_demand", "cached_input")),
    ],
)
def test_models_sold_by_others_are_named_by_the_product(usage: str, unit: str, expected: tuple[str, str, str]) -> None:
    name = "Claude Sonnet 4.5 (Amazon Bedrock Edition)"
    sold = read(product(f"USE1-MP:USE1_{usage}-Units", "3.3", unit, servicename=name))

    assert only(sold) == (expected[0], "us-east-1", *expected[1:], "0.0000033")


def test_units_without_a_number_of_tokens_are_read_from_the_description_or_not_at_all() -> None:
    usage, name = "USE1-MP:USE1_InputTokenCount-Units", "Claude Sonnet 4.5 (Amazon Bedrock Edition)"
    described = product(usage, "3.3", "Units", servicename=name, description="$3.3 per Million Input Tokens")

    assert only(read(described))[-1] == "0.0000033"
    silent = read(product(usage, "3.3", "Units", servicename=name, description="$3.3 per unit"))
    assert silent.entries == ()
    assert "the unit 'Units' is not a number of tokens" in silent.skipped[0].why


@pytest.mark.parametrize(
    ("usage", "unit", "why"),
    [
        ("USE1-NovaLite-input-tokens-flex", "1K tokens", "another service tier"),
        ("USE1-NovaLite-input-tokens-priority-cross-region-global", "1K tokens", "another service tier"),
        ("USE1-NovaPro-input-tokens-latency-optimized", "1K tokens", "another service tier"),
        ("USE1-NovaLite-input-tokens-custom-model", "1K tokens", "a customized model"),
        ("USE1-NovaLite-input-tokens-long-context", "1K tokens", "only for long prompts"),
        ("USE1-NovaLite-input-tokens-cross-region-geo", "1K tokens", "which inference profile"),
        ("USE1-NovaLite-input-tokens-someday", "1K tokens", "is not understood"),
        ("USE1-qwen.qwen3-32b-mantle-input-tokens-batch", "1K tokens", "another endpoint"),
        ("USE1-Brandnew-input-tokens-batch", "1K tokens", "the model's name is not known"),
        ("USE1-Nova2.0Omni-input-audio-token-count", "1K tokens", "not by the token of text"),
        ("USE1-NovaCanvas-T2I-1024-Standard", "image", "not by the token of text"),
        ("USE1-NovaLite-input-tokens", "1K characters", "is not a number of tokens"),
        ("USE1-NovaLite-input-tokens", "image", "is not a number of tokens"),
        ("USE1-NovaLite-input-tokens", "1M TPM Hour", "is not a number of tokens"),
        ("USE1-MP:USE1_Reserved_1Month_InputTPM_Geo-Units", "1M TPM Hour", "reserved throughput"),
        ("USE1-MP:USE1_CacheWrite1hInputTokenCount-Units", "1M tokens", "kept for longer"),
        ("USE1-MP:USE1_input_tokens_long_ctx_standard-Units", "1M tokens", "only for long prompts"),
    ],
)
def test_what_is_not_understood_is_left_out_and_listed(usage: str, unit: str, why: str) -> None:
    found = read(product(usage, "0.1", unit, servicename="Claude Sonnet 4.5 (Amazon Bedrock Edition)"))

    assert found.entries == ()
    assert why in found.skipped[0].why
    assert usage in found.skipped[0].what


def test_a_product_without_a_region_a_price_in_usd_or_for_some_amounts_only_is_left_out() -> None:
    usage = "USE1-NovaLite-input-tokens"
    found = read(
        product(usage, "0.1", region=""), product(usage, None), product(usage, "0.1", begin="1000"),
        (product(usage, "0.1")[0], {}), product(usage, "0.0000000000"),
    )  # fmt: skip

    assert found.entries == ()
    assert {each.why for each in found.skipped} == {
        "names no region", "has no price in USD, or no date", "only for some amounts", "has no price on demand",
        "0 is no price",
    }  # fmt: skip


def test_a_price_that_is_dated_later_begins_then() -> None:
    usage = "USE1-NovaLite-input-tokens-batch"
    found = read(product(usage, "0.00003"), product(usage, "0.00004", effective="2027-01-01T00:00:00Z"))

    assert [(each.usd, each.valid_from, each.valid_to) for each in found.entries] == [
        ("0.00000003", DAY, date(2027, 1, 1)),
        ("0.00000004", date(2027, 1, 1), None),
    ]


def test_the_same_price_under_two_products_is_one_and_different_ones_are_none() -> None:
    usage = "USE1-NovaLite-input-tokens-batch"

    assert len(read(product(usage, "0.00003"), product(usage, "0.00003")).entries) == 1
    assert read(product(usage, "0.00003"), product(usage, "0.00004")).entries == ()


def test_names_that_stand_for_different_models_give_no_price() -> None:
    found = read(product("USE1-MistralLarge-input-tokens", "0.004", model="Mistral Large 3"))

    assert found.entries == ()
    assert found.skipped[0].why == "its names stand for different models"


TOKYO = [
    ("APN1-NovaLite-input-tokens-batch", "0.0000360000", "Nova Lite"),
    ("APN1-NovaLite-cache-read-input-token-count", "0.0000180000", "Nova Lite"),
    ("APN1-NovaLite-output-tokens", "0.0002880000", "Nova Lite"),
    ("APN1-NovaLite-input-tokens", "0.0000720000", "Nova Lite"),
    ("APN1-Nova2.0Lite-output-tokens-cross-region-global", "0.0030100000", "Nova 2.0 Lite"),
    ("APN1-Nova2.0Lite-input-tokens-cross-region-global", "0.0003600000", "Nova 2.0 Lite"),
    ("APN1-Nemotron-Nano-12B-V2-VL-BF16-input-tokens", "0.0002400000", "NVIDIA Nemotron Nano 2 VL"),
]
SOLD_IN_TOKYO = [
    ("CacheWrite1hInputTokenCount", "6.6000000000"),
    ("OutputTokenCount", "16.5000000000"),
    ("InputTokenCount_Batch", "1.6500000000"),
    ("InputTokenCount", "3.3000000000"),
    ("OutputTokenCount_Global", "15.0000000000"),
    ("CacheReadInputTokenCount", "0.3300000000"),
    ("InputTokenCount_Global", "3.0000000000"),
]


def test_the_prices_that_were_published_for_tokyo_in_september_2026_are_read_as_they_are() -> None:
    listed = read(*(product(usage, usd, region="ap-northeast-1", model=model) for usage, usd, model in TOKYO))
    name = "Claude Sonnet 4.5 (Amazon Bedrock Edition)"
    sold = read(
        *(product(f"APN1-MP:APN1_{usage}-Units", usd, "1M tokens", region="ap-northeast-1", servicename=name)
          for usage, usd in SOLD_IN_TOKYO),
        code="AmazonBedrockFoundationModels",
    )  # fmt: skip
    lite, million = "global.amazon.nova-2-lite-v1:0", 1_000_000

    assert {
        (each.model, each.mode, each.token_type): each.price * million for each in (*listed.entries, *sold.entries)
    } == {
        (NOVA, "batch", "input"): Decimal("0.036"),
        (NOVA, "on_demand", "input"): Decimal("0.072"),
        (NOVA, "on_demand", "output"): Decimal("0.288"),
        (NOVA, "on_demand", "cached_input"): Decimal("0.018"),
        (lite, "on_demand", "input"): Decimal("0.36"),
        (lite, "on_demand", "output"): Decimal("3.01"),
        ("nvidia.nemotron-nano-12b-v2", "on_demand", "input"): Decimal("0.24"),
        (SONNET, "batch", "input"): Decimal("1.65"),
        (SONNET, "on_demand", "input"): Decimal("3.3"),
        (SONNET, "on_demand", "output"): Decimal("16.5"),
        (SONNET, "on_demand", "cached_input"): Decimal("0.33"),
        (f"global.{SONNET}", "on_demand", "input"): Decimal(3),
        (f"global.{SONNET}", "on_demand", "output"): Decimal(15),
    }


def test_regions_have_prices_of_their_own_and_the_source_is_named() -> None:
    found = read(
        product("EUW1-NovaLite-input-tokens", "0.000078", region="eu-west-1"),
        product("USE1-NovaLite-input-tokens", "0.00006"),
    )

    assert {each.region: each.price for each in found.entries} == {
        "eu-west-1": Decimal("7.8E-8"),
        "us-east-1": Decimal("6E-8"),
    }
    assert found.source.startswith("AWS price list AmazonBedrock, version 20261120, published 2026-11-20, sha256 ")
    assert found.entries[0].source == "AWS AmazonBedrock SKU0 EUW1-NovaLite-input-tokens"


@pytest.mark.parametrize("data", [b"{}", b"[1]", b"x", b'{"products": {}}'])
def test_another_file_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^index\.json: "):
        read_aws(data, "index.json", made=DAY)
