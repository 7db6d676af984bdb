"""One pass over a job's documents, or over a sample of them: what there is, and what would be asked about it.

Nothing is held but counts, a sample for the estimate of tokens, and what the cache needs to tell requests apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from lowtide import ids
from lowtide.cache.index import CacheIndex
from lowtide.cache.keys import question
from lowtide.estimating import Corpus
from lowtide.inputs import Inputs, read_listing
from lowtide.plan import CountedDocuments, Work
from lowtide.planning.published import NOTHING_PUBLISHED, PublishedDocuments
from lowtide.planning.sampling import MOST_BYTES, Stratum, choose_files, format_of
from lowtide.records import DocumentBatch
from lowtide.sharding.reuse import Known, fields_of, one_line

Counted = Callable[[int], None]
"""Told, now and then, how many documents have been read."""

_ROW_OVERHEAD = 8
"""Bytes beside the value that a field takes in a line of JSON or CSV, about, where only the values are known."""


@dataclass
class Questions:
    """What is asked of one model: the same at every backend that has it. Counts are requests, by operation.

    `text_bytes` are the UTF-8 bytes of the texts in those that are asked.
    """

    known: Known
    asked: list[int]
    cached: list[int]
    twins: list[int]
    text_bytes: int = 0

    @classmethod
    def about(cls, known: Known) -> Questions:
        zeros = [0] * len(known.operations)
        return cls(known, zeros.copy(), zeros.copy(), zeros.copy())

    def take(self, sha256: Sequence[str], fields: Mapping[str, Sequence[str]], sizes: Sequence[int]) -> Sequence[int]:
        """Count these documents. Returns the operations that are asked about each, as bits."""
        looked = self.known.look(sha256, fields)
        operations = range(len(self.asked))
        if looked is None:
            everything = (1 << len(self.asked)) - 1
            for op in operations:
                self.asked[op] += len(sha256)
            self.text_bytes += len(self.asked) * sum(sizes)
            return [everything] * len(sha256)
        for op in operations:
            asked = int(((looked.asked >> op) & 1).sum())
            twins = int(((looked.twins >> op) & 1).sum())
            self.asked[op] += asked
            self.twins[op] += twins
            self.cached[op] += len(sha256) - asked - twins
        masks: list[int] = looked.asked.tolist()
        self.text_bytes += sum(size * mask.bit_count() for size, mask in zip(sizes, masks, strict=True))
        return masks


@dataclass
class Counts:
    """Documents, as far as they were read. `files` are those that were begun, `bytes` what they hold."""

    files: int = 0
    bytes: int = 0
    documents: int = 0
    unreadable: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    text_bytes: int = 0
    carried_bytes: int = 0


@dataclass(frozen=True)
class Asked:
    """What would be asked of one model. `requests` are counted by operation; `text_bytes` is the text in them all."""

    requests: tuple[int, ...]
    cached: int
    twins: int
    text_bytes: int

    @property
    def total(self) -> int:
        return sum(self.requests)


class Survey(CountedDocuments, frozen=True):
    """What was found. `asked` has an entry for each of the work's allowed backends, None for one that cannot do an
    operation.
    """

    text_bytes: int
    corpus: Corpus
    asked: tuple[Asked | None, ...]


@dataclass
class _Pass:
    """What all documents of a survey are held against."""

    work: Work
    published: PublishedDocuments
    corpus: Corpus
    known: Mapping[tuple[str, ...], Known]
    longest: int
    read: int = 0
    listen: Counted = lambda documents: None
    counts: Counts = field(default_factory=Counts)
    questions: dict[tuple[str, ...], Questions] = field(default_factory=dict)

    def begin(self) -> None:
        """Count from nothing again; what was asked before still counts as asked."""
        self.counts = Counts()
        self.questions = {asked: Questions.about(known) for asked, known in self.known.items()}

    def take(self, batch: DocumentBatch) -> None:
        """Count a batch of documents."""
        counts, texts = self.counts, batch.texts
        kept: list[int] = []
        sizes: list[int] = []
        sha256: list[str] = []
        for at, reason in enumerate(batch.reasons):
            content = None if reason is not None else _encoded(texts[at])
            if content is not None and len(content) <= self.longest:
                kept.append(at)
                sizes.append(len(content))
                sha256.append(hashlib.sha256(content).hexdigest())
        counts.documents += len(batch)
        counts.unreadable += len(batch) - len(kept)
        counts.text_bytes += sum(sizes)
        self._compare(batch, kept, sha256)
        fields = {
            name: [one_line(batch.fields[name][at]) for at in kept]
            for name in dict.fromkeys(name for operation in self.work.operations for name in fields_of(operation))
        }
        wanted = [0] * len(kept)
        if kept:
            for asked in self.questions.values():
                masks = asked.take(sha256, fields, sizes)
                wanted = [one | other for one, other in zip(wanted, masks, strict=True)]
        # Tokens are wanted of what will be asked: new documents may be of another kind than those that are known.
        sampled = [at for at, mask in zip(kept, wanted, strict=True) if mask]
        for group, places in groupby(sampled, key=lambda at: format_of(batch.uris[at])):
            self.corpus.add(group, [texts[at] for at in places])
        self.read += len(batch)
        self.listen(self.read)

    def _compare(self, batch: DocumentBatch, kept: Sequence[int], sha256: Sequence[str]) -> None:
        counts = self.counts
        if not self.published.documents:
            counts.new += len(kept)
            return
        found = self.published.compare([ids.document_id(batch.uris[at], batch.keys[at]) for at in kept], sha256)
        counts.new += found.new
        counts.changed += found.changed
        counts.unchanged += found.unchanged


def survey(
    work: Work,
    inputs: Inputs,
    folder: Path,
    *,
    exact: bool,
    published: PublishedDocuments = NOTHING_PUBLISHED,
    listen: Counted = lambda documents: None,
    most_bytes: int = MOST_BYTES,
) -> Survey:
    """Look through the documents of a listing, or through a sample of its files. Keeps its files in `folder`.

    Writes nothing to the root and asks nobody but the stores. Raises Transient or StoreError where the source or the
    cache cannot be read.
    """
    asked = [_questions(work, at) for at in range(len(work.allowed))]
    distinct = dict.fromkeys(found for found in asked if found is not None)
    found = _Pass(
        work,
        published,
        Corpus(),
        {questions: _known(work, questions, folder) for questions in distinct},
        longest=max(candidate.backend.limits.request_bytes for candidate in work.allowed),
        listen=listen,
    )
    scaled = _Scaled(len(work.operations), distinct)
    if exact:
        found.begin()
        for batch in work.documents.read(read_listing(inputs.path)):
            found.take(batch)
        scaled.add(found, 1.0, 1.0)
    else:
        strata = choose_files(inputs.path, rows=work.reads_rows, most_bytes=most_bytes)
        for stratum in strata:
            found.begin()
            whole = (
                _read_rows(found, stratum, most_bytes // len(strata)) if stratum.rows else _read_whole(found, stratum)
            )
            scaled.add(found, *_factors(found.counts, stratum, whole=whole))
        # A sample that holds all that there is needs no scaling, and is none.
        exact = scaled.whole
    return scaled.survey(found, asked, exact=exact)


def _encoded(text: str) -> bytes | None:
    """The text's UTF-8; None for half a surrogate pair, which it cannot carry."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None


