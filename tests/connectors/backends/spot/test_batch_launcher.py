from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import msgspec
import pytest
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batch_desk import Batch, account, refusal

from lowtide.connectors.backends.spot.batch_jobs import Jobs
from lowtide.connectors.backends.spot.batch_launcher import BatchLauncher, Settings
from lowtide.connectors.backends.spot.spot_prices import SpotPrices
from lowtide.connectors.stores import open_store
from lowtide.connectors.stores.local import LocalStore
from lowtide.errors import ConfigError, LowtideError, QuotaFull, StoreError, SubmitUnknown, Terminal, Transient
from lowtide.protocols import Store
from lowtide_worker.layout import STORE_FAILED, Beat, End, Engine, Fleet, Spell, State

FLEET, URI = "r1-abc", "s3://results/lowtide/spot/r1-abc"
GRACE = 120.0


@dataclass
class World:
    """A queue, a root with a fleet of nine unfinished shards, and launchers, each as in a process of its own."""

    root: Store
    now: float = 1_800_000_000.0
    batch: Batch = field(init=False)

    def __post_init__(self) -> None:
        self.batch = Batch(lambda: self.now)
        for number in range(1, 10):
            self.shard(f"s{number:05d}-a1")

    def shard(self, name: str) -> None:
        self.root.write(f"spot/{FLEET}/shards/{name}/task.json", b"{}")

    def end(self, name: str) -> None:
        end = End(outcome="completed", answered=4, errors=1, at=self.now)
        self.root.write(f"spot/{FLEET}/shards/{name}/end.json", msgspec.json.encode(end))

    def finish(self, but: int = 0) -> None:
        """All shards have ended, but so many."""
        for number in range(1, 10 - but):
            self.end(f"s{number:05d}-a1")

    def part(self, number: int) -> None:
        self.root.write(f"spot/{FLEET}/shards/s00001-a1/parts/{number:06d}.jsonl", b"{}\n")

    def beat(self, job: str, at: float, state: str = "working") -> None:
        """A worker's beat, in the store since that time; so are all others at the store by its clock."""
        path = f"spot/{FLEET}/workers/{job.replace(':', '-')}-{at:.0f}.json"
        beat = Beat(worker="w", state=cast("State", state), started=at - 60, at=at, job=job)
        self.root.write(path, msgspec.json.encode(beat))
        self.root.write(
            f"spot/{FLEET}/fleet.json", msgspec.json.encode(Fleet(model="m", engine=Engine(url="http://e")))
        )
        os.utime(Path(self.root.uri.removeprefix("file://")) / path, (at, at))

    def answers(self, worker: str, answered: int = 1) -> None:
        """That worker of a job has said that it has answered so many."""
        spell = Spell(shard="s00001-a1", seconds=9.0, answered=answered)
        beat = Beat(worker="w", state="working", started=self.now, at=self.now, job=worker, spells=(spell,))
        self.root.write(f"spot/{FLEET}/workers/{worker.replace(':', '-')}-0a.json", msgspec.json.encode(beat))

    def told(self, most: int) -> None:
        """The job file says that so many requests may be in flight."""
        fleet = Fleet(model="m", engine=Engine(url="http://e"), most=most)
        self.root.write(f"spot/{FLEET}/fleet.json", msgspec.json.encode(fleet))

    def give_up(self, times: int = 1) -> None:
        """Whatever is submitted fails, until it was given up so often, with 5 minutes between looks."""
        for _ in range(200):
            self.now += 300
            with suppress(Terminal):
                self.ensure(4)
            if sum(name.endswith(".vain") for name in self.files) == times:
                return
            for job in self.batch.jobs:
                if job.alive:
                    job.end(reason="Essential container in task exited", exit_code=1)
        raise AssertionError("it was not given up")

    @property
    def sizes(self) -> list[int]:
        return [len(job.children) for job in self.batch.jobs]

    def launcher(self, **chosen: Any) -> BatchLauncher:
        aws = account(self.batch)
        set_to = Settings(**{"queue": "queue", "definition": "worker", "instances": ("g6.xlarge",), **chosen})
        return BatchLauncher(aws, self.root, set_to, SpotPrices(aws), clock=lambda: self.now)

    def ensure(self, workers: int, **chosen: Any) -> None:
        self.launcher(**chosen).ensure(FLEET, URI, workers)

    @property
    def files(self) -> list[str]:
        return [info.path.rpartition("/")[2] for info in self.root.list(f"spot/{FLEET}/jobs/")]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(open_store(str(tmp_path)))


