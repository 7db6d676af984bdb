"""Bills in the providers' layouts against ledgers of real runs, with waste of several kinds in them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support import bills
from support.bills import Used
from support.engine_support import Clock, finish
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, ok, work_on

from lowtide.billing.bill import BillError
from lowtide.billing.billed import Written, write_billed
from lowtide.billing.reconcile import Reconciliation, reconcile
from lowtide.connectors.bills import Names, open_bill
from lowtide.engine import open_run
from lowtide.prices import Price

NOW = datetime(2027, 2, 3, tzinfo=UTC)
MORNING = datetime(2027, 1, 15, 8, tzinfo=UTC)
PRICE = Price(
    "p",
    "a contract",
    {
        "input": Decimal("0.000000075"),
        "cached_input": Decimal("0.0000000375"),
        "output": Decimal("0.000000300001"),
        "reasoning": Decimal("0.000000300001"),
    },
)


class Nova(StandInBackend):
    provider, region, model = "aws", "us-east-1", "amazon.nova-lite-v1:0"


class Mini(StandInBackend):
    provider, region, model = "azure", "eastus", "gpt-4o-mini"


def wasteful(request: dict[str, str], nth: int) -> list[dict[str, object]]:
    """Answers that are good, in another shape, given twice, failed though charged, or cut off."""
    number = int(request["text"].rpartition(" ")[2])
    counts = {"input_tokens": 100 + number, "output_tokens": 20, "cached_tokens": 10, "reasoning_tokens": 3}
    good = {**ok(request), **counts}
    match number % 5:
        case 1:
            return [{**good, "text": "no JSON"}]
        case 2:
            return [good, {**ok(request, "said again"), **counts}]
        case 3 if nth == 1:
            return [{**good, "status": "error", "error": "try again", "retryable": True}]
    return [good]


AT_ONCE = (0, 2, 5, 7, 10, 12)
"""Documents that are not asked a second time."""


def ran(
    store: MemoryStore,
    backend: type[StandInBackend] = Nova,
    *,
    first: int = 0,
    documents: int = 12,
    at: datetime = MORNING,
    lasts: timedelta = timedelta(0),
    tags: Mapping[str, str] | None = None,
    job: str = "test",
    numbers: Sequence[int] = (),
) -> list[dict[str, Any]]:
    """Run a job to its end, from `at` on, its first batches taking so long; its ledger's rows."""
    clock, provider = Clock(), Provider(wasteful)
    clock.now = at.timestamp()
    texts = {f"{job}{number}": f"text {number}" for number in numbers or range(first, first + documents)}
    made = backend(provider, instantly=not lasts)
    work = replace(work_on(store, made, ListedDocuments(texts), price=PRICE), tags=tags or {}, job=job)
    run = open_run(work, clock=clock)
    run.advance()
    clock.now += lasts.total_seconds()
    while not finish(run, seconds=1, clock=clock).done:
        for batch in provider.batches:
            provider.finish(batch)
    path = f"tables/ledger/job={job}/window=all/{run.plan.run_id}.parquet"
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(store.objects[path]), partitioning=None).to_pylist()
    processed = Counter[str]()
    for row in rows:
        if row["kind"] == "actual":
            processed["input" if "input" in row["token_type"] else "output"] += row["quantity"]
    assert processed == provider.bill, "the ledger is the provider's bill"
    return rows


def entries(store: MemoryStore, *kinds: str) -> list[dict[str, Any]]:
    """What all ledgers hold of these kinds."""
    found: list[dict[str, Any]] = []
    for path, data in sorted(store.objects.items()):
        if path.startswith("tables/ledger/"):
            rows = pq.read_table(io.BytesIO(data), partitioning=None).to_pylist()
            found += [row for row in rows if row["kind"] in kinds]
    assert len({row["entry_id"] for row in found}) == len(found)
    return found


def booked(store: MemoryStore) -> Counter[str]:
    """Tokens that were billed, by kind of token, corrections included."""
    tokens = Counter[str]()
    for row in entries(store, "billed", "correction"):
        tokens[row["token_type"]] += row["quantity"]
    return tokens


