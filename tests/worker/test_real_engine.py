"""Workers before a real engine: llama.cpp on the CPU, with a Llama of random weights that is made here."""

from __future__ import annotations

import importlib.util
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from servers import llama
from servers.metadata import COMPUTE, Metadata, metadata
from support.fleets import Yard, wait_until, yard
from support.llama_file import write_llama

from lowtide_worker import layout

WITHIN_SECONDS = 20.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed: make dev")
    path = tmp_path_factory.mktemp("model") / "llama.gguf"
    write_llama(path)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Yard]:
    with yard(tmp_path) as made:
        yield made


def texts(shard: int, rows: int) -> list[str]:
    return [f"{row} of {shard}: fassen Sie zusammen, was hier steht \u2603" for row in range(rows)]


def answered(home: Yard) -> int:
    """How many answers are in parts."""
    return sum(part.read_bytes().count(b"\n") for part in home.folder.glob("shards/*/parts/*.jsonl"))


def check_all_answered(home: Yard, shards: dict[str, list[str]]) -> list[dict[str, Any]]:
    """The completions; fails where a record has none, or two lines."""
    bodies = []
    for name, messages in shards.items():
        lines = home.answers(name)
        assert sorted(lines) == list(range(len(messages)))
        end = home.end(name)
        assert (end.outcome, end.answered, end.errors) == ("completed", len(messages), 0)
        bodies += [line["response"]["body"] for line in lines.values()]
    for body in bodies:
        assert body["choices"][0]["message"]["role"] == "assistant"
        assert body["usage"]["prompt_tokens"] > 20
        assert 1 <= body["usage"]["completion_tokens"] <= 16
    return bodies


def test_of_two_thousand_requests_none_is_lost_and_few_are_computed_twice(home: Yard, model: Path) -> None:
    """Four workers at a time; each is killed or gets a notice at a random moment, and another one takes its place."""
    luck = random.Random(20261121)
    shards = {f"s{number:05d}-a1": texts(number, 100) for number in range(20)}
    rows = sum(map(len, shards.values()))
    with llama.running(model) as engine, metadata("azure") as first, metadata("azure") as second:
        home.fleet(layout.Engine(url=engine.url), part_rows=10, part_seconds=0.1, most=3, idle_seconds=60.0)
        for name, messages in shards.items():
            home.shard(name, messages)
        # A notice takes effect when the service is next asked for it, a second later at most: work must be left then.
        fates: list[Metadata | None] = [first, second, None, None]
        for fate in fates:
            home.worker({"LOWTIDE_METADATA_URL_AZURE": fate.url} if fate else {})
        moments = [luck.uniform(low, low + 0.2) * rows for low in (0.0, 0.2, 0.4, 0.6)]
        for moment, worker, fate in zip(moments, tuple(home.workers), fates, strict=True):
            wait_until(lambda least=moment: answered(home) >= least, "answers")
            if fate:
                fate.schedule("Preempt", COMPUTE["name"])
                assert worker.wait(WITHIN_SECONDS) == layout.RETRY, home.said()
            else:
                worker.kill()
            home.worker()
        codes = home.finish()
        predicted = engine.predicted()

    assert codes == [layout.RETRY] * 2 + [-signal.SIGKILL] * 2 + [0] * 4, home.said()
    bodies = check_all_answered(home, shards)
    spells = [spell for beat in home.beats() for spell in beat.spells]
    assert sum(spell.answered for spell in spells) <= rows
    kept = sum(body["usage"]["completion_tokens"] for body in bodies)
    assert kept <= predicted <= kept * 1.03
    notes = [beat.note for beat in home.beats() if beat.exit_code == layout.RETRY]
    assert len(notes) == 2
    assert all("Azure will preempt" in note for note in notes)


def test_an_engine_of_ones_own_is_started_again_when_it_is_killed_and_goes_with_its_worker(
    home: Yard, model: Path
) -> None:
    shards = {"s00001-a1": texts(1, 600)}
    home.fleet(layout.Engine(command=llama.command(model)), part_rows=10, part_seconds=0.1)
    home.shard("s00001-a1", shards["s00001-a1"])
    first = home.worker()
    wait_until(lambda: answered(home) >= 50, "answers of the first engine")
    (killed,) = engines_of(first.pid)
    killed.kill()
    wait_until(lambda: answered(home) >= 250, "answers of the second engine")
    (orphan,) = engines_of(first.pid)
    assert orphan != killed
    first.kill()
    wait_until(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE, "the engine's end")
    home.worker()

    assert home.finish() == [-signal.SIGKILL, 0], home.said()
    check_all_answered(home, shards)


def test_a_prompt_that_is_too_long_for_the_engine_costs_one_row(home: Yard, model: Path) -> None:
    messages = texts(1, 30)
    messages[7] = "Wilhelmina " * llama.CONTEXT_EACH
    home.fleet(layout.Engine(command=llama.command(model)))
    home.shard("s00001-a1", messages)
    home.worker()

    assert home.finish() == [0], home.said()
    answers = home.answers("s00001-a1")
    assert [row for row, line in answers.items() if line["error"]] == [7]
    assert answers[7]["response"] == {"status_code": 400, "body": None}
    assert answers[7]["error"]["code"] == "exceed_context_size_error"
    assert "Wilhelmina" not in answers[7]["error"]["message"]


def engines_of(worker: int) -> list[psutil.Process]:
    """The engines below a worker's guard."""
    below = psutil.Process(worker).children(recursive=True)
    return [process for process in below if str(llama.PROGRAM) in process.cmdline()[:2]]
