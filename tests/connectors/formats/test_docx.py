"""Word documents, good ones and archives made to hurt."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable

import docx
import pytest
from docx.oxml import parse_xml

from lowtide.connectors.formats.docx import read_docx
from lowtide.connectors.formats.limits import MIB, ReadLimits, Unreadable

LIMITS = ReadLimits()
W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def saved(document: docx.document.Document) -> bytes:
    stream = io.BytesIO()
    document.save(stream)
    return stream.getvalue()


def simple(text: str = "Hello") -> bytes:
    document = docx.Document()
    document.add_paragraph(text)
    return saved(document)


def changed(data: bytes, change: Callable[[str, bytes], bytes | None], **added: bytes) -> bytes:
    """The archive with its parts changed; None leaves one out."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            part = change(name, source.read(name))
            if part is not None:
                target.writestr(name, part)
        for name, part in added.items():
            target.writestr(name, part)
    return stream.getvalue()


def with_body(xml: str) -> bytes:
    document = f"<w:document {W}><w:body>{xml}</w:body></w:document>".encode()
    return changed(simple(), lambda name, part: document if name == "word/document.xml" else part)


def test_headings_lists_and_tables_become_lines() -> None:
    document = docx.Document()
    document.add_heading("Report", 1)
    document.add_paragraph("One\ttab and").add_run(" a run").add_break()
    document.add_paragraph("item", style="List Bullet")
    table = document.add_table(2, 3)
    for at, cell in enumerate(cell for row in table.rows for cell in row.cells):
        cell.text = "" if at == 1 else f"c{at}"
    document.add_paragraph("end")
    assert read_docx(saved(document), LIMITS) == "Report\n\nOne\ttab and a run\n\nitem\n\nc0\t\tc2\nc3\tc4\tc5\n\nend"


def test_insertions_links_controls_and_text_boxes_are_text_and_deletions_are_not() -> None:
    text = read_docx(
        with_body(
            "<w:p><w:pPr><w:tabs><w:tab/></w:tabs></w:pPr><w:r><w:t>before </w:t></w:r>"
            "<w:ins><w:r><w:t>INSERTED </w:t></w:r></w:ins><w:del><w:r><w:delText>GONE</w:delText></w:r></w:del>"
            "<w:hyperlink><w:r><w:t>LINK </w:t></w:r></w:hyperlink><w:sdt><w:sdtContent><w:r><w:t>CONTROL </w:t></w:r>"
            "</w:sdtContent></w:sdt><w:r><w:fldChar/></w:r><w:r><w:instrText>PAGE</w:instrText></w:r>"
            '<w:r><mc:AlternateContent xmlns:mc="urn:mc"><mc:Choice><w:txbxContent><w:p><w:r><w:t>BOX</w:t></w:r></w:p>'
            "</w:txbxContent></mc:Choice><mc:Fallback><w:txbxContent><w:p><w:r><w:t>BOX</w:t></w:r></w:p>"
            "</w:txbxContent></mc:Fallback></mc:AlternateContent></w:r><w:r><w:t>after</w:t></w:r></w:p>"
        ),
        LIMITS,
    )
    assert text == "before INSERTED LINK CONTROL BOX\n\nafter"


def test_footnotes_are_read_and_embedded_archives_are_not_opened() -> None:
    notes = f"<w:footnotes {W}><w:footnote><w:p><w:r><w:t>a note</w:t></w:r></w:p></w:footnote></w:footnotes>".encode()
    data = changed(
        simple("body"), lambda _, part: part, **{"word/footnotes.xml": notes, "word/embeddings/x.docx": simple()}
    )
    assert read_docx(data, LIMITS) == "body\n\na note"


def test_the_body_is_found_under_another_name() -> None:
    document = docx.Document()
    document.element.body.insert(0, parse_xml(f"<w:p {W}><w:r><w:t>moved</w:t></w:r></w:p>"))

    def move(name: str, part: bytes) -> bytes:
        return part.replace(b"/word/document.xml", b"/word/document2.xml") if name == "[Content_Types].xml" else part

    data = changed(saved(document), move)
    renamed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(renamed, "w") as target:
        for name in source.namelist():
            target.writestr("word/document2.xml" if name == "word/document.xml" else name, source.read(name))
    assert read_docx(renamed.getvalue(), LIMITS) == "moved"


