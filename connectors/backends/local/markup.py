"""Prose out of marked-up text: the paragraphs and list items of Markdown, reStructuredText, HTML-ish READMEs, mails.

Left out: code, tables, badges, headings, directives, link definitions, header lines. Every pattern has bounded
repeats, since documents are written by strangers: the time is linear in the text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

# Terminal escapes, controls, and marks that turn the direction of what follows. The joiners of Persian and emoji stay.
_CONTROLS = re.compile(
    "(?:\x1b\\[[0-9;]{0,20}[A-Za-z]"
    "|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff])+"
)
_HEADER = re.compile(r"([A-Z][A-Za-z0-9-]{0,40}): ?(.{0,2000})")
_TOLD = frozenset({"Subject", "Summary"})

_FENCE = re.compile(r"\s{0,12}(```|~~~)")
_DIRECTIVE = re.compile(r"\s*\.\.(\s|$)")
_HEADING = re.compile(r"\s{0,3}#{1,6}(\s|$)")
_RULE = re.compile(r"\s*([=\-~^\"'`*+#:._])\1{2,}\s*$")
_TABLE = re.compile(r"\s*(\||\+[-=+]{3,}|={2,} +=)|.{0,400}\S ?\| .{0,400} \| ?\S|\s*:?-{3,}:? *\|")
_CONSOLE = re.compile(r"\s*(>>>|\.\.\. |\$ |# ?\$|%|C:\\|PS> )")
_LINK_TARGET = re.compile(r"\s*\[[^\]]{1,200}\]:\s")
_FIELD = re.compile(r"\s*:[A-Za-z][\w -]{0,40}:(\s|$)")
_ITEM = re.compile(r"\s*([-*+•]|\(?\d{1,3}[.)])\s+")
_QUOTE = re.compile(r"^(\s{0,3}>\s?)+(\[!\w+\])?")
_INDENTED = re.compile(r"( {4}|\t)")

_CODE_SPAN = re.compile(r"(``[^`]{1,300}``|`[^`]{1,300}`)")
_IMAGE = re.compile(r"!\[[^\]]{0,300}\](\([^)]{0,800}\)|\[[^\]]{0,200}\])")
_LINK = re.compile(r"\[([^\[\]]{0,400})\](\([^()]{0,800}(\([^()]{0,200}\)[^()]{0,200})?\)|\[[^\]]{0,200}\])")
_RST_LINK = re.compile(r"`([^`<]{1,300}?)\s*<[^>]{1,500}>`_{1,2}")
_RST_NAME = re.compile(r"`([^`]{1,300})`_{1,2}")
_RST_ROLE = re.compile(r":[a-z][\w:+-]{0,40}:(?=`)")
_RST_SUBSTITUTION = re.compile(r"(?<!\w)\|[^|\s][^|]{0,80}\|_{0,2}")
_ADDRESS = re.compile(r"<(https?:|mailto:|[\w.+-]{1,64}@)[^>]{0,500}>")
_TAG = re.compile(r"</?[A-Za-z!][^<>]{0,800}>")
_EMPHASIS = re.compile(r"(?<![\w*_])[*_]{1,3}(?=[^\s*_])|(?<=[^\s*_])[*_]{1,3}(?![\w*_])")
_SPACE = re.compile(r"\s+")


def headline(text: str) -> tuple[str, str]:
    """Cut a block of header lines off the top: the subject or summary they tell ("" if none), and the rest.

    A single line that looks like a header is none: it takes two in a row.
    """
    told, end, lines = "", 0, 0
    for line in _lines(text):
        bare = line.rstrip("\r\n")
        match = _HEADER.match(bare)
        if match:
            lines += 1
            if match[1] in _TOLD and not told:
                told = inline(match[2])
        elif not (lines and bare[:1] in (" ", "\t")):
            break
        end += len(line)
    return (told, text[end:]) if lines >= 2 else ("", text)


def blocks(text: str) -> Iterator[str]:
    """The prose of a text, one paragraph or list item at a time, on one line each, without its markup."""
    for block in _raw_blocks(_without_comments(_CONTROLS.sub(" ", text))):
        plain = inline(block)
        if plain:
            yield plain


def inline(block: str) -> str:
    """One block without inline markup: links become their text, images and tags vanish, code keeps its words."""
    block = _RST_NAME.sub(r"\1", _RST_ROLE.sub("", _RST_LINK.sub(r"\1", block)))
    parts = _CODE_SPAN.split(block)
    for index, part in enumerate(parts):
        parts[index] = part.strip("`") if index % 2 else _plain(part)
    return _SPACE.sub(" ", "".join(parts)).strip()


def clean(text: str) -> str:
    """Any text on one line, without control characters: the last resort where nothing looks like prose."""
    return _SPACE.sub(" ", _CONTROLS.sub(" ", text)).strip()


def _plain(part: str) -> str:
    part = _IMAGE.sub(" ", part)
    for _ in range(2):  # a badge is a link around an image
        part = _LINK.sub(r"\1", part)
    part = _RST_SUBSTITUTION.sub(" ", part)
    part = _TAG.sub(" ", _ADDRESS.sub(" ", part))
    return html.unescape(_EMPHASIS.sub("", part))


def _without_comments(text: str) -> str:
    kept, start = [], 0
    while (found := text.find("<!--", start)) >= 0:
        kept.append(text[start:found])
        end = text.find("-->", found)
        start = len(text) if end < 0 else end + 3
    kept.append(text[start:])
    return "".join(kept)


def _lines(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


class _Open:
    """The block that is being read, and what of the following lines belongs to something that is left out."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.fence = ""
        self.skipped_indent = -1  # lines deeper than this are code or a directive's body
        self.blank = True
        self.item = False

    def take(self) -> str:
        block, self.lines, self.item = " ".join(self.lines), [], False
        return block


