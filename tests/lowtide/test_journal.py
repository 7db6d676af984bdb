"""The journal: one owner for each entry, nothing lost, nothing half, and a clear word where something is broken."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from support.standins import MemoryStore

from lowtide import events as e
from lowtide.connectors.stores import open_store
from lowtide.errors import CorruptJournal
from lowtide.journal import Journal, Superseded
from lowtide.protocols import Store
from lowtide.records import FileInfo
from lowtide.shards import Phase
from lowtide.states import RunState, fold

WRITERS, EACH = 6, 20


def built(shard: int, at: float = 0.0) -> e.ShardBuilt:
    return e.ShardBuilt(
        at=at,
        shard=shard,
        documents=2,
        records=2,
        size=9,
        requests="r",
        index="i",
        file=0,
        document=2 * shard,
        owner="o",
    )


def intent(shard: int, owner: str, at: float = 0.0) -> e.Submitting:
    return e.Submitting(at=at, shard=shard, attempt=1, token="t", owner=owner, expires=600.0)


def journal(store: Store, owner: str = "me", *, snapshot_every: int = 256) -> Journal:
    opened = Journal(store, "runs/r", owner, snapshot_every=snapshot_every)
    opened.refresh()
    return opened


def claim_shards(store: Store, owner: str, shards: int) -> list[int]:
    """Try to write the intent for every shard, and say which were won."""
    mine, won = journal(store, owner), []
    for shard in range(1, shards + 1):
        try:
            mine.append(intent(shard, owner))
        except Superseded:
            mine.refresh()
        else:
            won.append(shard)
    return won


def count_up(store: Store, owner: str) -> None:
    mine = journal(store, owner, snapshot_every=7)
    for number in range(EACH):
        mine.append(e.Requested(at=float(number + 1)))


def race(root: Path, what: str, number: int) -> list[list[int]]:
    """Three processes at once over one journal on the disk; what each has won."""
    racer = Path(__file__).parents[1] / "support" / "racer.py"
    processes = [
        subprocess.Popen(
            [sys.executable, str(racer), str(root), f"p{i}", what, str(number)], stdout=subprocess.PIPE, text=True
        )
        for i in range(3)
    ]
    deadline = time.monotonic() + 120
    while len(list(root.glob("*.ready"))) < len(processes) and time.monotonic() < deadline:
        time.sleep(0.01)
    (root / "go").touch()
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    return [json.loads(line) for line in said]


def test_of_racing_threads_one_wins_each_step() -> None:
    store = MemoryStore()
    journal(store).append(*[built(shard) for shard in range(1, 31)])
    won: list[list[int]] = []
    barrier = threading.Barrier(WRITERS)

    def race(owner: str) -> None:
        barrier.wait()
        won.append(claim_shards(store, owner, 30))

    threads = [threading.Thread(target=race, args=(f"t{i}",)) for i in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(shard for shards in won for shard in shards) == list(range(1, 31))


def test_of_racing_threads_nobody_loses_an_event() -> None:
    store = MemoryStore()
    threads = [threading.Thread(target=count_up, args=(store, f"t{i}")) for i in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = journal(store)
    written = Counter(entry.owner for _, entry in reader.history())
    assert written == {f"t{i}": EACH for i in range(WRITERS)}
    assert reader.state.entry == WRITERS * EACH


def test_of_racing_processes_on_a_disk_one_wins_each_step(tmp_path: Path) -> None:
    journal(open_store(f"{tmp_path}/store")).append(*[built(shard) for shard in range(1, 31)])
    won = race(tmp_path, "claim", 30)
    assert sorted(shard for shards in won for shard in shards) == list(range(1, 31))


def test_of_racing_processes_on_a_disk_nobody_loses_an_event(tmp_path: Path) -> None:
    race(tmp_path, "count", EACH)
    reader = journal(open_store(f"{tmp_path}/store"))
    assert Counter(entry.owner for _, entry in reader.history()) == {f"p{i}": EACH for i in range(3)}


def a_life(store: Store, *, snapshot_every: int) -> Journal:
    """Entries of many kinds, money and numbers among them."""
    mine = journal(store, snapshot_every=snapshot_every)
    mine.append(e.Requested(at=1.5))
    for shard in range(1, 5):
        mine.append(built(shard, at=float(shard)))
    mine.append(e.BuildFinished(at=9.0, documents=8))
    for shard in range(1, 4):
        mine.append(intent(shard, "me", at=10.25))
        mine.append(e.Submitted(at=11.0, shard=shard, attempt=1, batch_id=f"b{shard}"))
    mine.append(e.Ended(at=12.0, shard=1, attempt=1, outcome="partial", provider_state="Ended"))
    tallies = (e.Tally("input", 2**53 + 1), e.Tally("input", 3, "expired"))
    collected = e.Collected(at=13.0, shard=1, attempt=1, remaining=1, counts={"ok": 1}, tallies=tallies, answers="a")
    mine.append(collected, e.Retrying(at=13.0, shard=1, attempt=2, requests="r2", records=1, size=4))
    mine.append(e.CancelRequested(at=14.0))
    return mine


@pytest.mark.parametrize("snapshot_every", [1, 3, 5, 256])
def test_a_state_from_a_snapshot_is_the_state_of_a_full_replay(snapshot_every: int) -> None:
    store = MemoryStore()
    writer = a_life(store, snapshot_every=snapshot_every)
    replayed = fold(RunState(), [(number, entry.events) for number, entry in writer.history()])
    assert journal(store).state == replayed == writer.state
    assert replayed.shards[1].phase is Phase.BUILT
    assert replayed.shards[1].attempt == 2


class Counting(MemoryStore):
    reads = 0

    def read(self, path: str) -> bytes:
        self.reads += 1
        return super().read(path)


def test_a_snapshot_spares_the_reader_the_entries_before_it() -> None:
    store = Counting()
    entries = a_life(store, snapshot_every=5).state.entry
    store.reads = 0
    journal(store)
    assert store.reads == 1 + entries % 5


def test_a_second_refresh_reads_only_what_is_new() -> None:
    store = Counting()
    reader = a_life(store, snapshot_every=256)
    store.reads = 0
    reader.refresh()
    assert store.reads == 0


@pytest.mark.parametrize("rubbish", [b"", b"{", b"\xff\x00", b'{"entry": "seven"}', b"[]"])
def test_an_unreadable_snapshot_is_passed_over(rubbish: bytes) -> None:
    store = MemoryStore()
    state = a_life(store, snapshot_every=5).state
    store.write("runs/r/snapshots/000010.json", rubbish)
    assert journal(store).state == state


def test_a_missing_entry_is_named(tmp_path: Path) -> None:
    store = MemoryStore()
    a_life(store, snapshot_every=256)
    store.delete("runs/r/journal/000004.json")
    with pytest.raises(CorruptJournal, match=r"memory://store/runs/r/journal/000005\.json.*expected entry 4"):
        journal(store)


def test_a_stray_file_among_the_entries_is_named() -> None:
    store = MemoryStore()
    entries = a_life(store, snapshot_every=256).state.entry
    store.write("runs/r/journal/zzz.json", b"{}")
    with pytest.raises(CorruptJournal, match=rf"journal/zzz\.json.*expected entry {entries + 1}"):
        journal(store)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"",
        b'{"owner": "o", "events": [',
        b"\x00",
        b'{"owner": "o", "events": [{"event": "invented", "at": 1}]}',
        b'{"owner": "o", "events": [{"event": "requested"}]}',
        b'{"events": []}',
    ],
)
def test_an_unreadable_entry_is_named(rubbish: bytes) -> None:
    store = MemoryStore()
    a_life(store, snapshot_every=256)
    store.write("runs/r/journal/000003.json", rubbish)
    with pytest.raises(CorruptJournal, match=r"memory://store/runs/r/journal/000003\.json"):
        journal(store)


def test_an_entry_that_does_not_fit_the_state_is_reported() -> None:
    store = MemoryStore()
    a_life(store, snapshot_every=256)
    twice = store.read("runs/r/journal/000002.json")
    store.write("runs/r/journal/000003.json", twice)
    with pytest.raises(CorruptJournal, match="shard 1 was built out of turn"):
        journal(store)


def test_what_no_longer_fits_is_not_written() -> None:
    store = MemoryStore()
    journal(store, "first").append(built(1))
    one, two = journal(store, "one"), journal(store, "two")
    one.append(intent(1, "one"))
    with pytest.raises(Superseded):
        two.append(intent(1, "two"))
    assert two.state.shards[1].owner == "one"
    assert two.state.entry == 2


def test_what_still_fits_is_written_behind_the_others() -> None:
    store = MemoryStore()
    journal(store, "first").append(built(1), built(2))
    one, two = journal(store, "one"), journal(store, "two")
    one.append(intent(1, "one"))
    two.append(intent(2, "two"))
    assert {number: shard.owner for number, shard in journal(store).state.shards.items()} == {1: "one", 2: "two"}


def test_a_guard_is_asked_about_the_state_that_the_entry_follows() -> None:
    store = MemoryStore()
    journal(store, "first").append(built(1), built(2))
    one, two = journal(store, "one"), journal(store, "two")
    one.append(intent(1, "one"))
    with pytest.raises(Superseded):
        two.append(intent(2, "two"), guard=lambda state: state.shards[1].phase is Phase.BUILT)
    assert two.state.shards[2].phase is Phase.BUILT


def test_events_of_one_entry_happen_together_or_not_at_all() -> None:
    store = MemoryStore()
    mine = journal(store)
    mine.append(built(1))
    with pytest.raises(Superseded):
        mine.append(intent(1, "me"), intent(1, "me"))
    assert journal(store).state.shards[1].phase is Phase.BUILT


class Lagging(MemoryStore):
    """A folder that is listed while others write may show a later file, and not yet an earlier one."""

    hidden = ""

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[FileInfo]:
        for info in super().list(prefix, after=after):
            if info.path == self.hidden:
                self.hidden = ""
            else:
                yield info


def test_a_listing_that_shows_a_later_entry_first_is_asked_again() -> None:
    store = Lagging()
    reader = journal(store, "reader")
    writer = journal(store, "writer")
    for shard in range(1, 4):
        writer.append(built(shard))
    store.hidden = "runs/r/journal/000002.json"
    assert reader.refresh() == writer.state


def test_entries_are_readable_by_people_and_by_other_tools() -> None:
    store = MemoryStore()
    a_life(store, snapshot_every=256)
    first = msgspec.json.decode(store.read("runs/r/journal/000001.json"))
    assert first == {"owner": "me", "events": [{"event": "requested", "at": 1.5}]}
