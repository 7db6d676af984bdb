"""Real workers as processes: started, counted, replaced when killed, stopped, and given up when they cannot live."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import orjson
import psutil
import pytest
from servers.engine import Engine, running

from lowtide import ids
from lowtide.connectors.backends.spot import open_spot
from lowtide.connectors.backends.spot.backend import SpotBackend
from lowtide.connectors.backends.spot.environment import worker_environment
from lowtide.connectors.backends.spot.fleet import fleet_of
from lowtide.connectors.backends.spot.process_launcher import ProcessLauncher, default_directory
from lowtide.connectors.stores.local import LocalStore
from lowtide.errors import Terminal, Transient
from lowtide.job import backends as job
from lowtide.records import BatchStatus, Shard
from lowtide_worker import layout

PATIENCE = 60.0
QUICK = {"part_rows": 5, "part_seconds": 0.2, "beat_seconds": 0.2, "lease_seconds": 1.5, "idle_seconds": 20.0}
RUN = ("0123456789abcdef", "0a0b0c0d")
FLEET = "-".join(RUN)


def until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"waited {PATIENCE} s for {what}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running("--latency", "0.05", "--slots", "4") as found:
        yield found


@pytest.fixture
def root(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "root", sync="none")


@pytest.fixture
def launcher(root: LocalStore, tmp_path: Path) -> Iterator[ProcessLauncher]:
    environ = {**os.environ, "LOWTIDE_METADATA_URL_EC2": "none", "LOWTIDE_METADATA_URL_AZURE": "none"}
    found = ProcessLauncher(root, tmp_path / "slots", 2, environ)
    yield found
    for path in (tmp_path / "slots").glob("slots/*/worker"):
        found.stop(path.read_text().split()[0])
    until(lambda: not any(True for _ in living(tmp_path)), "the workers to end")


def living(folder: Path) -> Iterator[psutil.Process]:
    """The workers that work somewhere below the folder."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[1:4] == ["-P", "-m", "lowtide_worker.main"] and any(str(folder) in word for word in words):
            yield process


def opened(root: LocalStore, launcher: ProcessLauncher, engine: Engine) -> SpotBackend:
    spec = job.SpotBackend(
        model="small",
        launcher="process",
        max_workers=2,
        usd_per_hour="36",  # type: ignore[arg-type]  # as a job file has it
        engine=job.SpotEngine(url=engine.url),
        in_flight=job.InFlight(least=2, most=4),
    )
    environ = {**launcher.environ, "LOWTIDE_SPOT_DIR": str(launcher.directory)}
    return open_spot(spec, root, environ=environ, fleet=msgspec.structs.replace(fleet_of(spec), **QUICK))


def shard(root: LocalStore, texts: list[str], number: int = 1) -> Shard:
    lines = []
    for n, text in enumerate(texts):
        body = {"model": "small", "messages": [{"role": "user", "content": text}], "max_tokens": 5}
        line = {
            "custom_id": ids.record_id(n, "0badcafe"),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": body,
        }
        lines.append(orjson.dumps(line) + b"\n")
    path, data = f"requests/{number}.jsonl", b"".join(lines)
    root.write(path, data)
    return Shard("run", number, 1, len(lines), len(data), root.uri_of(path), lambda: root.open(path))


def begun(root: LocalStore, backend: SpotBackend, *texts: list[str]) -> list[str]:
    """Submit a shard for each, and look once, so that workers are asked for."""
    batches = [
        backend.submit(shard(root, one, number), ids.token(*RUN, number, 1)) for number, one in enumerate(texts, 1)
    ]
    backend.poll(batches[0])
    return batches


def finish(backend: SpotBackend, batch: str) -> BatchStatus:
    statuses: list[BatchStatus] = []

    def ended() -> bool:
        statuses.append(backend.poll(batch))
        return statuses[-1].outcome is not None

    until(ended, "the batch to end")
    return statuses[-1]


def records(backend: SpotBackend, batch: str) -> Counter[int]:
    lines = b"".join(chunk for output in backend.outputs(batch) for chunk in output.chunks).splitlines()
    answers = [backend.parse(line) for line in lines]
    return Counter(ids.ordinal_of(answer.record_id) for answer in answers if answer is not None)