class Dated(LocalStore):
    """A store whose clock is that of a world: its files are as old as they are there."""

    clock: Callable[[], float] = staticmethod(lambda: 0.0)

    def write(self, path: str, data: bytes) -> None:
        super().write(path, data)
        self._date(path)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        is_ours = super().put_if_absent(path, data)
        if is_ours:
            self._date(path)
        return is_ours

    def _date(self, path: str) -> None:
        os.utime(Path(self.uri.removeprefix("file://")) / path, (self.clock(), self.clock()))


@pytest.fixture
def dated(tmp_path: Path) -> World:
    store = Dated(tmp_path, sync="none")
    world = World(store)
    store.clock = lambda: world.now
    world.told(2)
    return world


def fails(error: Exception) -> Callable[[], None]:
    def raising() -> None:
        raise error

    return raising


LOST = ReadTimeoutError(endpoint_url="https://batch.us-east-1.amazonaws.com")


def test_workers_are_added_as_the_fleet_grows(world: World) -> None:
    for workers in (1, 1, 4, 4, 2):
        world.ensure(workers)
    assert [(job.name, len(job.children), job.array) for job in world.batch.jobs] == [
        ("lt-r1-abc-j1", 1, False),
        ("lt-r1-abc-j2", 3, True),
    ]
    assert world.launcher().running(FLEET) == 4


def test_workers_that_ended_are_replaced_while_a_shard_is_unfinished(world: World) -> None:
    world.ensure(4)
    world.batch.jobs[0].end(children=2)
    assert world.launcher().running(FLEET) == 2
    world.ensure(4)
    assert [len(job.children) for job in world.batch.jobs] == [4, 2]
    world.batch.jobs[0].end()
    world.finish()
    world.ensure(4)
    assert len(world.batch.jobs) == 2


def test_a_new_job_whose_children_are_not_counted_yet_is_counted_whole(world: World) -> None:
    world.ensure(3)
    described = world.batch.jobs[0].described()
    described["arrayProperties"]["statusSummary"] = {}
    assert described["status"] == "PENDING"
    world.batch.describe_jobs = lambda *, jobs: {"jobs": [described]}  # type: ignore[method-assign]  # a lagging answer
    assert world.launcher().running(FLEET) == 3


def test_aws_is_left_alone_while_enough_workers_were_seen_just_now(world: World) -> None:
    launcher = world.launcher()
    launcher.ensure(FLEET, URI, 2)
    asked = len(world.batch.calls)
    for _ in range(20):
        launcher.ensure(FLEET, URI, 2)
        launcher.ensure(FLEET, URI, 1)
    assert len(world.batch.calls) == asked
    world.now += 11
    launcher.ensure(FLEET, URI, 2)
    assert world.batch.calls[asked:] == ["describe"]


def test_a_job_that_was_taken_although_no_answer_came_is_adopted(world: World) -> None:
    world.batch.after = fails(LOST)
    with pytest.raises(SubmitUnknown):
        world.ensure(2)
    assert world.launcher().running(FLEET) == 2
    for _ in range(3):
        world.ensure(2)
    assert len(world.batch.jobs) == 1
    assert world.files == ["000001.job", "000001.json"]


def test_a_job_that_is_listed_late_is_adopted_within_the_grace_period(world: World) -> None:
    world.batch.lag, world.batch.after = GRACE - 10, fails(LOST)
    with pytest.raises(SubmitUnknown):
        world.ensure(2)
    world.batch.after = lambda: None
    for _ in range(30):
        world.ensure(2)
        world.now += 9
    assert len(world.batch.jobs) == 1


