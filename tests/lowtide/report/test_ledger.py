from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from lowtide.report.ledger import read_ledger
from lowtide.report.shards import SHARD_COLUMNS, cost_columns, token_columns

if TYPE_CHECKING:
    from conftest import Tables


def test_only_actual_entries_are_the_bill(tables: Tables) -> None:
    kinds = ("estimate", "reserved", "actual", "released", "billed", "correction")
    ledger = read_ledger(tables.ledger([tables.entry(number, kind=kind) for number, kind in enumerate(kinds)]))
    assert (ledger.entries, ledger.tokens()) == (6, 1000)
    assert ledger.cost == {"USD": Decimal("0.5")}
    assert set(ledger.kinds) == set(kinds)


def test_waste_is_counted_apart_and_in_full(tables: Tables) -> None:
    made = [
        tables.entry(1),
        tables.entry(2, waste="expired", quantity=250),
        tables.entry(3, waste="invalid", quantity=50),
    ]
    ledger = read_ledger(tables.ledger(made))
    assert (ledger.tokens(), ledger.tokens(wasted=True), ledger.tokens(wasted=False)) == (1300, 300, 1000)
    assert ledger.wasted_cost == {"USD": Decimal("1.0")}
    assert ledger.shards[1].wasted == 300


def test_compute_seconds_are_not_tokens(tables: Tables) -> None:
    made = [tables.entry(1), tables.entry(2, token_type="compute_second", quantity=77, unit="seconds")]
    ledger = read_ledger(tables.ledger(made))
    assert ledger.tokens() == ledger.shards[1].tokens == 1000
    assert ledger.uses["compute_second", ""].quantity == 77
    assert ledger.cost == {"USD": Decimal("1.0")}


def test_currencies_are_never_added_together(tables: Tables) -> None:
    ledger = read_ledger(tables.ledger([tables.entry(1), tables.entry(2, currency="EUR", amount=Decimal("0.25"))]))
    assert ledger.cost == {"USD": Decimal("0.5"), "EUR": Decimal("0.25")}
    drawn = cost_columns(ledger)
    assert drawn is not None
    assert drawn.title == "Cost, USD"


def test_money_is_summed_to_the_last_digit(tables: Tables) -> None:
    made = [tables.entry(number, amount=Decimal("0.000000000001")) for number in range(20_000)]
    made.append(tables.entry(-1, amount=Decimal("12345678901234567890.0")))
    assert read_ledger(tables.ledger(made)).cost == {"USD": Decimal("12345678901234567890.000000020000")}


def test_hundreds_of_shards_are_drawn_in_groups_that_lose_nothing(tables: Tables) -> None:
    made = [tables.entry(number, shard=number, quantity=number, amount=Decimal(number)) for number in range(1, 501)]
    ledger = read_ledger(tables.ledger([*made, tables.entry(0, shard=None, quantity=7)]))
    for figure in (cost_columns(ledger), token_columns(ledger)):
        assert figure is not None
        assert figure.summary.startswith(f"500 shards, drawn in {SHARD_COLUMNS} groups of up to 13.")
        assert len(figure.table.rows) == SHARD_COLUMNS + 1
        assert figure.table.rows[-1][0].text == "belongs to no shard"
    tokens, cost = token_columns(ledger), cost_columns(ledger)
    assert tokens is not None
    assert cost is not None
    assert sum(int(row[-1].value) for row in tokens.table.rows) == 500 * 501 // 2 + 7
    assert sum(Decimal(row[-1].value.removesuffix(" USD")) for row in cost.table.rows) == 500 * 501 // 2 + Decimal(
        "0.5"
    )


def test_money_in_a_table_lines_up(tables: Tables) -> None:
    made = [tables.entry(number, shard=number, amount=Decimal(text)) for number, text in enumerate(("12.5", "0.00031"))]
    figure = cost_columns(read_ledger(tables.ledger(made)))
    assert figure is not None
    assert [row[-1].text for row in figure.table.rows] == ["12.50000 USD", "0.00031 USD"]


def test_one_shard_one_column(tables: Tables) -> None:
    figure = token_columns(read_ledger(tables.ledger([tables.entry(1, shard=3)])))
    assert figure is not None
    assert (figure.positions, figure.summary) == (("shard 3",), "1 shard.")


def test_a_free_run_has_tokens_and_no_cost_chart(tables: Tables) -> None:
    ledger = read_ledger(tables.ledger([tables.entry(1, amount=Decimal(0))]))
    assert cost_columns(ledger) is None
    assert token_columns(ledger) is not None


def test_small_prices_have_readable_ticks(tables: Tables) -> None:
    figure = cost_columns(read_ledger(tables.ledger([tables.entry(1, amount=Decimal("0.00058"))])))
    assert figure is not None
    assert figure.ticks == ("0.00", "0.0002", "0.0004", "0.0006")