def bomb(letters: int) -> bytes:
    return with_body(f"<w:p><w:r><w:t>{'a' * letters}</w:t></w:r></w:p>")


def lying(data: bytes) -> bytes:
    """The same archive, whose headers say that document.xml is 100 bytes long."""
    at = data.index(b"word/document.xml") - 30
    central = data.rindex(b"word/document.xml") - 46
    cut = bytearray(data)
    struct.pack_into("<I", cut, at + 22, 100)
    struct.pack_into("<I", cut, central + 24, 100)
    return bytes(cut)


@pytest.mark.parametrize("make", [bomb, lambda letters: lying(bomb(letters))], ids=["honest headers", "lying headers"])
def test_a_zip_bomb_is_refused_by_what_it_inflates_to(make: Callable[[int], bytes]) -> None:
    with pytest.raises(Unreadable, match="inflate more than 100 times: a zip bomb"):
        read_docx(make(40 * MIB), LIMITS)


def test_what_inflates_past_the_total_is_refused_whatever_its_ratio() -> None:
    with pytest.raises(Unreadable, match="inflate to more than 1 MB"):
        read_docx(bomb(2 * MIB), ReadLimits(expanded_bytes=MIB))


def test_a_bomb_in_a_part_that_holds_no_text_is_never_inflated() -> None:
    data = changed(simple("fine"), lambda _, part: part, **{"word/media/image1.bmp": bytes(50 * MIB)})
    assert read_docx(data, LIMITS) == "fine"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"just text", "not a zip archive"),
        (simple()[:2000], "not a zip archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "encrypted or old Office file"),
        (
            changed(simple(), lambda name, part: None if name == "word/document.xml" else part),
            "without a Word document",
        ),
        (with_body("<w:p><w:r><w:t>never closed"), "XML is broken at line 1"),
        (
            changed(
                simple(),
                lambda name, part: b"<!DOCTYPE x [<!ENTITY a 'a'>]><x>&a;</x>" if name == "word/document.xml" else part,
            ),
            "declares a DTD",
        ),
    ],
    ids=["text", "truncated", "ole", "no body", "broken xml", "dtd"],
)
def test_what_is_no_docx_says_what_it_is(data: bytes, expected: str) -> None:
    with pytest.raises(Unreadable, match=expected):
        read_docx(data, LIMITS)


def test_damaged_compressed_bytes_are_refused() -> None:
    data = bytearray(simple("x" * 1000))
    start = data.index(b"word/document.xml") + len("word/document.xml")
    data[start + 20 : start + 60] = b"\xff" * 40
    with pytest.raises(Unreadable, match=r"damaged archive|XML is broken"):
        read_docx(bytes(data), LIMITS)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_letter_that_changed_on_the_way_is_noticed(method: int) -> None:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(simple("amount due: 100"))) as source,
        zipfile.ZipFile(stream, "w", method) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    data = stream.getvalue()
    assert read_docx(data, LIMITS) == "amount due: 100"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        checksum = struct.pack("<I", archive.getinfo("word/document.xml").CRC)
    with pytest.raises(Unreadable, match="checksum does not fit"):
        read_docx(data.replace(checksum, b"\0\0\0\0"), LIMITS)


def test_depth_costs_nothing() -> None:
    depth = 30_000
    text = read_docx(
        with_body(
            "<w:tbl><w:tr><w:tc>" * depth + "<w:p><w:r><w:t>x</w:t></w:r></w:p>" + "</w:tc></w:tr></w:tbl>" * depth
        ),
        LIMITS,
    )
    assert text == "x"


def test_an_archive_of_too_many_parts_is_refused() -> None:
    with pytest.raises(Unreadable, match="entries in the archive; 3 is the limit"):
        read_docx(simple(), ReadLimits(parts=3))
