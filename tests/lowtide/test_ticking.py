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
from lowtide.events import Building, CancelRequested
from lowtide.openruns import Asked
from lowtide.plan import Work
from lowtide.records import BatchStatus, FileInfo
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


LAPTOP, WORKER = "/home/me/ebb.yaml", "/jobs/ebb.yaml"


def asked_with(root: Root, *job_files: str) -> Run:
    """The run, asked for with one job file after another, each on its own machine."""
    for path in job_files:
        run = open_run(replace(root.work("ebb"), asked=Asked(job_file=path)))
    return run


def test_a_run_asked_for_from_a_laptop_too_goes_on_by_the_job_file_that_is_there(root: Root) -> None:
    asked_with(root, WORKER, LAPTOP)
    tried: list[str] = []

    def on_the_worker(job_file: str, window: str, asked: Asked) -> Work:
        tried.append(job_file)
        if job_file == LAPTOP:
            raise ConfigError(f"{job_file}: no such file")
        return root.assemble(job_file, window, asked)

    assert root.tick(on_the_worker)["ebb"].outcome == "advanced"
    assert tried == [LAPTOP, WORKER]
    [found] = openruns.list_open(root.store)
    assert found.asked.job_files == (LAPTOP, WORKER)
    root.answer_all()
    assert root.tick(on_the_worker)["ebb"].state == "published"


@pytest.mark.parametrize("begun", [False, True])
def test_a_job_file_that_asks_otherwise_by_now_is_passed_over(root: Root, begun: bool) -> None:
    run = asked_with(root, WORKER, LAPTOP)
    if begun:
        advance(run)

    def assemble(job_file: str, window: str, asked: Asked) -> Work:
        made = root.assemble(job_file, window, asked)
        if job_file != LAPTOP:
            return made
        backend = StandInBackend(root.provider, instantly=False)
        backend.model = "echo-2"
        return replace(made, backend=backend, reading={"uri": "elsewhere"})

    root.tick(assemble)
    root.answer_all()
    assert root.tick(assemble)["ebb"].state == "published"
    assert max(root.provider.processed.values()) == 1


def test_if_no_job_file_can_be_used_each_is_named_with_the_reason(root: Root) -> None:
    asked_with(root, "/third/ebb.yaml", WORKER, LAPTOP)
    errors: dict[str, Exception] = {
        LAPTOP: ConfigError("no such file"),
        WORKER: MissingExtra("Azure storage", "azure", "azure-storage-blob"),
    }

    def assemble(job_file: str, window: str, asked: Asked) -> Work:
        if job_file in errors:
            raise errors[job_file]
        return root.work("flow", window)

    told = root.tick(assemble)["ebb"]
    assert told.outcome == "failed"
    assert f"{LAPTOP}: no such file" in told.error
    assert f"{WORKER}: Azure storage needs" in told.error
    assert "/third/ebb.yaml: is for job flow" in told.error
    # What may pass for one of them is worth another try.
    errors[WORKER] = Transient("no answer from the store")
    told = root.tick(assemble)["ebb"]
    assert told.outcome == "troubled"
    assert "no answer from the store" in told.error


def test_a_note_that_cannot_be_read_does_not_stop_the_later_run_of_its_window(root: Root) -> None:
    first = open_run(root.work("ebb"))
    advance(first)
    second = open_run(root.work("ebb", texts={uri: f"another {text}" for uri, text in TEXTS.items()}))
    root.store.write(openruns.path_of("ebb", "2026-11-20", first.plan.run_id), b"{")
    taken = list(take_turns(root.store, root.assemble, advance))
    assert [(each.run_id, each.outcome) for each in taken] == [
        (first.plan.run_id, "failed"),
        (second.plan.run_id, "advanced"),
    ]
    assert "not a note of an open run" in taken[0].error
    for _ in range(4):
        root.answer_all()
        root.tick()
    assert not list(openruns.ids_of(root.store, "ebb", "2026-11-20"))
    assert second.refresh().published_at


def test_a_damaged_note_is_mended_as_its_message_says(root: Root) -> None:
    first = open_run(root.work("ebb"))
    advance(first)
    note = openruns.path_of("ebb", "2026-11-20", first.plan.run_id)
    root.store.write(note, b"{")
    assert "write {} into it" in root.tick()["ebb"].error
    root.store.write(note, b"{}")
    assert "not noted which job file" in root.tick()["ebb"].error
    # Other documents are there by now: what the first run has out is wound down all the same.
    open_run(root.work("ebb", texts={uri: f"another {text}" for uri, text in TEXTS.items()}))
    for _ in range(4):
        root.answer_all()
        root.tick()
    assert first.refresh().settled
    assert not list(openruns.list_open(root.store))


