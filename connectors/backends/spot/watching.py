"""What the files of a fleet say: how far a shard has come, and which workers live."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from lowtide.connectors.backends.spot.accounts import Hold, unkept
from lowtide.connectors.backends.spot.names import Place, in_fleet
from lowtide.errors import NotFound, StoreError, Transient
from lowtide.protocols import Store
from lowtide.records import FileInfo
from lowtide_worker import layout
from lowtide_worker.layout import Beat, Claim, End, number_of

LARGEST_BEAT = 64 << 20


@dataclass(frozen=True, slots=True)
class ShardFiles:
    """What lies in a shard's folder. Claims and parts are in their order.

    `cancelled` is when somebody asked last that the shard be stopped, by the store's clock; None if nobody has.
    """

    task: bool
    ended: bool
    cancelled: float | None
    claims: Sequence[FileInfo]
    parts: Sequence[FileInfo]


def look(root: Store, place: Place) -> ShardFiles:
    """One listing of a shard's folder."""
    top = place.path("")
    by_name = {info.path[len(top) :]: info for info in root.list(top)}

    def numbered(folder: str) -> Sequence[FileInfo]:
        found = [info for name, info in by_name.items() if name.startswith(folder) and number_of(name)]
        return sorted(found, key=lambda info: number_of(info.path))

    return ShardFiles(
        task=layout.TASK in by_name,
        ended=layout.END in by_name,
        cancelled=by_name[layout.CANCEL].modified.timestamp() if layout.CANCEL in by_name else None,
        claims=numbered("claims/"),
        parts=numbered("parts/"),
    )


def end_of(root: Store, place: Place) -> End:
    """How the shard has ended."""
    path = place.path(layout.END)
    try:
        return msgspec.json.decode(root.read(path), type=End)
    except msgspec.MsgspecError as error:
        uri = root.uri_of(path)
        raise StoreError(f"{uri!r} is no end of a shard that this version knows: {error}", uri=uri) from error


def holds_of(root: Store, files: ShardFiles) -> Sequence[Hold]:
    """Who claimed the shard, in the order of the claims."""
    found = []
    for info in files.claims:
        try:
            claim = msgspec.json.decode(root.read(info.path), type=Claim)
        except (NotFound, msgspec.MsgspecError):
            continue
        found.append(Hold(worker=claim.worker, at=info.modified.timestamp()))
    return found


class Written(msgspec.Struct, frozen=True):
    """What has come of a fleet's work: `files` parts are there, and the `newest` answers were written at that time.

    In seconds since the epoch, by the store's clock; 0 while there are none.
    """

    files: int = 0
    newest: float = 0.0

    def is_more_than(self, then: Written) -> bool:
        """Whether something was written since. Where a collected shard's parts were deleted, nothing was."""
        return self.files > then.files or self.newest > then.newest


@dataclass(frozen=True, slots=True)
class Shards:
    """The shards of a fleet that have not ended, and what is written."""

    open: frozenset[str]
    written: Written

    @property
    def unfinished(self) -> int:
        return len(self.open)


def shards_of(root: Store, fleet: str) -> Shards:
    """One listing of a fleet's shards. Raises Transient and StoreError."""
    top = in_fleet(fleet, "shards/")
    begun: set[str] = set()
    ends: dict[str, FileInfo] = {}
    parts: list[float] = []
    for info in root.list(top):
        shard, _, name = info.path[len(top) :].partition("/")
        if name == layout.TASK:
            begun.add(shard)
        elif name == layout.END:
            ends[shard] = info
        elif name.endswith(".jsonl"):
            parts.append(info.modified.timestamp())
    newest = _newest_answers(root, ends.values(), max(parts, default=0.0))
    return Shards(frozenset(begun - ends.keys()), Written(len(parts), newest))


