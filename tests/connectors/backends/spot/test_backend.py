"""What the backend makes of the files of a fleet, with workers that the tests play by hand."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from support.spot_support import FLEET, Bench, record_id, token

from lowtide.connectors.stores.local import LocalStore
from lowtide.errors import ConfigError, QuotaFull, SubmitUnknown, Terminal, Transient
from lowtide.records import BatchStatus, Shard
from lowtide_worker import layout
from lowtide_worker.layout import Spell, Task

TOKEN = token()
TOP = f"spot/{FLEET}/"
SHARD = f"{TOP}shards/s00001-a1/"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(LocalStore(tmp_path / "root", sync="none"))


class Forgetful(LocalStore):
    """Its writers are told nothing of what they have written."""

    def __init__(self, root: Path, fails: str) -> None:
        super().__init__(root, sync="none")
        self._fails = fails

    def put_if_absent(self, path: str, data: bytes) -> bool:
        won = super().put_if_absent(path, data)
        if path.endswith(self._fails):
            raise Transient("the connection was reset")
        return won


class Overtaken(LocalStore):
    """Something else happens just before its first writer writes below that folder."""

    def __init__(self, root: Path, folder: str, first: Callable[[], None]) -> None:
        super().__init__(root, sync="none")
        self._folder, self._first = folder, [first]

    def put_if_absent(self, path: str, data: bytes) -> bool:
        if self._folder in path and self._first:
            self._first.pop()()
        return super().put_if_absent(path, data)


def seconds(status: BatchStatus) -> Counter[str]:
    found: Counter[str] = Counter()
    for part in status.compute:
        found[part.waste] += part.seconds
    return found


def test_a_shard_is_there_once_its_task_is(bench: Bench) -> None:
    assert list(bench.backend.find(TOKEN)) == []
    shard = bench.shard()
    assert bench.backend.submit(shard, TOKEN) == TOKEN
    assert bench.backend.submit(shard, TOKEN) == TOKEN
    assert list(bench.reopened().find(TOKEN)) == [TOKEN]
    task = msgspec.json.decode(bench.root.read(f"{SHARD}task.json"), type=Task)
    assert task == Task(requests=shard.uri, records=4, size=shard.size)
    fleet = msgspec.json.decode(bench.root.read(f"{TOP}fleet.json"), type=layout.Fleet)
    assert fleet == bench.fleet
    assert bench.launcher.asked == []
    bench.backend.poll(TOKEN)
    assert bench.launcher.uri == bench.root.uri_of(TOP.rstrip("/"))


def test_a_submission_whose_acknowledgement_is_lost_is_unknown_and_found(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(SubmitUnknown, match=r"task\.json"):
        bench.reopened(Forgetful(tmp_path / "root", "task.json")).submit(bench.shard(), TOKEN)
    assert list(bench.backend.find(TOKEN)) == [TOKEN]


def test_what_goes_wrong_before_the_task_is_written_has_submitted_nothing(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(Transient):
        bench.reopened(Forgetful(tmp_path / "root", "fleet.json")).submit(bench.shard(), TOKEN)
    assert list(bench.backend.find(TOKEN)) == []


def test_a_launcher_that_cannot_start_workers_now_does_not_undo_a_submission(bench: Bench) -> None:
    bench.launcher.refuses = QuotaFull("no room")
    assert bench.backend.submit(bench.shard(), TOKEN) == TOKEN
    status = bench.backend.poll(TOKEN)
    assert (status.outcome, status.provider_state, status.reason) == (None, "waiting", "no room")


def test_workers_that_cannot_live_stop_the_run_and_it_says_what_the_last_one_said(bench: Bench) -> None:
    bench.backend.submit(bench.shard(), TOKEN)
    bench.worker().beat(code=1, note="the model cannot be loaded")
    bench.launcher.refuses = Terminal("5 workers have ended")
    bench.clock.now += 11.0
    with pytest.raises(Terminal, match="5 workers have ended; the last worker said: the model cannot be loaded"):
        bench.backend.poll(TOKEN)


def test_a_name_of_the_job_file_that_is_not_there_is_its_fault_in_the_run_too(bench: Bench) -> None:
    bench.launcher.refuses = ConfigError("backends.spot.queue: there is no job queue 'misspelt'")
    bench.backend.submit(bench.shard(), TOKEN)
    with pytest.raises(ConfigError, match=r"backends\.spot\.queue: there is no job queue"):
        bench.backend.poll(TOKEN)


@pytest.mark.parametrize(
    "name", ["lt-x", "s00001-a1", f"lt-{FLEET}-s1-a1", f"lt-../../{FLEET}-s00001-a1", TOKEN + "/x"]
)
def test_what_is_no_token_becomes_no_path(bench: Bench, name: str) -> None:
    assert list(bench.backend.find(name)) == []
    for call in (bench.backend.poll, bench.backend.cancel, bench.backend.discard):
        with pytest.raises(Terminal, match="no batch of this backend"):
            call(name)


def test_a_shard_that_is_too_large_is_not_written(bench: Bench) -> None:
    huge = Shard("run", 1, 1, 1_000_001, 10, "file:///x", io.BytesIO)
    with pytest.raises(Terminal, match="1,000,001 requests"):
        bench.backend.submit(huge, TOKEN)
    assert list(bench.backend.find(TOKEN)) == []


def test_as_many_workers_are_asked_for_at_once_as_there_are_open_shards(bench: Bench) -> None:
    """So that AWS Batch gets them as one array job."""
    for number in range(1, 6):
        bench.backend.submit(bench.shard(), token(number))
    for number in range(1, 6):
        bench.backend.poll(token(number))
    assert bench.launcher.asked == [3]
    other = bench.reopened()
    for number in (1, 2):
        other.poll(token(number))
    assert bench.launcher.asked[1:] == [3], "as many by a process that has submitted none of them"
    for number in range(1, 5):
        bench.worker().end(token(number), 4)
        bench.backend.poll(token(number))
    del bench.launcher.asked[:]
    bench.clock.now += 11.0
    bench.backend.poll(token(5))
    assert bench.launcher.asked == [1]


def test_a_launcher_is_not_asked_anew_for_each_of_many_shards(bench: Bench) -> None:
    for number in range(1, 6):
        bench.backend.submit(bench.shard(), token(number))
    bench.backend.poll(token(1))
    del bench.launcher.asked[:]
    for _ in range(3):
        for number in range(1, 6):
            bench.backend.poll(token(number))
        bench.clock.now += 6.0
    assert bench.launcher.asked == [3]


def test_a_shard_that_somebody_else_has_seen_end_is_not_counted_for_ever(bench: Bench) -> None:
    bench.backend.submit(bench.shard(), token(1))
    bench.backend.submit(bench.shard(), token(2))
    bench.backend.poll(token(2))
    bench.clock.now += 901.0
    bench.backend.poll(token(2))
    assert bench.launcher.asked == [2, 1]


def test_a_mended_job_file_holds_for_workers_that_begin_later(bench: Bench) -> None:
    bench.backend.submit(bench.shard(), TOKEN)
    bench.fleet = msgspec.structs.replace(bench.fleet, engine=layout.Engine(url="http://127.0.0.1:10"))
    bench.reopened().poll(TOKEN)
    assert msgspec.json.decode(bench.root.read(f"{TOP}fleet.json"), type=layout.Fleet) == bench.fleet


def test_a_shard_is_worked_at_and_ends_with_its_answers_and_its_time(bench: Bench) -> None:
    bench.backend.submit(bench.shard(), TOKEN)
    assert bench.backend.poll(TOKEN).provider_state == "waiting"
    worker = bench.worker().claim(TOKEN)
    worker.at += 100.0
    worker.part(TOKEN, [2, 0]).beat(Spell(shard="s00001-a1", seconds=70.0, answered=2), boot=30.0)
    status = bench.backend.poll(TOKEN)
    assert (status.provider_state, status.outcome, status.answered) == ("working", None, 2)
    worker.at += 10.0
    worker.part(TOKEN, [3, 1], 2).end(TOKEN, 4)
    worker.beat(Spell(shard="s00001-a1", seconds=80.0, answered=4), boot=30.0, code=0)
    status = bench.backend.poll(TOKEN)
    assert (status.outcome, status.answered, status.charged, status.usage) == ("completed", 4, 4, None)
    assert seconds(status) == {"boot": 30, "": 80}
    assert {part.usd_per_second for part in status.compute} == {Decimal("0.001")}
    assert bench.reopened().poll(TOKEN) == status
    assert [answer.record_id for answer in bench.answers(TOKEN)] == [record_id(n) for n in (2, 0, 3, 1)]
    assert {(a.status, a.text, a.input_tokens, a.output_tokens) for a in bench.answers(TOKEN)} == {("ok", "yes", 10, 2)}


def test_a_shards_time_waits_for_the_last_word_of_who_ended_it(bench: Bench) -> None:
    bench.backend.submit(bench.shard(), TOKEN)
    worker = bench.worker().claim(TOKEN)
    worker.at += 5.0
    worker.part(TOKEN, range(4)).beat(Spell(shard="s00001-a1", seconds=5.0))
    worker.at += 3.0
    worker.end(TOKEN, 4)
    status = bench.backend.poll(TOKEN)
    assert (status.outcome, status.provider_state, status.answered) == (None, "accounting", 4)
    worker.beat(Spell(shard="s00001-a1", seconds=8.0))
    assert seconds(bench.backend.poll(TOKEN)) == {"": 8}


@pytest.mark.parametrize("beats", [True, False], ids=["had beaten before", "never beat"])
def test_a_worker_that_dies_with_the_shards_end_is_waited_for_no_longer_than_its_lease(
    bench: Bench, *, beats: bool
) -> None:
    """By the store's clock: each tick is a process of its own, which knows nothing of earlier ones."""
    bench.backend.submit(bench.shard(), TOKEN)
    worker = bench.worker(at=_now(bench) - 38.0).claim(TOKEN)
    worker.at += 5.0
    worker.part(TOKEN, range(4))
    if beats:
        worker.beat(Spell(shard="s00001-a1", seconds=5.0))
    worker.at += 3.0
    worker.end(TOKEN, 4)
    for _ in range(3):
        assert bench.reopened().poll(TOKEN).provider_state == "accounting"
        bench.clock.now += 60.0
    earlier(bench, 20.0)
    status = bench.reopened().poll(TOKEN)
    assert (status.outcome, seconds(status)) == ("completed", {"": 5} if beats else {})


