"""PDFs, made by reportlab."""

from __future__ import annotations

import io

import pytest
from reportlab.lib import pdfencrypt
from reportlab.pdfgen import canvas

from lowtide.connectors.formats.limits import ReadLimits, Unreadable
from lowtide.connectors.formats.pdf import read_pdf

LIMITS = ReadLimits()


def made(*pages: str, password: str | None = None) -> bytes:
    stream = io.BytesIO()
    encrypt = pdfencrypt.StandardEncryption(password) if password else None
    page = canvas.Canvas(stream, encrypt=encrypt)
    for text in pages:
        lines = page.beginText(50, 800)
        lines.textLines(text)
        page.drawText(lines)
        page.showPage()
    page.save()
    return stream.getvalue()


def test_pages_are_read_in_order() -> None:
    assert read_pdf(made("First line\nsecond line", "Café, page two"), LIMITS) == (
        "First line\nsecond line\n\nCafé, page two"
    )


@pytest.mark.parametrize(
    ("data", "limits", "expected"),
    [
        (made("secret", password="x"), LIMITS, "encrypted: remove its password"),
        (made("a" * 500)[:400], LIMITS, "truncated, or damaged"),
        (b"%PDF-1.7 and nothing more", LIMITS, "truncated, or damaged"),
        (made("", ""), LIMITS, "2 pages and no text: a scan"),
        (made("a", "b", "c"), ReadLimits(pages=2), "3 pages; 2 is the limit"),
        (made("a" * 50, "b" * 50), ReadLimits(text_bytes=60), "of text: split the PDF"),
    ],
    ids=["encrypted", "truncated", "no pdf", "scan", "pages", "text"],
)
def test_what_cannot_be_used_says_why(data: bytes, limits: ReadLimits, expected: str) -> None:
    with pytest.raises(Unreadable, match=expected):
        read_pdf(data, limits)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_a_truncated_pdf_never_gives_a_part_of_its_text(share: float) -> None:
    data = made(*[f"page {at} " + "word " * 15 for at in range(20)])
    with pytest.raises(Unreadable):
        read_pdf(data[: int(len(data) * share)], LIMITS)
