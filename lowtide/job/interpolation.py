"""`${NAME}` and `${NAME:-default}` in the values of a job file; `$${` stands for `${`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from lowtide.job.nodes import Entry, Node
from lowtide.job.problems import FieldPath, Problem, shown
from lowtide.job.secrets import INSTEAD, credential_in, is_reference, is_secret_name

_TOKEN = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?")


class Interpolated(str):
    """A text that came wholly or partly from the environment. `written` is how it stands in the file.

    Errors show `written`: what the environment holds may be a secret. Where a number is wanted, such a text is read as
    one, since an environment knows nothing but text.
    """

    __slots__ = ("written",)
    written: str


def interpolate(node: Node, environ: Mapping[str, str], path: FieldPath = ()) -> tuple[Node, list[Problem]]:
    """The tree with every reference replaced, and the references that could not be."""
    problems: list[Problem] = []

    def visit(node: Node, path: FieldPath) -> Node:
        match node.value:
            case str() as text if "${" in text:
                return replace(node, value=_expand(text, environ, node.line, path, problems))
            case tuple() as items:
                return replace(node, value=tuple(visit(item, (*path, number)) for number, item in enumerate(items)))
            case Mapping() as entries:
                return replace(
                    node,
                    value={key: Entry(entry.line, visit(entry.node, (*path, key))) for key, entry in entries.items()},
                )
            case _:
                return node

    return visit(node, path), problems


def literal_secrets(root: Node) -> list[Problem]:
    """Secrets that stand in the file itself. Their text is in no message.

    What looks like a credential is refused everywhere; a key named like a secret only among a backend's options, since
    a label or a field may well be called "token".
    """
    problems: list[Problem] = []
    for path, node in root.walk():
        if isinstance(node.value, Mapping | tuple) or node.value is None:
            continue
        kind = credential_in(node.value) if isinstance(node.value, str) else None
        if kind:
            problems.append(Problem(node.line, path, f"found what looks like {kind} (not shown); {INSTEAD}"))
        elif _is_backend_secret(path) and not (isinstance(node.value, str) and is_reference(node.value)):
            problems.append(Problem(node.line, path, f"found a secret written into the file (not shown); {INSTEAD}"))
    return problems


def _is_backend_secret(path: FieldPath) -> bool:
    options = path[2:] if path[:1] == ("backends",) else ()
    return any(isinstance(part, str) and is_secret_name(part) for part in options)


def _expand(text: str, environ: Mapping[str, str], line: int, path: FieldPath, problems: list[Problem]) -> str:
    referenced = False

    def value(match: re.Match[str]) -> str:
        nonlocal referenced
        if match.group() == "$${":
            return "${"
        name, default = match.group("name"), match.group("default")
        if name is None:
            problems.append(
                Problem(
                    line, path, f"found '${{' in {shown(text)}; expected ${{NAME}}, or $${{ for the characters alone"
                )
            )
            return match.group()
        referenced = True
        # As in a shell: `:-` covers a variable that is set to nothing, too.
        found = environ.get(name) or default if default is not None else environ.get(name)
        if found is None:
            problems.append(
                Problem(
                    line,
                    path,
                    f"found ${{{name}}}, but the environment variable {name!r} is not set; "
                    f"set it, or write ${{{name}:-default}}",
                )
            )
            return ""
        return found

    expanded = _TOKEN.sub(value, text)
    if not referenced:
        return expanded
    result = Interpolated(expanded)
    result.written = text
    return result
