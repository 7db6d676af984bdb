"""litellm's file as it is published: what it states is taken to the last digit, and what it does not is left out.

`litellm_excerpt.json` holds rows of litellm 1.109.1 (MIT licence) as they are, without the fields about abilities.
"""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import pytest

from lowtide.connectors.prices import Imported, read_litellm
from lowtide.errors import ConfigError

DAY = date(2026, 11, 21)
EXCERPT = (Path(__file__).parent / "litellm_excerpt.json").read_bytes()
READ = read_litellm(EXCERPT, "litellm_excerpt.json", made=DAY)
WHEEL = "litellm-1.109.1-cp310-abi3-manylinux_2_28_x86_64.whl"


def prices(imported: Imported, model: str, region: str = "", provider: str = "aws") -> dict[tuple[str, str], Decimal]:
    return {
        (each.mode, each.token_type): each.price
        for each in imported.entries
        if (each.provider, each.model, each.region) == (provider, model, region)
    }


def why(what: str, imported: Imported = READ) -> str:
    return "; ".join(each.why for each in imported.skipped if each.what.startswith(what))


def rows(**rows: dict[str, object]) -> bytes:
    return json.dumps({name.replace("_", "."): row for name, row in rows.items()}).encode()


@pytest.mark.parametrize(
    ("provider", "model", "region", "usd"),
    [
        (
            "openai", "gpt-4o-mini", "",
            {"batch input": "0.000000075", "batch output": "0.0000003", "on_demand input": "0.00000015",
             "on_demand output": "0.0000006", "on_demand cached_input": "0.000000075"},
        ),
        (
            "openai", "gpt-5", "",
            {"batch input": "0.000000625", "batch output": "0.000005", "batch cached_input": "0.0000000625",
             "on_demand input": "0.00000125", "on_demand output": "0.00001",
             "on_demand cached_input": "0.000000125"},
        ),
        (
            "azure", "gpt-4o-mini", "",
            {"batch input": "0.000000075", "batch output": "0.0000003", "on_demand input": "0.00000015",
             "on_demand output": "0.0000006", "on_demand cached_input": "0.000000075"},
        ),
        (
            "aws", "amazon.nova-lite-v1:0", "us-east-1",
            {"batch input": "0.00000003", "batch output": "0.00000012", "on_demand input": "0.00000006",
             "on_demand output": "0.00000024", "on_demand cached_input": "0.000000015"},
        ),
        # Neither of the two is half of the price on demand.
        (
            "aws", "google.gemma-3-12b-it", "us-east-1",
            {"batch input": "0.00000005", "batch output": "0.00000015", "on_demand input": "0.00000009",
             "on_demand output": "0.00000029"},
        ),
    ],
)  # fmt: skip
def test_every_price_that_is_stated_is_taken_to_its_last_digit(
    provider: str, model: str, region: str, usd: dict[str, str]
) -> None:
    expected = {tuple(what.split()): Decimal(price) for what, price in usd.items()}

    assert prices(READ, model, region, provider) == expected


def test_a_batch_price_that_is_not_stated_is_absent_and_not_half_of_the_other() -> None:
    found = prices(READ, "us.anthropic.claude-sonnet-4-6")

    assert found["on_demand", "input"] == Decimal("0.0000033")
    assert not [mode for mode, _ in found if mode == "batch"]
    zone = prices(READ, "gpt-4o-mini", "us", "azure")
    assert zone["batch", "input"] == Decimal("0.000000083")
    assert ("batch", "output") not in zone
    assert ("batch", "cached_input") not in prices(READ, "gpt-4o-mini", provider="openai")


def test_profiles_keep_prices_of_their_own() -> None:
    found = {
        name: prices(READ, f"{name}amazon.nova-2-lite-v1:0", region)["batch", "input"]
        for name, region in (("", "us-east-1"), ("us.", ""), ("global.", "us-east-1"))
    }

    assert found == {"": Decimal("0.00000015"), "us.": Decimal("0.000000165"), "global.": Decimal("0.00000015")}


def test_a_price_of_bedrock_is_for_the_region_that_is_named_and_for_no_other() -> None:
    assert prices(READ, "deepseek.v3.2", "eu-north-1")["batch", "input"] == Decimal("0.00000037")
    assert prices(READ, "deepseek.v3.2", "us-east-1")["batch", "input"] == Decimal("0.00000031")
    assert prices(READ, "deepseek.v3.2") == {}
    assert prices(READ, "amazon.nova-lite-v1:0") == {}
    # The price of a global profile depends on the region that it is called from.
    assert prices(READ, "global.amazon.nova-2-lite-v1:0") == {}
    assert prices(READ, "global.anthropic.claude-sonnet-4-6")["on_demand", "input"] == Decimal("0.000003")
    assert why("anthropic.claude-haiku-4-5-20251001-v1:0") == "neither the key nor the source names the region"


def test_the_price_of_a_geographic_profile_says_which_region_it_was_stated_for() -> None:
    sources = {each.source for each in READ.entries if each.model == "us.amazon.nova-lite-v1:0"}

    assert sources == {"litellm us.amazon.nova-lite-v1:0, stated for us-east-1"}