def _raw_blocks(text: str) -> Iterator[str]:
    state = _Open()
    for line in _dedented(text):
        yield from _read(state, line.rstrip())
    yield state.take()


def _dedented(text: str) -> list[str]:
    lines = text.split("\n")
    # A description that stands indented as a whole is not code.
    depth = min((_indent(line) for line in lines if line.strip()), default=0)
    return [line[depth:] for line in lines] if depth else lines


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _read(state: _Open, line: str) -> Iterator[str]:
    """Take one line in; gives the block that it ends."""
    if _left_out(state, line):
        if state.lines:
            yield _ended(state)
    elif not line.strip():
        if state.lines:
            yield _ended(state)
        state.blank = True
    elif _RULE.match(line):
        state.take()  # what stands above a rule is a heading
    else:
        item = _ITEM.match(line)
        if item and state.lines:
            yield _ended(state)
        state.item = state.item or item is not None
        state.lines.append(line[item.end() :] if item else _QUOTE.sub("", line, count=1).strip())
        state.blank = False


def _ended(state: _Open) -> str:
    block = state.take()
    if block.endswith("::"):
        state.skipped_indent = 0  # the literal block that it announces
    return block


def _left_out(state: _Open, line: str) -> bool:
    """Whether the line is code, a table, a heading, a directive or the like."""
    fence = _FENCE.match(line)
    if state.fence:
        if fence and fence[1] == state.fence:
            state.fence = ""
        return True
    if fence:
        state.fence = fence[1]
        return True
    if not line.strip():
        return False
    if state.skipped_indent >= 0:
        if _indent(line) > state.skipped_indent:
            return True
        state.skipped_indent = -1
    if _DIRECTIVE.match(line):
        state.skipped_indent = _indent(line)
        return True
    code = state.blank and not state.lines and _INDENTED.match(line) and not _ITEM.match(line)
    return bool(
        code
        or _HEADING.match(line)
        or _TABLE.match(line)
        or _CONSOLE.match(line)
        or _LINK_TARGET.match(line)
        or _FIELD.match(line)
    )
