"""What a job file gives: every key typed, defaults filled in, paths made absolute."""

from __future__ import annotations

import glob
import pickle
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import jsonschema_rs
import pytest
import yaml
from pydantic import ValidationError

from lowtide.job import SAMPLE, Job, job_schema, load_job
from lowtide.job.backends import BACKENDS, BedrockBackend, OpenAIBatchBackend
from lowtide.job.secrets import is_secret_name
from lowtide.operations import build_operations

Load = Callable[..., Job]
ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples" / "job-files").glob("*.yaml"))

CONTRACT = """\
version: 1
name: support-tickets
source:
  uri: s3://bucket/tickets/**/*.txt      # also file paths and globs, and abfs://
  format: auto                            # text markdown html pdf docx eml jsonl csv parquet
  text: body                              # for row formats: the field with the text
  id: ticket_id                           # optional row key
  fields: [customer, lang]                # carried into results; usable in prompts
  window_by: modified                     # modified | path:<pattern with {year}{month}{day}> | field:<name>
operations:                               # one result row per document and operation
  - summarize: {words: 60, language: en}
  - classify: {name: topic, labels: {billing: "invoices, refunds", bug: "something broken"}}
  - translate: {to: fr}
  - extract: {name: facts, schema: schema.json}
  - prompt: {name: tone, system: "...", user: "... {{ text }}", schema: tone.json}
backends:
  - local: {}
deadline: 24h
budget: {run_usd: 25, month_usd: 300}
limits: {attempts: 3, shard_records: 10000, poll: 60s, grace: 120s}   # poll: any value from 1s
output: {root: ./out, tags: {team: support}}
"""


@pytest.fixture
def contract(load: Load, tmp_path: Path) -> Job:
    for name in ("schema.json", "tone.json"):
        (tmp_path / name).write_text('{"type": "object", "properties": {"a": {"type": "string"}}}')
    return load(CONTRACT)


def test_the_shape_that_users_were_promised_loads_key_for_key(contract: Job, tmp_path: Path) -> None:
    source = contract.source
    assert (contract.version, contract.name, contract.base) == (1, "support-tickets", tmp_path)
    assert (source.uri, source.format, source.text) == ("s3://bucket/tickets/**/*.txt", "auto", "body")
    assert (source.id, source.fields, source.window_by) == ("ticket_id", ("customer", "lang"), "modified")
    assert [operation.kind for operation in contract.operations] == [
        "summarize",
        "classify",
        "translate",
        "extract",
        "prompt",
    ]
    assert [operation.name for operation in contract.operations] == ["summarize", "topic", "translate", "facts", "tone"]
    assert [backend.kind for backend in contract.backends] == ["local"]
    assert contract.deadline == timedelta(hours=24)
    assert (contract.budget.run_usd, contract.budget.month_usd) == (Decimal(25), Decimal(300))
    assert (contract.limits.attempts, contract.limits.shard_records) == (3, 10_000)
    assert (contract.limits.poll, contract.limits.grace) == (timedelta(seconds=60), timedelta(seconds=120))
    assert (contract.output.root, contract.output.tags) == (f"{tmp_path}/out", {"team": "support"})
    assert len(build_operations(contract)) == 5


def test_what_is_left_out_or_left_empty_has_its_default(load: Load, good: str) -> None:
    text = good.replace("limits: {attempts: 3}", "limits:").replace("budget: {run_usd: 25}\n", "")
    job = load(text.replace("deadline: 24h\n", "").replace("words: 60", "words:").replace("local: {}", "local:"))
    assert job.deadline == timedelta(hours=24)
    assert (job.budget.run_usd, job.budget.month_usd) == (None, None)
    assert (job.limits.attempts, job.limits.shard_records) == (3, 10_000)
    assert (job.limits.poll, job.limits.grace) == (timedelta(seconds=60), timedelta(seconds=120))
    assert (job.source.format, job.source.window_by) == ("auto", "modified")
    assert job.operations[0].model_dump() == {
        "kind": "summarize",
        "name": "summarize",
        "words": 60,
        "language": None,
        "instructions": None,
        "max_output_tokens": None,
    }
    assert (job.backends[0].model, job.backends[0].workers) == ("auto", None)
    assert job.output.tags == {}


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("1s", 1), ("90s", 90), ("60m", 3600), ("24h", 86_400), ("7d", 604_800), ("1w", 604_800), ("1h30m", 5400)],
)
def test_durations(written: str, seconds: int, load: Load, good: str) -> None:
    assert load(good.replace("24h", written)).deadline == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        *[("0", "0"), ("0.1", "0.1"), ("2.50", "2.5"), ("'2.50'", "2.50"), ("123456.78", None), ("0.000001", None)],
        *[("0.00000015", None), ("0.0000001", None), ("1.5e-7", "0.00000015"), ("0.000000000001", None)],
    ],
)
def test_money_is_what_is_written_and_not_a_binary_neighbour(
    written: str, amount: str | None, load: Load, good: str
) -> None:
    found = load(good.replace("run_usd: 25", f"run_usd: {written}")).budget.run_usd
    assert found == Decimal(amount or written)


