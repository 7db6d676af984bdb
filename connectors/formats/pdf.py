"""PDF by PDFium, through pypdfium2: text in reading order, page after page."""

from __future__ import annotations

import re

import pypdfium2  # type: ignore[import-untyped]  # it ships no types

from lowtide.connectors.formats.limits import ReadLimits, Unreadable, megabytes

_PASSWORD = 4  # FPDF_ERR_PASSWORD in PDFium's fpdfview.h
# PDFium marks a hyphen at the end of a line so; the word goes on in the next line.
_HYPHEN = re.compile(r"[\x02\ufffe]\n?")


def read_pdf(data: bytes, limits: ReadLimits) -> str:
    """The text of all pages, a blank line between pages. No OCR: a page that is a picture has no text.

    Raises Unreadable.
    """
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == _PASSWORD:
            raise Unreadable("the PDF is encrypted: remove its password") from None
        raise Unreadable("not a PDF that can be opened: truncated, or damaged; export it again") from None
    with document:
        count = len(document)
        if count > limits.pages:
            raise Unreadable(f"{count} pages; {limits.pages} is the limit: split the PDF")
        text = _pages(document, count, limits)
    if not text.strip():
        raise Unreadable(f"{count} pages and no text: a scan? Run OCR on it first")
    return text


def _pages(document: pypdfium2.PdfDocument, count: int, limits: ReadLimits) -> str:
    texts: list[str] = []
    size = 0
    for number in range(count):
        try:
            page = document[number]
            letters = page.get_textpage()
            text = letters.get_text_range()
            letters.close()
            page.close()
        except pypdfium2.PdfiumError:
            raise Unreadable(f"page {number + 1} of {count} cannot be read: truncated, or damaged") from None
        size += len(text)
        if size > limits.text_bytes:
            raise Unreadable(f"more than {megabytes(limits.text_bytes)} of text: split the PDF")
        texts.append(_HYPHEN.sub("", text.replace("\r\n", "\n")).strip())
    return "\n\n".join(text for text in texts if text)
