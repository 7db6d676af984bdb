"""What a message has in common with the texts of a request, so that it can be told without them.

Servers quote what they refuse: as it came, as JSON, as Python writes it, in HTML, in other case, and cut off anywhere.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

BAD_JSON = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What decoding bytes that are not ours may raise."""

_RUN = 12
_MARK = re.compile("['\"`]")
_MARKS, _SHORTEST = 20, 3
_HIDDEN = re.compile("\0+")

_LAYERS = 3
"""JSON may stand in JSON."""

_PAIR = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U000([0-9a-fA-F]{5})|x([0-9a-fA-F]{2})|(.))")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_SPACES = re.compile(r"\s+")
_WHITE = frozenset("nrtfvb")


class _Reading(NamedTuple):
    """A text made of another one: letter `i` stands for the other's letters from `at[i]` to `at[i + 1]`."""

    text: str
    at: list[int]

    def replaced(self, pattern: re.Pattern[str], new: Callable[[re.Match[str]], str]) -> _Reading:
        letters, at, done = [], [], 0
        for found in pattern.finditer(self.text):
            letters.append(self.text[done : found.start()])
            at += self.at[done : found.start()]
            letters.append(new(found))
            at += [self.at[found.start()]] * len(letters[-1])
            done = found.end()
        letters.append(self.text[done:])
        return _Reading("".join(letters), at + self.at[done:])

    def folded(self) -> _Reading:
        folds = [letter.casefold() for letter in self.text]
        at = [self.at[index] for index, fold in enumerate(folds) for _ in fold]
        return _Reading("".join(folds), [*at, self.at[-1]])


def unquoted(message: str, texts: str) -> str:
    """The message without what it has in common with `texts`, as it stands and as it reads with its escapes undone."""
    hidden = [False] * len(message)
    plain = _Reading(message, list(range(len(message) + 1)))
    undone = plain
    for _ in range(_LAYERS):
        for pattern, new in _UNDO:
            undone = undone.replaced(pattern, new)
    readings = [plain.folded()]
    if undone.text != message:
        readings.append(undone.replaced(_SPACES, lambda _: " ").folded())
    for text, at in readings:
        for start, end in (*_runs(text, texts), *_quotations(text, texts)):
            # Several letters may stand for one: the last of them holds it.
            first, last = at[start], max(at[end], at[end - 1] + 1)
            hidden[first:last] = [True] * (last - first)
    shown = "".join("\0" if hide else letter for letter, hide in zip(message, hidden, strict=True))
    return _HIDDEN.sub("...", shown)


def _runs(message: str, texts: str) -> list[tuple[int, int]]:
    """From where to where the message has runs of some length in common with the texts."""
    found: list[tuple[int, int]] = []
    half, start = _RUN // 2, 0
    while start + _RUN <= len(message):
        # Every run holds one of these blocks whole. Few messages quote, so that most looks are at blocks alone.
        block = -(-start // half) * half
        if message[block : block + half] not in texts:
            start = block + 1
        elif message[start : start + _RUN] not in texts:
            start += 1
        else:
            end = _longest(message, start, range(start + _RUN, len(message) + 1), texts)
            found.append((start, end))
            start = end - _RUN + 1
    return found


def _quotations(message: str, texts: str) -> list[tuple[int, int]]:
    """From where to where the message quotes the texts between marks, however little.

    What is quoted may hold marks of its own, or be cut off: the longest that fits counts.
    """
    found: list[tuple[int, int]] = []
    marks = [mark.start() for mark in _MARK.finditer(message)][:_MARKS]
    for at, start in enumerate(marks):
        ends = [mark for mark in marks[at + 1 :] if message[mark] == message[start]]
        ends = [end for end in (*ends, len(message)) if end - start > _SHORTEST]
        if ends and message[start + 1 : ends[0]] in texts:
            end = _longest(message, start + 1, ends, texts)
            found.append((start, min(end + 1, len(message))))
    return found


def _longest(message: str, start: int, ends: Sequence[int], texts: str) -> int:
    """The last of the ends up to which the texts hold the message from `start` on, as they do up to the first one."""
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if message[start : ends[middle]] in texts:
            low = middle
        else:
            high = middle - 1
    return ends[low]


def texts_of(body: bytes) -> str:
    """All texts of a request but the names of models, as they are and with escapes undone, without regard to case."""
    found: list[str] = []

    def gather(value: object) -> None:
        if isinstance(value, str):
            undone = value
            for _ in range(_LAYERS):
                for pattern, new in _UNDO:
                    undone = pattern.sub(new, undone)
            found.extend({" ".join(value.split()).casefold(), " ".join(undone.split()).casefold()})
        elif isinstance(value, list):
            for item in value:
                gather(item)
        elif isinstance(value, dict):
            for key, item in value.items():
                if key != "model":
                    gather(item)

    try:
        gather(msgspec.json.decode(body))
    except BAD_JSON:
        gather(body.decode(errors="replace"))
    return "\n".join(found)


def _paired(found: re.Match[str]) -> str:
    return chr(0x10000 + ((int(found[1], 16) & 0x3FF) << 10) + (int(found[2], 16) & 0x3FF))


def _unescaped(found: re.Match[str]) -> str:
    number = found[1] or found[2] or found[3]
    if number:
        return chr(int(number, 16))
    return " " if found[4] in _WHITE else found[4]


_UNDO: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (_ENTITY, lambda found: html.unescape(found[0])),
    (_PAIR, _paired),
    (_ESCAPE, _unescaped),
)
