"""The sentences of a document that a summary may be made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lowtide.connectors.backends.local import markup

LOOKED_AT = 200_000
"""Characters of a document that are searched for sentences."""

KEPT = 40
"""Sentences of a document that are embedded: the first 26, and 14 spread evenly over the others."""

_FIRST = 26
_LONGEST = 1_000  # characters; WordPiece's 128 tokens are fewer
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_CJK}]|[^\\s{_CJK}]+")
_WORDS_ONLY = re.compile(r"\w+")
_SAYS_SOMETHING = re.compile(r"[^\W_]")
_LETTERS = re.compile(r"[^\W\d_]+")
# Latin, Arabic, Urdu and Devanagari marks need white space behind them; Chinese and Japanese ones do not.
_MARKS = ".!?…\u061f\u06d4\u0964"
_WIDE_MARKS = "。\uff01\uff1f"
_CLOSING = "\"'”\u2019»)\\]」』"
_END = re.compile(f"[{_MARKS}]{{1,4}}[{_CLOSING}]{{0,3}}(?=\\s)|[{_WIDE_MARKS}]{{1,4}}[{_CLOSING}]{{0,3}}")
_ENDED = re.compile(f"[{_MARKS}{_WIDE_MARKS}][{_CLOSING}]{{0,3}}$")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Z]|e\.g|i\.e|etc|vs|cf|al|approx|incl|resp|Dr|Mr|Mrs|Ms|Prof|St|No|Nr|Fig|Inc|Ltd|Co|Corp|v)\.$"
)
_BOILERPLATE = re.compile(
    r"^(?:copyright|licensed under|all rights reserved|see (?:the|our|also) |for (?:more|further|full|additional) |"
    r"read (?:the|more) |click here|(?:pip|conda|uv|brew|apt|npm) (?:install|add)|to install|note:|warning:|https?://|documentation:|"
    r"please (?:see|refer|read|visit|cite)|thank you|thanks (?:for|go) |i hope (?:this|that|you)|dear |hello|hi[ ,])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """`place` is its rank in the document, 0 for the first; `plain` says that it reads like one."""

    text: str
    place: int
    plain: bool = True


def candidates(text: str) -> list[Sentence]:
    """At most `KEPT` sentences, in the document's order; none only if the text holds no letter and no digit."""
    told, body = markup.headline(text[:LOOKED_AT])
    headlines = set(split(told))
    found = list(_unique([*split(told), *_split_all(body)]))
    good = [sentence for sentence in found if sentence in headlines or _reads_like_one(sentence)]
    # Lists, code and tables alone still deserve an answer: then whatever has letters is a sentence.
    chosen = good or [sentence for sentence in found if _LETTERS.search(sentence)] or _last_resort(text)
    ranked = [
        Sentence(sentence, place, sentence in headlines or _stands_alone(sentence))
        for place, sentence in enumerate(chosen)
    ]
    if len(ranked) <= KEPT:
        return ranked
    rest, wanted = ranked[_FIRST:], KEPT - _FIRST
    return ranked[:_FIRST] + [rest[number * len(rest) // wanted] for number in range(wanted)]


def words(text: str) -> list[str]:
    """The words of a text; a Chinese or Japanese character counts as one."""
    return _WORD.findall(text)


def cut(text: str, limit: int) -> str:
    """The first `limit` words, with an ellipsis at the last if any are left out."""
    end = 0
    for number, match in enumerate(_WORD.finditer(text)):
        if number == limit:
            return text[:end].rstrip(" ,;:.-") + "…"
        end = match.end()
    return text


def ended(text: str) -> str:
    """The sentence with a mark at its end."""
    return text if _ENDED.search(text[-5:]) else text.rstrip(" ,;:-") + "."


def split(block: str) -> Iterator[str]:
    """The sentences of one paragraph."""
    start = 0
    for mark in _END.finditer(block):
        following = block[mark.end() : mark.end() + 2].strip()
        if following[:1].islower() or _ABBREVIATION.search(block[max(start, mark.end() - 8) : mark.end()]):
            continue
        yield block[start : mark.end()].strip()
        start = mark.end()
    yield block[start:].strip()


def _split_all(text: str) -> Iterator[str]:
    for block in markup.blocks(text):
        yield from split(block)


def _unique(sentences: Iterable[str]) -> Iterator[str]:
    seen = set()
    for sentence in sentences:
        short = sentence if len(sentence) <= _LONGEST else sentence[:_LONGEST].rstrip() + "…"
        same = "".join(_WORDS_ONLY.findall(short.casefold())) or short
        if short and same not in seen:
            seen.add(same)
            yield short


def _reads_like_one(sentence: str) -> bool:
    letters = sum(len(run) for run in _LETTERS.findall(sentence))
    if sentence.endswith((":", "::")) or letters < 0.6 * len(sentence.replace(" ", "")):
        return False
    count = len(words(sentence))
    return count >= (4 if _ENDED.search(sentence[-5:]) else 7)


def _stands_alone(sentence: str) -> bool:
    fragment = sentence[:1].islower() and not _ENDED.search(sentence[-5:])
    return not fragment and not _BOILERPLATE.match(sentence)


def _last_resort(text: str) -> list[str]:
    line = markup.clean(text[:LOOKED_AT])
    return list(_unique([line])) if _SAYS_SOMETHING.search(line) else []