@pytest.mark.parametrize("price", ["0.00000015", "0.0000001", "1.0e-7", "1.0e-12", "'0.00000015'"])
def test_a_small_price_is_not_rounded_to_nothing(price: str, load: Load, good: str) -> None:
    backends = f"  - openai-batch: {{model: m, price: {{input: {price}, output: {price}, per: 1}}}}"
    [backend] = load(good.replace("  - local: {}", backends)).backends
    assert isinstance(backend, OpenAIBatchBackend)
    assert backend.price is not None
    assert backend.price.input == backend.price.output == Decimal(price.strip("'"))


def test_paths_start_from_the_folder_of_the_job_file(load: Load, good: str, tmp_path: Path) -> None:
    job = load(good.replace("./tickets/*.txt", "../in/**/*.txt"))
    assert job.source.uri == f"{tmp_path.parent}/in/**/*.txt"
    assert job.output.root == f"{tmp_path}/out"


def test_a_folder_with_brackets_in_its_name_is_no_pattern(good: str, tmp_path: Path) -> None:
    folder = tmp_path / "jobs [2026]"
    (folder / "tickets").mkdir(parents=True)
    (folder / "tickets" / "a.txt").write_text("x")
    (folder / "job.yaml").write_text(good)
    job = load_job(folder / "job.yaml", environ={})
    assert glob.glob(job.source.uri) == [f"{folder}/tickets/a.txt"]  # noqa: PTH207 - the pattern as a whole is meant
    assert job.output.root == f"{folder}/out"


@pytest.mark.parametrize(
    "uri",
    [
        "/data/*.txt",
        "file:///data/*.txt",
        "s3://bucket/data/*.txt",
        "abfs://docs@account.dfs.core.windows.net/data/*.txt",
        "abfss://docs@account.z12.blob.storage.azure.net/data/a?.txt",
        "abfs://docs/data/*.txt",
        "az://docs",
    ],
)
def test_whole_addresses_stay_as_they_are(uri: str, load: Load, good: str) -> None:
    assert load(good.replace("./tickets/*.txt", uri)).source.uri == uri


@pytest.mark.parametrize(
    "root", ["abfs://results@account.dfs.core.windows.net/a b/c=d", "abfss://results", "az://results/x/"]
)
def test_a_root_may_be_on_azure(root: str, load: Load, good: str) -> None:
    assert load(good.replace("root: ./out", f"root: {root}")).output.root == root