def booked_usd(store: MemoryStore) -> Decimal:
    return sum((row["amount"] for row in entries(store, "billed", "correction")), Decimal(0))


def each(used: Used) -> Decimal:
    """USD for one token."""
    return used.cost / used.quantity


Layout = Callable[[Path, Sequence[Used]], Path]


def cur(folder: Path, used: Sequence[Used]) -> Path:
    return bills.write_cur(folder / "cur.parquet", bills.cur_rows(used))


def cur_csv(folder: Path, used: Sequence[Used]) -> Path:
    return bills.write_cur(folder / "cur.csv.gz", bills.cur_rows(used))


def focus(folder: Path, used: Sequence[Used]) -> Path:
    return bills.write_focus(folder / "focus.parquet", bills.focus_rows(used))


def focus_csv(folder: Path, used: Sequence[Used]) -> Path:
    return bills.write_focus(folder / "focus.csv", bills.focus_rows(used))


def focus_decimals(folder: Path, used: Sequence[Used]) -> Path:
    return bills.write_focus(folder / "focus-decimals.parquet", bills.focus_rows(used), doubles=False)


def azure_ea(folder: Path, used: Sequence[Used]) -> Path:
    return bills.write_csv(folder / "ea.csv", bills.AZURE_EA, bills.azure_rows(used), bom=True)


def azure_mca(folder: Path, used: Sequence[Used]) -> Path:
    return bills.write_csv(folder / "mca.csv.gz", bills.AZURE_MCA, bills.azure_rows(used, bills.AZURE_MCA))


def azure_payg(folder: Path, used: Sequence[Used]) -> Path:
    return bills.write_csv(folder / "payg.csv", bills.AZURE_PAYG, bills.azure_rows(used, bills.AZURE_PAYG))


LAYOUTS = [pytest.param(Nova, layout, id=f"aws-{layout.__name__}") for layout in (cur, cur_csv, focus, focus_csv)] + [
    pytest.param(Mini, layout, id=f"azure-{layout.__name__}")
    for layout in (azure_ea, azure_mca, azure_payg, focus, focus_csv, focus_decimals)
]


def compared(store: MemoryStore, *paths: Path, **options: Any) -> Reconciliation:
    return reconcile(store, [open_bill(path) for path in paths], **options)


def settled(store: MemoryStore, *paths: Path, **options: Any) -> tuple[Reconciliation, Written]:
    found = compared(store, *paths, **options)
    return found, write_billed(store, found, NOW)


def drift(found: Reconciliation) -> list[tuple[str, int, int]]:
    """Kind, row and tokens of what differs; row 0 where there is no line."""
    return [
        (each.kind, each.line.row if each.line else 0, each.tokens)
        for each in found.comparisons
        if each.kind != "equal"
    ]


@pytest.mark.parametrize(("backend", "layout"), LAYOUTS)
def test_a_bill_that_is_equal_has_no_drift_and_is_booked_to_the_token(
    backend: type[StandInBackend], layout: Layout, tmp_path: Path
) -> None:
    store = MemoryStore()
    rows = ran(store, backend)
    before = dict(store.objects)
    actual = [row for row in rows if row["kind"] == "actual"]
    assert {row["waste"] for row in actual} >= {None, "invalid", "duplicate", "retried"}

    found, written = settled(store, layout(tmp_path, bills.used_of(rows)))

    assert drift(found) == []
    assert (found.tokens, found.is_clean(Decimal(0))) == (0, True)
    assert written.billed == len(actual)
    assert written.corrections == 0
    assert booked(store) == Counter(
        {kind: sum(r["quantity"] for r in actual if r["token_type"] == kind) for kind in booked(store)}
    )
    assert abs(booked_usd(store) - sum(row["amount"] for row in actual)) <= Decimal("1e-9")
    assert {path: store.objects[path] for path in before} == before, "what was written is never changed"


