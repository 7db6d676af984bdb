"""Text and Markdown: bytes to text, in process."""

from __future__ import annotations

import codecs

from lowtide.connectors.formats.detect import looks_like
from lowtide.connectors.formats.limits import Unreadable

# UTF-32's little-endian mark begins with UTF-16's, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode_text(data: bytes) -> str:
    """UTF-8, or UTF-16/32 that says so by its byte order mark, which is removed. Nothing else is guessed.

    Raises Unreadable with the offset of the first byte that does not fit.
    """
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        at = error.start + len(mark)
        what = looks_like(data)
        if what:
            raise Unreadable(
                f"begins like {what}, not text: set `format`, or give the file its own extension"
            ) from None
        raise Unreadable(
            f"invalid {encoding.upper()} at byte {at} (0x{data[at]:02x}): convert the file to UTF-8"
        ) from None


def clean(text: str) -> str:
    """The text without NUL characters, which many readers of the results cut strings at.

    Raises Unreadable if so many are NUL that this is no text in a known encoding.
    """
    nuls = text.count("\0")
    if nuls * 10 > len(text):
        raise Unreadable("more than a tenth is NUL: UTF-16 without a byte order mark, or binary; convert it to UTF-8")
    return text.replace("\0", "")
