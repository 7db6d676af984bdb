"""YAML as a tree that remembers where everything stands.

The reading is stricter and plainer than YAML 1.1: only `true` and `false` are booleans and there are no dates, so that
`to: no` is Norwegian and `2026-11-20` is text; a key may stand once; anchors may not blow a small file up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import yaml

from lowtide.job.problems import FieldPath, Problem, config_error, shown

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"

LARGEST = 256 * 1024
_DEEPEST = 32
_MOST = 10_000

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+")
_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
# What YAML 1.2 calls non-printable, less the line ends that Python's own splitting would miscount.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_STRING_TAG = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping: where the key stands, and its value."""

    line: int
    node: Node


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its line, from 1. `weight` counts the values in it, once for every alias that repeats them."""

    line: int
    value: str | int | float | bool | tuple[Node, ...] | Mapping[str, Entry] | None
    weight: int = 1

    def plain(self) -> Plain:
        """The value as Python's own dicts, lists and scalars."""
        match self.value:
            case tuple():
                return [item.plain() for item in self.value]
            case Mapping():
                return {key: entry.node.plain() for key, entry in self.value.items()}
            case _:
                return self.value

    def line_of(self, path: FieldPath) -> int:
        """The line of the field, or of the nearest thing around it that is there."""
        node, line = self, self.line
        for part in path:
            match node.value, part:
                case Mapping() as entries, str() if part in entries:
                    line, node = entries[part].line, entries[part].node
                case tuple() as items, int() if part < len(items):
                    line, node = items[part].line, items[part]
                case _:
                    return line
        return line if isinstance(node.value, Mapping | tuple) else node.line

    def walk(self, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Node]]:
        """The node and everything in it, each with its path."""
        yield path, self
        if isinstance(self.value, Mapping):
            for key, entry in self.value.items():
                yield from entry.node.walk((*path, key))
        elif isinstance(self.value, tuple):
            for number, item in enumerate(self.value):
                yield from item.walk((*path, number))


def read_nodes(text: str, file: str) -> tuple[Node | None, list[Problem]]:
    """The document's tree, None if it is empty, and the keys that stand twice.

    Raises ConfigError on what is no YAML, holds more than one document, or is nested or repeated beyond all use.
    """
    unprintable = _UNPRINTABLE.search(text)
    if unprintable:
        line = text.count("\n", 0, unprintable.start()) + 1
        code = f"U+{ord(unprintable.group()):04X}"
        raise config_error(file, [Problem(line, (), f"found the control character {code}; expected readable text")])
    reader = _Reader(text, file)
    try:
        return reader.document(), reader.problems
    except yaml.MarkedYAMLError as error:
        raise config_error(file, [_syntax_problem(error, text)]) from None
    except yaml.YAMLError as error:
        raise config_error(file, [Problem(1, (), f"not valid YAML: {type(error).__name__}")]) from None