def test_the_time_of_a_worker_that_was_killed_is_waste_from_its_last_part_on(bench: Bench) -> None:
    bench.backend.submit(bench.shard(), TOKEN)
    dead = bench.worker("dead").claim(TOKEN)
    dead.at += 20.0
    dead.part(TOKEN, [0])
    dead.at += 13.0
    dead.beat(Spell(shard="s00001-a1", seconds=23.0, answered=1), boot=10.0)
    heir = bench.worker("heir", at=dead.at + 60.0).claim(TOKEN, 2)
    heir.at += 9.0
    heir.part(TOKEN, [1, 2, 3], 2).end(TOKEN, 4).beat(Spell(shard="s00001-a1", seconds=9.0, answered=3), code=0)
    assert seconds(bench.backend.poll(TOKEN)) == {"boot": 10, "": 10 + 9, "preempted": 13}


def test_an_answer_is_priced_once(bench: Bench) -> None:
    """Another process with another price says the same of what has an account."""
    bench.backend.submit(bench.shard(), TOKEN)
    bench.worker().claim(TOKEN).part(TOKEN, range(4)).end(TOKEN, 4).beat(
        Spell(shard="s00001-a1", seconds=7.0), code=0, started=1_799_999_993.0
    )
    first = bench.backend.poll(TOKEN)
    bench.rates = type(bench.rates)(Decimal(99))  # type: ignore[call-arg]
    assert bench.reopened().poll(TOKEN) == first