def test_a_job_that_was_never_taken_is_submitted_again_after_the_grace_period_only(world: World) -> None:
    world.batch.before = fails(LOST)
    with pytest.raises(SubmitUnknown):
        world.ensure(2)
    world.batch.before = lambda: None
    for _ in range(11):
        world.ensure(2)
        assert world.batch.jobs == []
        assert world.launcher().running(FLEET) == 2
        world.now += GRACE / 11
    world.now += 1
    world.ensure(2)
    world.ensure(2)
    assert [job.name for job in world.batch.jobs] == ["lt-r1-abc-j2"]


def test_a_submitter_that_was_given_up_ends_its_own_job(world: World) -> None:
    def meanwhile() -> None:
        world.batch.before = lambda: None
        world.now += GRACE + 1
        world.ensure(2)

    world.batch.before = meanwhile
    world.ensure(2)
    assert [(job.name, job.alive) for job in world.batch.jobs] == [("lt-r1-abc-j2", 2), ("lt-r1-abc-j1", 0)]


def test_of_many_that_ensure_at_once_one_submits(world: World) -> None:
    barrier, failed = threading.Barrier(8), []

    def one() -> None:
        launcher = world.launcher()
        barrier.wait()
        try:
            launcher.ensure(FLEET, URI, 3)
        except LowtideError as error:
            failed.append(error)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [len(job.children) for job in world.batch.jobs] == [3]


def test_two_jobs_of_one_name_are_told_apart_from_other_names_over_all_pages(world: World) -> None:
    for name in ("LT-R1-abc-j1", "lt-r1-abc-j1", "Lt-r1-abc-j1", "lt-r1-abc-j1", "lt-r1-abc-J1"):
        world.batch.submit_job(jobName=name)
    assert Jobs(account(world.batch), "queue", "worker").named("lt-r1-abc-j1") == ["job-2", "job-4"]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (refusal("TooManyRequestsException", 429), QuotaFull),
        (refusal("ThrottlingException", 400), QuotaFull),
        (refusal("ClientException", 404), Terminal),
        (refusal("AccessDeniedException", 403), Terminal),
        (refusal("ExpiredTokenException", 403), Terminal),
        (EndpointConnectionError(endpoint_url="https://batch"), Transient),
        (ConnectTimeoutError(endpoint_url="https://batch"), Transient),
    ],
)
def test_a_job_that_aws_has_not_taken_leaves_nothing_to_look_for(
    world: World, raised: Exception, expected: type[LowtideError]
) -> None:
    world.batch.before = fails(raised)
    with pytest.raises(expected):
        world.ensure(1)
    assert world.files == []
    world.batch.before = lambda: None
    world.ensure(1)
    assert [job.name for job in world.batch.jobs] == ["lt-r1-abc-j1"]


@pytest.mark.parametrize("raised", [refusal("ServerException", 500), refusal("", 503), refusal("", 408), LOST])
def test_an_answer_that_says_nothing_is_neither_a_yes_nor_a_no(world: World, raised: Exception) -> None:
    world.batch.before = fails(raised)
    with pytest.raises(SubmitUnknown):
        world.ensure(1)
    assert world.files == ["000001.json"]


@pytest.mark.parametrize("code", [1, STORE_FAILED])
def test_jobs_that_end_in_vain_are_not_submitted_for_ever(code: int, world: World) -> None:
    for _ in range(5):
        world.ensure(2)
        world.batch.jobs[-1].end(reason="Essential container in task exited", exit_code=code)
    with pytest.raises(Terminal, match=rf"5 jobs.*Essential container in task exited.*exit code {code}.*'job-5'"):
        world.ensure(2)
    assert len(world.batch.jobs) == 5