def test_data_zones_and_global_deployments_of_azure_are_told_apart() -> None:
    assert prices(READ, "gpt-4.1", "us", "azure")["batch", "output"] == Decimal("0.0000044")
    assert prices(READ, "gpt-5.1", "global", "azure")["batch", "input"] == Decimal("0.000000625")
    assert prices(READ, "gpt-5.1", "eu", "azure")["batch", "input"] == Decimal("0.0000006875")


def test_prices_for_long_prompts_are_left_out_and_the_others_say_so() -> None:
    assert prices(READ, "gpt-5.4", provider="azure")["batch", "input"] == Decimal("0.00000125")
    sources = {each.source for each in READ.entries if each.model == "gpt-5.4"}
    assert sources == {"litellm azure/gpt-5.4, prompts up to 272k tokens"}
    assert "only for long prompts" in why("azure/gpt-5.4 input_cost_per_token_above_272k_tokens_batches")


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("us.amazon.nova-2-lite-v1:0 input_cost_per_token_flex", "another service tier"),
        ("gpt-4o-mini input_cost_per_token_priority", "another service tier"),
        ("gpt-5.6 cache_creation_input_token_cost_above_12hr", "only for caches that are kept for longer"),
        ("bedrock/us-east-1/1-month-commitment/anthropic", "the key names no region"),
        ("bedrock/claude_platform/claude-haiku-4-5", "the key is not the id of a Bedrock model"),
        ("litellm azure/model-router on_demand output", "0 is no price"),
    ],
)
def test_what_is_left_out_is_listed_with_the_reason(what: str, reason: str) -> None:
    assert reason in why(what)


def test_images_embeddings_and_other_providers_are_none_of_its_business() -> None:
    models = {each.model for each in READ.entries}

    assert not models & {"amazon.nova-canvas-v1:0", "text-embedding-3-small", "claude-haiku-4-5"}


def test_costs_by_the_character_or_the_second_are_never_taken_for_tokens() -> None:
    row = {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    odd = row | {"input_cost_per_character": 1e-7, "output_cost_per_second": 0.1, "input_cost_per_new_thing": 1.0}
    read = read_litellm(rows(m=odd), "p.json", made=DAY)

    assert len(read.entries) == 2
    assert {each.what: each.why for each in read.skipped} == {
        "m input_cost_per_character": "not by the token of text",
        "m output_cost_per_second": "not by the token of text",
        "m input_cost_per_new_thing": "is not understood",
    }


@pytest.mark.parametrize("price", ['"0.1"', "true", "null", "-1e-6", "1e-13", "NaN", "0"])
def test_what_is_no_price_is_not_taken(price: str) -> None:
    data = '{"m": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": %s}}' % price  # noqa: UP031
    read = read_litellm(data.encode(), "p.json", made=DAY)

    assert read.entries == ()
    assert len(read.skipped) == 1


def test_a_price_with_many_digits_is_not_rounded() -> None:
    data = b'{"m": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 0.123456789012}}'

    assert read_litellm(data, "p.json", made=DAY).entries[0].usd == "0.123456789012"


def test_two_prices_for_the_same_thing_are_both_left_out() -> None:
    row = {"litellm_provider": "azure", "mode": "chat", "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    both = {"azure/global/m": row, "azure/global-standard/m": row | {"output_cost_per_token": 3e-6}}
    read = read_litellm(json.dumps(both).encode(), "p.json", made=DAY)

    assert [each.token_type for each in read.entries] == ["input"]
    assert [each.why for each in read.skipped] == ["different prices are stated for the same thing"]


def test_the_wheel_gives_the_same_prices_and_its_version() -> None:
    packed = BytesIO()
    with ZipFile(packed, "w") as archive:
        archive.writestr("litellm/model_prices_and_context_window_backup.json", EXCERPT)
    read = read_litellm(packed.getvalue(), f"downloads/{WHEEL}", made=DAY)

    assert read.source.startswith("litellm 1.109.1, model_prices_and_context_window_backup.json, sha256 ")
    assert [(each.key, each.usd) for each in read.entries] == [(each.key, each.usd) for each in READ.entries]
    assert {each.source for each in read.entries if each.model == "gpt-5"} == {"litellm 1.109.1 gpt-5"}


def test_a_small_book_keeps_models_with_a_batch_price_and_all_of_their_profiles() -> None:
    small = read_litellm(EXCERPT, "e.json", made=DAY, batched=True)

    assert prices(small, "eu.amazon.nova-lite-v1:0")["on_demand", "input"] == Decimal("0.000000078")
    assert prices(small, "us.anthropic.claude-sonnet-4-6") == {}
    assert {each.provider for each in read_litellm(EXCERPT, "e", made=DAY, providers=["azure"]).entries} == {"azure"}


@pytest.mark.parametrize("data", [b"{}", b"[]", b"nothing", b'{"a": {"b": 1}}', b"PK\x03\x04broken"])
def test_another_file_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^p\.json: "):
        read_litellm(data, "p.json", made=DAY)