def test_a_cancelled_shard_that_nobody_is_at_ends(bench: Bench) -> None:
    bench.backend.submit(bench.shard(), TOKEN)
    bench.backend.cancel(TOKEN)
    del bench.launcher.asked[:]
    assert bench.backend.poll(TOKEN).provider_state == "cancelling"
    status = bench.backend.poll(TOKEN)
    assert (status.outcome, status.charged, status.compute) == ("cancelled", 0, ())
    assert bench.launcher.asked == []
    assert bench.launcher.stopped == [FLEET]
    bench.backend.cancel(TOKEN)
    assert bench.backend.poll(TOKEN) == status


def test_a_cancelled_shard_is_left_to_its_worker_while_that_lives(bench: Bench) -> None:
    bench.backend.submit(bench.shard(), TOKEN)
    worker = bench.worker(at=_now(bench)).claim(TOKEN).part(TOKEN, [1]).beat(Spell(shard="s00001-a1", seconds=0.0))
    bench.backend.cancel(TOKEN)
    assert [bench.backend.poll(TOKEN).outcome for _ in range(3)] == [None] * 3
    worker.end(TOKEN, 1, "cancelled").beat(Spell(shard="s00001-a1", seconds=0.0), code=0)
    status = bench.backend.poll(TOKEN)
    assert (status.outcome, status.charged, status.answered) == ("cancelled", None, 1)


