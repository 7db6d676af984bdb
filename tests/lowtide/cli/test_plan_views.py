"""A plan in a terminal: all of it within 80 columns, with what speaks against each backend."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest
from support.engine_support import finish
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, work_on

from lowtide.billing.reading import UNPRICED
from lowtide.cli.reasons import Reason
from lowtide.cli.running import in_short
from lowtide.cli.views import _waits, show_plan, show_reasons, show_summary
from lowtide.engine import open_run, plan_run
from lowtide.plan import Candidate, PlannedPrice, PlannedReplacement, RunPlan
from lowtide.prices import Price
from lowtide.refusals import by_cap
from lowtide.summary import Summary, summarize


class Dear(StandInBackend):
    name = "azure-batch"
    model = "gpt-4o-mini"
    region = "swedencentral"


class Unable(StandInBackend):
    name = "local"
    model = "tfidf-1"

    def refusal(self, operation: object) -> str | None:
        return "it holds no model"


def price(usd: str) -> Price:
    of = {"input": Decimal(usd), "output": Decimal(usd)}
    return Price("batch", "made up", of, Price("on demand", "made up", {name: 2 * each for name, each in of.items()}))


@pytest.fixture
def plan() -> RunPlan:
    texts: dict[str, str | None] = {f"d{at:04d}": "A text of some length. " * at for at in range(40)} | {"x": None}
    backends = [StandInBackend(Provider()), Dear(Provider()), Unable(Provider())]
    prices = [price(usd) for usd in ("0.00001", "0.00003", "0")]
    candidates = tuple(map(Candidate, backends, prices))
    work = work_on(MemoryStore(), backends[0], ListedDocuments(texts), shard_records=1000)
    return plan_run(replace(work, candidates=candidates, approve_above_usd=Decimal("0.01"), run_usd=Decimal(5)))


def shown(plan: RunPlan, capsys: pytest.CaptureFixture[str]) -> list[str]:
    show_plan(plan, ["month_usd 300.00 USD of job test"], "lowtide run")
    return capsys.readouterr().out.splitlines()


def test_the_plan_fits_80_columns_and_names_all(
    plan: RunPlan, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    there = PlannedReplacement("0123456789abcdef", 1000, 1_800_000_000.0)
    lines = shown(msgspec.structs.replace(plan, replaces=there), capsys)
    assert max(len(line) for line in lines if not line.startswith("note")) <= 80
    assert "documents  41: 40 new, 0 changed, 0 unchanged, 1 unreadable" in lines
    assert "requests   40 to ask; 0 cached, 0 the same as another" in lines
    table = lines[lines.index(next(line for line in lines if "in real time" in line)) :]
    assert [line[:20].split()[0] for line in table[1:7:2]] == ["*", "azure-batch", "local"]
    assert [" 50 %" in line for line in table[1:7:2]] == [True, True, False]
    assert table[2] == "    echo-1, here: chosen; promised within 24 h a batch"
    assert table[4].startswith("    gpt-4o-mini, swedencentral: 0.")
    assert table[4].endswith(" USD more")
    assert table[6] == "    tfidf-1, here: cannot do operation 'echo': it holds no model"
    assert "cap        5 USD for this run" in lines
    assert "cap        month_usd 300.00 USD of job test" in lines
    assert "approval   needed: asked for above 0.01 USD" in lines
    assert "replaces   1,000 rows of run 0123456789abcdef, published 2027-01-15 08:00 UTC" in lines
    assert lines[-1] == "next       lowtide run"


def test_a_run_begins_with_its_plan_in_two_lines(plan: RunPlan) -> None:
    what, cost = in_short(plan)
    assert what == "plan: 40 requests at stand-in, model echo-1"
    assert cost.startswith("plan: about 0.")
    assert " USD (0." in cost
    assert ", done by 20" in cost
    late = msgspec.structs.replace(plan, notes=("TOO LATE: no backend is expected to meet the deadline",))
    assert in_short(late)[-1] == "plan: TOO LATE: no backend is expected to meet the deadline"


def test_the_price_is_named_by_its_place_and_wraps(
    plan: RunPlan, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    book = "2026-11-21-8d21e2b1"
    own = msgspec.structs.replace(plan, price_book=book, notes=("a note of many words " * 8,))
    lines = shown(own, capsys)
    assert "prices     job file: made up" in lines
    assert max(map(len, lines)) <= 80
    booked = msgspec.structs.replace(plan, price_book=book, price_id=f"{book}: aws/us-east-1/nova/batch")
    assert f"prices     book {book}: aws/us-east-1/nova/batch" in shown(booked, capsys)
    free = msgspec.structs.replace(plan, backend="local")
    assert not [line for line in shown(free, capsys) if line.startswith("prices")]


def test_a_range_of_nothing_is_not_printed(plan: RunPlan, capsys: pytest.CaptureFixture[str]) -> None:
    assert any("with 90 % from" in line for line in shown(plan, capsys))
    zero = {"cost_usd": Decimal(0), "cost_low_usd": Decimal(0), "cost_high_usd": Decimal(0)}
    options = tuple(msgspec.structs.replace(option, **zero) for option in plan.options)
    assert not any("with 90 %" in line for line in shown(msgspec.structs.replace(plan, options=options), capsys))


def test_reasons_of_one_cap_are_one_and_name_it_in_full(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    cap = "budget: cap 'everything that the sea team may spend' of 0.01 USD a month (lowtide.yaml:3)"
    said = [f"{cap} has 0.00{left} left (0.01 spent; this shard may cost up to 0.02)" for left in (1, 2, 3)]
    assert {by_cap(one) for one in said} == {cap}
    assert by_cap(f"{cap} is used up (0.01 spent; this shard may cost up to 0.02)") == cap
    assert by_cap("the document has 3 left (of 4)") == "the document has 3 left (of 4)"
    show_reasons([Reason(30, "skipped", by_cap(said[0]))], [])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert " ".join(" ".join(line[11:] for line in lines).split()) == f"30 skipped: {cap}"


def test_shards_that_wait_for_the_same_cap_are_counted_together() -> None:
    waiting = [f"shard {at}: budget: cap 'x' of 1 USD has 0.{at} left (1 spent)" for at in (1, 2)]
    assert _waits([*waiting, "shard 3: the queue is full"]) == [
        "2 shards: budget: cap 'x' of 1 USD",
        "shard 3: the queue is full",
    ]


SPOT = (
    "0.25 USD an hour of a worker, the highest Spot price now; 2,140 tokens a second: first guess: Qwen2.5-7B in bf16"
)
ADDRESS = "nicolas-richard.github.io/posts/how-much-can-two-nvidia-l4s-serve.html"


def test_what_machines_cost_is_not_the_job_files_and_its_source_can_be_followed(
    plan: RunPlan, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    paid = PlannedPrice("g6.xlarge", f"{SPOT}, published 2026 at {ADDRESS}", {}, by_time=True)
    lines = shown(msgspec.structs.replace(plan, backend="spot", price=paid), capsys)
    assert any(line.startswith("prices     0.25 USD an hour of a worker, the highest Spot price") for line in lines)
    assert ADDRESS in [line.strip() for line in lines]
    assert max(map(len, lines)) <= 80


def test_a_cost_that_nobody_knows_is_no_zero(
    plan: RunPlan, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    nothing = {name: Decimal(0) for name in ("cost_usd", "cost_low_usd", "cost_high_usd")}
    first, *others = plan.options
    unknown = msgspec.structs.replace(first, price_id=f"machines of your own{UNPRICED}", **nothing)
    whole = msgspec.structs.replace(
        plan, price_id=unknown.price_id, cost_usd=Decimal(0), options=(unknown, *others), approve_above_usd=None
    )
    lines = shown(whole, capsys)
    assert "cost       not known: no price is given" in lines
    row = next(line for line in lines if line.startswith("* "))
    assert " not known " in row
    assert "%" not in row
    assert in_short(whole)[1].startswith("plan: costs are not known, done by 20")


def summary_of(**values: object) -> Summary:
    store, documents = MemoryStore(), ListedDocuments({"d": "text"})
    run = open_run(work_on(store, StandInBackend(Provider()), documents, price=price("0.00001")))
    assert finish(run).done
    return msgspec.structs.replace(summarize(run), **values)


def told(summary: Summary, capsys: pytest.CaptureFixture[str]) -> list[str]:
    show_summary(summary)
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith(("tokens", "machines", "cost"))]


def test_the_time_that_machines_were_paid_for_in_vain_stands_beside_their_cost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    cost = {"cost_usd": Decimal("0.10"), "wasted_usd": Decimal("0.04")}
    paid = summary_of(input_tokens=9, output_tokens=2, machine_seconds=1000, wasted_seconds=460, **cost)
    assert told(paid, capsys) == [
        "tokens     9 in, 2 out",
        "machines   16 min 40 s, 7 min 40 s (46 %) of it wasted",
        "cost       0.1000 USD, 0.0400 USD (40 %) of it wasted, stand-in, model echo-1",
    ]
    kept = msgspec.structs.replace(paid, wasted_seconds=0, wasted_usd=Decimal(0))
    assert told(kept, capsys)[1:] == [
        "machines   16 min 40 s, none wasted",
        "cost       0.1000 USD, stand-in, model echo-1",
    ]
    few = msgspec.structs.replace(paid, wasted_seconds=1)
    assert "(< 1 %) of it wasted" in told(few, capsys)[1]


def test_where_tokens_are_paid_nothing_is_said_of_machines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    paid = summary_of(input_tokens=9, output_tokens=2, wasted_tokens=3, wasted_usd=Decimal("0.01"), cost_usd=Decimal(1))
    assert told(paid, capsys) == [
        "tokens     9 in, 2 out, 3 of them wasted",
        "cost       1.0000 USD, stand-in, model echo-1",
    ]
    unknown = msgspec.structs.replace(paid, price_id=f"x{UNPRICED}", cost_usd=Decimal(0))
    assert told(unknown, capsys)[1] == "cost       not known: no price is given, stand-in, model echo-1"
