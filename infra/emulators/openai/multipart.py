"""Forms with a file in them, read from disk and copied to disk, a window at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO

_WINDOW = 1 << 20
_MOST_HEADERS = 8_192


class BadForm(ValueError):
    """A body that is no multipart form."""


@dataclass(frozen=True, slots=True)
class FormFile:
    """Where the form's file lies in the body."""

    filename: str
    start: int
    end: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Form:
    """The plain fields, and the file if there is one."""

    fields: Mapping[str, str]
    file: FormFile | None


def read_form(body: IO[bytes], content_type: str) -> Form:
    """Find the fields and the file of a multipart/form-data body; the file itself is not read. Raises BadForm."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary:
        raise BadForm("the body is no multipart/form-data")
    delimiter = b"--" + boundary.encode("latin-1", errors="replace")
    fields: dict[str, str] = {}
    file: FormFile | None = None
    start = _find(body, delimiter, 0)
    while start >= 0:
        start += len(delimiter)
        body.seek(start)
        if body.read(2) == b"--":
            return Form(fields, file)
        content = _find(body, b"\r\n\r\n", start)
        following = _find(body, b"\r\n" + delimiter, max(start, content + 2))
        if content < 0 or following < 0 or content - start > _MOST_HEADERS:
            break
        name, filename = _disposition(_read(body, start, content))
        if filename is not None:
            file = FormFile(filename, content + 4, following)
        else:
            fields[name] = _read(body, content + 4, following).decode(errors="replace")
        start = following + 2
    raise BadForm("the form does not end")


def copy_file(body: IO[bytes], file: FormFile, path: Path) -> None:
    """Write the form's file to `path`."""
    body.seek(file.start)
    left = file.size
    with path.open("wb") as copy:
        while left > 0 and (data := body.read(min(_WINDOW, left))):
            copy.write(data)
            left -= len(data)


def _read(body: IO[bytes], start: int, end: int) -> bytes:
    body.seek(start)
    return body.read(end - start)


def _find(body: IO[bytes], wanted: bytes, start: int) -> int:
    """Where `wanted` first stands at or after `start`, or -1."""
    at, window = start, b""
    body.seek(start)
    while data := body.read(_WINDOW):
        window += data
        found = window.find(wanted)
        if found >= 0:
            return at + found
        # The last bytes may be the beginning of what is looked for.
        kept = window[-(len(wanted) - 1) :]
        at += len(window) - len(kept)
        window = kept
    return -1


def _disposition(headers: bytes) -> tuple[str, str | None]:
    text = headers.decode(errors="replace")
    name = re.search(r'[;\s]name="([^"]*)"', text)
    filename = re.search(r'[;\s]filename="([^"]*)"', text)
    if name is None:
        raise BadForm("a part of the form has no name")
    return name[1], filename[1] if filename else None