def test_billed_entries_say_which_line_of_which_bill_they_are_of(tmp_path: Path) -> None:
    store = MemoryStore()
    rows = ran(store, tags={"team": "tides"})
    settled(store, cur(tmp_path, bills.used_of(rows)))
    for row in entries(store, "billed"):
        assert row["price_source"] == "bill aws 999999999999 2027-01"
        assert row["price_id"].startswith("bill line ")
        assert (row["period_start"], row["period_end"]) == (
            datetime(2027, 1, 15, tzinfo=UTC),
            datetime(2027, 1, 16, tzinfo=UTC),
        )
        assert (row["provider"], row["region"], row["model"]) == ("aws", "us-east-1", "amazon.nova-lite-v1:0")
        assert (row["at"], row["unit"], row["currency"], dict(row["tags"])) == (NOW, "token", "USD", {"team": "tides"})
    assert len({row["price_id"] for row in entries(store, "billed")}) == len(bills.used_of(rows))


@pytest.mark.parametrize(("backend", "layout"), LAYOUTS)
def test_the_same_bill_again_writes_nothing(backend: type[StandInBackend], layout: Layout, tmp_path: Path) -> None:
    store = MemoryStore()
    path = layout(tmp_path, bills.used_of(ran(store, backend)))
    settled(store, path)
    before = dict(store.objects)

    found, written = settled(store, path)

    assert (written.billed, written.corrections, written.files) == (0, 0, ())
    assert drift(found) == []
    assert store.objects == before


def test_nothing_is_written_in_a_dry_run(tmp_path: Path) -> None:
    store = MemoryStore()
    found = compared(store, cur(tmp_path, bills.used_of(ran(store))))
    before = dict(store.objects)
    written = write_billed(store, found, NOW, dry_run=True)
    assert written.billed > 0
    assert store.objects == before


@pytest.mark.parametrize(("backend", "layout"), LAYOUTS)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_line_that_is_changed_is_named(
    backend: type[StandInBackend], layout: Layout, at: int, tmp_path: Path
) -> None:
    store = MemoryStore()
    used = bills.used_of(ran(store, backend))
    used[at] = replace(used[at], quantity=used[at].quantity + 1)
    found = compared(store, layout(tmp_path, used))
    [changed] = [each for each in found.comparisons if each.kind != "equal"]
    assert (changed.kind, changed.tokens) == ("changed", 1)
    assert changed.line is not None
    assert changed.line.token_type == used[at].token_type
    assert (changed.line.first_day, changed.line.file) == (date(2027, 1, 15), layout(tmp_path, used).name)
    assert not found.is_clean(Decimal(0))


@pytest.mark.parametrize(("backend", "layout"), LAYOUTS)
def test_a_line_whose_price_is_changed_is_named(backend: type[StandInBackend], layout: Layout, tmp_path: Path) -> None:
    store = MemoryStore()
    used = bills.used_of(ran(store, backend))
    used[1] = replace(used[1], cost=used[1].cost * 2)
    found = compared(store, layout(tmp_path, used))
    [dearer] = [each for each in found.comparisons if each.kind != "equal"]
    assert (dearer.kind, dearer.tokens) == ("price", 0)
    assert abs(dearer.usd - used[1].cost / 2) < Decimal("1e-9")
    assert dearer.line is not None
    assert dearer.line.token_type == used[1].token_type


@pytest.mark.parametrize(("backend", "layout"), LAYOUTS)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_line_that_is_missing_is_named(
    backend: type[StandInBackend], layout: Layout, at: int, tmp_path: Path
) -> None:
    store = MemoryStore()
    used = bills.used_of(ran(store, backend))
    lost = used.pop(at)
    found = compared(store, layout(tmp_path, used))
    [missing] = [each for each in found.comparisons if each.kind != "equal"]
    assert (missing.kind, missing.tokens, missing.usd) == ("missing", -lost.quantity, -lost.cost)
    assert missing.line is None
    assert {share.spent.billed_as for share in missing.shares} == {lost.token_type}
    assert {share.spent.end for share in missing.shares} == {date(2027, 1, 15)}