def test_a_cancelled_shard_whose_worker_has_died_ends_with_what_it_had_answered(bench: Bench) -> None:
    bench.backend.submit(bench.shard(), TOKEN)
    bench.worker(at=_now(bench) - 50.0).claim(TOKEN).part(TOKEN, [1, 3]).beat(Spell(shard="s00001-a1", seconds=0.0))
    bench.backend.cancel(TOKEN)
    bench.backend.poll(TOKEN)
    status = bench.backend.poll(TOKEN)
    assert (status.outcome, status.charged, status.answered) == ("cancelled", None, 2)
    assert [answer.record_id for answer in bench.answers(TOKEN)] == [record_id(1), record_id(3)]


def test_a_cancelled_shard_whose_worker_has_just_ended_ends_at_once(bench: Bench) -> None:
    bench.backend.submit(bench.shard(), TOKEN)
    bench.worker(at=_now(bench)).claim(TOKEN).part(TOKEN, [2]).beat(Spell(shard="s00001-a1", seconds=0.0), code=75)
    bench.backend.cancel(TOKEN)
    bench.backend.poll(TOKEN)
    assert (bench.backend.poll(TOKEN).outcome, len(bench.answers(TOKEN))) == ("cancelled", 1)


def test_a_worker_that_claims_a_cancelled_shard_first_has_it(bench: Bench) -> None:
    """Whoever writes the next claim ends the shard: the orchestrator takes part in that as any worker does."""
    bench.backend.submit(bench.shard(), TOKEN)
    bench.backend.cancel(TOKEN)
    bench.backend.poll(TOKEN)
    assert bench.root.info(f"{SHARD}claims/000001") is not None
    assert not bench.root.put_if_absent(f"{SHARD}claims/000001", b"{}")


def test_what_is_discarded_leaves_no_answers_and_is_not_begun_again(bench: Bench) -> None:
    shard = bench.shard()
    bench.backend.submit(shard, TOKEN)
    with pytest.raises(Transient, match="has not ended"):
        bench.backend.discard(TOKEN)
    bench.worker().claim(TOKEN).part(TOKEN, range(4)).end(TOKEN, 4).beat(code=0)
    status = bench.backend.poll(TOKEN)
    bench.backend.discard(TOKEN)
    bench.backend.discard(TOKEN)
    left = [info.path.removeprefix(TOP) for info in bench.root.list(TOP)]
    assert left == [
        "accounts/000001.json",
        "fleet.json",
        "shards/s00001-a1/claims/000001",
        "shards/s00001-a1/end.json",
        "shards/s00001-a1/task.json",
        "workers/w1.json",
    ]
    assert bench.backend.submit(shard, TOKEN) == TOKEN
    assert bench.reopened().poll(TOKEN) == status
    with pytest.raises(Transient, match="were removed"):
        list(bench.backend.outputs(TOKEN))


def test_a_shard_whose_task_is_gone_has_failed_and_says_where_it_was(bench: Bench) -> None:
    status = bench.backend.poll(TOKEN)
    assert status.outcome == "failed"
    assert f"{SHARD}task.json" in status.reason


def test_a_shard_may_take_as_long_as_what_is_reserved_for_it_lasts(bench: Bench) -> None:
    bench.backend.submit(bench.shard(may_cost=Decimal("0.25")), TOKEN)
    task = msgspec.json.decode(bench.root.read(f"{SHARD}task.json"), type=Task)
    assert task.seconds == 250.0


@pytest.mark.parametrize("ordinals", [[0], [3, 4, 900], [1, 70_000], [70_000, 200_000]], ids=str)
def test_workers_know_how_far_the_ordinals_go_of_what_an_earlier_attempt_has_left(
    bench: Bench, ordinals: list[int]
) -> None:
    """Lines may be longer than what is read of the end at first."""
    again = token(1, 2)
    bench.backend.submit(bench.shard(attempt=2, ordinals=ordinals), again)
    task = msgspec.json.decode(bench.root.read(f"{TOP}shards/s00001-a2/task.json"), type=Task)
    assert (task.records, task.ordinals) == (len(ordinals), ordinals[-1] + 1)


def test_a_file_without_ordinals_is_not_submitted(bench: Bench) -> None:
    data = b'{"custom_id":"r0000001x0badcafe"}\n{"custom_id":"mine"}\n'
    torn = Shard("run", 1, 2, 2, len(data), "file:///x", lambda: io.BytesIO(data))
    with pytest.raises(Terminal, match="does not end in a request"):
        bench.backend.submit(torn, token(1, 2))