def test_workers_answer_their_shards_and_leave(root: LocalStore, launcher: ProcessLauncher, engine: Engine) -> None:
    backend = opened(root, launcher, engine)
    batches = [ids.token(*RUN, number, 1) for number in (1, 2, 3)]
    for number, batch in enumerate(batches):
        backend.submit(shard(root, [f"whole {number}.{n}" for n in range(20)], number), batch)
    statuses = [finish(backend, batch) for batch in batches]
    assert {status.outcome for status in statuses} == {"completed"}
    for batch in batches:
        assert records(backend, batch) == Counter(range(20))
    assert {times for text, times in engine.asked().items() if text.startswith("whole")} == {1}
    until(lambda: launcher.running(FLEET) == 0, "the workers to leave")
    worked = sum(part.seconds for status in statuses for part in status.compute if not part.waste)
    assert 2 <= worked <= PATIENCE
    assert {part.usd_per_second for status in statuses for part in status.compute} == {Decimal("0.01")}


def test_a_worker_that_is_killed_is_replaced_and_its_answers_are_kept(
    root: LocalStore, launcher: ProcessLauncher, engine: Engine, tmp_path: Path
) -> None:
    backend = opened(root, launcher, engine)
    [batch] = begun(root, backend, [f"killed {n}" for n in range(120)])
    parts = tmp_path / "root" / "spot" / FLEET / "shards" / "s00001-a1" / "parts"
    until(lambda: parts.exists() and any(parts.iterdir()), "the first part")
    [worker] = living(tmp_path)
    worker.kill()
    assert finish(backend, batch).outcome == "completed"
    assert records(backend, batch) == Counter(range(120))
    asked = Counter({text: times for text, times in engine.asked().items() if text.startswith("killed")})
    assert max(asked.values()) <= 2
    assert 120 < asked.total() <= 120 + 4 + 5, "what was in flight and what was in no part"


def test_a_machine_runs_no_more_workers_than_it_may_whosever_they_are(
    root: LocalStore, launcher: ProcessLauncher, engine: Engine
) -> None:
    backend = opened(root, launcher, engine)
    begun(root, backend, *([f"slots {n} [slow:30]" for n in range(4)] for _ in range(2)))
    assert launcher.running(FLEET) == 2
    launcher.ensure(FLEET, backend._root.uri_of(f"spot/{FLEET}"), 9)
    launcher.ensure("another-fleet", "file:///nowhere", 2)
    assert (launcher.running(FLEET), launcher.running("another-fleet")) == (2, 0)


def test_workers_that_are_stopped_write_what_they_have_and_end(
    root: LocalStore, launcher: ProcessLauncher, engine: Engine, tmp_path: Path
) -> None:
    backend = opened(root, launcher, engine)
    batch = backend.submit(shard(root, [f"stopped {n}" for n in range(100)]), ids.token(*RUN, 1, 1))
    until(lambda: backend.poll(batch).answered > 0, "the first answers")
    launcher.stop(FLEET)
    until(lambda: launcher.running(FLEET) == 0, "the workers to end")
    assert (launcher.directory / "slots" / "000" / "exit").read_text().strip() == "75"
    written = records(backend, batch)
    assert set(written.values()) == {1}
    answered = [text for text in engine.answered() if text.startswith("stopped")]
    assert len(written) == len(answered), "what the engine has answered is written"
    assert finish(backend, batch).outcome == "completed"
    assert records(backend, batch) == Counter(range(100))


def test_workers_that_cannot_live_are_not_started_for_ever(root: LocalStore, launcher: ProcessLauncher) -> None:
    """The fleet's folder is empty: each worker ends at once, with an error."""
    started = 0

    def hopeless() -> None:
        nonlocal started
        while True:
            launcher.ensure(FLEET, root.uri_of(f"spot/{FLEET}"), 1)
            started += 1
            until(lambda: launcher.running(FLEET) == 0, "the worker to end")
            assert started < 20

    with pytest.raises(Terminal, match=r"5 workers have ended.*the last one ended with code 2: see .*slots/000/log"):
        hopeless()
    assert started == 5
    assert "there is no" in (launcher.directory / "slots" / "000" / "log").read_text()
    started = 0
    with pytest.raises(Terminal, match="one more worker has ended"):
        hopeless()
    assert started == 1, "whoever asks again has it tried again"


