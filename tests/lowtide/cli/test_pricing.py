"""`lowtide prices`: what it shows fits a terminal, what it imports is kept with its history, what is wrong is said."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lowtide.cli import main
from lowtide.prices import PriceBook

EXCERPT = Path(__file__).parents[2] / "connectors" / "prices" / "litellm_excerpt.json"
PAGE = Path(__file__).parents[3] / "docs" / "guides" / "prices.md"
NOVA = "amazon.nova-lite-v1:0"


def prices(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["prices", *map(str, arguments)])


def imported(out: Path, source: Path = EXCERPT, day: str = "2026-11-21") -> Result:
    done = prices("import", "--litellm", source, "--out", out, "--date", day)
    assert done.exit_code == 0, done.output
    return done


def dearer(folder: Path) -> Path:
    """The excerpt in which a batch of Nova Lite costs a third more, and one model is missing."""
    rows = json.loads(EXCERPT.read_text(encoding="utf-8"))
    rows[NOVA]["input_cost_per_token_batches"] = 4e-08
    del rows["gpt-5.6"]
    path = folder / "dearer.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.json"
    imported(path)
    return path


def test_list_shows_the_bundled_prices_for_a_million_tokens() -> None:
    shown = prices("list", "--provider", "aws", "--model", "NOVA-LITE", "--region", "us-east-1")

    assert shown.exit_code == 0
    head, columns, model, batch, on_demand = shown.output.splitlines()
    assert PriceBook.bundled().book_id in head
    assert columns.split() == ["region", "mode", "input", "cached", "input", "cache", "write", "output"]
    assert model == f"{NOVA} (aws)"
    assert batch.split() == ["us-east-1", "batch", "0.03", "-", "-", "0.12"]
    assert on_demand.split() == ["us-east-1", "on_demand", "0.06", "0.015", "-", "0.24"]


def test_the_whole_book_fits_eighty_columns() -> None:
    shown = prices("list")

    assert len(shown.output.splitlines()) > 200
    assert max(map(len, shown.output.splitlines())) <= 80


def test_list_narrows_down_by_mode_and_book(book: Path) -> None:
    shown = prices("list", "--mode", "batch", "--model", "gpt-4o-mini", "--book", book)

    assert "on_demand" not in shown.output
    assert str(book) in shown.output
    assert prices("list", "--model", "no-such-model").stderr == "no such prices\n"


def test_list_gives_programs_the_exact_price_of_one_token(book: Path) -> None:
    shown = prices("list", "--model", NOVA, "--mode", "batch", "--region", "us-east-1", "--book", book, "--json")
    found = json.loads(shown.output)

    assert found["book"].startswith("2026-11-21-")
    assert {each["token_type"]: each["usd"] for each in found["prices"]} == {
        "input": "0.00000003",
        "output": "0.00000012",
    }
    assert found["sources"][0].startswith("litellm, litellm_excerpt.json, sha256 ")


def test_list_shows_the_prices_of_today_alone(book: Path) -> None:
    found = json.loads(book.read_text(encoding="utf-8"))
    past, future = dict(found["entries"][0]), dict(found["entries"][0])
    past |= {"model": "gone", "valid_from": "2020-01-01", "valid_to": "2021-01-01"}
    future |= {"model": "to-come", "valid_from": "2999-01-01"}
    book.write_text(json.dumps(found | {"entries": [past, future]}), encoding="utf-8")

    assert prices("list", "--book", book).stderr == "no such prices\n"
    assert len(json.loads(prices("list", "--book", book, "--json").output)["prices"]) == 2


def test_import_says_what_it_took_and_what_it_skipped(tmp_path: Path) -> None:
    said = imported(tmp_path / "book.json").output

    assert "111 new, 0 changed, 0 as they were" in said
    assert "another service tier" in said
    assert "neither the key nor the source names the region" in said
    assert max(len(line) for line in said.splitlines() if line.startswith(("skipped", " "))) <= 80


def test_import_again_changes_nothing_not_even_the_id(book: Path) -> None:
    before = book.read_bytes()
    said = imported(book, day="2026-12-01").output

    assert "0 new, 0 changed, 111 as they were" in said
    assert book.read_bytes() == before


def test_import_of_a_changed_price_keeps_the_old_one_until_its_last_day(book: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_bytes(book.read_bytes())
    said = imported(book, dearer(tmp_path), "2026-12-01").output
    found = json.loads(prices("list", "--model", NOVA, "--book", book, "--json").output)["prices"]
    batch = [each for each in found if (each["model"], each["mode"], each["token_type"]) == (NOVA, "batch", "input")]

    assert "0 new, 1 changed, " in said
    assert "us-east-1 batch input: 0.03 -> 0.04 (+33.3 %)" in said
    assert [(each["usd"], each["valid_from"], each.get("valid_to")) for each in batch] == [
        ("0.00000003", "2026-11-21", "2026-12-01"),
        ("0.00000004", "2026-12-01", None),
    ]
    assert prices("check", book).exit_code == 0
    listed = prices("list", "--model", NOVA, "--mode", "batch", "--region", "us-east-1", "--book", book).output
    assert [line.split() for line in listed.splitlines()[3:]] == [["us-east-1", "batch", "0.04", "-", "-", "0.12"]]
    # A model that the source no longer has keeps the price that it had.
    assert "gpt-5.6 (openai)" in prices("list", "--book", book).output
    differing = prices("diff", old, book).output
    assert "us-east-1 batch input: 0.03 -> 0.04 (+33.3 %)" in differing
    assert "0 added, 0 removed, 1 changed" in differing


def test_a_provider_s_own_list_counts_where_litellm_says_something_else(tmp_path: Path) -> None:
    attributes = {"usagetype": "USE1-NovaLite-input-tokens-batch", "model": "Nova Lite", "regionCode": "us-east-1"}
    dimension = {"unit": "1K tokens", "beginRange": "0", "endRange": "Inf", "pricePerUnit": {"USD": "0.000025"}}
    offer = {
        "offerCode": "AmazonBedrock",
        "products": {"S": {"attributes": attributes}},
        "terms": {"OnDemand": {"S": {"t": {"priceDimensions": {"d": dimension}}}}},
    }
    (tmp_path / "index.json").write_text(json.dumps(offer), encoding="utf-8")
    out = tmp_path / "book.json"
    done = prices("import", "--litellm", EXCERPT, "--aws", tmp_path / "index.json", "--out", out, "--json")

    assert done.exit_code == 0
    skipped = [each for each in json.loads(done.output)["skipped"] if "another source" in each["why"]]
    assert [each["what"] for each in skipped] == [
        f"litellm {NOVA}: 0.00000003; AWS AmazonBedrock S USE1-NovaLite-input-tokens-batch: 0.000000025"
    ]
    assert "0.025" in prices("list", "--model", NOVA, "--mode", "batch", "--book", out).output


def test_import_takes_only_the_providers_that_are_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "book.json"
    done = prices("import", "--litellm", EXCERPT, "--out", out, "--provider", "openai", "--provider", "azure")
    listed = json.loads(prices("list", "--book", out, "--json").output)["prices"]

    assert done.exit_code == 0
    assert {each["provider"] for each in listed} == {"openai", "azure"}


def test_diff_tells_added_removed_and_changed_apart(book: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    imported(other, dearer(tmp_path), "2026-12-01")
    there, back = prices("diff", book, other), prices("diff", other, book)

    assert there.exit_code == back.exit_code == 0
    assert "removed openai gpt-5.6\n" in there.output
    assert "any batch input: 2.00 -> not stated" in there.output
    assert there.output.splitlines()[-1].startswith("0 added, 8 removed, 1 changed")
    assert back.output.splitlines()[-1].startswith("8 added, 0 removed, 1 changed")
    assert "0.04 -> 0.03 (-25.0 %)" in back.output
    assert max(map(len, there.output.splitlines())) <= 80
    exact = json.loads(prices("diff", book, other, "--json").output)
    assert [each["after"]["usd"] for each in exact if each["before"] and each["after"]] == ["0.00000004"]
    assert prices("diff", book, book).output == "0 added, 0 removed, 0 changed; USD for a million tokens\n"


def test_check_says_each_problem_on_a_line_and_ends_with_two(book: Path) -> None:
    assert prices("check", book).exit_code == 0
    wrong = json.loads(book.read_text(encoding="utf-8"))
    wrong["entries"][3]["usd"] = "-1"
    wrong["entries"][5]["note"] = "mine"
    wrong["entries"].append(wrong["entries"][0])
    book.write_text(json.dumps(wrong), encoding="utf-8")
    found = prices("check", book)

    assert found.exit_code == 2
    lines = found.output.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{book}: entry 4 (")
    assert 'usd: found "-1"' in lines[0]
    assert "entry 6 (" in lines[1]
    assert "note: is no field" in lines[1]
    assert "entry 112 (" in lines[2]
    assert "entry 1 for the same holds as well" in lines[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "missing.json"], "missing.json: cannot be read"),
        (["list", "--book", "missing.json"], "missing.json: cannot be read"),
        (["import", "--out", "book.json"], "give --litellm, --aws or --azure"),
        (["import", "--litellm", "missing.json", "--out", "book.json"], "missing.json: cannot be read"),
        (["import", "--litellm", EXCERPT, "--out", "no/such/folder/book.json"], "cannot be written"),
        (["import", "--aws", EXCERPT, "--out", "book.json"], "is not an offer file"),
        (["import", "--azure", EXCERPT, "--out", "book.json"], "is no page of the Azure retail prices API"),
    ],
)
def test_a_file_that_is_missing_or_another_ends_with_two(
    arguments: list[object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = prices(*arguments)

    assert ended.exit_code == 2
    assert said in ended.stderr
    assert not list(tmp_path.iterdir())


def test_an_import_into_a_broken_book_leaves_it_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "book.json"
    out.write_text("{}", encoding="utf-8")

    assert prices("import", "--litellm", EXCERPT, "--out", out).exit_code == 2
    assert out.read_text(encoding="utf-8") == "{}"


def test_the_page_about_prices_shows_what_the_commands_say(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"^\$ lowtide (prices (?:list|check).*)\n((?:(?!```).*\n)*)", page, re.MULTILINE)
    example = re.search(r'^```json title="prices/book.json"\n(.*?)^```', page, re.MULTILINE | re.DOTALL)
    assert example is not None
    (tmp_path / "prices").mkdir()
    (tmp_path / "prices" / "book.json").write_text(example[1], encoding="utf-8")

    assert len(shown) == 2
    for command, output in shown:
        said = subprocess.run(
            [sys.executable, "-m", "lowtide", *command.split()],
            cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        assert said.stdout == output


def test_import_of_a_day_before_the_books_own_is_refused(book: Path) -> None:
    before = book.read_bytes()
    done = prices("import", "--litellm", EXCERPT, "--out", book, "--date", "2026-11-20")
    assert done.exit_code == 2
    assert "--date: found 2026-11-20" in done.stderr
    assert book.read_bytes() == before


def test_what_an_import_says_fits_80_columns(tmp_path: Path) -> None:
    source = tmp_path / ("litellm prices as they were on a day that is long ago and " * 2)
    source.write_bytes(EXCERPT.read_bytes())
    out = tmp_path / "book.json"
    said = imported(out, source).output.splitlines()
    assert all(len(line) <= 80 or " " not in line.strip().removeprefix("wrote    ") for line in said), said
