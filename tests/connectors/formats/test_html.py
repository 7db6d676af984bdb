"""HTML to text."""

from __future__ import annotations

import pytest

from lowtide.connectors.formats.html import read_html


def test_blocks_stand_apart_and_inline_markup_leaves_no_trace() -> None:
    page = b"""<!doctype html><html><head><title>Shop</title><style>p { color: red }</style></head>
    <body><h1>Refunds</h1><p>Your <b>money</b> is on its <a href="https://x.example/?q">way</a>.</p>
    <div>Bare text in a div</div>one<br>two<ul><li>first<li>second</ul><script>alert(1)</script></body></html>"""
    assert read_html(page).split("\n") == [
        *("Shop", "", "Refunds", "", "Your money is on its way.", "", "Bare text in a div", "one", "two", ""),
        *("first", "second"),
    ]


def test_table_cells_are_apart_by_tabs_and_rows_by_lines() -> None:
    assert read_html(b"<table><tr><th>A<th>B<tr><td>1<td>2</table>tail") == "A\tB\n1\t2\n\ntail"


def test_preformatted_text_keeps_its_spaces_and_other_text_does_not() -> None:
    assert read_html(b"<p>a \n\t b</p><pre>x\n  y</pre>") == "a b\n\nx\n  y"


def test_entities_become_letters() -> None:
    assert read_html(b"<p>a&nbsp;&lt;b&gt; &#8212; &copy; &unknown;</p>") == "a\u00a0<b> — © &unknown;"


@pytest.mark.parametrize(
    "page",
    [
        "<p>café naïve</p>".encode(),
        "<p>café naïve</p>".encode("utf-8-sig"),
        "<p>café naïve</p>".encode("utf-16"),
        "<meta charset=windows-1252><p>café naïve</p>".encode("cp1252"),
        '<meta http-equiv="Content-Type" content="text/html; charset=ISO-8859-15"><p>café naïve</p>'.encode(
            "iso-8859-15"
        ),
        "<p>café naïve</p>".encode("cp1252"),
        "<meta charset=no-such-thing><p>café naïve</p>".encode("cp1252"),
    ],
)
def test_the_encoding_is_found_as_browsers_find_it(page: bytes) -> None:
    assert read_html(page) == "café naïve"


def test_no_depth_and_no_missing_end_tag_loses_text() -> None:
    assert read_html(b"<div>" * 20_000 + b"deep") == "deep"
    paragraphs = read_html("".join(f"<p>number {at}" for at in range(500)).encode()).split("\n\n")
    assert paragraphs == [f"number {at}" for at in range(500)]
    assert "word499" in read_html("".join(f"<font>word{at} " for at in range(500)).encode())


def test_a_script_bomb_leaves_the_text_around_it() -> None:
    assert read_html(b"<p>a</p><script>" + b"<p>x</p>" * 200_000 + b"</script><p>b</p>") == "a\n\nb"