def test_a_plain_job_that_ends_in_vain_says_why_as_well(world: World) -> None:
    for _ in range(2):
        world.ensure(1, in_vain=2)
        world.batch.jobs[-1].end(reason="CannotPullContainerError: not found", exit_code=1)
    with pytest.raises(Terminal, match="CannotPullContainerError"):
        world.ensure(1, in_vain=2)


def test_shards_that_end_let_further_jobs_follow(world: World) -> None:
    for number in range(12, 24):
        world.shard(f"s{number:05d}-a1")
        world.ensure(2)
        world.batch.jobs[-1].end()
        world.end(f"s{number:05d}-a1")
    assert len(world.batch.jobs) == 12


def test_parts_that_are_written_let_further_jobs_follow(world: World) -> None:
    for number in range(1, 13):
        world.ensure(2)
        world.part(number)
        world.batch.jobs[-1].end(reason="Host EC2 (instance i-1) terminated.")
    assert len(world.batch.jobs) == 12


def test_whoever_starts_the_run_again_has_it_tried_at_once_with_one_worker(dated: World) -> None:
    dated.give_up()
    assert dated.sizes == [4] * 5
    dated.ensure(4)
    dated.ensure(4)
    assert dated.sizes == [4] * 5 + [1], "one at a time"
    dated.now += 300
    dated.part(1)
    dated.ensure(4)
    assert dated.sizes == [4] * 5 + [1, 3], "it gets something done"


def test_a_day_of_ticks_with_a_broken_image_is_five_jobs_and_eight_single_workers(dated: World) -> None:
    submitted = []
    for minute in range(5, 24 * 60 + 1, 5):
        dated.now += 300
        before = len(dated.batch.jobs)
        with suppress(Terminal):
            dated.ensure(4)  # By a launcher of its own, as in a new process.
        submitted += [minute] * (len(dated.batch.jobs) - before)
        for job in dated.batch.jobs:
            if job.alive:
                job.end(reason="Essential container in task exited", exit_code=1)
    # Given up 5 minutes after each failure, then 0, 15, 30, 60, 120, 240, 360 and 360 minutes of pause.
    assert submitted == [5, 10, 15, 20, 25, 35, 55, 90, 155, 280, 525, 890, 1255]
    assert dated.sizes == [4] * 5 + [1] * 8


def test_within_a_pause_the_same_reason_is_told_and_when_it_is_tried_again(dated: World) -> None:
    dated.give_up()
    told = []
    for _ in range(6):
        with suppress(Terminal):
            dated.ensure(4)
        dated.batch.jobs[-1].end(reason="CannotPullContainerError", exit_code=1)
        with pytest.raises(Terminal, match=r"one more job.*CannotPullContainerError.*'job-6'") as raised:
            dated.ensure(4)
        told.append(str(raised.value))
        dated.now += 149
    assert len(set(told)) == 1
    at = datetime.fromtimestamp(dated.now - 6 * 149 + 900, UTC)
    assert f"tried again from {at:%Y-%m-%d %H:%M} UTC on" in told[0]
    assert "if you change engine, in_flight, queue or job_definition" in told[0]
    assert len(dated.batch.jobs) == 6
    dated.now += 6
    dated.ensure(4)
    assert len(dated.batch.jobs) == 7


@pytest.mark.parametrize("mended", ["fleet.json", "job_definition", "queue"])
def test_a_mended_section_is_tried_at_once_with_all_workers(mended: str, dated: World) -> None:
    dated.give_up(times=4)
    dated.now += 1
    chosen: dict[str, Any] = {}
    if mended == "fleet.json":
        dated.told(3)
    else:
        chosen = {mended.removeprefix("job_"): "mended"}
    for number in range(5):
        dated.ensure(4, **chosen)
        assert dated.sizes[-1 - number :] == [4] * (number + 1)
        dated.batch.jobs[-1].end()
    with pytest.raises(Terminal, match=r"5 jobs.*start the run again"):
        dated.ensure(4, **chosen)


