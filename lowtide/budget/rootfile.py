"""The file of a root, `lowtide.yaml`: the caps that teams share.

version: 1
caps:
  - {name: search team, tags: {team: search}, month_usd: 500}
  - {name: everything, month_usd: 2000}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from lowtide.budget.caps import Cap
from lowtide.errors import NotFound
from lowtide.job import values
from lowtide.job.nodes import LARGEST, Node, read_nodes
from lowtide.job.problems import FieldPath, Problem, config_error, shown
from lowtide.protocols import Store

T = TypeVar("T")

FILE = "lowtide.yaml"
_FORM = "a mapping with version and caps, such as version: 1, caps: [{name: everything, month_usd: 2000}]"
_KEYS = ("version", "caps")
_CAP_KEYS = ("name", "tags", "month_usd")


@cache
def _money() -> TypeAdapter[Decimal]:
    return TypeAdapter(values.Money)


@cache
def _one_line() -> TypeAdapter[str]:
    return TypeAdapter(values.OneLine)


def read_caps(store: Store) -> tuple[Cap, ...]:
    """The caps in a root's `lowtide.yaml`; none if there is no such file.

    Raises one ConfigError for everything that is wrong, a line each: `file:line: field: what was found; what is
    allowed`. A cap that cannot be read is never passed over.
    """
    file = store.uri_of(FILE)
    info = store.info(FILE)
    if info is None:
        return ()
    if info.size > LARGEST:
        raise config_error(file, [Problem(1, (), f"found more than {LARGEST // 1024} KiB; expected {_FORM}")])
    try:
        text = store.read(FILE).decode("utf-8-sig")
    except NotFound:
        return ()
    except UnicodeDecodeError as error:
        raise config_error(file, [Problem(1, (), f"no UTF-8 at byte {error.start}; expected {_FORM}")]) from None
    root, problems = read_nodes(text, file)
    if root is None:
        raise config_error(file, [Problem(1, (), f"the file is empty; expected {_FORM}")])
    reader = _Reader(file, problems)
    caps = reader.caps(root)
    if reader.problems:
        raise config_error(file, reader.problems)
    return caps


class _Reader:
    """Takes the tree apart, and notes everything that is wrong on the way."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.problems = problems
        self._file = file
        self._names: dict[str, int] = {}

    def caps(self, root: Node) -> tuple[Cap, ...]:
        fields = self._fields(root, (), _KEYS, _FORM)
        version = fields.get("version")
        if version is not None and (type(version.value) is not int or version.value != 1):
            self._found(version, ("version",), "1")
        listed = fields.get("caps")
        if listed is None:
            return ()
        if not isinstance(listed.value, tuple):
            self._found(listed, ("caps",), "a list of caps, such as [{name: everything, month_usd: 2000}]")
            return ()
        return tuple(cap for number, node in enumerate(listed.value) for cap in self._cap(node, ("caps", number)))

    def _cap(self, node: Node, path: FieldPath) -> Iterator[Cap]:
        fields = self._fields(node, path, _CAP_KEYS, "a mapping such as {name: everything, month_usd: 2000}", {"tags"})
        name = self._value(_one_line(), fields.get("name"), (*path, "name"))
        usd = self._value(_money(), fields.get("month_usd"), (*path, "month_usd"))
        tags = self._tags(fields.get("tags"), (*path, "tags"))
        if name is None or usd is None:
            return
        if name in self._names:
            self._found(fields["name"], (*path, "name"), f"a name of its own (line {self._names[name]} has this one)")
        self._names[name] = node.line
        yield Cap(name, usd, f"{self._file}:{node.line}", tags=tags)

    def _fields(
        self,
        node: Node,
        path: FieldPath,
        allowed: tuple[str, ...],
        form: str,
        optional: frozenset[str] | set[str] = frozenset(),
    ) -> dict[str, Node]:
        if not isinstance(node.value, Mapping):
            self._found(node, path, form)
            return {}
        for key, entry in node.value.items():
            if key not in allowed:
                message = f"unknown key; {values.closest(key, allowed)}"
                self.problems.append(Problem(entry.line, (*path, key), message))
        for key in allowed:
            if key not in node.value and key not in optional:
                self.problems.append(Problem(node.line, (*path, key), f"missing; expected {form}"))
        return {key: entry.node for key, entry in node.value.items() if key in allowed}

    def _tags(self, node: Node | None, path: FieldPath) -> dict[str, str]:
        if node is None:
            return {}
        if not isinstance(node.value, Mapping) or not node.value:
            self._found(node, path, "a mapping of tags, such as {team: search} (leave it out for all jobs)")
            return {}
        for key, entry in node.value.items():
            if not isinstance(entry.node.value, str):
                self._found(entry.node, (*path, key), "text (quote numbers, true and false)")
        return {key: str(entry.node.value) for key, entry in node.value.items()}

    def _value(self, kind: TypeAdapter[T], node: Node | None, path: FieldPath) -> T | None:
        if node is None:
            return None
        try:
            return kind.validate_python(node.plain())
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            wanted = fault.get("ctx", {}).get("what") or "text (quote numbers, true and false)"
            self._found(node, path, str(wanted))
            return None

    def _found(self, node: Node, path: FieldPath, wanted: str) -> None:
        self.problems.append(Problem(node.line, path, f"found {shown(node.plain())}; expected {wanted}"))
