"""What the official parsers read from the text is what the root says."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus
from support.engine_support import Clock, finish
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, work_on

from lowtide.budget.caps import Cap, Room
from lowtide.engine import open_run
from lowtide.metrics import Snapshot, render, snapshot
from lowtide.status import OVER_BUDGET, STUCK, RunStatus

TEXTS: dict[str, str | None] = {f"d{number}": f"text {number}" for number in range(10)}
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples_of(text: str) -> Samples:
    """By both parsers, which must agree."""
    found: list[Samples] = []
    for parse in (prometheus, openmetrics):
        samples: Samples = {}
        for family in parse(text):
            assert family.type == "gauge"
            assert family.documentation
            for sample in family.samples:
                name = (sample.name, tuple(sorted(sample.labels.items())))
                assert name not in samples
                samples[name] = sample.value
        found.append(samples)
    assert found[0] == found[1]
    return found[0]


def test_a_root_in_the_middle_of_its_work() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = work_on(store, StandInBackend(provider), ListedDocuments(TEXTS))
    assert finish(open_run(replace(work, job="done"), clock=clock)).done
    slow = replace(work_on(store, StandInBackend(provider, instantly=False), ListedDocuments(TEXTS)), use_cache=False)
    caps = (Cap("everything", Decimal("5"), "the test"),)
    run = open_run(replace(slow, job="slow", caps=caps), clock=clock)
    run.advance()
    clock.now += 120
    text = render(snapshot(store, now=clock.now, caps=caps))
    found = samples_of(text)

    def one(name: str, **labels: str) -> float:
        return found[name, tuple(sorted(labels.items()))]

    assert one("lowtide_open_batches", backend="stand-in") == 3
    assert 119 < one("lowtide_oldest_batch_age_seconds", backend="stand-in") < 121
    assert one("lowtide_backlog_requests", job="slow") == 10
    assert one("lowtide_backlog_requests", job="done") == 0
    assert one("lowtide_open_runs", job="slow", state="asking") == 1
    assert one("lowtide_open_runs", job="slow", state="stuck") == 0
    assert one("lowtide_month_spent_usd", job="done") == 0.00014
    reserved = one("lowtide_month_reserved_usd", job="slow")
    assert reserved == float(run.state.reserved) > 0
    label = caps[0].label
    assert one("lowtide_cap_usd", cap=label) == 5
    assert abs(one("lowtide_cap_left_usd", cap=label) - (5 - 0.00014 - reserved)) < 1e-9
    assert one("lowtide_last_publish_timestamp_seconds", job="done") > 1e9
    assert one("lowtide_last_run_failed_rows", job="done") == 0
    assert one("lowtide_last_run_cut_short", job="done") == 0
    assert abs(one("lowtide_snapshot_timestamp_seconds") - clock.now) < 1e-3
    assert text.endswith("# EOF\n")


def test_an_empty_root_and_caps_that_cannot_be_read() -> None:
    store = MemoryStore()
    assert samples_of(render(snapshot(store, now=1.0)))["lowtide_caps_unreadable", ()] == 0
    store.write("lowtide.yaml", b"caps: 3\n")
    assert samples_of(render(snapshot(store, now=1.0)))["lowtide_caps_unreadable", ()] == 1


def test_a_note_that_cannot_be_read_is_counted_and_the_others_are_measured() -> None:
    store, provider, clock = MemoryStore(), Provider(), Clock()
    work = work_on(store, StandInBackend(provider, instantly=False), ListedDocuments(TEXTS))
    open_run(replace(work, job="well"), clock=clock).advance()
    store.write("open/broken/all/0123456789abcdef", b"{")
    found = samples_of(render(snapshot(store, now=clock.now)))
    assert found["lowtide_open_runs", (("job", "broken"), ("state", "unreadable"))] == 1
    assert found["lowtide_open_runs", (("job", "well"), ("state", "unreadable"))] == 0
    assert found["lowtide_open_runs", (("job", "well"), ("state", "asking"))] == 1
    assert found["lowtide_open_batches", (("backend", "stand-in"),)] == 3


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), min_size=1, max_size=12)
usd = st.decimals(min_value=Decimal(-10), max_value=Decimal(10**9), places=12)


@given(st.dictionaries(names, usd), names, names, usd)
def test_whatever_jobs_and_caps_are_called_both_parsers_read_it(
    spent: dict[str, Decimal], job: str, backend: str, cap: Decimal
) -> None:
    run = RunStatus(job, "all", "0" * 16, STUCK, open=True, backend=backend, requests=7, answered=3, batches=2)
    room = Room(job, cap, Decimal(0), Decimal(0))
    done = RunStatus(job, "all", "1" * 16, OVER_BUDGET, open=False, finished=5.0, failed_rows=3)
    found = samples_of(render(Snapshot(1e9, [run], spent, {}, [room], [done])))
    assert found["lowtide_last_run_failed_rows", (("job", job),)] == 3
    assert found["lowtide_last_run_cut_short", (("job", job),)] == 1
    assert found["lowtide_last_publish_timestamp_seconds", (("job", job),)] == 5
    assert found["lowtide_open_batches", (("backend", backend),)] == 2
    assert found["lowtide_backlog_requests", (("job", job),)] == 4
    assert found["lowtide_cap_usd", (("cap", job),)] == float(cap)
    for name, amount in spent.items():
        assert found["lowtide_month_spent_usd", (("job", name),)] == float(amount)