def test_workers_that_get_something_done_may_die_as_often_as_they_like(
    root: LocalStore, launcher: ProcessLauncher
) -> None:
    for number in range(1, 9):
        launcher.ensure(FLEET, root.uri_of(f"spot/{FLEET}"), 1)
        until(lambda: launcher.running(FLEET) == 0, "the worker to end")
        root.write(f"spot/{FLEET}/shards/s00001-a1/parts/{number:06d}.jsonl", b"{}\n")


def ended_with(launcher: ProcessLauncher, code: int, starts: int, fleet: str = FLEET) -> None:
    """Start workers that end with that code, one after the other."""
    for _ in range(starts):
        launcher.ensure(fleet, f"file:///nowhere/{code}", 1)
        until(lambda: launcher.running(fleet) == 0, "the worker to end")


@pytest.fixture
def ending(launcher: ProcessLauncher, tmp_path: Path) -> ProcessLauncher:
    """Its workers end at once, with the code that their fleet's address ends with; each is a line of `started`."""
    package = tmp_path / "lib" / "lowtide_worker"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "main.py").write_text(
        "import os, sys\n"
        f"with open({str(tmp_path / 'started')!r}, 'a') as file: print(sys.argv[-1], file=file)\n"
        "os._exit(int(sys.argv[-1].rpartition('/')[2]))\n"
    )
    launcher.environ = {**launcher.environ, "PYTHONPATH": str(tmp_path / "lib")}
    return launcher


@pytest.mark.parametrize("code", [layout.RETRY, layout.STORE_FAILED])
def test_workers_that_always_want_to_be_tried_again_are_not_started_for_ever(
    code: int, ending: ProcessLauncher
) -> None:
    with pytest.raises(Terminal, match=rf"5 workers.*code {code}"):
        ended_with(ending, code, starts=9)


