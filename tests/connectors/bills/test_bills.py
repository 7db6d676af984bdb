"""Bills as providers export them: what their lines say, and what is said of a file that cannot be trusted."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import bills
from support.bills import Used

from lowtide.billing.bill import BillError, BillLine, base_model, fold_tag
from lowtide.connectors.bills import Names, open_bill, read_names
from lowtide.connectors.bills.fields import tokens_of
from lowtide.connectors.bills.usage import Usage, of_aws, of_azure
from lowtide.errors import ConfigError

DAY = datetime(2026, 11, 20, tzinfo=UTC)
NOVA = Used("aws", "us-east-1", "amazon.nova-lite-v1:0", "input", "batch", DAY, 1_234_567, Decimal("0.0925925250"))
MINI = Used("azure", "eastus", "gpt-4o-mini", "input", "batch", DAY, 1_234_567, Decimal("0.0925925250"))
KINDS = ("input", "output", "cached_input", "cache_write")


def lines_of(path: Path, names: Names | None = None) -> list[BillLine]:
    return list(open_bill(path, names).lines())


Writer = Callable[[Path, Sequence[Used]], Path]
WRITERS: dict[str, tuple[Used, str, Writer]] = {
    "cur": (NOVA, "AWS CUR 2.0", lambda at, used: bills.write_cur(at / "b.parquet", bills.cur_rows(used)[1:-1])),
    "cur-csv": (NOVA, "AWS CUR 2.0", lambda at, used: bills.write_cur(at / "b.csv.gz", bills.cur_rows(used)[1:-1])),
    "focus-aws": (NOVA, "FOCUS", lambda at, used: bills.write_focus(at / "b.parquet", bills.focus_rows(used))),
    "focus-aws-csv": (NOVA, "FOCUS", lambda at, used: bills.write_focus(at / "b.csv", bills.focus_rows(used))),
    "focus-azure": (
        MINI,
        "FOCUS",
        lambda at, used: bills.write_focus(at / "b.parquet", bills.focus_rows(used), doubles=False),
    ),
    "azure-ea": (
        MINI,
        "Azure cost export",
        lambda at, used: bills.write_csv(at / "b.csv", bills.AZURE_EA, bills.azure_rows(used)[1:], bom=True),
    ),
    "azure-mca": (
        MINI,
        "Azure cost export",
        lambda at, used: bills.write_csv(at / "b.csv.gz", bills.AZURE_MCA, bills.azure_rows(used, bills.AZURE_MCA)[1:]),
    ),
    "azure-payg": (
        MINI,
        "Azure cost export",
        lambda at, used: bills.write_csv(at / "b.csv", bills.AZURE_PAYG, bills.azure_rows(used, bills.AZURE_PAYG)[1:]),
    ),
}


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("mode", ["batch", "on_demand"])
def test_every_layout_says_the_same_in_the_words_of_the_ledger(layout: str, mode: str, tmp_path: Path) -> None:
    one, name, write = WRITERS[layout]
    used = [replace(one, token_type=kind, mode=mode, tags={"team": "x"}) for kind in KINDS]
    bill = open_bill(write(tmp_path, used))
    found = list(bill.lines())

    assert bill.layout == name
    assert [line.token_type for line in found] == list(KINDS)
    first_row = 1 if layout in ("cur", "focus-aws", "focus-azure") else 2
    assert [line.row for line in found] == list(range(first_row, first_row + 4))
    for line in found:
        assert (line.provider, line.model, line.mode) == (one.provider, base_model(one.model), mode)
        assert (line.region, line.quantity, line.cost) == (one.region, 1_234_567, one.cost)
        assert (line.first_day, line.last_day) == (date(2026, 11, 20), date(2026, 11, 20))
        assert (line.billing_month, line.currency) == (date(2026, 11, 1), "USD")
        assert {fold_tag(key): value for key, value in line.tags.items()} == {"team": "x"}
        assert (line.charge, line.unknown) == ("", "")
    assert len({line.identity for line in found}) == 4
    assert (bill.counts.first_day, bill.counts.last_day) == (date(2026, 11, 1), date(2026, 11, 20))


@pytest.mark.parametrize("layout", WRITERS)
def test_a_restated_line_keeps_its_identity_and_a_line_of_another_day_does_not(layout: str, tmp_path: Path) -> None:
    one, _, write = WRITERS[layout]
    [first] = lines_of(write(tmp_path, [one]))
    [restated] = lines_of(write(tmp_path, [replace(one, quantity=7, cost=Decimal(7))]))
    [other] = lines_of(write(tmp_path, [replace(one, start=DAY.replace(day=21))]))
    assert first.identity == restated.identity != other.identity
    assert first.scope == restated.scope == other.scope


@pytest.mark.parametrize(
    ("words", "product", "expected"),
    [
        ("USE1-NovaLite-input-tokens-batch", "", "NovaLite input batch us-east-1"),
        ("EU-Qwen3-32B-output-tokens-batch", "", "Qwen3-32B output batch eu-west-1"),
        ("APN1-Nova2.0Lite-output-tokens", "", "Nova2.0Lite output on_demand ap-northeast-1"),
        ("USW2-NovaPro-cache-read-input-token-count", "", "NovaPro cached_input on_demand us-west-2"),
        ("USW2-NovaPro-cache-write-input-token-count", "", "NovaPro cache_write on_demand us-west-2"),
        ("APS3-openai.gpt-oss-20b-mantle-input-tokens-flex", "", "openai.gpt-oss-20b input flex ap-south-1"),
        ("USE1-MP:USE1_InputTokenCount-Units", "Haiku (Amazon Bedrock Edition)", "Haiku input on_demand us-east-1"),
        ("USE1-MP:USE1_CacheReadInputTokenCount_Global-Units", "Haiku", "Haiku cached_input on_demand us-east-1"),
        ("USE1-MP:USE1_MillionBatchOutputTokens-Units", "Haiku", "Haiku output batch us-east-1"),
        ("USW2-MP:USW2_output_tokens_global_standard-Units", "Opus", "Opus output on_demand us-west-2"),
        ("USE1-NovaCanvas-T2I-1024-Standard", "Bedrock", "Bedrock   us-east-1"),
    ],
)
def test_what_usage_types_say(words: str, product: str, expected: str) -> None:
    assert of_aws(words, product) == Usage(*expected.split(" "))


@pytest.mark.parametrize(
    ("meter", "model", "token_type", "mode"),
    [
        ("gpt-4o-mini-0718-Batch-Inp-glbl Tokens", "gpt-4o-mini", "input", "batch"),
        ("gpt 4o mini0718 BatchOutp DataZone Tokens", "gpt-4o-mini", "output", "batch"),
        ("gpt 4o mini 0718 cached Inp glbl Tokens", "gpt-4o-mini", "cached_input", "on_demand"),
        ("gpt 4o 1120 Batch Outp Data Zone Tokens", "gpt-4o", "output", "batch"),
        ("gpt 4o 0513 Input global Tokens", "gpt-4o", "input", "on_demand"),
        ("gpt 4.1 Outp regnl Tokens", "gpt-4.1", "output", "on_demand"),
        ("GPT 5 Mini outpt Glbl 1M Tokens", "gpt-5-mini", "output", "on_demand"),
        ("5.4 mini cd Inp Gl 1M Tokens", "gpt-5.4-mini", "cached_input", "on_demand"),
        ("5.4 mini Opt Gl", "gpt-5.4-mini", "output", "on_demand"),
        ("o3 mini 0131 Batch Inp Data Zone Tokens", "o3-mini", "input", "batch"),
        ("o1 1217 cached Inp regnl Tokens", "o1", "cached_input", "on_demand"),
        ("gpt-4o-aud-1217-txt Inp glbl Tokens", "", "input", "on_demand"),
        ("text-embedding-3-small-glbl Tokens", "", "", "on_demand"),
    ],
)
def test_what_meters_say(meter: str, model: str, token_type: str, mode: str) -> None:
    found = of_azure(meter)
    assert (found.token_type, found.mode) == (token_type, mode)
    assert Names().model("azure", found.name, meter) == model


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        ("NovaLite", "us.amazon.nova-lite-v1:0"),
        ("NovaMicro", "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0"),
        ("Nova2.0Lite", "global.amazon.nova-2-lite-v1:0"),
        ("Claude3Haiku", "anthropic.claude-3-haiku-20240307-v1:0"),
        ("Claude 3.5 Haiku", "us.anthropic.claude-3-5-haiku-20241022-v1:0"),
        ("Claude 3.5 Sonnet", "anthropic.claude-3-5-sonnet-20240620-v1:0"),
        ("Claude 3.5 Sonnet v2", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
        ("Claude4.6Sonnet", "us.anthropic.claude-sonnet-4-6"),
        ("Claude Haiku 4.5", "eu.anthropic.claude-haiku-4-5-20251001-v1:0"),
        ("Claude Sonnet 4", "anthropic.claude-sonnet-4-20250514-v1:0"),
        ("Llama4-Maverick-17B", "meta.llama4-maverick-17b-instruct-v1:0"),
        ("openai.gpt-oss-20b", "openai.gpt-oss-20b-1:0"),
        ("GPT-OSS-120B", "openai.gpt-oss-120b-1:0"),
        ("Qwen3-32B", "qwen.qwen3-32b-v1:0"),
        ("deepseek.v3.2", "deepseek.v3.2"),
    ],
)
def test_names_of_models_in_bills_are_those_of_the_ledger(words: str, ours: str) -> None:
    assert Names().model("aws", words, words) == base_model(ours)


def test_names_that_are_close_are_not_taken_for_each_other() -> None:
    assert base_model("anthropic.claude-3-5-sonnet-20240620-v1:0") != base_model(
        "anthropic.claude-3-5-sonnet-20241022-v2:0"
    )
    for words in ("NovaLiteX", "NovaSonic", "Claude3", "gpt4o", ""):
        assert Names().model("aws", words, words) == ""


@pytest.mark.parametrize(
    ("unit", "tokens"),
    [
        ("1K tokens", 1000),
        ("1M tokens", 1_000_000),
        ("Tokens", 1),
        ("1K", 1000),
        ("1M", 1_000_000),
        ("1000 Tokens", 1000),
        ("Million Input Tokens", 1_000_000),
        ("Units", None),
        ("1", None),
        ("1 Hour", None),
        ("K", None),
        ("", None),
    ],
)
def test_units_are_understood_or_not(unit: str, tokens: int | None) -> None:
    assert tokens_of(unit) == tokens


def cur_with(tmp_path: Path, **changes: Any) -> Path:
    """A bill of one line that has these values, in the second row."""
    rows = bills.cur_rows([NOVA])
    rows[1] |= changes
    return bills.write_cur(tmp_path / "cur.parquet", rows)


def azure_with(tmp_path: Path, **changes: str) -> Path:
    """A bill of one line that has these values, in line 3."""
    rows = bills.azure_rows([MINI])
    rows[1] |= changes
    return bills.write_csv(tmp_path / "costs.csv", bills.AZURE_EA, rows)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pricing_unit": "Units"}, r"cur\.parquet:2: pricing_unit: found 'Units'; .*--map FILE with units: \{'Units'"),
        ({"pricing_unit": None}, r"cur\.parquet:2: pricing_unit: found ''"),
        ({"line_item_currency_code": "EUR"}, r"cur\.parquet:2: line_item_currency_code: found 'EUR'; .* in USD"),
        ({"line_item_usage_amount": float("nan")}, r"cur\.parquet:2: line_item_usage_amount: found nan"),
        ({"line_item_unblended_cost": None}, r"cur\.parquet:2: line_item_unblended_cost: found None; a number"),
    ],
)
def test_a_line_that_cannot_be_trusted_is_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(BillError, match=said):
        lines_of(cur_with(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"Quantity": "1234,567"}, r"costs\.csv:3: Quantity: found '1234,567'; .*a point for decimals"),
        ({"Quantity": "1.234,5"}, r"costs\.csv:3: Quantity: found '1\.234,5'"),
        ({"CostInBillingCurrency": "0,09"}, r"costs\.csv:3: CostInBillingCurrency: found '0,09'"),
        ({"CostInBillingCurrency": ""}, r"costs\.csv:3: CostInBillingCurrency: found ''"),
        ({"UnitOfMeasure": "1 Hour"}, r"costs\.csv:3: UnitOfMeasure: found '1 Hour'"),
        ({"BillingCurrencyCode": "CHF"}, r"costs\.csv:3: BillingCurrencyCode: found 'CHF'; .*export the bill in USD"),
        ({"Date": "20/11/2026"}, r"costs\.csv:3: Date: found '20/11/2026'; .*month first"),
        ({"Tags": "team=x"}, r"costs\.csv:3: Tags: found 'team=x'"),
    ],
)
def test_a_field_that_a_spreadsheet_has_changed_is_refused(changes: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(BillError, match=said):
        lines_of(azure_with(tmp_path, **changes))


def test_lines_of_other_services_may_hold_anything(tmp_path: Path) -> None:
    rows = bills.azure_rows([MINI])
    rows[0] |= {"Quantity": "1,5", "BillingCurrencyCode": "CHF", "UnitOfMeasure": "1 Hour"}
    bill = open_bill(bills.write_csv(tmp_path / "costs.csv", bills.AZURE_EA, rows))
    assert len(list(bill.lines())) == 1
    assert (bill.counts.read, bill.counts.passed_over) == (2, 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"line_item_usage_type": "USE1-Tidal-input-tokens"},
            "no model known by 'Tidal'; .*'USE1-Tidal-input-.*: MODEL",
        ),
        ({"line_item_usage_type": "USE1-NovaCanvas-T2I-1024"}, "no kind of token"),
        ({"line_item_usage_amount": -1.0}, "below zero"),
    ],
)
def test_a_line_that_is_not_understood_is_listed_with_its_cost(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    line = lines_of(cur_with(tmp_path, **changes))[0]
    assert (line.row, line.cost) == (2, Decimal("0.092592525"))
    assert re.search(reason, line.unknown)


def test_a_users_own_names_and_units_are_used(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text('models: {"*-Tidal-*": "acme.tidal-v1:0"}\nunits: {Blocks: 500}\n')
    names = read_names(path)
    bill = cur_with(
        tmp_path, line_item_usage_type="USE1-Tidal-input-tokens", pricing_unit="blocks", line_item_usage_amount=3.0
    )
    line = lines_of(bill, names)[0]
    assert (line.model, line.quantity, line.unknown) == ("acme.tidal", 1500, "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: [a]", "models: found"),
        ("models: {a: 1}", "models.a: found 1; a model's name"),
        ("units: {Units: 1.5}", "units.Units: found 1.5; a whole number"),
        ("units: {Units: 0}", "units.Units: found 0"),
        ("prices: {}", "found 'prices'; write models"),
        ("- a", "found list; write models"),
        ("models: {a", r"map.yaml:1: is not YAML|map.yaml:2: is not YAML"),
    ],
)
def test_a_map_that_is_none_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_names(path)


def test_marketplace_units_count_as_their_description_says(tmp_path: Path) -> None:
    bill = cur_with(
        tmp_path,
        line_item_product_code="abc123def456",
        product_servicecode="",
        line_item_usage_type="USE1-MP:USE1_InputTokenCount-Units",
        line_item_line_item_description="AWS Marketplace software usage|us-east-1|Million Input Tokens",
        product={"product_name": "Claude 3 Haiku (Amazon Bedrock Edition)"},
        pricing_unit="Units",
        line_item_usage_amount=1.234567,
    )
    line = lines_of(bill)[0]
    assert (line.model, line.quantity) == ("anthropic.claude-3-haiku", 1_234_567)


def test_azures_blocks_are_believed_only_if_two_columns_agree(tmp_path: Path) -> None:
    rows = bills.focus_rows([MINI])
    rows[0]["ConsumedQuantity"] = Decimal(99)
    path = bills.write_focus(tmp_path / "b.parquet", rows, doubles=False)
    with pytest.raises(BillError, match=r"b\.parquet:1: PricingUnit: found 'Units'"):
        lines_of(path)


def test_tags_of_the_caller_are_not_those_of_the_batch(tmp_path: Path) -> None:
    tags = {"resourceTags/CostCenter": "a1", "iamPrincipal/CostCenter": "zz", "accountTag/team": "yy"}
    line = lines_of(cur_with(tmp_path, tags=tags, resource_tags={}))[0]
    assert {fold_tag(name): value for name, value in line.tags.items()} == {"costcenter": "a1"}


def test_aws_names_the_usage_in_a_column_of_its_own_or_at_the_head_of_the_description(tmp_path: Path) -> None:
    rows = bills.focus_rows([NOVA, NOVA])
    for row in rows:
        del row["SkuMeter"]
    rows[0]["x_UsageType"] = "USE1-NovaLite-output-tokens"
    rows[1]["ChargeDescription"] = "USE1-NovaPro-input-tokens-batch at $0.000075"
    first, second = lines_of(bills.write_focus(tmp_path / "b.parquet", rows))
    assert (first.model, first.token_type, first.mode) == ("amazon.nova-lite", "output", "on_demand")
    assert (second.model, second.token_type, second.mode) == ("amazon.nova-pro", "input", "batch")


def test_doubles_are_read_by_their_shortest_form(tmp_path: Path) -> None:
    path = cur_with(tmp_path, line_item_usage_amount=0.1 + 0.2, line_item_unblended_cost=0.1)
    line = lines_of(path)[0]
    assert (line.quantity, line.cost) == (300, Decimal("0.1"))


def test_a_byte_order_mark_quotes_and_line_breaks_do_not_disturb(tmp_path: Path) -> None:
    rows = bills.azure_rows([MINI, replace(MINI, token_type="output")])
    rows[1]["AdditionalInfo"] = '{"a": "x,\ny"}'
    path = bills.write_csv(tmp_path / "costs.csv", bills.AZURE_EA, rows, bom=True)
    assert [line.row for line in lines_of(path)] == [3, 5]


@pytest.mark.parametrize("cut", [0.2, 0.9, 0.999])
@pytest.mark.parametrize("layout", ["cur", "cur-csv", "azure-ea"])
def test_a_file_that_is_not_whole_is_refused(layout: str, cut: float, tmp_path: Path) -> None:
    one, _, write = WRITERS[layout]
    path = write(tmp_path, [replace(one, token_type=kind) for kind in KINDS] * 40)
    data = path.read_bytes()
    end = int(len(data) * cut)
    if layout == "azure-ea":
        # Cut within a line: behind a whole one, what is left is a shorter bill.
        end = data.rindex(b"\n", 0, end) + 40
    path.write_bytes(data[:end])
    with pytest.raises(BillError, match=r"damaged or not whole|not Parquet|lacks"):
        lines_of(path)


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    path = cur_with(tmp_path)
    data = bytearray(path.read_bytes())
    data[200:2000] = bytes(1800)
    path.write_bytes(data)
    with pytest.raises(BillError, match="damaged or not whole"):
        lines_of(path)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"Date;MeterName;Quantity\n", "a.csv:1: columns are separated by semicolons"),
        ("a.csv", b"a,b,c\n1,2,3\n", "found the columns 'a', 'b', 'c'; none of AWS CUR 2.0, FOCUS, Azure cost export"),
        ("a.csv", "Date,MeterName\n".encode("utf-16"), "is not UTF-8 text"),
        ("a.csv", b"lineItem/UsageType,lineItem/UnblendedCost\n", "legacy AWS Cost and Usage Report"),
        ("a.csv", b"MeterName,MeterCategory,Quantity\n", "looks like Azure cost export, and lacks consumedservice"),
        ("a.csv.gz", gzip.compress(b"x" * 9000, mtime=0)[:40], "gzip file is damaged or not whole"),
        ("a.parquet", b"PAR1" + b"\0" * 100, "Parquet file is damaged or not whole"),
    ],
)
def test_a_file_that_is_no_bill_is_refused(name: str, data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BillError, match=said):
        lines_of(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BillError, match=r"none\.csv: cannot be read: No such file"):
        open_bill(tmp_path / "none.csv")


def test_columns_that_are_missing_are_named(tmp_path: Path) -> None:
    path = cur_with(tmp_path)
    table = pq.read_table(path).drop_columns(["pricing_unit", "line_item_currency_code"])
    pq.write_table(table, path)
    with pytest.raises(BillError, match=r"looks like AWS CUR 2\.0, and lacks line_item_currency_code, pricing_unit"):
        open_bill(path)


MEASURE = """
import re, sys
from lowtide.connectors.bills import open_bill
bill = open_bill(sys.argv[1])
tokens = sum(line.quantity for line in bill.lines())
print(tokens, re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".parquet", ".csv.gz"])
def test_memory_does_not_grow_with_the_bill(suffix: str, tmp_path: Path) -> None:
    small, large = 5_000, 100_000
    peaks = []
    for count in (small, large):
        path = tmp_path / f"b{count}{suffix}"
        if suffix == ".parquet":
            _repeat(bills.write_cur(path, bills.cur_rows([NOVA])[1:2]), count)
        else:
            rows = bills.azure_rows([MINI])[1:]
            bills.write_csv(path, bills.AZURE_EA, (row for _ in range(count) for row in rows))
        out = subprocess.run(
            [sys.executable, "-c", MEASURE, path], capture_output=True, text=True, timeout=300, check=True
        )
        tokens, peak = out.stdout.split()
        assert int(tokens) == 1_234_567 * count
        peaks.append(int(peak))
    # Kilobytes; a hundred thousand lines as objects would be some hundred megabytes.
    assert peaks[1] - peaks[0] < 40_000


def _repeat(path: Path, count: int) -> None:
    table = pq.read_table(path)
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(count // 1000):
            writer.write_table(pa.concat_tables([table] * 1000).combine_chunks())


def test_a_first_line_that_is_no_csv_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "bill.json"
    path.write_text('[{"BilledCost":1,"Tags":2}]', encoding="utf-8")
    with pytest.raises(BillError, match=r"bill\.json:1: the line cannot be read"):
        open_bill(path)


def test_a_map_that_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file or directory$"):
        read_names(tmp_path / "none.yaml")
