"""One pass over all open runs of a root, against stand-ins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, work_on

from lowtide import openruns
from lowtide.engine import Run, open_run
from lowtide.engine.run import drive
from lowtide.errors import ConfigError, MissingExtra, StoreError, Transient
from lowtide.openruns import Asked
from lowtide.plan import Work
from lowtide.records import FileInfo
from lowtide.ticking import Taken, take_turns, turns
from lowtide.windows import parse_window

TEXTS = {f"d{number}": f"text {number}" for number in range(4)}


class Counted(MemoryStore):
    """Counts its listings and reads."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = self.looked = 0

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[FileInfo]:
        self.listed += 1
        return super().list(prefix, after=after)

    def info(self, path: str) -> FileInfo | None:
        self.looked += 1
        return super().info(path)

    def read(self, path: str) -> bytes:
        self.looked += 1
        return super().read(path)


class Root:
    """A root with jobs of several names over one provider."""

    def __init__(self) -> None:
        self.store, self.provider = Counted(), Provider()
        self.texts = dict(TEXTS)

    def work(self, job: str, window: str = "2026-11-20", *, texts: dict[str, str] | None = None) -> Work:
        backend = StandInBackend(self.provider, instantly=False)
        made = work_on(self.store, backend, ListedDocuments(texts or {u: f"{t} {job}" for u, t in TEXTS.items()}))
        return replace(made, job=job, window=parse_window(window), asked=Asked(job_file=f"/jobs/{job}.yaml"))

    def assemble(self, job_file: str, window: str, asked: Asked) -> Work:
        return replace(self.work(job_file.rpartition("/")[2].partition(".")[0], window), asked=asked)

    def answer_all(self) -> None:
        for batch_id in self.provider.batches:
            self.provider.finish(batch_id)

    def tick(self, assemble: object = None) -> dict[str, Taken]:
        return {each.job: each for each in take_turns(self.store, assemble or self.assemble, advance)}  # type: ignore[arg-type]


def advance(run: Run) -> str:
    drive(run, poll=0.0, until=0.0)
    return "published" if run.state.published_at else "open"


@pytest.fixture
def root() -> Root:
    return Root()


def test_a_root_with_nothing_open_costs_one_listing(root: Root) -> None:
    assert root.tick() == {}
    assert (root.store.listed, root.store.looked) == (1, 0)


def test_each_open_run_is_advanced_until_it_is_published(root: Root) -> None:
    for job in ("ebb", "flow"):
        open_run(root.work(job))
    assert {job: each.state for job, each in root.tick().items()} == {"ebb": "open", "flow": "open"}
    root.answer_all()
    assert {job: each.state for job, each in root.tick().items()} == {"ebb": "published", "flow": "published"}
    assert root.tick() == {}
    assert max(root.provider.processed.values()) == 1