def test_a_shard_that_failed_tells_why(bench: Bench) -> None:
    bench.backend.submit(bench.shard(), TOKEN)
    bench.worker().claim(TOKEN).part(TOKEN, [0]).end(TOKEN, 1, "failed", "out of GPU memory").beat(code=0)
    status = bench.backend.poll(TOKEN)
    assert (status.outcome, status.reason, status.answered) == ("failed", "out of GPU memory", 1)


def test_of_processes_that_account_at_the_same_time_one_wins_and_all_say_the_same(bench: Bench) -> None:
    """The second has read all accounts when the first makes one more."""
    other = bench.reopened()
    for number in (1, 2):
        bench.backend.submit(bench.shard(), token(number))
        bench.worker(f"w{number}").claim(token(number)).part(token(number), range(4)).end(token(number), 4)
    spells = {number: Spell(shard=f"s{number:05d}-a1", seconds=10.0) for number in (1, 2)}
    for number in (1, 2):
        bench.worker(f"w{number}").beat(spells[number], code=0, started=1_799_999_980.0, boot=10.0)
    statuses = [other.poll(token(2)), bench.backend.poll(token(1)), bench.backend.poll(token(2)), other.poll(token(1))]
    assert statuses[0] == statuses[2]
    assert statuses[1] == statuses[3]
    assert seconds(statuses[0]) + seconds(statuses[1]) == {"boot": 20, "": 20}


def test_an_account_that_another_process_is_faster_with_is_made_behind_it(bench: Bench, tmp_path: Path) -> None:
    """Both workers' boots are claimed by the faster one, though the slower one has reckoned with them before."""
    for number in (1, 2):
        bench.backend.submit(bench.shard(), token(number))
        worker = bench.worker(f"w{number}").claim(token(number)).part(token(number), range(4)).end(token(number), 4)
        spell = Spell(shard=f"s{number:05d}-a1", seconds=10.0)
        worker.beat(spell, code=0, started=1_799_999_980.0, boot=10.0)
    faster: list[BatchStatus] = []
    overtaken = Overtaken(tmp_path / "root", "accounts/", lambda: faster.append(bench.backend.poll(token(2))))
    slower = bench.reopened(overtaken).poll(token(1))
    assert (seconds(faster[0]), seconds(slower)) == ({"boot": 20, "": 10}, {"": 10})


def test_where_the_fleet_was_deleted_the_next_attempt_finds_out_how_to_work(bench: Bench) -> None:
    bench.backend.submit(bench.shard(), TOKEN)
    for info in list(bench.root.list(TOP)):
        bench.root.delete(info.path)
    assert bench.backend.poll(TOKEN).outcome == "failed"
    bench.backend.submit(bench.shard(attempt=2, ordinals=[0, 1]), token(1, 2))
    assert msgspec.json.decode(bench.root.read(f"{TOP}fleet.json"), type=layout.Fleet) == bench.fleet
    bench.root.delete(f"{TOP}fleet.json")
    bench.clock.now += 11.0
    bench.backend.poll(token(1, 2))
    assert bench.root.info(f"{TOP}fleet.json") is not None


def test_a_cancelled_shard_ends_though_an_answer_cannot_be_read(bench: Bench) -> None:
    """It was answered, and is paid."""
    bench.backend.submit(bench.shard(), TOKEN)
    body = '{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":-1}}'
    line = f'{{"custom_id":"{record_id(0)}","response":{{"status_code":200,"body":{body}}},"error":null}}'
    with pytest.raises(ValueError, match=r"."):
        bench.backend.parse(line.encode())
    bench.root.write(f"{SHARD}parts/000001.jsonl", line.encode() + b"\n")
    bench.backend.cancel(TOKEN)
    bench.backend.poll(TOKEN)
    status = bench.backend.poll(TOKEN)
    assert (status.outcome, status.charged, status.answered) == ("cancelled", None, 1)


