"""Which format a file has: by its name, and where the name says nothing, by how it begins."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, replace

from lowtide.connectors.formats.limits import Unreadable

ROWS = frozenset({"jsonl", "csv", "parquet"})
"""Formats in which a file holds many documents."""

PARSED = frozenset({"html", "pdf", "docx", "eml"})
"""Formats in which a file is one document that a parser has to open."""

FORMATS = ("auto", "text", "markdown", "html", "pdf", "docx", "eml", "jsonl", "csv", "parquet")

_EXTENSIONS = {
    "txt": "text",
    "text": "text",
    "log": "text",
    "rst": "text",
    "md": "markdown",
    "markdown": "markdown",
    "html": "html",
    "htm": "html",
    "xhtml": "html",
    "pdf": "pdf",
    "docx": "docx",
    "eml": "eml",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "jsonl",
    "csv": "csv",
    "tsv": "csv",
    "tab": "csv",
    "parquet": "parquet",
    "pq": "parquet",
}
_NAMES = {"METADATA": "eml", "PKG-INFO": "eml"}

_MAGIC = (
    (b"%PDF-", "a PDF", "pdf"),
    (b"PAR1", "a Parquet file", "parquet"),
    (b"PK\x03\x04", "a zip archive", ""),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old or encrypted Office file", ""),
    (b"\x1f\x8b", "gzip", ""),
    (b"BZh", "bzip2", ""),
    (b"\xfd7zXZ", "xz", ""),
    (b"(\xb5/\xfd", "zstd", ""),
    (b"7z\xbc\xaf", "a 7z archive", ""),
    (b"\x89PNG", "a PNG image", ""),
    (b"\xff\xd8\xff", "a JPEG image", ""),
    (b"GIF8", "a GIF image", ""),
    (b"\x7fELF", "a program", ""),
    (b"SQLite format 3", "an SQLite database", ""),
    (b"{\\rtf", "RTF", ""),
)
_ZIP = b"PK\x03\x04"
_SNIFFED = 4096


@dataclass(frozen=True, slots=True)
class FileKind:
    """`format` is one of FORMATS but auto, or "" where only the content can tell; `gzipped`: compressed as a whole."""

    format: str
    gzipped: bool = False
    tabs: bool = False

    @property
    def rows(self) -> bool:
        """Whether the file holds many documents."""
        return self.format in ROWS


def by_name(path: str, configured: str) -> FileKind:
    """What the job's `format` and the file's name say. Only the last part of the path counts."""
    name = path.rsplit("/", 1)[-1]
    gzipped = name.lower().endswith(".gz")
    if gzipped:
        name = name[:-3]
    extension = name.rsplit(".", 1)[-1].lower() if "." in name else ""
    found = configured if configured != "auto" else _NAMES.get(name) or _EXTENSIONS.get(extension, "")
    return FileKind(found, gzipped, extension in {"tsv", "tab"})


def by_content(kind: FileKind, data: bytes) -> FileKind:
    """Fill in the format of a file whose name says nothing. Raises Unreadable for what no reader here knows."""
    for magic, what, found in _MAGIC:
        if data.startswith(magic):
            if magic == _ZIP and b"word/" in data:
                return replace(kind, format="docx")
            if found:
                return replace(kind, format=found)
            raise Unreadable(f"begins like {what}: supported are {', '.join(FORMATS[1:])}; name another by `format`")
    head = data[:_SNIFFED]
    if _is_text(head):
        start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:15].lower()
        return replace(kind, format="html" if start.startswith((b"<!doctype html", b"<html")) else "text")
    raise Unreadable(f"unknown binary content and no known extension: supported are {', '.join(FORMATS[1:])}")


def looks_like(data: bytes) -> str:
    """What the first bytes betray, for a reason: `a PNG image`, or "" if they say nothing."""
    return next((what for magic, what, _ in _MAGIC if data.startswith(magic)), "")


def _is_text(head: bytes) -> bool:
    """Whether the bytes are UTF-8, perhaps cut inside a letter, or say by a byte order mark that they are Unicode."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        return True
    if b"\0" in head:
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True
