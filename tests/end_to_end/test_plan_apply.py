"""Plan and apply, through the command line, against emulated providers: what is shown is what is done, or nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from servers.emulators import Emulator, emulators
from support.command import Bench, text_of, write_documents

from lowtide.planning.planfile import sealed

JOB = """
version: 1
name: tides
source: {uri: ./documents/*.txt}
operations: [{summarize: {words: 20}}]
backends:
  - openai-batch: {model: gpt-4o-mini, price: {input: 1, output: 2}, on_demand_price: {input: 2, output: 4}}
  - azure-batch: {model: gpt-4o-mini, deployment: mini, price: {input: 3, output: 6}}
deadline: 24h
limits: {poll: 1s, shard_records: 10}
output: {root: ./out}
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Emulator]:
    with emulators(speed=3600.0) as emulator:
        yield emulator


@pytest.fixture
def bench(tmp_path: Path, provider: Emulator) -> Bench:
    environ = {
        "OPENAI_BASE_URL": f"{provider.url}/v1",
        "OPENAI_API_KEY": "emulated",
        "AZURE_OPENAI_ENDPOINT": provider.url,
        "AZURE_OPENAI_API_KEY": "emulated",
        "COLUMNS": "80",
    }
    provider.reset()
    made = Bench(tmp_path, environ=environ)
    write_documents(tmp_path / "documents", 25)
    made.job.write_text(JOB)
    return made


def plan(bench: Bench, *options: str) -> dict[str, object]:
    said = bench.lowtide("plan", str(bench.job), "--json", *options)
    assert said.returncode == 0, said.stderr
    found: dict[str, object] = json.loads(said.stdout)
    return found


def edit(bench: Bench, before: str, after: str) -> None:
    text = bench.job.read_text()
    assert before in text
    bench.job.write_text(text.replace(before, after))


def created(provider: Emulator) -> int:
    return len(provider.calls()["created"])


def test_a_plan_creates_nothing_and_writes_nothing_but_itself(bench: Bench, provider: Emulator) -> None:
    before = {path for path in bench.folder.rglob("*") if path.is_file()}
    shown = bench.lowtide("plan", str(bench.job), "--out", "plan.json")
    assert shown.returncode == 0, shown.stderr
    after = {path for path in bench.folder.rglob("*") if path.is_file()}
    assert after - before == {bench.folder / "plan.json"}
    assert created(provider) == provider.bill()["records"] == 0
    lines = shown.stdout.splitlines()
    assert "documents  25: 25 new, 0 changed, 0 unchanged, 0 unreadable" in lines
    assert "next       lowtide apply plan.json" in lines
    assert max(map(len, lines)) <= 80, max(lines, key=len)


def test_a_plan_applied_is_what_was_planned_and_applied_again_does_nothing(bench: Bench, provider: Emulator) -> None:
    planned = plan(bench, "--out", "plan.json")
    [chosen] = [option for option in planned["options"] if option["chosen"]]  # type: ignore[attr-defined]
    applied = bench.lowtide("apply", "plan.json", "--direct")
    assert applied.returncode == 0, applied.stderr
    rows = bench.results().to_pylist()
    assert len(rows) == 25
    assert {(row["run_id"], row["backend"], row["status"]) for row in rows} == {
        (planned["run_id"], "openai-batch", "ok")
    }
    [ran] = pq.read_table(next(Path(bench.root, "tables/runs").rglob("*.parquet")), partitioning=None).to_pylist()
    assert (ran["planned_input_tokens"], ran["planned_cost_usd"]) == (
        planned["input_tokens"],
        Decimal(str(planned["cost_usd"])),
    )
    assert int(ran["deadline"].timestamp()) == int(planned["deadline"])  # type: ignore[call-overload]
    assert chosen["input_tokens"]["low"] <= ran["input_tokens"] <= chosen["input_tokens"]["high"]
    batches = created(provider)
    assert batches
    again = bench.lowtide("apply", "plan.json", "--direct")
    assert again.returncode == 3
    assert "nothing bought" in again.stderr.lower()
    assert bench.run().returncode == 3
    assert created(provider) == batches


def test_a_run_says_what_it_will_cost_before_it_submits_and_the_same_backend_goes_on(
    bench: Bench, provider: Emulator
) -> None:
    first = bench.run("--no-wait")
    assert first.returncode == 0, first.stderr
    assert "plan: 25 requests at openai-batch, model gpt-4o-mini" in first.stderr
    assert first.stderr.index("plan: about") < first.stderr.index("submitting")
    # Azure is the cheaper one now; what was begun elsewhere is not bought there again.
    edit(bench, "price: {input: 3, output: 6}", "price: {input: 0.1, output: 0.1}")
    second = bench.run()
    assert second.returncode in (0, 3), second.stderr
    assert {row["backend"] for row in bench.results().to_pylist()} == {"openai-batch"}
    assert (provider.bill()["records"], provider.bill()["billed_again"]) == (25, {})


def _more(bench: Bench) -> None:
    write_documents(bench.folder / "documents", 27)


def _less(bench: Bench) -> None:
    (bench.folder / "documents" / "doc-0003.txt").unlink()


def _other(bench: Bench) -> None:
    (bench.folder / "documents" / "doc-0007.txt").write_text("Something else. " + text_of(3))


Change = tuple[Callable[[Bench], None], str]
DOCUMENTS: list[Change] = [
    (_more, "inputs: 2 files more"),
    (_less, "inputs: 1 file less"),
    (_other, "inputs: 1 file changed"),
]
SETTINGS: list[Change] = [
    (lambda bench: edit(bench, "words: 20", "words: 30"), "operation 'summarize': its prompt, schema or parameters"),
    (
        lambda bench: edit(bench, "[{summarize: {words: 20}}]", "[{summarize: {words: 20}}, {translate: {to: fr}}]"),
        "operation 'translate': new",
    ),
    (
        lambda bench: edit(bench, "{model: gpt-4o-mini, price: {input: 1,", "{model: gpt-4.1-mini, price: {input: 1,"),
        "model of openai-batch: gpt-4o-mini -> gpt-4.1-mini",
    ),
    (
        lambda bench: edit(bench, "deployment: mini", "deployment: mini, parameters: {temperature: 0.5}"),
        "parameters of azure-batch:",
    ),
    (
        lambda bench: edit(bench, "price: {input: 1,", "price: {input: 1.5,"),
        "price of openai-batch, gpt-4o-mini: input 1 -> 1.5 USD a million",
    ),
    (
        lambda bench: edit(bench, "on_demand_price: {input: 2, output: 4}", "on_demand_price: {input: 2, output: 5}"),
        "price of openai-batch, gpt-4o-mini, on demand: output 4 -> 5 USD a million",
    ),
    (lambda bench: edit(bench, "deadline: 24h", "deadline: 48h"), "deadline: 1 day, 0:00:00 -> 2 days, 0:00:00"),
    (lambda bench: edit(bench, "shard_records: 10", "shard_records: 5"), "limits.shard_records: 10 -> 5"),
    (lambda bench: edit(bench, "deadline: 24h", "budget: {run_usd: 1}"), "budget.run_usd: none -> 1"),
]


def refused(bench: Bench, said: str) -> None:
    ended = bench.lowtide("apply", "plan.json", "--direct")
    assert ended.returncode == 3, (said, ended.stderr)
    assert said in ended.stderr, ended.stderr
    assert f"make a new plan with: lowtide plan {bench.job} --out plan.json" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_has_changed_since_it_was_planned_is_named_and_nothing_is_done(bench: Bench, provider: Emulator) -> None:
    plan(bench, "--out", "plan.json")
    job = bench.job.read_text()
    for change, said in SETTINGS:
        change(bench)
        refused(bench, said)
        bench.job.write_text(job)
    for change, said in DOCUMENTS:
        change(bench)
        refused(bench, said)
        plan(bench, "--out", "plan.json")
    assert created(provider) == 0
    assert not (Path(bench.root) / "runs").exists()
    assert bench.lowtide("apply", "plan.json", "--direct").returncode == 0


def test_a_file_that_is_no_plan_is_bad_input_that_is_named(bench: Bench) -> None:
    plan(bench, "--out", "plan.json")
    written = (bench.folder / "plan.json").read_text()
    for content, said in (
        (None, "bad.json: cannot be read: No such file or directory; write a plan with: lowtide plan --out bad.json"),
        ("version: 1", "bad.json: not a plan: "),
        ("{}", "bad.json: object missing required field `format`"),
        (written.replace("lowtide plan 1", "lowtide plan 9"), "bad.json: format: found 'lowtide plan 9', and this "),
        (
            sealed(written.replace('"attempts": 3', '"attempts": "many"').encode()).decode(),
            "attempts: expected `int`, got `str`",
        ),
        (
            sealed(written.replace('"files": "', '"files": "*').encode()).decode(),
            "bad.json: files: found what is no list of inputs",
        ),
    ):
        if content is not None:
            (bench.folder / "bad.json").write_text(content)
        ended = bench.lowtide("apply", "bad.json")
        assert (ended.returncode, said in ended.stderr) == (2, True), (said, ended.stderr)


def test_a_plan_that_was_edited_is_not_applied(bench: Bench, provider: Emulator) -> None:
    plan(bench, "--out", "plan.json")
    file = bench.folder / "plan.json"
    written = file.read_text()
    content = json.loads(written)
    again = f"make a new plan with: lowtide plan {bench.job} --out plan.json"
    free = {"plan": content["plan"] | {"price": None, "cost_usd": "0"}}
    for changed, code in (({"lowtide": "9.9.9"}, 3), ({"plan": content["plan"] | {"cost_usd": "NaN"}}, 2), (free, 2)):
        file.write_text(json.dumps(content | changed))
        ended = bench.lowtide("apply", "plan.json", "--direct")
        assert (ended.returncode, "was changed after it was written" in ended.stderr) == (2, True), ended.stderr
        assert again in ended.stderr
        file.write_bytes(sealed(file.read_bytes()))
        ended = bench.lowtide("apply", "plan.json", "--direct")
        assert ended.returncode == code, ended.stderr
        assert "Traceback" not in ended.stderr
    assert created(provider) == 0
    file.write_text(json.dumps(content))
    assert bench.lowtide("apply", "plan.json", "--direct").returncode == 0


def test_a_place_where_no_plan_can_be_written_is_refused_before_anything_is_read(bench: Bench) -> None:
    # What would be read is not there: were it looked for first, that would be said.
    for file in (bench.folder / "documents").iterdir():
        file.unlink()
    for place, said in (("nodir/x.json", "there is no folder nodir"), (".", "it is a folder")):
        ended = bench.lowtide("plan", str(bench.job), "--out", place)
        assert (ended.returncode, said in ended.stderr) == (2, True), ended.stderr


def test_a_plan_of_a_run_that_its_budget_has_stopped_says_that_it_goes_on(bench: Bench) -> None:
    edit(bench, "deadline: 24h", "deadline: 24h\nbudget: {run_usd: 0.000001}")
    assert bench.run().returncode == 5
    shown = bench.lowtide("plan", str(bench.job))
    assert shown.returncode == 0, shown.stderr
    assert "has asked this already" not in shown.stdout
    [line] = [line for line in shown.stdout.splitlines() if line.startswith("next ")]
    assert " goes on with this run once there is room" in line
    edit(bench, "run_usd: 0.000001", "run_usd: 10")
    assert bench.run().returncode == 0
    assert "has asked this already" in " ".join(bench.lowtide("plan", str(bench.job)).stdout.split())


def test_amounts_for_programs_have_plain_digits(bench: Bench) -> None:
    edit(bench, "price: {input: 1, output: 2}", "price: {input: 0.075, output: 0.000003}")
    said = bench.lowtide("plan", str(bench.job), "--json", "--out", "plan.json")
    assert bench.lowtide("apply", "plan.json", "--direct").returncode == 0
    status = bench.lowtide("status", str(bench.job), "--json")
    for text in (said.stdout, (bench.folder / "plan.json").read_text(), status.stdout):
        assert not re.search(r'"[-0-9.]+E[-+]?[0-9]+"', text)
    priced = json.loads(said.stdout)["price"]["per_unit"]
    assert (priced["input"], priced["output"]) == ("0.000000075", "0.000000000003")
    assert re.fullmatch(r"0\.[0-9]+", json.loads(status.stdout)["cost_usd"])


def test_a_refresh_buys_everything_again_once_and_goes_on_where_it_was_stopped(
    bench: Bench, provider: Emulator
) -> None:
    assert bench.run().returncode == 0
    once = provider.bill()["records"]
    provider.clock(speed=0.001)
    assert "not finished" in bench.run("--refresh", "--no-wait").stderr
    provider.clock(speed=3600.0)
    assert bench.run("--refresh").returncode == 0
    assert provider.bill()["records"] == 2 * once
    assert bench.run().returncode == 3
    runs = {path.name for path in (Path(bench.root) / "runs/tides/all").iterdir() if len(path.name) == 16}
    assert len(runs) == 2
    assert bench.run("--refresh").returncode == 0
    assert provider.bill()["records"] == 3 * once
