"""HTML to text on the standard library's tokenizer: no tree, so that no depth of nesting can lose text or overflow."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from lowtide.connectors.formats.limits import Unreadable
from lowtide.connectors.formats.plain import decode_text

_SPACE = re.compile(r"[ \t\n\r\f]+")
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{1,40})""", re.IGNORECASE)
_UNSEEN = frozenset({"script", "style"})
_PARAGRAPHS = frozenset(
    (
        *("p", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "blockquote", "table", "ul", "ol", "dl", "figure", "section"),
        *(
            "article",
            "main",
            "aside",
            "header",
            "footer",
            "nav",
            "form",
            "fieldset",
            "details",
            "address",
            "title",
            "hr",
        ),
    )
)
_LINES = frozenset(
    (
        *("div", "li", "tr", "br", "dt", "dd", "caption", "figcaption", "summary", "legend", "option", "center"),
        *("head", "body", "html"),
    )
)
_CELLS = frozenset({"td", "th"})


def read_html(data: bytes) -> str:
    """The text that a reader sees, paragraphs apart by a blank line, table cells by a tab. Links keep their words only.

    Text hidden by style sheets is in it, since no style sheet is read. Nothing is fetched.
    """
    return html_text(_decode(data))


def html_text(markup: str) -> str:
    """The same for markup that is text already, such as the body of an e-mail."""
    reader = _Reader()
    reader.feed(markup)
    reader.close()
    return reader.text()


def _decode(data: bytes) -> str:
    """As browsers do: byte order mark, UTF-8, what a <meta> says, and windows-1252 where nothing is said."""
    try:
        return decode_text(data)
    except Unreadable:
        declared = _CHARSET.search(data[:4096])
        try:
            return data.decode(declared.group(1).decode() if declared else "cp1252", "replace")
        except LookupError:
            return data.decode("cp1252", "replace")


class _Reader(HTMLParser):
    """Collects words; white space between them is decided when the next word comes."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._breaks = 0
        self._cell = False
        self._preformatted = 0
        self._unseen: str | None = None

    def text(self) -> str:
        return "".join(self._parts).strip()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen = tag
        elif tag in _CELLS:
            self._cell = True
        else:
            self._break(tag)
            self._preformatted += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag == self._unseen:
            self._unseen = None
        elif tag not in _CELLS:
            self._break(tag)
            self._preformatted -= tag == "pre" and self._preformatted > 0

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # <script/> and <div/> open an element in HTML; only void elements such as <br/> close themselves.
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if not self._preformatted:
            data = _SPACE.sub(" ", data)
        at_start = self._breaks > 0 or self._cell or not self._parts
        if at_start:
            data = data.lstrip("\n" if self._preformatted else " ")
        if not data:
            return
        if self._parts:
            self._separate(data)
        self._breaks, self._cell = 0, False
        self._parts.append(data)

    def _separate(self, data: str) -> None:
        last = self._parts[-1]
        if self._breaks or self._cell:
            if not self._preformatted:
                self._parts[-1] = last.rstrip(" ")
            self._parts.append("\n" * self._breaks if self._breaks else "\t")
        elif last.endswith(" ") and data.startswith(" ") and not self._preformatted:
            self._parts[-1] = last[:-1]

    def _break(self, tag: str) -> None:
        wanted = 2 if tag in _PARAGRAPHS else 1 if tag in _LINES else 0
        self._breaks = max(self._breaks, wanted)