def test_a_tilde_is_the_home_folder(load: Load, good: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    job = load(good.replace("./tickets/*.txt", "~/tickets/*.txt").replace("./out", "~/out"))
    assert (job.source.uri, job.output.root) == ("/home/ada/tickets/*.txt", "/home/ada/out")


def test_norwegian_is_a_language_and_a_date_is_text(load: Load, good: str) -> None:
    """YAML 1.1 would read `no` as false, 12:30 as a number, and the tag as a date."""
    job = load(
        good.replace("words: 60", "language: no").replace("./out", "./out\n  tags: {since: 2026-11-20, at: 12:30}")
    )
    assert job.operations[0].kind == "summarize"
    assert job.operations[0].language == "no"
    assert job.output.tags == {"since": "2026-11-20", "at": "12:30"}


def test_labels_may_be_a_list_or_lack_a_description_and_keep_their_order(load: Load, good: str) -> None:
    listed = load(good.replace("{billing: money, bug: broken}", "[yes, no, token]")).operations[1]
    assert listed.kind == "classify"
    assert list(listed.labels.items()) == [("yes", ""), ("no", ""), ("token", "")]
    bare = load(good.replace("{billing: money, bug: broken}", "{z: , a: last, 1: one}")).operations[1]
    assert bare.kind == "classify"
    assert list(bare.labels.items()) == [("z", ""), ("a", "last"), ("1", "one")]


def test_anchors_and_merges_share_settings(load: Load, good: str) -> None:
    text = good.replace("- summarize: {words: 60}", "- summarize: &long {words: 90, language: en}")
    text = text.replace("backends:", "  - summarize: {<<: *long, name: french, language: fr}\nbackends:")
    again = load(text).operations[2]
    assert again.kind == "summarize"
    assert (again.name, again.words, again.language) == ("french", 90, "fr")


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(load: Load, good: str) -> None:
    assert load(b"\xef\xbb\xbf" + good.replace("\n", "\r\n").encode()) == load(good)


def test_an_inline_schema_is_plain_data(load: Load, good: str) -> None:
    schema = "{type: object, properties: {n: {type: number, minimum: 0.5}, s: {enum: [a, '${KIND}']}}}"
    job = load(good.replace("summarize: {words: 60}", f"extract: {{schema: {schema}}}"), {"KIND": "b"})
    operation = job.operations[0]
    assert operation.kind == "extract"
    assert operation.json_schema == {
        "type": "object",
        "properties": {"n": {"type": "number", "minimum": 0.5}, "s": {"enum": ["a", "b"]}},
    }
    assert type(operation.json_schema["properties"]["s"]["enum"][1]) is str  # type: ignore[index]


def test_a_job_cannot_be_changed_and_survives_a_process_border(load: Load, good: str) -> None:
    job = load(good)
    with pytest.raises(ValidationError, match="frozen"):
        job.source.uri = "elsewhere"
    assert pickle.loads(pickle.dumps(job)) == job  # noqa: S301


def test_the_sample_loads_and_can_be_built(load: Load, tmp_path: Path) -> None:
    job = load(SAMPLE)
    assert job.source.uri == f"{tmp_path}/documents/**/*.md"
    assert [operation.kind for operation in build_operations(job)] == ["summarize", "classify"]


def test_the_sample_with_everything_in_comments_switched_on_loads_too(load: Load) -> None:
    lines = [line.replace("# ", "", 1) if _is_switched_off(line) else line for line in SAMPLE.splitlines()]
    job = load("\n".join(lines))
    assert job.source.fields == ("customer", "lang")
    assert job.budget.run_usd == Decimal(25)
    assert job.budget.month_usd is None
    assert job.output.tags == {"team": "support"}


def _is_switched_off(line: str) -> bool:
    return line.lstrip().startswith(("# text:", "# id:", "# fields:", "# budget:", "# limits:", "# tags:"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_load_and_can_be_built(path: Path) -> None:
    assert build_operations(load_job(path, environ={}))


def test_there_are_examples() -> None:
    assert {path.name for path in EXAMPLES} >= {"support-tickets.yaml", "invoices.yaml"}


@pytest.mark.parametrize("text", [CONTRACT, SAMPLE, *(path.read_text() for path in EXAMPLES)])
def test_what_loads_is_valid_under_the_schema_for_editors(text: str) -> None:
    schema = job_schema()
    jsonschema_rs.Draft202012Validator(schema, offline=True).validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version: 1", "version: 2"),
        ("uri:", "url:"),
        ("attempts: 3", "attempts: 11"),
        ("poll: 60s", "poll: soon"),
        ("translate:", "translat:"),
        ("{to: fr}", "{}"),
        ("- local: {}", "- bedrock: {}"),
        ("name: support-tickets", "name: Support"),
        ("format: auto", "format: doc"),
        ("- local: {}", "- kind: local"),
    ],
)
def test_the_schema_for_editors_marks_what_would_not_load(old: str, new: str) -> None:
    assert old in CONTRACT
    document = yaml.safe_load(CONTRACT.replace(old, new, 1))
    assert not jsonschema_rs.Draft202012Validator(job_schema(), offline=True).is_valid(document)


def test_the_schema_for_editors_describes_every_key() -> None:
    schema = job_schema()
    definitions = schema["$defs"]
    for definition in (schema, *definitions.values()):
        for name, field in definition["properties"].items():
            meant = [
                option["$ref"].rpartition("/")[2] for option in (field, *field.get("anyOf", [])) if "$ref" in option
            ]
            assert field.get("description") or definitions[meant[0]]["description"], name
    assert schema["properties"]["version"]["const"] == 1


def test_a_key_that_is_named_like_a_secret_and_is_none_is_taken(load: Load, good: str) -> None:
    options = "bedrock: {model: m, role_arn: r, kms_key: alias/lowtide}"
    [backend] = load(good.replace("local: {}", options)).backends
    assert isinstance(backend, BedrockBackend)
    assert backend.kms_key == "alias/lowtide"


@pytest.mark.parametrize("key", sorted({key for model in BACKENDS.values() for key in model.model_fields}))
def test_no_key_of_a_backend_is_taken_for_a_secret(key: str) -> None:
    assert not is_secret_name(key)
