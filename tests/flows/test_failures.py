"""What a person reads where a flow fails: the message of an error raised on purpose, and the traceback of a bug."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect import Flow, flow, task
from prefect.client.schemas.objects import State
from support.command import Bench, write_documents

from lowtide import flows as ours
from lowtide.cli.running import prepare
from lowtide.engine import open_run
from lowtide.errors import ConfigError, OurBug, Terminal, Transient
from lowtide.flows.command import run_through_prefect
from lowtide.flows.failures import left_to_the_command, say_plainly
from lowtide.flows.run import run_job

pytestmark = pytest.mark.usefixtures("server")


class Console(logging.Handler):
    """Keeps what a console would show, tracebacks included."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


@pytest.fixture
def console() -> Iterator[Console]:
    made = Console()
    logging.getLogger().addHandler(made)
    yield made
    logging.getLogger().removeHandler(made)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)
    write_documents(tmp_path / "documents", 2)
    monkeypatch.setenv("LOWTIDE_LOCAL_DIR", str(made.batches))
    return made


def failing(error: Exception, **options: object) -> State[object]:
    """The state of a flow whose task has raised that."""

    @task(persist_result=False, **options)  # type: ignore[call-overload]  # any options of a task
    def work() -> None:
        raise error

    @flow(persist_result=False)
    def whole() -> None:
        say_plainly()
        work()

    state: State[object] = whole(return_state=True)
    return state


def test_an_error_raised_on_purpose_is_told_by_its_message_and_without_a_traceback(console: Console) -> None:
    state = failing(Terminal("the engine ended with code 1"))
    assert isinstance(state.result(raise_on_failure=False), Terminal)
    assert "the engine ended with code 1" in str(state.message)
    task, _, whole = console.said
    assert task == "Task run failed with exception: Terminal: the engine ended with code 1"
    assert whole == "Encountered exception during execution: Terminal: the engine ended with code 1"
    assert not any("\n" in line or "Traceback" in line for line in console.said)


def test_a_bug_keeps_its_traceback(console: Console) -> None:
    with left_to_the_command():
        failing(KeyError("a bug"))
    whole = "\n".join(console.said)
    assert whole.count("Traceback (most recent call last)") >= 2
    assert "raise error" in whole


def test_prefects_own_words_are_kept(console: Console) -> None:
    failing(Transient("busy"), retries=1, retry_delay_seconds=0)
    assert "Task run failed with exception: Transient: busy - Retries are exhausted" in console.said
    logging.getLogger("prefect.flow_runs").error("%s was given up", "it", exc_info=Terminal("no room"))
    assert console.said[-1] == "it was given up: Terminal: no room"


def test_an_error_that_says_it_is_a_bug_of_ours_keeps_its_traceback(console: Console) -> None:
    with left_to_the_command():
        failing(OurBug("no requests"))
    whole = "\n".join(console.said)
    assert whole.count("Traceback (most recent call last)") >= 2
    assert "raise error" in whole


def test_a_task_is_tried_again_as_before(console: Console) -> None:
    tried: list[int] = []

    def may_pass(task: object, task_run: object, state: State[object]) -> bool:
        tried.append(1)
        return isinstance(state.result(raise_on_failure=False), Transient)

    failing(Transient("busy"), retries=2, retry_condition_fn=may_pass)
    assert len(tried) == 2
    failing(Terminal("never"), retries=2, retry_condition_fn=may_pass)
    assert len(tried) == 3
    assert [line for line in console.said if "\n" in line] == []


def flows() -> list[Flow[..., object]]:
    modules = [
        importlib.import_module(found.name) for found in pkgutil.iter_modules(ours.__path__, f"{ours.__name__}.")
    ]
    return [one for module in modules for one in vars(module).values() if isinstance(one, Flow)]


@pytest.mark.parametrize("whole", flows(), ids=lambda whole: whole.name)
def test_each_flow_begins_by_saying_so(whole: Flow[..., object], tmp_path: Path) -> None:
    log = logging.getLogger("prefect.flow_runs")
    before = list(log.filters)
    log.filters = []
    try:
        asked = inspect.signature(whole.fn).parameters.values()
        needed = [str(tmp_path / "nowhere") for one in asked if one.default is inspect.Parameter.empty]
        with contextlib.suppress(Exception):
            whole.fn(*needed)
        once = list(log.filters)
        say_plainly()
        assert once == log.filters != []
    finally:
        log.filters = before


def test_importing_a_flow_changes_no_logger() -> None:
    told = (
        "import logging, lowtide.flows.run as run\n"
        "print([one for name in list(logging.root.manager.loggerDict) for one in logging.getLogger(name).filters"
        " if getattr(one, '__module__', '').startswith('lowtide')])"
    )
    said = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=300).stdout
    assert said.strip() == "[]"


def test_a_job_file_that_is_wrong_gives_no_traceback_in_a_flow_of_a_worker(bench: Bench, console: Console) -> None:
    bench.job.write_text("version: 2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"job\.yaml:1"):
        run_job(str(bench.job))
    assert any("job.yaml:1" in line for line in console.said)
    assert not any("Traceback" in line for line in console.said)


def test_the_command_leaves_the_console_to_its_own_last_line(
    bench: Bench, console: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    run = open_run(prepare(str(bench.job), "all", writes=True), retry=False)
    # What the command has read is not what its flow finds.
    bench.job.write_text("version: 2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"job\.yaml:1"):
        run_through_prefect(
            str(bench.job), "all", wait=True, use_cache=True, listen=lambda progress: None, fallback=run
        )
    assert [line for line in console.said if "job.yaml" in line or "Traceback" in line] == []
    assert "Traceback" not in capsys.readouterr().err
    logging.getLogger("prefect.engine").error("later", exc_info=Terminal("heard again"))
    assert "later: Terminal: heard again" in console.said