def _questions(work: Work, number: int) -> tuple[str, ...] | None:
    """What is asked of a candidate's model, as the cache knows it; None if the backend cannot do an operation."""
    backend = work.allowed[number].backend
    if any(backend.refusal(operation) for operation in work.operations):
        return None
    return tuple(question(operation.version, backend.model, backend.parameters) for operation in work.operations)


def _known(work: Work, questions: Sequence[str], folder: Path) -> Known:
    """What the run may take from earlier ones, as `engine.building` finds it."""
    indexes = {}
    if work.use_cache and not work.refresh:
        indexes = {asked: CacheIndex.open(work.root, asked, folder) for asked in dict.fromkeys(questions)}
    return Known(work.operations, questions, indexes, exists=lambda source: work.root.info(source) is not None)


def _read_whole(found: _Pass, stratum: Stratum) -> bool:
    """Read files that are one document each; whether all that there are were read."""
    for batch in found.work.documents.read(iter(stratum.chosen)):
        found.take(batch)
    found.counts.files = len(stratum.chosen)
    found.counts.bytes = sum(info.size for info in stratum.chosen)
    return len(stratum.chosen) == stratum.files


def _read_rows(found: _Pass, stratum: Stratum, room: int) -> bool:
    """Read the beginnings of files of rows, `room` bytes of text together; whether all were read to their ends.

    How much of a file lies behind the rows that were read is known only at its end. Before that, it is taken to be as
    much as their values need, in proportion to files that were read whole, if there are any.
    """
    counts = found.counts
    whole_bytes = whole_values = begun_values = 0
    every = len(stratum.chosen) == stratum.files
    for number, info in enumerate(stratum.chosen):
        share = room // len(stratum.chosen) * (number + 1)
        before = counts.carried_bytes
        ended = True
        batches = found.work.documents.read(iter([info]))
        for batch in batches:
            found.take(batch)
            counts.carried_bytes += _carried(batch)
            if counts.carried_bytes >= share:
                ended = next(batches, None) is None
                break
        if isinstance(batches, Generator):
            # What it holds open is let go now, and not when somebody finds that nobody asks it any more.
            batches.close()
        values = counts.carried_bytes - before
        counts.files += 1
        if ended:
            whole_bytes += info.size
            whole_values += values
        else:
            every = False
            begun_values += values
    ratio = whole_bytes / whole_values if whole_values else 1.0
    counts.bytes = whole_bytes + int(begun_values * ratio)
    return every


