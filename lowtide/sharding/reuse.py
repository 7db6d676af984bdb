"""Which requests need not be asked: those that an earlier run has bought, and those that this run asks already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lowtide.cache.index import CacheIndex, Seen
from lowtide.cache.keys import Keys, keys_of
from lowtide.operations import Operation
from lowtide.sharding.strings import whole

_OWN_SLOTS = ("text", "marker")
MOST_OPERATIONS = 60
"""Operations of a job: a document's are kept as the bits of one integer."""


def fields_of(operation: Operation) -> tuple[str, ...]:
    """The fields that the operation's prompt uses, in the order of its slots."""
    return tuple(slot for slot in dict.fromkeys(operation.user.slots) if slot not in _OWN_SLOTS)


def one_line(value: str | None) -> str:
    """A field's value as prompts hold it: on one line, so that it cannot pose as part of the prompt's structure."""
    return " ".join(whole(value).split()) if value else ""


def request_keys(operation: Operation, sha256: Sequence[str], fields: Mapping[str, Sequence[str]]) -> Keys:
    """What the operation's requests about these documents are known by. `fields` hold values as `one_line` gives."""
    return keys_of(sha256, [fields[name] for name in fields_of(operation)])


@dataclass(frozen=True, slots=True)
class Looked:
    """What became of each document's requests, one entry a document.

    `asked` and `twins` are operations as bits. `reused` holds, for documents of which answers are there already, the
    operation, the source and the ordinal of each.
    """

    asked: npt.NDArray[np.int64]
    twins: npt.NDArray[np.int64]
    reused: dict[int, tuple[tuple[int, int, int], ...]]


@dataclass
class Known:
    """The answers that there are, and the requests of the run so far.

    `questions` has one entry for each operation: two that ask the same are one question. `indexes` are the answers of
    earlier runs, by question. `exists` says whether a source is still there.
    """

    operations: Sequence[Operation]
    questions: Sequence[str]
    indexes: Mapping[str, CacheIndex] = field(default_factory=dict)
    exists: Callable[[str], bool] = lambda source: True

    def __post_init__(self) -> None:
        self.seen = {question: Seen() for question in self.questions}
        self.sources: list[str] = []
        self._numbers: dict[str, int] = {}

    def look(self, sha256: Sequence[str], fields: Mapping[str, Sequence[str]]) -> Looked | None:
        """What is to be asked about these documents; None if it is everything. They count as asked from now on."""
        total = len(sha256)
        asked = np.zeros(total, dtype=np.int64)
        twins = np.zeros(total, dtype=np.int64)
        reused: dict[int, tuple[tuple[int, int, int], ...]] = {}
        whole_keys: dict[tuple[str, ...], Keys] = {}
        for op, (operation, question) in enumerate(zip(self.operations, self.questions, strict=True)):
            used = fields_of(operation)
            if used not in whole_keys:
                whole_keys[used] = request_keys(operation, sha256, fields)
            keys = whole_keys[used]
            missing = np.ones(total, dtype=np.bool_)
            index = self.indexes.get(question)
            if index is not None and len(index):
                self._reuse(index, keys, op, missing, reused)
            places = np.flatnonzero(missing)
            again = self.seen[question].take(keys if len(places) == total else keys[places])
            asked[places[~again]] |= 1 << op
            twins[places[again]] |= 1 << op
        everything = (1 << len(self.operations)) - 1
        return None if bool((asked == everything).all()) else Looked(asked, twins, reused)

    def remember(self, op: int, keys: Keys) -> None:
        """Requests of the run that are in shards already."""
        self.seen[self.questions[op]].add(keys)

    def _reuse(
        self,
        index: CacheIndex,
        keys: Keys,
        op: int,
        missing: npt.NDArray[np.bool_],
        reused: dict[int, tuple[tuple[int, int, int], ...]],
    ) -> None:
        found = index.find(keys)
        for at in np.flatnonzero(found.source >= 0).tolist():
            number = self._source(index.sources[int(found.source[at])])
            if number >= 0:
                missing[at] = False
                reused[at] = (*reused.get(at, ()), (op, number, int(found.ordinal[at])))

    def _source(self, path: str) -> int:
        """The number of a source among `sources`; -1 if it is gone."""
        number = self._numbers.get(path)
        if number is None:
            there = self.exists(path)
            number = self._numbers[path] = len(self.sources) if there else -1
            if there:
                self.sources.append(path)
        return number