def test_where_what_is_reserved_does_not_last_for_another_worker_none_is_started(bench: Bench) -> None:
    """1,000 s are reserved, and 980 s are gone."""
    bench.backend.submit(bench.shard(may_cost=Decimal(1)), TOKEN)
    worker = bench.worker(at=_now(bench) - 10.0)
    spell = Spell(shard="s00001-a1", seconds=280.0, answered=2)
    worker.claim(TOKEN).part(TOKEN, [0, 3]).beat(spell, boot=700.0, started=worker.at - 980.0)
    del bench.launcher.asked[:]
    for _ in range(2):
        status = bench.reopened().poll(TOKEN)
        assert (status.outcome, status.provider_state) == (None, "working")
        assert "no further worker" in status.reason
    earlier(bench, 40.0)
    bench.reopened().poll(TOKEN)
    status = bench.reopened().poll(TOKEN)
    assert bench.launcher.asked == []
    assert (status.outcome, status.answered) == ("partial", 2)
    assert sum(seconds(status).values()) == 980


@pytest.mark.parametrize(
    ("answered", "errors", "seconds", "fault"),
    [(3, 0, 50, "quota"), (3, 3, 50, ""), (0, 0, 50, ""), (0, 0, 0, "quota")],
    ids=["some answers", "errors alone", "nothing", "no time for it"],
)
def test_a_shard_that_got_somewhere_or_had_no_time_is_asked_on_and_that_is_no_try(
    bench: Bench, answered: int, errors: int, seconds: int, fault: str
) -> None:
    bench.backend.submit(bench.shard(may_cost=Decimal(1)), TOKEN)
    worker = bench.worker().claim(TOKEN).part(TOKEN, range(answered))
    worker.end(TOKEN, answered, "partial", "used up", errors=errors)
    worker.beat(Spell(shard="s00001-a1", seconds=seconds), code=0, started=worker.at - seconds)
    status = bench.backend.poll(TOKEN)
    assert (status.outcome, status.fault) == ("partial", fault)


@pytest.mark.parametrize("outcome", ["partial", "failed", "cancelled"])
def test_how_many_lines_there_are_of_a_shard_that_ended_early_says_nothing_of_those_it_has_none_of(
    bench: Bench, outcome: layout.Outcome
) -> None:
    """A line may tell of an error: as answers, those without one would count as paid, and never be asked."""
    bench.backend.submit(bench.shard(), TOKEN)
    bench.worker().claim(TOKEN).part(TOKEN, [0, 1]).end(TOKEN, 2, outcome, errors=1).beat(code=0)
    status = bench.backend.poll(TOKEN)
    assert (status.outcome, status.answered, status.charged) == (outcome, 2, None)


def test_no_more_workers_are_asked_for_than_what_is_reserved_lasts_for(bench: Bench) -> None:
    """Each takes what a worker takes to begin and to end, 30 s beside the boot of its machine."""
    for number in (1, 2, 3):
        bench.backend.submit(bench.shard(may_cost=Decimal("0.025")), token(number))
    for number in (1, 2, 3):
        bench.backend.poll(token(number))
    assert bench.launcher.asked == [2]


def test_no_shard_costs_more_than_what_is_reserved_for_it_while_others_are_open(bench: Bench) -> None:
    """Two workers boot for 300 s each; the shard that ends first has room for one of them."""
    for number in (1, 2):
        bench.backend.submit(bench.shard(may_cost=Decimal("0.40")), token(number))
        worker = bench.worker(f"w{number}").claim(token(number)).part(token(number), range(4)).end(token(number), 4)
        spell = Spell(shard=f"s{number:05d}-a1", seconds=50.0, answered=4)
        worker.beat(spell, boot=300.0, started=worker.at - 350.0, code=0)
    costs = [sum((part.usd for part in bench.backend.poll(token(number)).compute), Decimal(0)) for number in (2, 1)]
    assert costs[0] <= Decimal("0.40")
    assert sum(costs) == Decimal("0.70")


def test_what_no_version_knows_is_named(bench: Bench) -> None:
    bench.backend.submit(bench.shard(), TOKEN)
    bench.worker().claim(TOKEN).end(TOKEN, 0)
    bench.root.write(f"{SHARD}end.json", b'{"outcome": "rejoiced"}')
    with pytest.raises(Exception, match="no end of a shard that this version knows"):
        bench.backend.poll(TOKEN)


def earlier(bench: Bench, seconds: float) -> None:
    """As if all that lies in the fleet had been written that long before."""
    for info in list(bench.root.list(TOP)):
        at = info.modified.timestamp() - seconds
        os.utime(info.uri.removeprefix("file://"), (at, at))


def _now(bench: Bench) -> float:
    """What o'clock it is at the store."""
    bench.root.write("now", b"")
    info = bench.root.info("now")
    assert info is not None
    return info.modified.timestamp()
