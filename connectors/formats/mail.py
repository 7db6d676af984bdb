"""RFC 822 headers and a body: e-mail (.eml), and the METADATA and PKG-INFO files of Python packages."""

from __future__ import annotations

import email
import email.message
import email.policy
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lowtide.connectors.formats.html import html_text
from lowtide.connectors.formats.limits import Unreadable
from lowtide.connectors.formats.plain import decode_text

_UNKNOWN = "UNKNOWN"
# Before metadata 2.1 the description was a header, its lines indented by eight spaces or by a bar.
_INDENT = re.compile(r"^(?: {8}| {7}\|)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Message:
    """The text, and the asked headers in the order in which they were asked, None where there is none."""

    text: str
    headers: list[str | None]


def read_mail(data: bytes, wanted: Sequence[str]) -> Message:
    """The subject (of a package: its summary), a blank line, and the body.

    Of an e-mail the plain text part is the body, or else its HTML part as text; attachments are left out.
    `wanted` names headers in any case; a header that occurs several times is joined by commas.
    """
    if data.startswith((b"Metadata-Version:", b"\xef\xbb\xbfMetadata-Version:")):
        return _package(data, wanted)
    message = email.message_from_bytes(data.removeprefix(b"\xef\xbb\xbf"), policy=email.policy.default)
    text = _joined(_header(message, "Subject"), _body(message))
    return Message(text, [_header(message, name) for name in wanted])


def _package(data: bytes, wanted: Sequence[str]) -> Message:
    try:
        decoded = decode_text(data)
    except Unreadable:
        # Old packages were written in whatever their author's editor used.
        decoded = data.decode("cp1252", "replace")
    message = email.message_from_string(decoded, policy=email.policy.compat32)
    described = message.get("Description")
    payload = message.get_payload()
    body = payload if isinstance(payload, str) else ""
    if not body.strip() and described is not None and described.strip() != _UNKNOWN:
        body = _INDENT.sub("", described)
    summary = _header(message, "Summary")
    text = _joined(None if summary == _UNKNOWN else summary, body)
    return Message(text, [_header(message, name) for name in wanted])


def _joined(title: str | None, body: str) -> str:
    body = body.replace("\r\n", "\n").strip()
    return f"{title}\n\n{body}" if title and body else title or body


def _header(message: email.message.Message, name: str) -> str | None:
    try:
        values = message.get_all(name)
    except (ValueError, LookupError, TypeError, AttributeError):
        # The header parser of the standard library stumbles over some broken headers; their raw form is text too.
        values = [value for key, value in message.raw_items() if key.lower() == name.lower()]
    if not values:
        return None
    return _valid(", ".join(" ".join(str(value).split()) for value in values))


def _body(message: email.message.Message) -> str:
    parts = [part for part in message.walk() if not part.is_multipart() and _is_body(part)]
    plain = [part for part in parts if part.get_content_type() == "text/plain"]
    if plain:
        return "\n\n".join(_content(part) for part in plain)
    pages = [part for part in parts if part.get_content_type() == "text/html"]
    return "\n\n".join(html_text(_content(part)) for part in pages)


def _is_body(part: email.message.Message) -> bool:
    return part.get_content_maintype() == "text" and part.get_content_disposition() != "attachment"


def _content(part: email.message.Message) -> str:
    """The part's text, by the charset that it names if that is true, and by UTF-8 or windows-1252 if not."""
    raw = part.get_payload(decode=True)
    data = raw if isinstance(raw, bytes) else b""
    for charset in (part.get_content_charset(), "utf-8"):
        try:
            if charset:
                return data.decode(charset)
        except (LookupError, ValueError):
            continue
    return data.decode("cp1252", "replace")


def _valid(text: str) -> str:
    """Bytes that were no text come out of the header parser as lone surrogates, which cannot be written anywhere."""
    return text.encode("utf-8", "replace").decode()