@pytest.mark.parametrize(("backend", "layout"), LAYOUTS)
def test_a_line_too_many_is_named_and_booked_nowhere(
    backend: type[StandInBackend], layout: Layout, tmp_path: Path
) -> None:
    store = MemoryStore()
    rows = ran(store, backend)
    used = bills.used_of(rows)
    other = {"aws": "amazon.nova-micro-v1:0", "azure": "gpt-4o"}[used[0].provider]
    used.append(replace(used[0], model=other, quantity=7))
    found, _ = settled(store, layout(tmp_path, used))
    [extra] = [each for each in found.comparisons if each.kind != "equal"]
    assert (extra.kind, extra.tokens, extra.shares) == ("extra", 7, ())
    assert sum(booked(store).values()) == sum(row["quantity"] for row in rows if row["kind"] == "actual")


def test_a_line_that_was_changed_is_booked_as_it_was_billed(tmp_path: Path) -> None:
    store = MemoryStore()
    used = bills.used_of(ran(store))
    used[0] = replace(used[0], quantity=used[0].quantity - 100, cost=used[0].cost + 1)
    settled(store, cur(tmp_path, used))
    assert sum(booked(store).values()) == sum(one.quantity for one in used)
    assert booked_usd(store) == sum(one.cost.quantize(Decimal("1e-10")) for one in used)


def test_a_restated_bill_is_booked_by_the_difference_only(tmp_path: Path) -> None:
    store = MemoryStore()
    used = bills.used_of(ran(store))
    settled(store, cur(tmp_path, used))
    first = dict(store.objects)
    restated = [replace(used[0], quantity=used[0].quantity + 50, cost=used[0].cost + Decimal("0.5")), *used[1:]]

    _, written = settled(store, cur(tmp_path, restated))

    assert written.billed == 0
    corrections = entries(store, "correction")
    assert (len(corrections), sum(row["quantity"] for row in corrections)) == (written.corrections, 50)
    assert sum((row["amount"] for row in corrections), Decimal(0)) == Decimal("0.5")
    assert sum(booked(store).values()) == sum(one.quantity for one in restated)
    assert {path: store.objects[path] for path in first} == first
    assert settled(store, cur(tmp_path, restated))[1].files == ()


def test_a_bill_may_be_restated_back_and_forth(tmp_path: Path) -> None:
    store = MemoryStore()
    used = bills.used_of(ran(store))
    other = [replace(used[0], quantity=used[0].quantity + 50), *used[1:]]
    for version in (used, other, used, other, used):
        settled(store, cur(tmp_path, version))
        assert sum(booked(store).values()) == sum(one.quantity for one in version)
    assert settled(store, cur(tmp_path, used))[1].files == ()


def test_a_line_that_a_restated_bill_no_longer_has_is_taken_back(tmp_path: Path) -> None:
    store = MemoryStore()
    used = bills.used_of(ran(store))
    settled(store, cur(tmp_path, used))
    found, _ = settled(store, cur(tmp_path, used[1:]))
    assert drift(found) == [("missing", 0, -used[0].quantity)]
    assert sum(booked(store).values()) == sum(one.quantity for one in used[1:])


def test_a_line_that_is_not_understood_this_time_is_not_taken_back(tmp_path: Path) -> None:
    store = MemoryStore()
    rows = bills.cur_rows(bills.used_of(ran(store)))
    rows[1] |= {"line_item_usage_type": rows[1]["line_item_usage_type"].replace("NovaLite", "Tidal")}
    path = bills.write_cur(tmp_path / "cur.parquet", rows)
    named = open_bill(path, Names({"*-Tidal-*": "amazon.nova-lite-v1:0"}))
    write_billed(store, reconcile(store, [named]), NOW)
    whole = booked(store)

    found, written = settled(store, path)

    assert [line.row for line in found.unknown] == [2]
    assert "no model known by 'Tidal'" in found.unknown[0].unknown
    assert not found.is_clean(Decimal(0))
    assert (written.files, booked(store)) == ((), whole)


def test_the_same_month_in_another_layout_replaces_what_was_booked(tmp_path: Path) -> None:
    store = MemoryStore()
    used = bills.used_of(ran(store))
    settled(store, cur(tmp_path, used))
    settled(store, focus(tmp_path, used))
    assert sum(booked(store).values()) == sum(one.quantity for one in used)