@pytest.mark.parametrize("what", ["part", "end"])
def test_after_progress_all_workers_are_tried_at_once(what: str, dated: World) -> None:
    dated.give_up(times=4)
    dated.now += 1
    dated.part(1) if what == "part" else dated.end("s00001-a1")
    dated.ensure(4)
    assert dated.sizes[-1] == 4


def test_answers_that_are_collected_and_deleted_are_no_progress(dated: World) -> None:
    dated.part(1)
    dated.part(2)
    dated.now += 1
    dated.give_up(times=2)
    jobs = len(dated.batch.jobs)
    dated.root.delete(f"spot/{FLEET}/shards/s00001-a1/parts/000001.jsonl")
    with pytest.raises(Terminal, match="one more job"):
        dated.ensure(4)
    assert len(dated.batch.jobs) == jobs


def test_workers_that_were_stopped_are_followed_by_all_of_them(dated: World) -> None:
    dated.give_up(times=3)
    dated.launcher().stop(FLEET)
    dated.ensure(4)
    assert dated.sizes[-1] == 4


def test_of_two_that_give_up_at_once_both_tell_and_it_counts_once(dated: World) -> None:
    for _ in range(5):
        dated.ensure(4)
        dated.batch.jobs[-1].end()
    describe = dated.batch.describe_jobs

    def meanwhile(*, jobs: list[str]) -> Mapping[str, object]:
        dated.batch.describe_jobs = describe  # type: ignore[method-assign]  # whoever looks now does so undisturbed
        with pytest.raises(Terminal, match="5 jobs"):
            dated.ensure(4)
        return describe(jobs=jobs)

    dated.batch.describe_jobs = meanwhile  # type: ignore[method-assign]  # another process is faster
    with pytest.raises(Terminal, match="5 jobs"):
        dated.ensure(4)
    assert [name for name in dated.files if name.endswith("vain")] == ["000005.vain"]
    dated.ensure(4)
    assert dated.sizes[-1] == 1


def test_a_mended_job_file_begins_to_count_anew(world: World) -> None:
    for _ in range(4):
        world.ensure(2)
        world.batch.jobs[-1].end()
    world.ensure(2)
    world.launcher().stop(FLEET)
    assert world.batch.alive == 0
    for _ in range(5):
        world.ensure(2)
        assert world.batch.alive == 2
        world.batch.jobs[-1].end()
    with pytest.raises(Terminal):
        world.ensure(2)


def test_jobs_whose_workers_found_nothing_to_do_are_no_failures(world: World) -> None:
    for _ in range(9):
        world.ensure(2)
        world.batch.jobs[-1].end("SUCCEEDED")
    assert len(world.batch.jobs) == 9


def test_while_somebody_is_at_work_failures_stop_further_jobs_and_not_the_run(world: World) -> None:
    world.ensure(1)
    for _ in range(9):
        world.ensure(2)
        if len(world.batch.jobs) > 1:
            world.batch.jobs[-1].end()
    assert (len(world.batch.jobs), world.batch.alive) == (6, 1)


def beside_one_that_lives(dated: World, minutes: int, *, lives: Callable[[int], bool] = lambda _: False) -> list[int]:
    """One worker of the first job writes parts all the time; of each later job all fail, or live. The submissions."""
    submitted = []
    for minute in range(5, minutes + 1, 5):
        dated.now += 300
        dated.part(minute)
        before = len(dated.batch.jobs)
        dated.ensure(4)
        submitted += [minute] * (len(dated.batch.jobs) - before)
        first, *others = dated.batch.jobs
        dated.answers(f"{first.id}:3")
        if first.alive == 4:
            first.end(children=3)
        for number, job in enumerate(others, 1):
            if job.alive and lives(number):
                dated.answers(job.id)
            elif job.alive:
                dated.answers(job.id, answered=0)
                job.end(exit_code=1)
    return submitted