def _carried(batch: DocumentBatch) -> int:
    """About the bytes that a batch's values take in a file of rows."""
    columns: Iterable[Sequence[str | None]] = (batch.texts, batch.keys, *batch.fields.values())
    return sum(len(value) + _ROW_OVERHEAD for column in columns for value in column if value)


def _factors(counts: Counts, stratum: Stratum, *, whole: bool) -> tuple[float, float]:
    """By how much documents and bytes of text grow from the sample to the whole format."""
    if whole:
        return 1.0, 1.0
    by_bytes = stratum.bytes / counts.bytes if counts.bytes else stratum.files / max(counts.files, 1)
    return (by_bytes if stratum.rows else stratum.files / counts.files), by_bytes


class _Scaled:
    """Sums over formats, each scaled from its sample."""

    def __init__(self, operations: int, distinct: Iterable[tuple[str, ...]]) -> None:
        self.whole = True
        self._totals = dict.fromkeys(("documents", "new", "changed", "unchanged", "unreadable", "text_bytes"), 0.0)
        self._asked = {questions: [0.0] * operations for questions in distinct}
        self._rest = {questions: [0.0, 0.0, 0.0] for questions in self._asked}

    def add(self, found: _Pass, documents: float, size: float) -> None:
        counts = found.counts
        self.whole = self.whole and documents == size == 1.0
        for name in self._totals:
            self._totals[name] += getattr(counts, name) * (size if name == "text_bytes" else documents)
        for questions, asked in found.questions.items():
            for op, number in enumerate(asked.asked):
                self._asked[questions][op] += number * documents
            rest = self._rest[questions]
            rest[0] += sum(asked.cached) * documents
            rest[1] += sum(asked.twins) * documents
            rest[2] += asked.text_bytes * size

    def survey(self, found: _Pass, asked: Sequence[tuple[str, ...] | None], *, exact: bool) -> Survey:
        rounded = {name: round(total) for name, total in self._totals.items()}
        return Survey(
            exact=exact,
            read=found.read,
            corpus=found.corpus,
            asked=tuple(None if questions is None else self._of(questions) for questions in asked),
            documents=rounded["new"] + rounded["changed"] + rounded["unchanged"] + rounded["unreadable"],
            new=rounded["new"],
            changed=rounded["changed"],
            unchanged=rounded["unchanged"],
            unreadable=rounded["unreadable"],
            text_bytes=rounded["text_bytes"],
        )

    def _of(self, questions: tuple[str, ...]) -> Asked:
        cached, twins, size = map(round, self._rest[questions])
        return Asked(tuple(map(round, self._asked[questions])), cached, twins, size)
