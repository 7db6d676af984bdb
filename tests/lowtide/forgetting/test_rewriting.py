"""Which lines go: those that say of themselves that they are the record's, in every provider's form."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from support.standins import MemoryStore

from lowtide.forgetting.rewriting import Records, Rewriter, without_records

GONE, KEPT = "r0000001xaaaaaaaa", "r0000002xbbbbbbbb"
RECORDS = Records(frozenset({GONE.encode()}), frozenset({KEPT.encode()}), frozenset({b"aaaaaaaa"}))
FORMS = {
    "openai": lambda name, text: {
        "id": "batch_req_1",
        "custom_id": name,
        "response": {"status_code": 200, "body": {"choices": [{"message": {"content": text}}]}},
        "error": None,
    },
    "bedrock": lambda name, text: {
        "modelInput": {"messages": [{"role": "user", "content": [{"text": text}]}]},
        "modelOutput": {"content": [{"text": text}]},
        "recordId": name,
    },
    "local": lambda name, text: {"record_id": name, "status": "ok", "text": text},
    "a request": lambda name, text: {"custom_id": name, "method": "POST", "body": {"messages": [{"content": text}]}},
}


def left_of(tmp_path: Path, data: bytes, *, blank: bool = False) -> bytes:
    store = MemoryStore()
    store.write("file", data)
    Rewriter(store, tmp_path).rewrite("raw", "file", without_records(RECORDS, blank=blank))
    return store.objects["file"]


def lines(*said: object) -> bytes:
    return b"".join(orjson.dumps(one) + b"\n" for one in said)


@pytest.mark.parametrize("form", FORMS)
def test_a_records_own_line_goes_and_a_text_that_names_it_stays(form: str, tmp_path: Path) -> None:
    make = FORMS[form]
    stays = [make(KEPT, "plain"), make(KEPT, f"it says {GONE} and no more"), make(KEPT, GONE)]
    assert left_of(tmp_path, lines(make(GONE, "secret"), *stays, make(GONE, KEPT))) == lines(*stays)


def test_an_empty_line_keeps_the_place(tmp_path: Path) -> None:
    make = FORMS["local"]
    data = lines(make(KEPT, "one"), make(GONE, "two"), make(KEPT, "three"))
    assert left_of(tmp_path, data, blank=True) == lines(make(KEPT, "one")) + b"\n" + lines(make(KEPT, "three"))


def test_a_stray_id_with_its_hash_goes_and_anybody_elses_stays(tmp_path: Path) -> None:
    make = FORMS["local"]
    other = make("r9999999xcccccccc", "nobody's")
    assert left_of(tmp_path, lines(make("r9999999xaaaaaaaa", "secret"), other)) == lines(other)


def test_torn_lines_go_if_they_may_be_its_own(tmp_path: Path) -> None:
    kept = lines(FORMS["local"](KEPT, "plain"))[:-6]
    torn = b'{"record_id": "' + GONE.encode() + b'", "text": "secr'
    assert left_of(tmp_path, torn + b"\n" + kept + b"\n" + b'et", "status": "ok"}\n') == kept + b"\n"


def test_a_file_without_the_record_is_not_touched(tmp_path: Path) -> None:
    data = lines(FORMS["local"](KEPT, "plain"))[:-1]
    assert left_of(tmp_path, data) == data


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path) -> None:
    store = MemoryStore()
    data = lines(FORMS["local"](GONE, "secret"))
    store.write("file", data)
    rewriter = Rewriter(store, tmp_path, dry=True)
    assert rewriter.rewrite("raw", "file", without_records(RECORDS, blank=False)) == 1
    assert store.objects["file"] == data
    assert rewriter.touched.counts() == {"raw": {"files": 1, "entries": 1}}
