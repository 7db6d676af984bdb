"""Several who ask for one window, each in another way: what the first has left behind is wound down by the tick."""

from __future__ import annotations

from dataclasses import replace

from support.standins import PRICE, ListedDocuments, MemoryStore, Provider, StandInBackend, work_on

from lowtide import openruns
from lowtide.engine import Run, open_run
from lowtide.engine.run import drive
from lowtide.openruns import Asked
from lowtide.plan import Candidate, Work
from lowtide.ticking import take_turns
from lowtide.windows import parse_window

TEXTS = {f"d{number}": f"text {number}" for number in range(8)}


class Ebb(StandInBackend):
    """The first of the job's backends."""

    name, model = "ebb", "ebb-1"


class Flow(StandInBackend):
    """The second of the job's backends."""

    name, model = "flow", "flow-1"


def test_the_note_of_who_asked_for_one_backend_is_taken_back_once_another_run_is_published() -> None:
    root, provider = MemoryStore(), Provider()

    def work(asked: Asked) -> Work:
        backends = [kind(provider, instantly=False) for kind in (Ebb, Flow)]
        allowed = [each for each in backends if not asked.backends or each.name in asked.backends]
        made = work_on(root, allowed[0], ListedDocuments(TEXTS), shard_records=2)
        candidates = tuple(Candidate(each, PRICE) for each in allowed)
        return replace(made, job="tides", window=parse_window("2026-W20"), candidates=candidates, asked=asked)

    def assemble(job_file: str, window: str, asked: Asked) -> Work:
        return work(asked)

    def advance(run: Run) -> str:
        drive(run, poll=0.0, until=0.0)
        return "published" if run.state.published_at else "open"

    def answer_all() -> None:
        for batch_id in provider.batches:
            provider.finish(batch_id)

    one = open_run(work(Asked(job_file="/jobs/tides.yaml", backends=("flow",))))
    assert (one.plan.backend, advance(one)) == ("flow", "open")
    all_of_them = open_run(work(Asked(job_file="/jobs/tides.yaml")))
    assert all_of_them.plan.backend == "ebb"
    # Its process sees the run through, and dies before it has wound the other one down.
    all_of_them.chores.clear()
    while advance(all_of_them) != "published":
        answer_all()
    assert [note.run_id for note in openruns.list_open(root)] == [one.plan.run_id]
    for _ in range(3):
        assert not [taken for taken in take_turns(root, assemble, advance) if taken.error]
        answer_all()
    assert not list(openruns.list_open(root))
    assert list(take_turns(root, assemble, advance)) == []