def test_a_worker_that_gets_something_done_does_not_have_others_fail_for_ever(dated: World) -> None:
    submitted = beside_one_that_lives(dated, 12 * 60)
    # After the fifth, with pauses of 15, 30, 60, 120, 240 minutes and more.
    assert submitted == [5, 10, 15, 20, 25, 30, 45, 75, 135, 255, 495]
    assert dated.sizes == [4] + [3] * 5 + [1] * 5
    assert dated.batch.alive == 1


def test_one_that_lives_beside_it_has_all_of_them_started_again(dated: World) -> None:
    beside_one_that_lives(dated, 60, lives=lambda number: number == 6)
    assert dated.sizes == [4] + [3] * 5 + [1] + [2] * 3
    assert dated.batch.alive == 2


@pytest.mark.parametrize("change", ["stopped", "job_definition", "nothing"])
def test_a_change_has_all_of_them_tried_beside_it(change: str, dated: World) -> None:
    beside_one_that_lives(dated, 30)
    dated.part(9999)
    if change == "stopped":
        dated.root.write(f"spot/{FLEET}/jobs/000006.past", b"")
    dated.ensure(4, **{"definition": "mended"} if change == "job_definition" else {})
    assert dated.sizes[6:] == ([] if change == "nothing" else [3])


@pytest.mark.parametrize("known", [True, False], ids=["known", "not confirmed yet"])
def test_while_one_is_tried_beside_it_nobody_else_is(dated: World, *, known: bool) -> None:
    beside_one_that_lives(dated, 30)
    if not known:
        dated.now += 900
        dated.part(999)
        dated.batch.after, dated.batch.lag = fails(LOST), GRACE - 10
        with pytest.raises(SubmitUnknown):
            dated.ensure(4)
        dated.batch.after = lambda: None
        dated.ensure(4)
    for minute in range(100):
        dated.now += 60
        dated.part(1000 + minute)
        dated.ensure(4)
    assert dated.sizes[6:] == [1]


def test_what_is_known_of_a_job_is_read_once(world: World) -> None:
    launcher = world.launcher()
    for workers in (1, 2, 3):
        launcher.ensure(FLEET, URI, workers)
    launcher.running(FLEET)
    read: list[str] = []
    reading = world.root.read

    def noted(path: str) -> bytes:
        read.append(path)
        return reading(path)

    world.root.read = noted  # type: ignore[method-assign]  # tells what is read, and reads it
    for _ in range(3):
        assert launcher.running(FLEET) == 3
    assert read == []
    world.root.write(f"spot/{FLEET}/jobs/000003.json", b"{")
    with pytest.raises(StoreError, match=r"jobs/000003\.json"):
        launcher.running(FLEET)


def test_no_more_workers_are_started_than_there_are_unfinished_shards(world: World) -> None:
    world.ensure(9)
    world.finish(but=1)
    world.batch.jobs[0].end("SUCCEEDED", children=8)
    for _ in range(3):
        world.ensure(4)
    assert (len(world.batch.jobs), world.batch.alive) == (1, 1)


def test_when_the_last_shard_has_ended_queued_workers_are_given_up_and_the_others_leave_by_themselves(
    world: World,
) -> None:
    world.ensure(4)
    world.batch.jobs[0].children[0] = "RUNNING"
    world.finish(but=1)
    world.launcher().release(FLEET)
    assert world.batch.alive == 4, "there is work left"
    world.finish()
    world.launcher().release(FLEET)
    assert world.batch.jobs[0].children == ["RUNNING", "FAILED", "FAILED", "FAILED"]


def test_a_worker_that_gives_no_sign_any_more_is_ended_and_replaced(world: World) -> None:
    world.now = time.time()
    world.ensure(2)
    job = world.batch.jobs[0]
    job.children, job.started = ["RUNNING"] * 2, int((world.now - 900) * 1000)
    world.beat(f"{job.id}:0", world.now - 200)
    world.beat(f"{job.id}:1", world.now - 100)
    world.ensure(2)
    assert job.children == ["FAILED", "RUNNING"]
    world.ensure(2)
    assert world.batch.alive == 2


