"""E-mails and package metadata."""

from __future__ import annotations

import base64

import pytest

from lowtide.connectors.formats.mail import read_mail

METADATA = """Metadata-Version: 2.1
Name: tide
Version: 1.2
Summary: Moves water — twice a day
Classifier: A
Classifier: B

# tide

Reads the moon.
"""


def test_package_metadata_is_its_summary_and_its_readme() -> None:
    message = read_mail(METADATA.encode(), ["name", "VERSION", "Classifier", "License"])
    assert message.text == "Moves water — twice a day\n\n# tide\n\nReads the moon."
    assert message.headers == ["tide", "1.2", "A, B", None]


def test_an_old_description_header_is_a_body() -> None:
    old = b"Metadata-Version: 1.0\nName: x\nSummary: UNKNOWN\nDescription: First line\n        second line\n"
    assert read_mail(old, []).text == "First line\nsecond line"


def test_metadata_without_a_readme_is_its_summary() -> None:
    assert read_mail(b"Metadata-Version: 2.1\nName: x\nSummary: Small\n", []).text == "Small"


def test_an_email_is_its_subject_and_its_plain_part() -> None:
    mail = (
        "Subject: =?utf-8?b?" + base64.b64encode("Grüße".encode()).decode() + "?=\nFrom: Ann <a@example.com>\n"
        "MIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=B\n\n"
        "--B\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\ncaf=E9\n"
        "--B\nContent-Type: text/html\n\n<p>caf&eacute; html</p>\n"
        "--B\nContent-Type: text/plain\nContent-Disposition: attachment; filename=a.txt\n\nATTACHED\n--B--\n"
    )
    message = read_mail(mail.encode(), ["from"])
    assert message.text == "Grüße\n\ncafé"
    assert message.headers == ["Ann <a@example.com>"]


def test_an_email_of_html_alone_is_its_text() -> None:
    assert read_mail(b"Subject: s\nContent-Type: text/html\n\n<p>one<p>two", []).text == "s\n\none\n\ntwo"


@pytest.mark.parametrize(
    ("mail", "expected"),
    [
        (b"Subject: x\nContent-Type: text/plain; charset=nonsense\n\ncaf\xc3\xa9", "x\n\ncafé"),
        (b"Subject: x\nContent-Type: text/plain; charset=utf-8\n\ncaf\xe9", "x\n\ncafé"),
        (b"Subject: x\nContent-Type: text/plain\nContent-Transfer-Encoding: base64\n\naGVsbG8=!!*", "x\n\nhello"),
        (b"Subject: x\nContent-Type: multipart/mixed; boundary=Z\n\nno boundary here", "x"),
        (b"no headers at all, just text", "no headers at all, just text"),
    ],
    ids=["unknown charset", "wrong charset", "broken base64", "missing boundary", "no headers"],
)
def test_a_broken_email_gives_what_can_be_read(mail: bytes, expected: str) -> None:
    assert read_mail(mail, []).text == expected


def test_raw_bytes_in_a_header_never_become_lone_surrogates() -> None:
    message = read_mail(b"Subject: caf\xe9 \xff\nFrom: \xff\n\nbody", ["From"])
    message.text.encode()
    (message.headers[0] or "").encode()
    assert message.text.endswith("body")