@pytest.mark.parametrize("days", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_a_batch_may_be_billed_on_any_of_its_days_and_the_day_after(days: tuple[int, ...], tmp_path: Path) -> None:
    store = MemoryStore()
    used = bills.used_of(ran(store, at=MORNING + timedelta(hours=12), lasts=timedelta(hours=8), numbers=AT_ONCE))
    spread = []
    for one in used:
        for nth, day in enumerate(days):
            part = one.quantity * (nth + 1) // len(days) - one.quantity * nth // len(days)
            on = datetime(2027, 1, 15 + day, tzinfo=UTC)
            spread.append(replace(one, start=on, quantity=part, cost=each(one) * part))
    found = compared(store, cur(tmp_path, spread))
    assert drift(found) == []


def test_a_line_of_another_day_is_not_for_the_batch(tmp_path: Path) -> None:
    store = MemoryStore()
    used = [replace(one, start=one.start + timedelta(days=3)) for one in bills.used_of(ran(store))]
    found = compared(store, cur(tmp_path, used))
    assert Counter(each.kind for each in found.comparisons) == Counter(extra=len(used), missing=len(used))


def test_tags_tell_jobs_apart(tmp_path: Path) -> None:
    store = MemoryStore()
    rows = ran(store, tags={"Cost-Center": "a1"}, job="a") + ran(store, first=20, tags={"Cost-Center": "b2"}, job="b")
    used = bills.used_of(rows, tags=True)
    assert len(used) == 6
    tagged = [replace(one, tags={"cost_center": one.tags["Cost-Center"], "createdBy": "x"}) for one in used]
    assert drift(compared(store, cur(tmp_path, tagged))) == []

    [row] = [at for at, one in enumerate(tagged) if one.tags["cost_center"] == "b2" and one.token_type == "output"]
    tagged[row] = replace(tagged[row], quantity=tagged[row].quantity - 5)
    found = compared(store, cur(tmp_path, tagged))
    [changed] = [each for each in found.comparisons if each.kind != "equal"]
    assert changed.line is not None
    assert (changed.line.tags["user_cost_center"], changed.tokens) == ("b2", -5)
    assert {share.spent.job for share in changed.shares} == {"b"}


def test_a_bill_without_tags_is_for_all_jobs_together(tmp_path: Path) -> None:
    store = MemoryStore()
    rows = ran(store, tags={"team": "a"}, job="a") + ran(store, first=20, tags={"team": "b"}, job="b")
    found, written = settled(store, cur(tmp_path, bills.used_of(rows)))
    assert drift(found) == []
    assert {path.split("/")[2] for path in written.files} == {"job=a", "job=b"}


def test_hours_of_a_day_are_added_up(tmp_path: Path) -> None:
    store = MemoryStore()
    hourly = []
    for one in bills.used_of(ran(store)):
        half = one.quantity // 2
        for hour, part in ((8, half), (9, one.quantity - half)):
            at = one.start.replace(hour=hour)
            hourly.append(replace(one, start=at, hours=1, quantity=part, cost=each(one) * part))
    assert drift(compared(store, cur(tmp_path, hourly))) == []


def test_usage_over_the_end_of_a_month_is_on_two_bills_and_counted_once(tmp_path: Path) -> None:
    store = MemoryStore()
    late = datetime(2027, 1, 31, 20, tzinfo=UTC)
    used = bills.used_of(ran(store, at=late, lasts=timedelta(hours=8), numbers=AT_ONCE))
    january = [replace(one, quantity=one.quantity - 5, cost=one.cost - each(one) * 5) for one in used]
    february = [replace(one, start=datetime(2027, 2, 1, tzinfo=UTC), quantity=5, cost=each(one) * 5) for one in used]
    for month in (january, february):
        found, _ = settled(store, cur(tmp_path, month))
        assert drift(found) == []
    again = [replace(one, start=datetime(2027, 2, 1, tzinfo=UTC), quantity=6, cost=each(one) * 6) for one in february]
    assert {(kind, tokens) for kind, _, tokens in drift(compared(store, cur(tmp_path, again)))} == {("changed", 1)}


def test_what_lies_beyond_the_bill_is_not_missed(tmp_path: Path) -> None:
    store = MemoryStore()
    today = bills.used_of(ran(store))
    ran(store, first=40, at=MORNING + timedelta(days=2))
    ran(store, first=60, at=MORNING - timedelta(days=40))
    assert drift(compared(store, cur(tmp_path, today))) == []


def test_days_that_were_not_asked_for_are_left_out(tmp_path: Path) -> None:
    store = MemoryStore()
    used = bills.used_of(ran(store)) + bills.used_of(ran(store, first=40, at=MORNING + timedelta(days=4)))
    used[0] = replace(used[0], quantity=used[0].quantity + 9)
    path = cur(tmp_path, used)
    assert drift(compared(store, path)) == [("changed", 2, 9)]
    assert drift(compared(store, path, since=date(2027, 1, 16))) == []
    assert drift(compared(store, path, until=date(2027, 1, 16))) == [("changed", 2, 9)]
    assert settled(store, path)[1].billed > 0
    assert settled(store, path, since=date(2027, 1, 16))[1].files == (), "the days left out are not taken back"


def test_a_bill_in_several_files_is_read_as_one(tmp_path: Path) -> None:
    store = MemoryStore()
    used = bills.used_of(ran(store))
    parts = [bills.write_cur(tmp_path / f"part-{n}.parquet", bills.cur_rows(used[n::2])) for n in (0, 1)]
    found, _ = settled(store, *parts)
    assert drift(found) == []
    assert settled(store, *parts)[1].files == ()


def test_ledgers_of_other_providers_are_left_alone(tmp_path: Path) -> None:
    store = MemoryStore()
    ran(store, Mini, job="azure")
    found, written = settled(store, cur(tmp_path, bills.used_of(ran(store))))
    assert drift(found) == []
    assert all("job=test" in path for path in written.files)


def test_other_services_are_counted_and_taxes_are_listed(tmp_path: Path) -> None:
    store = MemoryStore()
    used = bills.used_of(ran(store))
    found = compared(store, cur(tmp_path, used))
    assert (found.read, found.passed_over) == (len(used) + 2, 1)
    assert [(line.charge, line.cost) for line in found.charges] == [("Tax", Decimal("0.07"))]
    assert found.is_clean(Decimal(0))


def test_a_tolerance_lets_small_drift_pass(tmp_path: Path) -> None:
    store = MemoryStore()
    used = bills.used_of(ran(store))
    used[0] = replace(used[0], quantity=used[0].quantity + 1, cost=used[0].cost + Decimal("0.001"))
    found = compared(store, cur(tmp_path, used))
    assert not found.is_clean(Decimal(0))
    assert not found.is_clean(Decimal("0.0009"))
    assert found.is_clean(Decimal("0.0011"))


def test_a_bill_without_a_line_is_refused(tmp_path: Path) -> None:
    path = bills.write_cur(tmp_path / "cur.parquet", [])
    with pytest.raises(BillError, match=r"cur\.parquet: holds no lines"):
        compared(MemoryStore(), path)


def test_two_who_write_overlapping_bills_at_once_write_no_entry_twice(tmp_path: Path) -> None:
    store = MemoryStore()
    used = bills.used_of(ran(store))
    (tmp_path / "part").mkdir()
    whole, part = cur(tmp_path, used), cur(tmp_path / "part", used[:2])
    first, second = compared(store, whole), compared(store, part)
    write_billed(store, first, NOW)
    write_billed(store, second, NOW + timedelta(seconds=1))
    assert sum(booked(store).values()) == sum(one.quantity for one in used[:2]), "what was written last counts"
    settled(store, whole)
    assert sum(booked(store).values()) == sum(one.quantity for one in used)
    assert sorted(path.rpartition(".billed-")[2] for path in store.objects if ".billed-" in path) == [
        f"{number:06}.parquet" for number in (1, 2, 3)
    ]


def test_two_who_write_the_same_bill_at_once_write_it_once(tmp_path: Path) -> None:
    store = MemoryStore()
    used = bills.used_of(ran(store))
    first, second = compared(store, cur(tmp_path, used)), compared(store, cur(tmp_path, used))
    assert write_billed(store, first, NOW).billed > 0
    assert write_billed(store, second, NOW + timedelta(seconds=1)).files == ()
    assert sum(booked(store).values()) == sum(one.quantity for one in used)
