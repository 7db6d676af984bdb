"""Pages of the Azure retail prices API: meters by their many names, each taken only if all of it is understood."""

from __future__ import annotations

import json
from datetime import date

import pytest

from lowtide.connectors.prices import Imported, read_azure
from lowtide.errors import ConfigError

DAY = date(2026, 11, 21)


def item(meter: str, price: float = 0.00015, unit: str = "1K", **other: object) -> dict[str, object]:
    """A row of the API, with all of the fields that the documentation shows."""
    return {
        "currencyCode": "USD", "tierMinimumUnits": 0.0, "retailPrice": price, "unitPrice": price,
        "armRegionName": "eastus", "location": "US East", "effectiveStartDate": "2025-04-01T00:00:00Z",
        "meterId": "m", "meterName": meter, "productId": "p", "skuId": "s", "productName": "Azure OpenAI",
        "skuName": meter.removesuffix(" Tokens"), "serviceName": "Foundry Models", "serviceId": "i",
        "serviceFamily": "AI + Machine Learning", "unitOfMeasure": unit, "type": "Consumption",
        "isPrimaryMeterRegion": True, "armSkuName": meter.removesuffix(" Tokens"),
    } | other  # fmt: skip


def read(*items: dict[str, object], more: str | None = None) -> Imported:
    page = {
        "BillingCurrency": "USD", "CustomerEntityId": "Default", "CustomerEntityType": "Retail",
        "Items": list(items), "NextPageLink": more, "Count": len(items),
    }  # fmt: skip
    return read_azure(json.dumps(page).encode(), "pages/eastus.json", made=DAY)


MINI = ("gpt-4o-mini", "gpt-4o-mini-2024-07-18")
NANO = ("gpt-5.4-nano", "gpt-5.4-nano-2026-03-17")


@pytest.mark.parametrize(
    ("meter", "unit", "price", "models", "expected"),
    [
        ("gpt-4o-mini-0718-Inp-glbl Tokens", "1K", 0.00015, MINI, ("global", "on_demand", "input", "0.00000015")),
        (
            "gpt-4o-mini-0718-Batch-Inp-glbl Tokens", "1K", 0.000075, MINI,
            ("global", "batch", "input", "0.000000075"),
        ),
        (
            "gpt-4o-mini-0718-Batch-Outp-glbl Tokens", "1K", 0.0003, MINI,
            ("global", "batch", "output", "0.0000003"),
        ),
        (
            "gpt 4o mini 0718 Batch Inp Data Zone Tokens", "1K", 0.000083, MINI,
            ("us", "batch", "input", "0.000000083"),
        ),
        (
            "gpt 4o mini0718 BatchOutp DataZone Tokens", "1K", 0.00033, MINI,
            ("us", "batch", "output", "0.00000033"),
        ),
        (
            "gpt-4o-mini-0718-Outp-regnl Tokens", "1K", 0.00066, MINI,
            ("eastus", "on_demand", "output", "0.00000066"),
        ),
        (
            "gpt 4o 1120 cached Inp glbl Tokens", "1K", 0.00125, ("gpt-4o-2024-11-20",),
            ("global", "on_demand", "cached_input", "0.00000125"),
        ),
        (
            "gpt 4.1 mini cached Inp DZone Tokens", "1K", 0.00011, ("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14"),
            ("us", "on_demand", "cached_input", "0.00000011"),
        ),
        ("5.4 nano Inp Gl 1M Tokens", "1M", 0.2, NANO, ("global", "on_demand", "input", "0.0000002")),
        ("5.4 nano opt Dz 1M Tokens", "1M", 1.375, NANO, ("us", "on_demand", "output", "0.000001375")),
        ("5.4 nano Batch Inp Gl 1M Tokens", "1M", 0.1, NANO, ("global", "batch", "input", "0.0000001")),
        ("5.4 nano cd Inp Gl 1M Tokens", "1M", 0.02, NANO, ("global", "on_demand", "cached_input", "0.00000002")),
        (
            "5.4 nano ShortCo Cd Wr Std Gl 1M Tokens", "1M", 0.25, NANO,
            ("global", "on_demand", "cache_write", "0.00000025"),
        ),
        (
            "GPT 5 Mini outpt Glbl 1M Tokens", "1M", 2, ("gpt-5-mini", "gpt-5-mini-2025-08-07"),
            ("global", "on_demand", "output", "0.000002"),
        ),
    ],
)  # fmt: skip
def test_a_meter_says_model_place_mode_and_token_type(
    meter: str, unit: str, price: float, models: tuple[str, ...], expected: tuple[str, str, str, str]
) -> None:
    found = read(item(meter, price, unit))

    assert found.skipped == ()
    assert {(each.region, each.mode, each.token_type, each.usd) for each in found.entries} == {expected}
    assert {each.model for each in found.entries} == set(models)
    assert {each.source for each in found.entries} == {f"Azure {meter}"}


def test_a_version_that_is_one_of_several_gives_no_price_to_the_name_without() -> None:
    assert {each.model for each in read(item("gpt 4o 1120 Batch Inp glbl Tokens")).entries} == {"gpt-4o-2024-11-20"}


