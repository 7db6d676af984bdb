from __future__ import annotations

import io
from decimal import Decimal
from typing import TYPE_CHECKING

from lowtide.report.costs import waste_bars
from lowtide.report.figures import waste_sentence
from lowtide.report.heading import tiles
from lowtide.report.ledger import read_ledger
from lowtide.report.shards import SHARD_COLUMNS, cost_columns, token_columns
from lowtide.report.tables import Tables as Held

if TYPE_CHECKING:
    from conftest import Row, Tables


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


def seconds(tables: Tables, number: int, quantity: int, waste: str | None = None, usd: str = "0.0001") -> Row:
    """Machine time, at USD a second."""
    amount = Decimal(usd) * quantity
    made = {"token_type": "compute_second", "unit": "second", "quantity": quantity, "amount": amount, "waste": waste}
    return tables.entry(number, **made)


def headline(ledger: io.BytesIO) -> str:
    """The line below the number of tokens, at the top of the page."""
    return next(tile for tile in tiles(Held(None, read_ledger(ledger), None), None) if tile.name == "Tokens").note


def test_the_waste_of_machines_that_are_paid_by_time_is_that_of_their_seconds(tables: Tables) -> None:
    """That no token was wasted says nothing where tokens cost nothing."""
    free = tables.entry(1, amount=Decimal(0))
    lost = [seconds(tables, 2, 540), seconds(tables, 3, 260, "boot"), seconds(tables, 4, 200, "preempted", "0.0002")]
    made = [free, *lost]
    assert waste_sentence(read_ledger(tables.ledger(made))) == (
        "No token was wasted; 460 machine seconds (46 %) bought no answer that was kept: 0.066 USD, 55 % of the cost."
    )
    assert headline(tables.ledger(made)) == "46 % of machine time wasted"
    both = [*made, tables.entry(5, quantity=250, amount=Decimal(0), waste="invalid")]
    assert waste_sentence(read_ledger(tables.ledger(both))) == (
        "250 tokens (20 %) and 460 machine seconds (46 %) bought no answer that was kept: 0.066 USD, 55 % of the cost."
    )
    assert headline(tables.ledger(both)) == "20 % wasted, 46 % of machine time"


def test_machines_without_waste_and_machines_that_cost_nothing(tables: Tables) -> None:
    kept = [tables.entry(1, amount=Decimal(0)), seconds(tables, 2, 540)]
    assert waste_sentence(read_ledger(tables.ledger(kept))) == "No token and no machine second was wasted."
    assert headline(tables.ledger(kept)) == "0 % of machine time wasted"
    own = [
        tables.entry(1, amount=Decimal(0)),
        *(seconds(tables, at, 30, waste, "0") for at, waste in ((2, None), (3, "idle"))),
    ]
    assert waste_sentence(read_ledger(tables.ledger(own))) == (
        "No token was wasted; 30 machine seconds (50 %) bought no answer that was kept."
    )
    assert headline(tables.ledger(own)) == "50 % of machine time wasted"


def test_where_tokens_are_paid_time_is_not_mentioned(tables: Tables) -> None:
    local = [tables.entry(1, amount=Decimal(0)), seconds(tables, 2, 24, usd="0")]
    assert waste_sentence(read_ledger(tables.ledger(local))) == "No token was wasted."
    assert headline(tables.ledger(local)) == "0 % wasted"
    paid = [tables.entry(1), tables.entry(2, waste="invalid", quantity=250)]
    assert waste_sentence(read_ledger(tables.ledger(paid))) == (
        "250 tokens (20 %) bought no answer that was kept: 0.50 USD."
    )
    assert headline(tables.ledger(paid)) == "20 % wasted"


def test_waste_by_kind_counts_the_seconds_of_machines(tables: Tables) -> None:
    made = [tables.entry(1, amount=Decimal(0)), seconds(tables, 2, 260, "boot"), seconds(tables, 3, 40, "idle")]
    bars = waste_bars(read_ledger(tables.ledger(made)))
    assert bars is not None
    assert [cell.text for cell in bars.table.columns][2:] == ["Tokens", "Machine seconds", "Cost"]
    assert [[cell.text for cell in row][2:4] for row in bars.table.rows] == [["0", "260"], ["0", "40"]]