@pytest.mark.parametrize(
    ("error", "outcome", "said"),
    [
        (ConfigError("job.yaml:3: no such key"), "failed", "job.yaml:3"),
        (MissingExtra("Azure storage", "azure", "azure-storage-blob"), "failed", "pip install"),
        (Transient("no answer from the store"), "troubled", "no answer"),
        (StoreError("no such bucket"), "failed", "no such bucket"),
        (ValueError("the text of a document"), "failed", "unexpected: ValueError"),
    ],
)
def test_the_trouble_of_one_run_is_told_and_the_others_go_on(
    root: Root, error: Exception, outcome: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    for job in ("bad", "ebb", "flow"):
        open_run(root.work(job))
    root.answer_all()

    def assemble(job_file: str, window: str, asked: Asked) -> Work:
        if "bad" in job_file:
            raise error
        return root.assemble(job_file, window, asked)

    taken = root.tick(assemble)
    root.answer_all()
    taken |= root.tick(assemble)
    assert taken["bad"].outcome == outcome
    assert said in taken["bad"].error
    assert "the text of a document" not in taken["bad"].error + caplog.text
    assert said in caplog.text
    assert (taken["ebb"].state, taken["flow"].state) == ("published", "published")


def test_a_broken_journal_and_a_broken_note_are_told_and_the_others_go_on(root: Root) -> None:
    broken = open_run(root.work("journal"))
    open_run(root.work("note"))
    open_run(root.work("whole"))
    root.store.write(f"{broken.plan.prefix}/journal/000001.json", b"{")
    [note] = root.store.list("open/note/")
    root.store.write(note.path, b"not JSON")
    root.tick()
    root.answer_all()
    taken = root.tick()
    assert (taken["journal"].outcome, taken["note"].outcome) == ("failed", "failed")
    assert "000001.json" in taken["journal"].error
    assert "not a note of an open run" in taken["note"].error
    assert taken["whole"].state == "published"


def test_a_job_file_that_names_another_root_or_job_by_now_is_told(root: Root) -> None:
    open_run(root.work("ebb"))
    taken = root.tick(lambda job_file, window, asked: root.work("flow", window))
    assert taken["ebb"].outcome == "failed"
    assert "is for job flow under" in taken["ebb"].error


def test_the_run_that_was_last_asked_for_is_advanced_and_those_before_it_are_wound_down(root: Root) -> None:
    first = open_run(root.work("ebb"))
    advance(first)
    texts = {uri: f"another {text}" for uri, text in TEXTS.items()}
    second = open_run(root.work("ebb", texts=texts))
    for _ in range(4):
        [taken] = root.tick().values()
        assert taken.run_id == second.plan.run_id
        root.answer_all()
        if taken.state == "published":
            break
    assert root.tick() == {}
    assert not list(openruns.ids_of(root.store, "ebb", "2026-11-20"))


def test_a_run_whose_first_process_died_before_it_was_asked_for_is_published_all_the_same(root: Root) -> None:
    begun = open_run(root.work("ebb"))
    journal = sorted(path for path in root.store.objects if f"{begun.plan.prefix}/journal/" in path)
    for path in [*journal, f"{root.work('ebb').folder}/latest"]:
        root.store.delete(path)
    root.tick()
    root.answer_all()
    assert root.tick()["ebb"].state == "published"


def test_a_note_that_its_process_died_over_is_taken_back(root: Root) -> None:
    run = open_run(root.work("ebb"))
    root.tick()
    root.answer_all()
    root.tick()
    openruns.write_asked(root.store, "ebb", run.plan.window, run.plan.run_id, Asked(job_file="/jobs/ebb.yaml"))
    assert root.tick()["ebb"].state == "published"
    assert root.tick() == {}
    assert len(root.provider.batches) == 1


def test_a_run_keeps_to_what_was_asked_of_it(root: Root) -> None:
    work = root.work("ebb")
    open_run(replace(work, asked=Asked(job_file="/jobs/ebb.yaml", backends=("stand-in",))))
    seen: list[Asked] = []

    def assemble(job_file: str, window: str, asked: Asked) -> Work:
        seen.append(asked)
        return root.assemble(job_file, window, asked)

    root.tick(assemble)
    assert {asked.backends for asked in seen} == {("stand-in",)}


def test_windows_of_one_job_take_a_turn_each(root: Root) -> None:
    for window in ("2026-11-19", "2026-11-20"):
        open_run(root.work("ebb", window))
    assert [(turn.job, turn.window) for turn in turns(root.store)] == [("ebb", "2026-11-19"), ("ebb", "2026-11-20")]
    assert len(list(take_turns(root.store, root.assemble, advance))) == 2


def test_a_run_whose_documents_are_not_read_yet_waits_for_its_job_file_to_be_put_back(root: Root) -> None:
    open_run(root.work("daily"))

    def otherwise(job_file: str, window: str, asked: Asked) -> Work:
        made = root.assemble(job_file, window, asked)
        return replace(made, reading={**made.reading, "text": "title"})

    told = root.tick(otherwise)["daily"]
    assert (told.outcome, root.provider.batches) == ("failed", {})
    assert "the job file would read others" in told.error
    assert root.tick()["daily"].outcome == "advanced"
    assert root.provider.batches


def test_a_note_that_is_taken_back_while_the_run_is_asked_for_is_written_again(root: Root) -> None:
    put = root.store.put_if_absent

    def put_and_lose(path: str, data: bytes) -> bool:
        # Somebody who has just published the run takes its note away at this moment.
        for note in list(root.store.list("open/")) if "/journal/" in path else []:
            root.store.delete(note.path)
        return put(path, data)

    root.store.put_if_absent = put_and_lose  # type: ignore[method-assign]
    run = open_run(root.work("daily"))
    root.store.put_if_absent = put  # type: ignore[method-assign]
    assert [found.run_id for found in openruns.list_open(root.store)] == [run.plan.run_id]
    assert root.tick()["daily"].outcome == "advanced"
    assert root.provider.batches