BATCH = "gpt-4o-mini-0718-Batch-Inp-glbl Tokens"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (item("5.4 nano pp Inp Gl 1M Tokens", 1, "1M"), "another service tier"),
        (item("54 nano Inp Flex Gl", 1, "1M"), "another service tier"),
        (item("5.4 LongCo inp Gl 1M Tokens", 1, "1M"), "only for long prompts"),
        (item("gpt-4o-mini-0718-ft Inp glbl Tokens"), "a model of your own"),
        (item("gpt-4o-aud-1217 Inp glbl Tokens"), "not by the token of text"),
        (item("gpt-4o-mini-0718-Inp Tokens"), "is not understood"),
        (item("gpt-4o-mini-0718-glbl Tokens"), "is not understood"),
        (item("gpt-9-0101-Batch-Inp-glbl Tokens"), "the model's name is not known"),
        (item("gpt 4o mini 0718 special Inp glbl Tokens"), "the model's name is not known"),
        (item(BATCH, 1, "1 Hour"), "the unit '1 Hour' is not a number of tokens"),
        (item(BATCH, 1, "1M/Month"), "is not a number of tokens"),
        (item("5.4 nano Inp Gl 1M Tokens", 0.2, "1K"), "the name and the unit '1K' differ"),
        (item(BATCH, 0), "0 is no price"),
        (item(BATCH, unitPrice=0.0002), "retailPrice and unitPrice differ"),
        (item(BATCH, retailPrice=None, unitPrice=None), "has no price"),
        (item(BATCH, currencyCode="EUR"), "not in USD"),
        (item(BATCH, type="Reservation"), "not paid by use"),
        (item(BATCH, tierMinimumUnits=1000.0), "only for some amounts"),
        (item(BATCH, productName="Azure Grok Models"), "not of Azure OpenAI"),
        (item("gpt-4o-mini-0718-Inp-glbl Tokens", skuName="gpt-4o-mini Batch"), "do not agree that it is for batches"),
        (item(BATCH, armRegionName="usgovvirginia"), "is not understood"),
        (item("gpt 4.1 Inp Data Zone Tokens", armRegionName="brazilsouth"), "is not understood"),
        (item(BATCH, effectiveEndDate="2026-11-21T00:00:00Z"), "is no longer the price"),
        (item(BATCH, effectiveStartDate="soon"), "has a date that is none"),
    ],
)
def test_what_is_not_understood_is_left_out_and_listed(row: dict[str, object], why: str) -> None:
    found = read(row)

    assert found.entries == ()
    assert all(why in each.why for each in found.skipped)
    assert str(row["meterName"]) in found.skipped[0].what


def test_a_price_of_global_deployments_is_listed_in_every_region_and_taken_once() -> None:
    found = read(item(BATCH), item(BATCH, armRegionName="westeurope"))

    assert len(found.entries) == len(MINI)
    assert read(item(BATCH), item(BATCH, 0.0002, armRegionName="westeurope")).entries == ()


def test_data_zones_of_the_european_union_and_the_united_states_are_told_apart() -> None:
    meter = "gpt 4o 1120 Batch Inp Data Zone Tokens"
    found = read(item(meter, 0.001), item(meter, 0.002, armRegionName="swedencentral"))

    assert {each.region: each.usd for each in found.entries} == {"us": "0.000001", "eu": "0.000002"}


def test_a_price_that_is_to_come_begins_then_and_one_that_ends_does() -> None:
    found = read(
        item("gpt 4o 1120 Batch Inp glbl Tokens", 0.001),
        item("gpt 4o 1120 Batch Inp glbl Tokens", 0.002, effectiveStartDate="2027-01-01T00:00:00Z"),
        item("gpt 4o 1120 Batch Outp glbl Tokens", 0.005, effectiveEndDate="2027-02-01T00:00:00Z"),
    )

    assert [(each.usd, each.valid_from, each.valid_to) for each in found.entries] == [
        ("0.000001", DAY, date(2027, 1, 1)),
        ("0.000002", date(2027, 1, 1), None),
        ("0.000005", DAY, date(2027, 2, 1)),
    ]


def test_an_old_price_of_a_meter_that_is_still_listed_is_no_price() -> None:
    meter = "gpt 4o 1120 Batch Inp glbl Tokens"
    old = item(meter, 0.0015, effectiveStartDate="2024-12-01T00:00:00Z")
    for rows in ((old, item(meter, 0.001)), (item(meter, 0.001), old)):
        assert [(each.usd, each.valid_to) for each in read(*rows).entries] == [("0.000001", None)]


def test_a_page_that_is_not_the_last_is_said_to_be_so() -> None:
    assert read(item(BATCH), more="next").skipped[0].why == "more pages follow, and are not in the file"
    pages = json.dumps([{"Items": [item(BATCH)], "NextPageLink": "next"}, {"Items": [], "NextPageLink": None}])
    assert read_azure(pages.encode(), "pages.json", made=DAY).skipped == ()


def test_a_price_is_not_rounded_on_its_way() -> None:
    data = json.dumps({"Items": [item(BATCH)]}).replace("0.00015", "0.000123456789")

    assert {each.usd for each in read_azure(data.encode(), "p", made=DAY).entries} == set()
    data = data.replace("0.000123456789", "0.123456789")
    assert {each.usd for each in read_azure(data.encode(), "p", made=DAY).entries} == {"0.000123456789"}


@pytest.mark.parametrize("data", [b"{}", b"[{}]", b"x", b'{"Items": 7}'])
def test_another_file_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^p\.json: "):
        read_azure(data, "p.json", made=DAY)