@pytest.mark.parametrize(
    "why", ["it has ended", "a later attempt runs", "the later attempt beats", "our clock is wrong"]
)
def test_a_worker_is_not_taken_for_silent_because(why: str, world: World) -> None:
    world.now = time.time()
    world.ensure(1)
    job = world.batch.jobs[0]
    job.started = int((world.now - 900) * 1000)
    last = world.now - 200
    if why == "a later attempt runs":
        job.started = int((world.now - 100) * 1000)
    if why == "the later attempt beats":
        world.beat(job.id, world.now - 5)
        job.started = int((world.now - 100) * 1000)
    if why == "our clock is wrong":
        last, world.now = world.now - 5, world.now + 86_400
    world.beat(job.id, last, "ended" if why == "it has ended" else "working")
    world.ensure(2)
    assert job.alive == 1


def test_jobs_that_still_run_are_not_in_vain(world: World) -> None:
    for workers in range(1, 9):
        world.ensure(workers)
    assert world.batch.alive == 8


def test_a_job_that_aws_has_forgotten_has_ended(world: World) -> None:
    world.ensure(1)
    world.batch.jobs[0].forgotten = True
    assert world.launcher().running(FLEET) == 1
    world.now += 8 * 86_400
    assert world.launcher().running(FLEET) == 0


def test_more_jobs_than_one_call_describes_are_looked_at(world: World) -> None:
    ids = [str(world.batch.submit_job(jobName=f"job-{number}")["jobId"]) for number in range(250)]
    assert list(Jobs(account(world.batch), "queue", "worker").look(ids)) == ids


def test_a_clock_that_was_wrong_keeps_nobody_waiting_for_ever(world: World) -> None:
    world.batch.before = fails(LOST)
    with pytest.raises(SubmitUnknown):
        world.ensure(1)
    world.batch.before = lambda: None
    world.now -= 86_400
    world.ensure(1)
    assert world.batch.alive == 1


@pytest.mark.parametrize(
    ("most", "price", "expected"), [("3", "0.75", 4), ("3", "0.76", 3), ("1000", "0.75", 8), ("0.75", "0.75", 1)]
)
def test_no_more_workers_are_started_than_the_price_allows(world: World, most: str, price: str, expected: int) -> None:
    world.batch.prices = {"g6.xlarge": "0.1", "g5.xlarge": price}
    chosen: dict[str, Any] = {"instances": ("g6.xlarge", "g5.xlarge"), "max_usd_per_hour": Decimal(most)}
    world.ensure(8, **chosen)
    world.ensure(8, **chosen)
    assert world.batch.alive == expected


def test_runs_that_share_a_queue_share_the_cap(world: World) -> None:
    world.batch.prices = {"g6.xlarge": "0.50"}
    world.batch.submit_job(jobName="somebody-elses", arrayProperties={"size": 9})
    launcher = world.launcher(max_usd_per_hour=Decimal(2))
    for number in range(1, 5):
        world.root.write(f"spot/r{number}-xyz/shards/s00001-a1/task.json", b"{}")
        world.root.write(f"spot/r{number}-xyz/shards/s00002-a1/task.json", b"{}")
    launcher.ensure("r1-xyz", URI, 1)
    launcher.ensure("r2-xyz", URI, 2)
    launcher.ensure("r3-xyz", URI, 2)
    assert [len(job.children) for job in world.batch.jobs[1:]] == [1, 2, 1]
    with pytest.raises(QuotaFull, match="4 workers of other runs in the queue use it up"):
        launcher.ensure("r4-xyz", URI, 1)
    world.batch.jobs[1].end("SUCCEEDED")
    launcher.ensure("r4-xyz", URI, 2)
    assert len(world.batch.jobs[-1].children) == 1


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"definition": "misspelt"}, r"backends\.spot\.job_definition: there is no active job definition 'misspelt'"),
        ({"queue": "elsewhere"}, r"backends\.spot\.queue: there is no job queue 'elsewhere' in us-east-1"),
    ],
)
def test_a_name_that_is_wrong_is_named_and_is_the_job_files_fault(
    world: World, chosen: dict[str, str], expected: str
) -> None:
    world.batch.before = fails(refusal("ClientException", 404))
    with pytest.raises(ConfigError, match=expected) as raised:
        world.ensure(1, **chosen)
    assert raised.value.exit_code == 2
    assert world.files == []


