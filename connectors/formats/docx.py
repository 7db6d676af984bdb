"""Word's .docx: text of the body, footnotes and endnotes, from parts that are inflated under a limit.

Only the parts that hold text are ever inflated, and counted while they are: what the archive's directory says of their
sizes is not believed. XML is read as a stream of events, so depth costs nothing; a DTD (OOXML forbids it) is refused.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from xml.parsers import expat

from lowtide.connectors.formats.limits import ReadLimits, Unreadable, megabytes

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_MAIN = "word/document.xml"
_MAIN_TYPE = "wordprocessingml.document.main+xml"
_NOTES = ("word/footnotes.xml", "word/endnotes.xml")
_LOCAL_HEADER = struct.Struct("<26xHH")
_BLOCK = 1 << 18
# What Word shows no longer (tracked deletions), shows twice (fallbacks of text boxes), or never shows (field codes).
_UNSEEN = frozenset({"del", "moveFrom", "Fallback", "instrText", "delText"})

_BLANK_LINES = re.compile(r"\n{3,}")
_LETTERS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}


def read_docx(data: bytes, limits: ReadLimits) -> str:
    """Paragraphs apart by a blank line, cells by a tab. Page headers, footers, comments and embedded files stay out.

    Raises Unreadable.
    """
    if data.startswith(_OLE):
        raise Unreadable("an encrypted or old Office file, not .docx: remove its password, or save it as .docx")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, struct.error, OverflowError):
        raise Unreadable("not a zip archive, so no .docx: truncated, or another format under this name") from None
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(archive.infolist()) > limits.parts:
        raise Unreadable(f"{len(archive.infolist())} entries in the archive; {limits.parts} is the limit for a .docx")
    budget = _Budget(limits)
    main = _main_part(data, entries, budget)
    texts = [_text(_inflate(data, entries[main], budget))]
    texts += [_text(_inflate(data, entries[name], budget)) for name in _NOTES if name in entries]
    return "\n\n".join(text for text in texts if text)


def _main_part(data: bytes, entries: dict[str, zipfile.ZipInfo], budget: _Budget) -> str:
    """Where the body is: under its usual name, or under the one that [Content_Types].xml gives."""
    if _MAIN in entries:
        return _MAIN
    found: list[str] = []

    def element(name: str, attributes: dict[str, str]) -> None:
        if attributes.get("ContentType", "").endswith(_MAIN_TYPE):
            found.append(attributes.get("PartName", "").lstrip("/"))

    if "[Content_Types].xml" in entries:
        parser = _parser()
        parser.StartElementHandler = element
        _feed(parser, _inflate(data, entries["[Content_Types].xml"], budget))
    if not found or found[0] not in entries:
        raise Unreadable("a zip archive without a Word document in it: supported are .docx files")
    return found[0]


class _Budget:
    """Counts what was inflated out of one file, from how much."""

    def __init__(self, limits: ReadLimits) -> None:
        self._limits = limits
        self._taken = 0
        self._given = 0

    def count(self, taken: int, given: int) -> None:
        """Raises Unreadable once the parts have grown past the limits."""
        self._taken += taken
        self._given += given
        limits = self._limits
        if self._given > limits.expanded_bytes:
            raise Unreadable(f"its text parts inflate to more than {megabytes(limits.expanded_bytes)}: a zip bomb?")
        if self._given > limits.expansion_floor and self._given > limits.expansion * self._taken:
            raise Unreadable(f"its text parts inflate more than {limits.expansion} times: a zip bomb?")


def _inflate(data: bytes, entry: zipfile.ZipInfo, budget: _Budget) -> Iterator[bytes]:
    """One part, block by block, from its own bytes: sizes in the headers are upper bounds that may lie."""
    header = data[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size]
    if entry.flag_bits & 0x1:
        raise Unreadable("an encrypted archive: remove its password")
    if len(header) < _LOCAL_HEADER.size or entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise Unreadable("a damaged archive, or one that is not compressed as .docx files are: save it again")
    name, extra = _LOCAL_HEADER.unpack(header)
    start = entry.header_offset + _LOCAL_HEADER.size + name + extra
    if entry.compress_type == zipfile.ZIP_STORED:
        blocks = iter([data[start : start + entry.compress_size]])
    else:
        blocks = _inflate_stream(memoryview(data)[start:], budget)
    checksum = 0
    for block in blocks:
        checksum = zlib.crc32(block, checksum)
        yield block
    if checksum != entry.CRC:
        raise Unreadable("a damaged archive: a checksum does not fit; save or copy it again")


def _inflate_stream(data: memoryview, budget: _Budget) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for at in range(0, len(data), _BLOCK):
            taken = data[at : at + _BLOCK]
            block = inflater.decompress(taken, _BLOCK)
            budget.count(len(taken), len(block))
            yield block
            while inflater.unconsumed_tail and not inflater.eof:
                block = inflater.decompress(inflater.unconsumed_tail, _BLOCK)
                budget.count(0, len(block))
                yield block
            if inflater.eof:
                return
    except zlib.error:
        raise Unreadable("a damaged archive: its text does not inflate; save or copy it again") from None
    raise Unreadable("a truncated archive: copy it again")


def _parser() -> expat.XMLParserType:
    parser = expat.ParserCreate(namespace_separator=" ")

    def doctype(*_: object) -> None:
        raise Unreadable("its XML declares a DTD, which .docx forbids: save it again in Word or LibreOffice")

    parser.StartDoctypeDeclHandler = doctype
    parser.buffer_text = True
    return parser


def _feed(parser: expat.XMLParserType, blocks: Iterator[bytes]) -> None:
    try:
        for block in blocks:
            parser.Parse(block, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise Unreadable(f"its XML is broken at line {error.lineno}, column {error.offset}: save it again") from None


def _text(blocks: Iterator[bytes]) -> str:
    body = _Body()
    parser = _parser()
    parser.StartElementHandler = body.start
    parser.EndElementHandler = body.end
    parser.CharacterDataHandler = body.characters
    _feed(parser, blocks)
    return _BLANK_LINES.sub("\n\n", "".join(body.parts)).strip()


class _Body:
    """Listens to WordprocessingML, by local names: strict and transitional documents differ in their namespaces."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._unseen = 0
        self._in_text = False
        self._in_run = 0
        self._cells: list[int] = []

    def start(self, name: str, _: dict[str, str]) -> None:
        local = name.rpartition(" ")[2]
        if local in _UNSEEN:
            self._unseen += 1
        elif local == "t":
            self._in_text = True
        elif local == "r":
            self._in_run += 1
        elif self._unseen:
            return
        elif local == "tc":
            self._cells.append(len(self.parts))
        elif self._in_run and local in _LETTERS:
            # A tab is a character inside a run, and a tab stop elsewhere.
            self.parts.append(_LETTERS[local])

    def end(self, name: str) -> None:
        local = name.rpartition(" ")[2]
        if local in _UNSEEN:
            self._unseen -= 1
        elif local == "t":
            self._in_text = False
        elif local == "r":
            self._in_run -= 1
        elif self._unseen:
            return
        elif local == "tbl":
            self.parts.append("\n")
        elif local == "p":
            self.parts.append("\n" if self._cells else "\n\n")
        elif local == "tc":
            self._end_cell(self._cells.pop())
        elif local == "tr":
            self._end_row()

    def characters(self, data: str) -> None:
        if self._in_text and not self._unseen:
            self.parts.append(data)

    def _end_cell(self, start: int) -> None:
        """A cell's last paragraph ends with the cell."""
        while len(self.parts) > start and self.parts[-1] == "\n":
            self.parts.pop()
        self.parts.append("\t")

    def _end_row(self) -> None:
        if self.parts and self.parts[-1] == "\t":
            self.parts.pop()
        self.parts.append("\n")