class Ticks:
    """Looks, 5 minutes apart, each as by a process of its own; `started` tells the minute of each worker's start."""

    def __init__(self, of: ProcessLauncher, log: Path) -> None:
        self.of = of
        self.log = log
        self.minute = 0
        self.started: list[int] = []
        self.told: list[str] = []

    def __call__(self, until_minute: int, workers: int = 1) -> None:
        while self.minute < until_minute:
            self.minute += 5
            self.look(workers)

    def look(self, workers: int = 1) -> None:
        launcher = ProcessLauncher(
            self.of.root, self.of.directory, self.of.most, self.of.environ, clock=lambda: 1.8e9 + 60.0 * self.minute
        )
        before = self.lines
        try:
            launcher.ensure(FLEET, "file:///nowhere/1", workers)
        except Terminal as error:
            self.told.append(str(error))
            return
        until(lambda: launcher.running(FLEET) == 0, "the workers to end")
        self.started += [self.minute] * (self.lines - before)

    @property
    def lines(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def ticks(ending: ProcessLauncher, tmp_path: Path) -> Ticks:
    return Ticks(ending, tmp_path / "started")


def test_a_day_of_ticks_with_a_broken_engine_starts_five_workers_and_eight_more(ticks: Ticks) -> None:
    ticks(24 * 60)
    # Given up 5 minutes after each failure, then 0, 15, 30, 60, 120, 240, 360 and 360 minutes of pause.
    assert ticks.started == [5, 10, 15, 20, 25, 35, 55, 90, 155, 280, 525, 890, 1255]
    assert len(ticks.told) == 24 * 60 / 5 - 13
    assert len(set(ticks.told)) == 9
    assert "5 workers have ended" in ticks.told[0]
    assert "start the run again" in ticks.told[0]
    at = datetime.fromtimestamp(1.8e9 + 60 * (40 + 15), UTC)
    assert f"code 1: see {ticks.of.directory / 'slots' / '000' / 'log'}; mend what it says" in ticks.told[1]
    assert f"tried again from {at:%Y-%m-%d %H:%M} UTC on" in ticks.told[1]


@pytest.mark.parametrize("change", ["fleet.json", "a part", "an end", "stopped"])
def test_once_something_has_changed_all_workers_are_tried_at_once(change: str, ticks: Ticks, root: LocalStore) -> None:
    root.write(f"spot/{FLEET}/shards/s00001-a1/parts/000001.jsonl", b"{}\n")
    ticks(200, workers=2)
    before = len(ticks.started)
    ticks.look(workers=2)
    assert len(ticks.started) == before, "it is within a pause"
    if change == "fleet.json":
        root.write(f"spot/{FLEET}/fleet.json", b"{}")
    elif change == "a part":
        root.write(f"spot/{FLEET}/shards/s00001-a1/parts/000002.jsonl", b"{}\n")
    elif change == "an end":
        end = layout.End(outcome="completed", answered=1, errors=0, at=0.0)
        root.write(f"spot/{FLEET}/shards/s00001-a1/end.json", msgspec.json.encode(end))
    else:
        ticks.of.stop(FLEET)
    ticks.look(workers=2)
    assert len(ticks.started) == before + 2
    ticks.look(workers=2)
    assert len(ticks.started) == before + 4, "they count from there"


def test_until_something_is_written_no_more_are_started_than_it_takes_to_give_up(ticks: Ticks) -> None:
    ticks(20, workers=2)
    assert ticks.started == [5, 5, 10, 10, 15]
    assert "5 workers have ended" in ticks.told[0]


_SOUND_OR_NOT = """
import os, pathlib, sys, time
here, slot = pathlib.Path({here!r}), os.environ["LOWTIDE_SLOT"]
with open(here / "started", "a") as file:
    print(slot, file=file)
if slot not in (here / "sound").read_text():
    os._exit(1)
beat = here / "root" / "spot" / {fleet!r} / "workers" / (os.environ["AWS_BATCH_JOB_ID"] + "-0a.json")
beat.parent.mkdir(parents=True, exist_ok=True)
beat.with_suffix(".new").write_bytes({beat!r})
beat.with_suffix(".new").rename(beat)
time.sleep(600)
"""


def test_a_worker_that_gets_something_done_does_not_have_others_fail_for_ever(
    ending: ProcessLauncher, root: LocalStore, tmp_path: Path
) -> None:
    """That of the first slot lives, and has answered something; later that of the second one does as well."""
    spell = layout.Spell(shard="s00001-a1", seconds=1.0, answered=3)
    beat = msgspec.json.encode(layout.Beat(worker="w", state="working", started=1.0, at=2.0, spells=(spell,)))
    sound, log, beats = tmp_path / "sound", tmp_path / "started", tmp_path / "root" / "spot" / FLEET / "workers"
    worker = _SOUND_OR_NOT.format(here=str(tmp_path), fleet=FLEET, beat=beat)
    (tmp_path / "lib" / "lowtide_worker" / "main.py").write_text(worker)
    sound.write_text("0")
    log.touch()
    ending.most, minute = 3, 0
    ending.clock = lambda: 1.8e9 + 60.0 * minute
    started: list[int] = []
    for minute in range(5, 165, 5):
        if minute == 110:
            sound.write_text("01")
        root.write(f"spot/{FLEET}/shards/s00001-a1/parts/{minute:06d}.jsonl", b"{}\n")
        before = len(log.read_text().splitlines())
        ending.ensure(FLEET, root.uri_of(f"spot/{FLEET}"), 3)
        until(lambda: beats.exists() and ending.running(FLEET) == len(list(beats.glob("*.json"))), "the others to end")
        started += [minute] * (len(log.read_text().splitlines()) - before)
    # Six have failed in a row at minute 20: then one is tried after 30 minutes, and after 60. That one lives.
    assert started == [5, 5, 5, 10, 10, 15, 15, 50, 115, 120, 125, 130, 135, 140, 160]
    assert ending.running(FLEET) == 2


def test_answers_that_are_collected_and_deleted_do_not_begin_it_anew(ticks: Ticks, root: LocalStore) -> None:
    root.write(f"spot/{FLEET}/shards/s00001-a1/parts/000001.jsonl", b"{}\n")
    ticks(200)
    before = len(ticks.started)
    root.delete(f"spot/{FLEET}/shards/s00001-a1/parts/000001.jsonl")
    ticks.look()
    assert len(ticks.started) == before


def test_workers_that_still_live_are_waited_for_before_it_is_given_up(
    root: LocalStore, launcher: ProcessLauncher, engine: Engine, tmp_path: Path
) -> None:
    launcher.in_vain = 1
    backend = opened(root, launcher, engine)
    begun(root, backend, ["waited 1 [slow:30]"], ["waited 2 [slow:30]"])
    until(lambda: len(list(living(tmp_path))) == 2, "the workers to begin")
    first, second = living(tmp_path)
    uri = root.uri_of(f"spot/{FLEET}")
    first.kill()
    until(lambda: launcher.running(FLEET) == 1, "the first slot to be free")
    launcher.ensure(FLEET, uri, 2)
    assert launcher.running(FLEET) == 1, "one more would be in vain"
    second.kill()
    until(lambda: launcher.running(FLEET) == 0, "the second slot to be free")
    with pytest.raises(Terminal, match="2 workers have ended"):
        launcher.ensure(FLEET, uri, 2)
    for _ in range(2):
        launcher.ensure(FLEET, uri, 2)
        assert launcher.running(FLEET) == 1, "one at a time"


def test_workers_that_find_nothing_to_do_are_no_failures(ending: ProcessLauncher, tmp_path: Path) -> None:
    ended_with(ending, 0, starts=7)
    assert len((tmp_path / "started").read_text().splitlines()) == 7


def test_runs_that_share_a_slot_count_each_others_failures_for_whom_they_are(
    ending: ProcessLauncher, tmp_path: Path
) -> None:
    ending.most = 1
    given_up: set[str] = set()
    for _ in range(9):
        for fleet in {"r1-abc", "r2-abc"} - given_up:
            try:
                ended_with(ending, 1, starts=1, fleet=fleet)
            except Terminal:
                given_up.add(fleet)
    assert given_up == {"r1-abc", "r2-abc"}
    assert len((tmp_path / "started").read_text().splitlines()) == 10


def test_a_worker_that_is_killed_together_with_its_shell_counts_as_well(
    root: LocalStore, launcher: ProcessLauncher, engine: Engine, tmp_path: Path
) -> None:
    launcher.in_vain = 2
    backend = opened(root, launcher, engine)
    begun(root, backend, ["both [slow:30]"])
    for death in range(2):
        until(lambda: any(True for _ in living(tmp_path)), "the worker to begin")
        [worker] = living(tmp_path)
        shell = worker.parent()
        assert shell is not None
        shell.kill()
        worker.kill()
        until(lambda: launcher.running(FLEET) == 0, "the slot to be free")
        if not death:
            launcher.ensure(FLEET, root.uri_of(f"spot/{FLEET}"), 1)
    with pytest.raises(Terminal, match=r"2 workers.*the last one was killed"):
        launcher.ensure(FLEET, root.uri_of(f"spot/{FLEET}"), 1)


def test_a_slot_whose_file_was_not_written_whole_is_used_again(ending: ProcessLauncher) -> None:
    ended_with(ending, 0, starts=1)
    for content in (b"", b"fleet", b"fleet x y", b"\xff"):
        (ending.directory / "slots" / "000" / "worker").write_bytes(content)
        assert ending.running(FLEET) == 0
        ending.stop(FLEET)
        ended_with(ending, 0, starts=1)


def test_a_disk_that_is_full_leaves_a_slot_as_it_was(ending: ProcessLauncher, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(Transient, match="No space left"):
            ending.ensure(FLEET, "file:///nowhere/0", 1)
    ended_with(ending, 0, starts=1)


def test_a_worker_that_gives_no_sign_any_more_makes_room_for_another(
    root: LocalStore, launcher: ProcessLauncher, engine: Engine, tmp_path: Path
) -> None:
    launcher.most = 1
    backend = opened(root, launcher, engine)
    batch = backend.submit(shard(root, [f"frozen {n}" for n in range(60)]), ids.token(*RUN, 1, 1))
    until(lambda: backend.poll(batch).answered > 0, "the first answers")
    [frozen] = living(tmp_path)
    frozen.suspend()
    assert finish(backend, batch).outcome == "completed"
    assert records(backend, batch) == Counter(range(60))
    assert not frozen.is_running()


def test_a_worker_whose_engine_takes_its_time_is_left_alone(
    root: LocalStore, launcher: ProcessLauncher, engine: Engine, tmp_path: Path
) -> None:
    backend = opened(root, launcher, engine)
    begun(root, backend, ["patience [slow:30]"])
    until(lambda: any(True for _ in living(tmp_path)), "the worker to begin")
    [worker] = living(tmp_path)
    end = time.monotonic() + 4 * QUICK["lease_seconds"]
    while time.monotonic() < end:
        launcher.ensure(FLEET, root.uri_of(f"spot/{FLEET}"), 1)
        time.sleep(0.2)
    assert [one.pid for one in living(tmp_path)] == [worker.pid]


def test_a_mended_job_file_replaces_the_workers_that_run(
    root: LocalStore, launcher: ProcessLauncher, engine: Engine
) -> None:
    batch = ids.token(*RUN, 1, 1)
    before = opened(root, launcher, engine)
    before.submit(shard(root, [f"mended {n}" for n in range(600)]), batch)
    until(lambda: before.poll(batch).answered > 0, "the first answers")
    with running("--latency", "0.01") as other:
        after = opened(root, launcher, other)
        assert finish(after, batch).outcome == "completed"
        assert records(after, batch) == Counter(range(600))
        first = {text for text in engine.answered() if text.startswith("mended")}
        second = {text for text in other.answered() if text.startswith("mended")}
    assert second, "nobody has asked the engine of the mended job file"
    assert first.isdisjoint(second), "what the first ones had answered was asked again"
    assert len(first | second) == 600


def test_whoever_mends_the_job_file_begins_to_count_anew(ending: ProcessLauncher) -> None:
    ended_with(ending, 1, starts=4)
    ending.stop(FLEET)
    ended_with(ending, 1, starts=5)
    with pytest.raises(Terminal):
        ending.ensure(FLEET, "file:///nowhere/1", 1)


def test_a_folder_that_cannot_be_written_starts_nobody(root: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    launcher = ProcessLauncher(root, tmp_path / "file" / "slots", 1)
    with pytest.raises(Transient, match="Not a directory"):
        launcher.ensure(FLEET, root.uri, 1)
    [finding] = launcher.examine()
    assert not finding.ok
    assert "LOWTIDE_SPOT_DIR" in finding.found


def test_a_sound_folder_passes_its_examination(launcher: ProcessLauncher) -> None:
    assert [finding.ok for finding in launcher.examine()] == [True]


def test_a_worker_gets_what_it_needs_and_no_secret_of_anybody_elses() -> None:
    ours = {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "1",
        "HF_HOME": "/models",
        "OPENAI_API_KEY": "hunter2",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AZURE_STORAGE_ACCOUNT_KEY": "testing",
        "PREFECT_API_KEY": "hunter2",
        "LOWTIDE_ENGINE_API_KEY": "the engine's",
        "PYTHONPATH": "lib",
    }
    always = {"PATH", "CUDA_VISIBLE_DEVICES", "HF_HOME", "LOWTIDE_ENGINE_API_KEY", "PYTHONPATH"}
    always |= {"PYTHONUTF8", "PYTHONUNBUFFERED"}
    assert set(worker_environment("file:///root", ours)) == always
    assert set(worker_environment("s3://b/root", ours)) == always | {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert set(worker_environment("abfs://c@a.dfs.core.windows.net/x", ours)) == always | {"AZURE_STORAGE_ACCOUNT_KEY"}
    assert Path(worker_environment("file:///root", ours)["PYTHONPATH"]).is_absolute()


def test_keys_of_the_default_profile_are_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert worker_environment("s3://b/root", {"PATH": "/bin"})["AWS_PROFILE"] == "default"
    assert "AWS_PROFILE" not in worker_environment("s3://b/root", {"AWS_ACCESS_KEY_ID": "x"})
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    assert "AWS_PROFILE" not in worker_environment("s3://b/root", {"PATH": "/bin"})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"LOWTIDE_SPOT_DIR": "/a"}, Path("/a")),
        ({"XDG_STATE_HOME": "/b"}, Path("/b/lowtide/spot")),
        ({"XDG_STATE_HOME": "b"}, Path.home() / ".local" / "state" / "lowtide" / "spot"),
    ],
)
def test_slots_lie_in_the_users_state_folder(environ: dict[str, str], expected: Path) -> None:
    assert default_directory(environ) == expected


def test_a_slot_is_free_as_soon_as_its_worker_is_dead(
    root: LocalStore, launcher: ProcessLauncher, engine: Engine, tmp_path: Path
) -> None:
    backend = opened(root, launcher, engine)
    begun(root, backend, ["freed [slow:30]"])
    until(lambda: any(True for _ in living(tmp_path)), "the worker to begin")
    [worker] = living(tmp_path)
    assert worker.environ()["LOWTIDE_SLOT"] == "0"
    launcher.ensure(FLEET, root.uri_of(f"spot/{FLEET}"), 1)
    assert launcher.running(FLEET) == 1, "there is one already"
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: launcher.running(FLEET) == 0, "the slot to be free")
    assert (launcher.directory / "slots" / "000" / "exit").read_text().strip() == "137"
