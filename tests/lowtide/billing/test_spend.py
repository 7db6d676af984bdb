"""A month of spending as a pure function of ledger sums, caps and reservations."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide import money
from lowtide.billing.reading import Selection
from lowtide.billing.spend import LedgerSum, Month, SpendMonth, spend_month
from lowtide.billing.spend_lines import read_month
from lowtide.billing.sums import sum_ledger
from lowtide.budget.account import Account, AccountState, Line, Payer, Settle, Spender
from lowtide.budget.caps import Cap
from lowtide.connectors.stores import open_store
from lowtide.errors import ConfigError, StoreError
from lowtide.schemas import LEDGER

NOVEMBER = Month(2026, 11)
NOW = datetime(2026, 11, 16, tzinfo=UTC)


def line(day: int = 1, usd: str = "1", **values: object) -> LedgerSum:
    known: dict[str, object] = {
        "job": "tides",
        "run_id": "r1",
        "day": date(2026, 11, day),
        "kind": "actual",
        "waste": "",
        "token_type": "input",
        "quantity": 100,
        "amount": Decimal(usd),
    }
    return LedgerSum(**(known | values))  # type: ignore[arg-type]


def month_of(
    *lines: LedgerSum, caps: tuple[Cap, ...] = (), account: AccountState | None = None, now: datetime = NOW
) -> SpendMonth:
    return spend_month("file:///lowtide", NOVEMBER, lines, caps=caps, account=account or AccountState(), now=now)


def test_only_actual_entries_were_spent() -> None:
    kinds = ("actual", "estimate", "reserved", "released", "saved", "billed", "correction")
    found = month_of(*(line(usd="3", kind=kind) for kind in kinds))
    assert found.total.spent_usd == 3
    assert found.total.tokens == 100
    assert (found.total.cached_usd, found.total.cached_tokens, found.total.billed_usd) == (3, 100, 6)


def test_a_bill_that_was_not_read_is_not_a_bill_of_nothing() -> None:
    assert month_of(line()).total.billed_usd is None


def test_waste_is_a_part_of_what_was_spent() -> None:
    found = month_of(line(), line(usd="0.25", waste="expired", quantity=7))
    assert (found.total.spent_usd, found.total.wasted_usd) == (Decimal("1.25"), Decimal("0.25"))
    assert (found.total.tokens, found.total.wasted_tokens) == (107, 7)


def test_seconds_are_not_tokens() -> None:
    found = month_of(line(), line(token_type="compute_second", quantity=5_000))
    assert (found.total.tokens, found.total.spent_usd) == (100, 2)


def test_the_saving_is_over_what_can_be_compared() -> None:
    found = month_of(line(usd="2", realtime=Decimal(5)), line(usd="10")).total
    assert (found.saved_usd, found.compared_usd, found.spent_usd) == (3, 2, 12)
    assert month_of(line()).total.saved_usd is None


def test_other_months_and_currencies_are_in_no_sum() -> None:
    found = month_of(
        line(),
        line(day=1, usd="9", currency="EUR"),
        line(usd="7"),
        LedgerSum("tides", "r1", date(2026, 10, 31), "actual", "", "input", 1, Decimal(50)),
    )
    assert found.total.spent_usd == 8
    assert found.other_currencies == {"EUR": Decimal(9)}


def test_an_empty_month_is_a_month() -> None:
    found = month_of()
    assert found.jobs == ()
    assert found.total.spent_usd == 0
    assert len(found.days) == 16
    assert found.forecast is None


def test_a_day_without_spending_is_a_day() -> None:
    found = month_of(line(day=2), line(day=4, usd="2"), line(day=4, usd="0.5", waste="invalid"))
    assert [day.spent_usd for day in found.days[:5]] == [0, 1, 0, Decimal("2.5"), 0]
    assert found.days[3].wasted_usd == Decimal("0.5")
    assert len(month_of(line(), now=datetime(2027, 1, 1, tzinfo=UTC)).days) == 30


def test_a_forecast_needs_three_days_and_says_so() -> None:
    two = [line(day=1), line(day=2)]
    assert month_of(*two).forecast is None
    assert month_of(*two).no_forecast == "a forecast needs 3 days with spending"
    forecast = month_of(*two, line(day=3)).forecast
    assert forecast is not None
    # Half of November is over at the sixteenth's first second.
    assert (forecast.usd, forecast.days) == (6, 3)
    over = month_of(*two, line(day=3), now=datetime(2026, 12, 1, tzinfo=UTC))
    assert (over.forecast, over.no_forecast, over.over) == (None, "the month is over", True)


def test_reservations_and_caps_are_those_of_the_account() -> None:
    account = AccountState(
        entry=3,
        spenders={"runs/tides/all/r1": Spender("tides", {"team": "sea"}), "runs/bread/all/r9": Spender("bread", {})},
        lines={
            "a": Line("runs/tides/all/r1", Decimal(0), Decimal(4), 1, settled=True),
            "b": Line("runs/tides/all/r1", Decimal("2.5"), Decimal(0), 2),
            "c": Line("runs/bread/all/r9", Decimal(1), Decimal(0), 3),
        },
    )
    caps = (
        Cap("sea", Decimal(10), "lowtide.yaml:3", tags={"team": "sea"}),
        Cap("everything", Decimal(5), "lowtide.yaml:4"),
        Cap("month_usd", Decimal(20), "job.yaml", job="tides"),
    )
    found = month_of(line(usd="4", tags=(("team", "sea"),)), caps=caps, account=account)
    assert {job.job: (job.spent_usd, job.reserved_usd, job.cap_usd) for job in found.jobs} == {
        "tides": (4, Decimal("2.5"), 20),
        "bread": (0, 1, None),
    }
    assert found.total.reserved_usd == Decimal("3.5")
    assert [(cap.spent_usd, cap.reserved_usd, cap.left_usd, cap.ledger_usd) for cap in found.caps] == [
        (4, Decimal("2.5"), Decimal("3.5"), 4),
        (4, Decimal("3.5"), Decimal("-2.5"), 4),
        (4, Decimal("2.5"), Decimal("13.5"), 4),
    ]


def test_without_an_account_a_cap_goes_by_the_ledger() -> None:
    caps = (Cap("sea", Decimal(10), "f:1", tags={"team": "sea"}),)
    [cap] = month_of(line(usd="4", tags=(("team", "sea"),)), line(usd="90"), caps=caps).caps
    assert (cap.spent_usd, cap.left_usd) == (4, 6)


amounts = st.decimals(min_value=0, max_value=10**20, places=12)


@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from("abc"), st.sampled_from(["", "expired"]), amounts)))
def test_jobs_and_days_add_up_to_the_month_to_the_last_digit(rows: list[tuple[int, str, str, Decimal]]) -> None:
    lines = [line(day=day, job=job, waste=waste, amount=usd) for day, job, waste, usd in rows]
    found = month_of(*lines, now=datetime(2026, 12, 2, tzinfo=UTC))
    steps = sum(money.steps(usd) for *_, usd in rows)

    def counted(values: list[Decimal]) -> int:
        return sum(money.steps(value) for value in values)

    assert counted([found.total.spent_usd]) == steps
    assert counted([job.spent_usd for job in found.jobs]) == steps
    assert counted([day.spent_usd for day in found.days]) == steps
    assert counted([job.wasted_usd for job in found.jobs]) == counted([day.wasted_usd for day in found.days])


@pytest.mark.parametrize("text", ["2026", "2026-13", "11-2026", "", "2026-11-01", "last"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no month: write it like 2026-11"):
        Month.parse(text)


def test_a_month_knows_its_ends() -> None:
    assert Month.parse("2026-12").end == datetime(2027, 1, 1, tzinfo=UTC)
    assert Month.of(datetime(2026, 11, 30, 23, 30, tzinfo=UTC)) == NOVEMBER
    assert Month(2028, 2).days == 29


def write_ledger(
    root: Path, job: str, rows: list[dict[str, object]], name: str = "r1", drop: tuple[str, ...] = ()
) -> None:
    path = root / f"tables/ledger/job={job}/window=all/{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=LEDGER).drop_columns(list(drop)), path)


def entry(number: int, day: int = 3, usd: str = "0.5", **values: object) -> dict[str, object]:
    at = datetime(2026, 11, day, 6, tzinfo=UTC)
    known: dict[str, object] = {
        "entry_id": f"e{number}",
        "at": at + timedelta(hours=30),
        "period_start": at,
        "run_id": "r1",
        "kind": "actual",
        "token_type": "input",
        "quantity": 1_000,
        "unit": "token",
        "amount": Decimal(usd),
        "currency": "USD",
        "price_id": "haiku batch",
        "tags": [("team", "sea")],
    }
    return known | values


def read(root: Path, month: Month = NOVEMBER) -> SpendMonth:
    store = open_store(str(root))
    account = Account(store, str(month), "").refresh()
    return spend_month(store.uri, month, read_month(store, month), caps=(), account=account, now=NOW)


def test_the_month_is_what_the_ledgers_add_up_to(tmp_path: Path) -> None:
    rows = [
        entry(1),
        entry(2, usd="0.000000000001", token_type="output", realtime_amount=Decimal(1)),
        entry(3, waste="expired", quantity=9),
        entry(4, kind="saved", usd="7"),
        entry(5, kind="estimate", usd="99"),
    ]
    write_ledger(tmp_path, "tides", rows)
    write_ledger(tmp_path, "bread", [entry(1, day=30, usd="2"), entry(2, day=30, usd="0", price_id="x: no price")])
    found = read(tmp_path)
    [by_ledger] = sum_ledger(open_store(str(tmp_path)), [], Selection(since=NOVEMBER.start, until=NOVEMBER.end)).totals
    assert found.total.spent_usd == by_ledger.amount == Decimal("3.000000000001")
    assert found.total.wasted_usd == by_ledger.waste
    assert found.total.cached_usd == by_ledger.saved_cache
    assert found.total.saved_usd == by_ledger.saved_realtime
    assert (found.total.unpriced, found.total.runs) == (1, 2)
    assert found.days[2].spent_usd == Decimal("1.000000000001")


def test_a_batch_counts_in_the_month_in_which_it_was_submitted(tmp_path: Path) -> None:
    write_ledger(tmp_path, "tides", [entry(1, day=30)])
    assert read(tmp_path).total.spent_usd == Decimal("0.5")
    assert read(tmp_path, Month(2026, 12)).total.spent_usd == 0


def test_tags_of_a_run_reach_the_caps(tmp_path: Path) -> None:
    write_ledger(tmp_path, "tides", [entry(1)])
    write_ledger(tmp_path, "bread", [entry(1, tags=None)])
    lines = list(read_month(open_store(str(tmp_path)), NOVEMBER))
    caps = (Cap("sea", Decimal(10), "f:1", tags={"team": "sea"}),)
    found = month_of(*lines, caps=caps)
    assert (found.caps[0].spent_usd, found.total.spent_usd) == (Decimal("0.5"), 1)


def test_older_ledgers_are_read(tmp_path: Path) -> None:
    write_ledger(tmp_path, "tides", [entry(1)], drop=("realtime_amount", "price_id", "tags", "period_start", "waste"))
    found = read(tmp_path)
    assert (found.total.spent_usd, found.total.saved_usd) == (Decimal("0.5"), None)


def test_a_ledger_that_is_none_is_named(tmp_path: Path) -> None:
    write_ledger(tmp_path, "tides", [entry(1)])
    broken = tmp_path / "tables/ledger/job=tides/window=all/r2.parquet"
    broken.write_bytes(b"PAR1 not really")
    with pytest.raises(StoreError, match=r"r2\.parquet"):
        read(tmp_path)


def test_open_reservations_are_read_from_the_root(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    account, payer = Account(store, "2026-11", "me"), Payer("runs/tides/all/r1", "tides", {})
    for attempt, usd in (("a", "2"), ("b", "0.75")):
        assert not account.reserve(payer, attempt, Decimal(usd), (), at=1.0)
    account.close(payer, [Settle("a", Decimal("1.5"))], at=2.0)
    found = read(tmp_path)
    assert Counter({job.job: job.reserved_usd for job in found.jobs}) == {"tides": Decimal("0.75")}