def test_a_price_that_has_risen_stops_nothing_and_starts_nothing(world: World) -> None:
    world.batch.prices = {"g6.xlarge": "0.5"}
    world.ensure(2, max_usd_per_hour=Decimal(1))
    world.batch.prices = {"g6.xlarge": "1.5"}
    world.ensure(4, max_usd_per_hour=Decimal(1))
    assert world.batch.alive == 2
    world.batch.jobs[0].end()
    with pytest.raises(QuotaFull, match="max_usd_per_hour 1"):
        world.ensure(4, max_usd_per_hour=Decimal(1))


def test_without_a_price_the_cap_cannot_be_held(world: World) -> None:
    with pytest.raises(Terminal, match=r"no Spot price of 'g6\.xlarge' in us-east-1"):
        world.ensure(1, max_usd_per_hour=Decimal(1))
    assert world.batch.jobs == []
    world.ensure(1)
    assert world.batch.alive == 1


def test_a_stop_ends_what_runs_and_what_was_never_confirmed(world: World) -> None:
    world.ensure(1)
    world.batch.after = fails(LOST)
    with pytest.raises(SubmitUnknown):
        world.ensure(3)
    world.batch.after = lambda: None
    world.batch.jobs[0].end("SUCCEEDED")
    launcher = world.launcher()
    launcher.stop(FLEET)
    assert world.batch.alive == 0
    assert world.batch.calls.count("terminate") == 1
    launcher.stop(FLEET)
    launcher.stop("nobody")
    assert world.batch.calls.count("terminate") == 1


def test_another_fleet_is_not_touched(world: World) -> None:
    world.ensure(1)
    for number in (1, 2):
        world.root.write(f"spot/r1-abcd/shards/s{number:05d}-a1/task.json", b"{}")
    world.launcher().ensure("r1-abcd", URI, 2)
    world.launcher().stop(FLEET)
    assert [job.alive for job in world.batch.jobs] == [0, 2]


def test_a_record_that_cannot_be_read_is_named(world: World) -> None:
    world.root.write(f"spot/{FLEET}/jobs/000001.json", b"{")
    with pytest.raises(StoreError, match=r"jobs/000001\.json"):
        world.ensure(1)


@settings(max_examples=25)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["ok", "lost before", "lost after", "refused"]),
            st.integers(1, 6),
            st.floats(0, 200),
            st.booleans(),
        ),
        max_size=12,
    ),
    lag=st.floats(0, GRACE - 1),
)
def test_whatever_is_lost_or_late_no_worker_runs_that_was_not_asked_for(
    steps: list[tuple[str, int, float, bool]], lag: float
) -> None:
    with TemporaryDirectory() as folder:
        world = World(open_store(folder))
        world.batch.lag = lag
        most = 0
        for answer, workers, passes, ends in steps:
            world.batch.before = fails(LOST) if answer == "lost before" else lambda: None
            world.batch.after = fails(LOST) if answer == "lost after" else lambda: None
            if answer == "refused":
                world.batch.before = fails(refusal("TooManyRequestsException", 429))
            most = max(most, workers)
            with suppress(SubmitUnknown, QuotaFull):
                world.ensure(workers, in_vain=1000)
            assert world.batch.alive <= most
            world.now += passes
            if ends and world.batch.jobs:
                world.batch.jobs[-1].end()
        world.batch.before = world.batch.after = lambda: None
        for _ in range(3):
            world.now += GRACE + lag + 1
            world.ensure(most or 1, in_vain=1000)
        assert world.batch.alive == (most or 1)