class _Reader:
    """Builds the tree from the parser's events: one at a time, so that a hostile file is left before it has grown."""

    def __init__(self, text: str, file: str) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._anchors: dict[str, Node] = {}

    def document(self) -> Node | None:
        event = next(self._events)
        root: Node | None = None
        while not isinstance(event, yaml.StreamEndEvent):
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise self._refused(event, (), "found a second document; expected one job in a file")
                root = self._node(next(self._events), (), 0)
            event = next(self._events)
        # A file of comments alone has no document at all; `---` alone has an empty one.
        return None if root is None or root.value is None else root

    def _node(self, event: yaml.Event, path: FieldPath, depth: int) -> Node:
        if depth > _DEEPEST:
            raise self._refused(event, (), f"found more than {_DEEPEST} levels inside one another")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(event, path, depth)
        else:
            node = self._mapping(event, path, depth)
        if node.weight > _MOST:
            raise self._refused(event, path, f"found more than {_MOST} values once anchors are followed")
        if anchor:
            self._anchors[anchor] = node
        return node

    def _alias(self, event: yaml.AliasEvent, path: FieldPath) -> Node:
        anchor = event.anchor or ""
        node = self._anchors.get(anchor)
        if node is None:
            message = f"found {shown('*' + anchor)}, which names no anchor; quote text that begins with '*'"
            raise self._refused(event, path, message)
        return node

    def _scalar(self, event: yaml.ScalarEvent, path: FieldPath) -> Node:
        self._check_tag(event, path)
        line = _line(event)
        is_plain = event.implicit[0] and event.tag is None
        return Node(line, _resolve(event.value) if is_plain else event.value)

    def _sequence(self, event: yaml.Event, path: FieldPath, depth: int) -> Node:
        self._check_tag(event, path)
        line = _line(event)
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, (*path, len(items)), depth + 1))
            self._check_size(event, path, len(items))
        return Node(line, tuple(items), 1 + sum(item.weight for item in items))

    def _mapping(self, event: yaml.Event, path: FieldPath, depth: int) -> Node:
        self._check_tag(event, path)
        line = _line(event)
        entries: dict[str, Entry] = {}
        merged: list[Node] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._refused(
                    event, path, "found a list or mapping where a key belongs; quote text that begins with '{' or '['"
                )
            key, key_line = event.value, _line(event)
            node = self._node(next(self._events), (*path, key), depth + 1)
            self._check_size(event, path, len(entries))
            if key == "<<" and event.implicit[0]:
                merged.append(node)
            elif key in entries:
                first = entries[key].line
                self.problems.append(
                    Problem(key_line, (*path, key), f"found a second time (first on line {first}); keep one of the two")
                )
            else:
                entries[key] = Entry(key_line, node)
        for node in merged:
            entries = self._merge(node, path) | entries
        return Node(line, entries, 1 + sum(entry.node.weight for entry in entries.values()))

    def _merge(self, node: Node, path: FieldPath) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for source in node.value if isinstance(node.value, tuple) else (node,):
            if not isinstance(source.value, Mapping):
                raise config_error(
                    self._file,
                    [
                        Problem(
                            source.line, (*path, "<<"), f"found {shown(source.plain())}; expected a mapping to merge"
                        )
                    ],
                )
            entries = {**source.value, **entries}
        return entries

    def _check_tag(self, event: yaml.Event, path: FieldPath) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in {"!", _STRING_TAG}:
            raise self._refused(event, path, f"found the tag {shown(tag)}; expected plain values without tags")

    def _check_size(self, event: yaml.Event, path: FieldPath, size: int) -> None:
        if size > _MOST:
            raise self._refused(event, path, f"found more than {_MOST} values")

    def _refused(self, event: yaml.Event, path: FieldPath, message: str) -> Exception:
        return config_error(self._file, [Problem(_line(event), path, message)])


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _resolve(text: str) -> str | int | float | bool | None:
    """A plain scalar by the core schema of YAML 1.2, decimal numbers only."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def _syntax_problem(error: yaml.MarkedYAMLError, text: str) -> Problem:
    mark, context = error.problem_mark or error.context_mark, error.context_mark
    line = mark.line + 1 if mark else 1
    if context and "end of stream" in str(error.problem):
        # What was never closed is to blame, not the end of the file.
        line = context.line + 1
    column = f" at column {mark.column + 1}" if mark and mark.line + 1 == line else ""
    return Problem(line, (), f"not valid YAML: {error.problem or error.context}{column}{_hint(error, text, line)}")


def _hint(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
    """What probably happened, for the mistakes that people make."""
    lines = text.splitlines()
    here = lines[line - 1] if line <= len(lines) else ""
    problem = str(error.problem)
    if "\\t" in problem or here[: len(here) - len(here.lstrip())].count("\t"):
        return " (indent with spaces: YAML takes no tabs)"
    if "${" in here:
        return ' (quote "${NAME}" inside braces)'
    if "mapping values are not allowed" in problem:
        return " (quote a text that holds ': ', and check the indentation)"
    if "alphabetic or numeric" in problem or "cannot start any token" in problem:
        return " (quote a text that begins with one of * & ! % @ ` or a quotation mark)"
    return " (check the indentation, and that quotes and brackets are closed)"