def _newest_answers(root: Store, ends: Iterable[FileInfo], newest: float) -> float:
    """When the last shard with answers ended, if that was after `newest`: its parts may have been deleted.

    An end without any answer tells of no progress: a shard whose time is used up ends so as well.
    """
    for info in sorted(ends, key=lambda info: info.modified, reverse=True):
        if info.modified.timestamp() <= newest:
            break
        try:
            end = msgspec.json.decode(root.read(info.path), type=End)
        except (NotFound, msgspec.MsgspecError):
            continue
        if end.answered > end.errors:
            return info.modified.timestamp()
    return newest


def store_time(root: Store, fleet: str) -> float:
    """What o'clock it is at the store, in seconds since the epoch: writing tells. Raises Transient and StoreError."""
    root.write(path := in_fleet(fleet, "now"), b"")
    info = root.info(path)
    if info is None:
        raise Transient(f"{root.uri_of(path)!r} was removed as soon as it was written")
    return info.modified.timestamp()


@dataclass(frozen=True, slots=True)
class Seen:
    """A worker's last beat, and when it was written by the store's clock."""

    beat: Beat
    at: float


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers of a fleet by name, and the latest time of the store that is known."""

    workers: Mapping[str, Seen]
    now: float
    lease_seconds: float

    @property
    def gone(self) -> frozenset[str]:
        """Those that have said that they end, or have given no sign for longer than the lease."""
        return frozenset(
            name
            for name, seen in self.workers.items()
            if seen.beat.state == "ended" or self.now - seen.at > self.lease_seconds
        )

    @property
    def living(self) -> frozenset[str]:
        """All others."""
        return frozenset(self.workers) - self.gone

    @property
    def last_words(self) -> str:
        """Why the last worker ended that ended with an error; "" if none has said so."""
        failed = (seen for seen in self.workers.values() if seen.beat.exit_code not in {None, 0, layout.RETRY})
        last = max(failed, key=lambda seen: seen.at, default=None)
        return last.beat.note if last is not None else ""

    def answered(self, shard: str) -> int:
        """Records of a shard that have a line, by what workers have said."""
        spells = (spell for seen in self.workers.values() for spell in seen.beat.spells)
        return sum(spell.answered for spell in spells if spell.shard == shard)

    def unkept(self, holds: Sequence[Hold], files: ShardFiles) -> dict[str, float]:
        """See `accounts.unkept`."""
        parts = [info.modified.timestamp() for info in files.parts]
        return unkept(holds, parts, {name: seen.at for name, seen in self.workers.items()})


class Crews:
    """Reads the beats of fleets; one that has not changed is not read again."""

    def __init__(self, root: Store) -> None:
        self._root = root
        self._kept: dict[str, tuple[str, Seen]] = {}

    def of(self, fleet: str, lease_seconds: float, now: float = 0.0) -> Crew:
        """The workers that have ever written a beat. `now` is a time of the store that is known to have passed."""
        # On a disk, a beat that is being written lies beside the last one, and stays there if its writer is killed.
        infos = [info for info in self._root.list(in_fleet(fleet, "workers/")) if info.path.endswith(".json")]
        workers = {seen.beat.worker: seen for seen in self._read(infos)}
        times = [info.modified.timestamp() for info in infos]
        return Crew(workers, max([now, *times]), lease_seconds)

    def _read(self, infos: Sequence[FileInfo]) -> Iterator[Seen]:
        changed = [info for info in infos if self._kept.get(info.path, ("",))[0] != info.etag]
        for content in self._root.read_many(changed, largest=LARGEST_BEAT):
            if content.error is not None:
                continue  # Written over in this moment: the next look shows it.
            try:
                beat = msgspec.json.decode(content.data, type=Beat)
            except msgspec.MsgspecError as error:
                uri = content.info.uri
                raise StoreError(f"{uri!r} is no beat that this version knows: {error}", uri=uri) from error
            self._kept[content.info.path] = content.info.etag, Seen(beat, content.info.modified.timestamp())
        for info in infos:
            if info.path in self._kept:
                yield self._kept[info.path][1]