def test_an_earlier_run_is_not_taken_up_because_the_note_of_the_later_one_cannot_be_read(root: Root) -> None:
    first = open_run(root.work("ebb"))
    second = open_run(root.work("ebb", texts={uri: f"another {text}" for uri, text in TEXTS.items()}))
    root.store.write(openruns.path_of("ebb", "2026-11-20", second.plan.run_id), b"{")
    [taken] = take_turns(root.store, root.assemble, advance)
    assert (taken.run_id, taken.outcome) == (second.plan.run_id, "failed")
    assert not root.provider.batches
    assert not first.refresh().build_finished


def test_a_run_that_was_cancelled_before_it_was_read_is_told_of_once(root: Root) -> None:
    run = open_run(root.work("ebb"))
    run.context.journal.append(CancelRequested(at=run.context.clock()))
    # As the flow does, which makes no pass over a run that has nothing left to do.
    [taken] = take_turns(root.store, root.assemble, lambda run: "cancelled")
    assert (taken.state, taken.error) == ("cancelled", "")
    assert root.tick() == {}
    assert root.provider.batches == {}


def test_a_cancelled_run_that_has_batches_out_stays_open(root: Root) -> None:
    run = open_run(root.work("ebb"))
    advance(run)
    run.context.journal.append(CancelRequested(at=run.context.clock()))
    for _ in range(2):
        list(take_turns(root.store, root.assemble, lambda run: "cancelling"))
        assert [found.run_id for found in openruns.list_open(root.store)] == [run.plan.run_id]
    # One pass stops them, the next one sees that.
    root.tick()
    root.tick()
    assert not list(openruns.list_open(root.store))


def test_who_cancels_such_a_run_closes_it(root: Root) -> None:
    run = open_run(root.work("ebb"))
    run.context.journal.append(CancelRequested(at=run.context.clock()))
    assert drive(run, poll=0.0).done
    assert not list(openruns.list_open(root.store))


def test_a_cancelled_run_keeps_its_note_as_long_as_somebody_may_be_reading_its_documents(root: Root) -> None:
    run = open_run(root.work("ebb"))
    now = run.context.clock()
    elsewhere = "another-host:1:0:0"
    run.context.journal.append(Building(at=now, owner=elsewhere, expires=now + 3600), CancelRequested(at=now))
    for _ in range(2):
        assert set(root.tick()) == {"ebb"}
    run.context.journal.append(Building(at=now, owner=elsewhere, expires=now - 1))
    assert set(root.tick()) == {"ebb"}
    assert root.tick() == {}


def test_a_cancelled_run_that_is_asked_for_again_is_open_again(root: Root) -> None:
    run = open_run(root.work("ebb"))
    run.context.journal.append(CancelRequested(at=run.context.clock()))
    root.tick()
    open_run(root.work("ebb"))
    root.tick()
    root.answer_all()
    assert root.tick()["ebb"].state == "published"


def test_a_cancelled_run_that_is_asked_for_while_its_note_is_taken_back_stays_open(root: Root) -> None:
    run = open_run(root.work("ebb"))
    run.context.journal.append(CancelRequested(at=run.context.clock()))
    delete = root.store.delete

    def delete_and_ask(path: str) -> None:
        delete(path)
        root.store.delete = delete  # type: ignore[method-assign]
        open_run(root.work("ebb"))

    root.store.delete = delete_and_ask  # type: ignore[method-assign]
    root.tick()
    assert [found.run_id for found in openruns.list_open(root.store)] == [run.plan.run_id]


class Down(StandInBackend):
    """Its provider takes batches, and does not say what has become of them."""

    def poll(self, batch_id: str) -> BatchStatus:
        raise Transient("503 Service Unavailable")


def test_a_provider_that_cannot_be_asked_is_told_of_and_stops_nothing(root: Root) -> None:
    open_run(root.work("ebb"))
    assert root.tick()["ebb"].error == ""

    def down(job_file: str, window: str, asked: Asked) -> Work:
        return replace(root.assemble(job_file, window, asked), backend=Down(root.provider))

    told = root.tick(down)["ebb"]
    assert (told.outcome, told.state) == ("advanced", "open")
    assert told.error == "stand-in could not be asked: 503 Service Unavailable"
    root.answer_all()
    told = root.tick()["ebb"]
    assert (told.state, told.error) == ("published", "")


def test_a_provider_that_cannot_be_asked_about_an_earlier_run_is_told_of(root: Root) -> None:
    advance(open_run(root.work("ebb")))
    open_run(root.work("ebb", texts={uri: f"another {text}" for uri, text in TEXTS.items()}))

    def down(job_file: str, window: str, asked: Asked) -> Work:
        return replace(root.assemble(job_file, window, asked), backend=Down(root.provider))

    assert root.tick(down)["ebb"].error == "stand-in could not be asked: 503 Service Unavailable"


def test_trouble_with_a_provider_is_forgotten_once_it_answers(root: Root) -> None:
    run = open_run(root.work("ebb"))
    advance(run)
    there, run.context.work = run.context.work, replace(run.context.work, backend=Down(root.provider))
    advance(run)
    assert "503" in run.lookout.blind
    run.context.work = there
    advance(run)
    assert run.lookout.blind == ""
