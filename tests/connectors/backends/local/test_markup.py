"""Prose out of READMEs and mails: what is kept, and what is left out."""

from __future__ import annotations

import pytest

from lowtide.connectors.backends.local import markup
from lowtide.connectors.backends.local.sentences import KEPT, candidates, cut, ended, split, words


def kept(text: str) -> list[str]:
    return [sentence.text for sentence in candidates(text)]


@pytest.mark.parametrize(
    "left_out",
    [
        "# A heading of many words that is no sentence",
        "A heading of many words that is no sentence\n===========================================",
        "==========================\nA heading of many words over and under\n==========================",
        "A heading of many words, the second\n-----------------------------------",
        "```python\nthis line of code is long enough to look like prose.\n```",
        "~~~\nthis line of code is long enough to look like prose.\n~~~",
        "    this line of code is long enough to look like prose.",
        ".. code-block:: python\n\n   this line of code is long enough to look like prose.",
        ".. image:: https://example.com/a.svg\n   :alt: a long text that describes the image to readers.",
        ".. |badge| image:: https://example.com/a.svg\n.. _link: https://example.com",
        "Use it like this::\n\n  this line of code is long enough to look like prose.",
        ">>> this prompt is long enough to look like prose.",
        "$ this command is long enough to look like prose.",
        "[![build status of the main branch is good.](https://a/b.svg)](https://a)",
        "| a cell with some words | another with words. |\n|---|---|\n| one two three four. | five six. |",
        "+------+------+\n| one two three four five. | six |\n+------+------+",
        "<!-- this comment is long enough to look like prose. -->",
        "[1]: https://example.com 'a title that is long enough to look like prose.'",
        ":author: Somebody With a Long Name who wrote this text",
        '<p align="center"><img src="https://example.com/logo.png" alt="a logo that is described at length."></p>',
        "<https://example.com/a/long/address>",
        "Install it with this command and then:",
        "-----\n***\n___",
    ],
)
def test_what_is_no_prose_is_left_out(left_out):
    text = f"The first sentence is always here.\n\n{left_out}\n\nThe last sentence is here as well.\n"
    assert kept(text) == ["The first sentence is always here.", "The last sentence is here as well."]


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("It is **very** *fast* and __really__ _small_ in use.", "It is very fast and really small in use."),
        ("Read [the guide](https://a.b/c(d)) to see `how_it_works` here.", "Read the guide to see how_it_works here."),
        ("Read [the guide][1] or `the other guide`_ today please.", "Read the guide or the other guide today please."),
        ("See `the *old* guide <https://a.b>`__ for more of it.", "See the old guide for more of it."),
        ("Call ``run_all()`` or :func:`run_one` to start it.", "Call run_all() or run_one to start it."),
        ("> Quoted text is prose as well,\n> over two lines.", "Quoted text is prose as well, over two lines."),
        ("- An item that is a sentence is kept.", "An item that is a sentence is kept."),
        ("3. A numbered item that is a sentence is kept.", "A numbered item that is a sentence is kept."),
        ("Fish &amp; chips cost <b>five</b> pounds &lt;today&gt;.", "Fish & chips cost five pounds <today>."),
        (
            "A paragraph that goes\nover three\nlines is one sentence.",
            "A paragraph that goes over three lines is one sentence.",
        ),
        ("\x1b[1mBold\x1b[0m output of a terminal\x00 is plain.", "Bold output of a terminal is plain."),
    ],
)
def test_markup_inside_a_sentence_goes_and_its_words_stay(marked, plain):
    assert kept(marked) == [plain]


def test_a_description_that_stands_indented_as_a_whole_is_no_code():
    assert kept("        The whole text is indented.\n\n        And so is its second paragraph.") == [
        "The whole text is indented.",
        "And so is its second paragraph.",
    ]


def test_header_lines_give_their_subject_or_summary_alone():
    text = (
        "Metadata-Version: 2.4\nName: tidy\nSummary: Find duplicate photos on your disk\n"
        "Classifier: Private :: Do Not Upload\n\n# tidy\n\nTidy compares images by their content.\n"
    )
    assert markup.headline(text)[0] == "Find duplicate photos on your disk"
    assert kept(text) == ["Find duplicate photos on your disk", "Tidy compares images by their content."]
    mail = "From: a@example.com\nSubject: the invoice of October is wrong again\n  and again\n\nPlease correct it soon."
    assert kept(mail) == ["the invoice of October is wrong again", "Please correct it soon."]
    assert kept("Note: the shop is closed on Monday.\nThe bakery is open.") == [
        "Note: the shop is closed on Monday.",
        "The bakery is open.",
    ]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Smith met Mr. J. Jones, e.g. at No. 5. They left at 3.30 p.m. together.", 2),
        ('He said "Stop!" and left. She stayed (for a while). Then nobody was there.', 3),
        ("Version 2.0 is out... It works! Does it? Yes.", 4),
        ("船到了。人们走了！他们会回来吗？", 3),
        ("وصلت السفينة. هل سيعود؟ نعم.", 3),
        ("No mark at the end", 1),
    ],
)
def test_sentences_end_where_they_end(text, sentences):
    found = [sentence for sentence in split(text) if sentence]
    assert len(found) == sentences
    assert "".join(found).replace(" ", "") == text.replace(" ", "")


def test_a_text_without_prose_still_has_something_to_say():
    assert kept("```\nprint(1)\n```") == ["``` print(1) ```"]
    assert kept("Broken screen") == ["Broken screen"]
    assert kept("* one\n* two") == ["one", "two"]


def test_a_long_document_is_looked_at_from_its_beginning_to_its_end():
    sentences = [f"Chapter {number} tells of the sea." for number in range(1000)]
    found = candidates(" ".join(sentences))
    assert len(found) == KEPT
    assert [sentence.text for sentence in found[:26]] == sentences[:26]
    assert found[-1].place > 900


def test_the_same_sentence_counts_once():
    assert kept("The ship came home. THE SHIP CAME HOME! The end is near now.") == [
        "The ship came home.",
        "The end is near now.",
    ]


def test_words_are_counted_and_cut():
    assert len(words("two words")) == 2
    assert len(words("船到了 ok")) == 4
    assert cut("one two three, four", 3) == "one two three…"
    assert cut("one two three", 3) == "one two three"
    assert ended("no mark") == "no mark."
    assert ended('with "mark."') == 'with "mark."'
