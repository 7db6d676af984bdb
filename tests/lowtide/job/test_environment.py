"""`${NAME}` in a job file, and the secrets that may come from nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lowtide.job import Job

Load = Callable[..., Job]
Refused = Callable[..., list[str]]


def test_a_variable_stands_anywhere_in_a_text(load: Load, good: str) -> None:
    job = load(good.replace("./tickets/", "s3://${BUCKET}/in/${TEAM}/"), {"BUCKET": "docs", "TEAM": "a"})
    assert job.source.uri == "s3://docs/in/a/*.txt"


@pytest.mark.parametrize(("environ", "found"), [({}, "./out"), ({"ROOT": ""}, "./out"), ({"ROOT": "/x"}, "/x")])
def test_a_default_covers_what_is_not_set_and_what_is_empty(
    environ: dict[str, str], found: str, load: Load, good: str
) -> None:
    job = load(good.replace("./out", "${ROOT:-./out}"), environ)
    assert job.output.root.endswith(found.lstrip("."))


def test_two_dollars_are_the_characters_themselves(load: Load, good: str) -> None:
    job = load(good.replace("words: 60", 'instructions: "Write $${HOME} and $5 and $$ as they are"'))
    assert job.operations[0].model_dump()["instructions"] == "Write ${HOME} and $5 and $$ as they are"


def test_numbers_money_and_durations_may_come_from_the_environment(load: Load, good: str) -> None:
    text = good.replace("attempts: 3", 'attempts: "${N}"').replace("run_usd: 25", 'run_usd: "${CAP}"')
    job = load(text.replace("24h", "${LONG}"), {"N": "4", "CAP": "12.30", "LONG": "2h"})
    assert (job.limits.attempts, str(job.budget.run_usd), job.deadline.seconds) == (4, "12.30", 7200)


def test_a_quoted_number_of_the_file_itself_is_no_number(refused: Refused, good: str) -> None:
    assert refused(good.replace("attempts: 3", 'attempts: "4"')) == [
        "job.yaml:13: limits.attempts: found '4'; expected a whole number"
    ]


def test_a_value_is_not_looked_into_for_further_variables(load: Load, good: str) -> None:
    job = load(good.replace("./out", "${A}"), {"A": "/out/${B}", "B": "x"})
    assert job.output.root == "/out/${B}"


def test_an_unset_variable_is_named_with_its_line(refused: Refused, good: str) -> None:
    assert refused(good.replace("./out", "${OUT_ROOT}/x")) == [
        "job.yaml:15: output.root: found ${OUT_ROOT}, but the environment variable 'OUT_ROOT' is not set; set it, or "
        "write ${OUT_ROOT:-default}"
    ]


@pytest.mark.parametrize("broken", ["${}", "${ A }", "${1A}", "${A", "${A:default}"])
def test_a_broken_reference_is_no_text(broken: str, refused: Refused, good: str) -> None:
    [line] = refused(good.replace("./out", f"'{broken}'"), {"A": "x"})
    assert line.startswith("job.yaml:15: output.root: found '${' in ")
    assert "expected ${NAME}, or $${ for the characters alone" in line


def test_an_unquoted_reference_in_braces_is_explained(refused: Refused, good: str) -> None:
    [line] = refused(good.replace("run_usd: 25", "run_usd: ${CAP}"), {"CAP": "3"})
    assert line.startswith("job.yaml:12: not valid YAML")
    assert 'quote "${NAME}" inside braces' in line


def test_a_wrong_value_of_the_environment_is_not_shown(refused: Refused, good: str) -> None:
    [line] = refused(good.replace("attempts: 3", 'attempts: "${N}"'), {"N": "hunter2"})
    assert line == ("job.yaml:13: limits.attempts: found '${N}' (its value is not shown); expected a whole number")


LITERALS = [
    ("uri: ./tickets/*.txt", "uri: s3://AKIAIOSFODNN7EXAMPLE:x@bucket/a", "source.uri", "an AWS access key"),
    ("uri: ./tickets/*.txt", "uri: https://ada:hunter2@host/a", "source.uri", "a user name and password"),
    ("uri: ./tickets/*.txt", "uri: https://h/a?sv=1&sig=Zm9vYmFyYmF6cXV4cXV1eA%3D", "source.uri", "a shared access"),
    (
        "words: 60",
        "instructions: sk-proj-abcdefghijklmnop1",
        "operations[0].summarize.instructions",
        "an API key",
    ),
    (
        "./out",
        "./out\n  tags: {c: A=a;AccountKey=c2VjcmV0c2VjcmV0}",
        "output.tags.c",
        "a storage account key",
    ),
    ("./out", "./out\n  tags: {c: ghp_abcdefghijklmnopqrstuvwxyz}", "output.tags.c", "an access token"),
    ("24h", "${D:-sk-abcdefghijklmnop1234}", "deadline", "an API key"),
]
SECRETS = ("AKIAIOSFODNN7EXAMPLE", "hunter2", "Zm9v", "abcdefghijklmnop", "c2VjcmV0")


@pytest.mark.parametrize(("old", "new", "field", "kind"), LITERALS)
def test_a_credential_in_the_file_is_refused_and_never_repeated(
    *, old: str, new: str, field: str, kind: str, refused: Refused, good: str
) -> None:
    lines = refused(good.replace(old, new))
    told = [line for line in lines if f" {field}: found what looks like {kind}" in line]
    assert len(told) == 1, lines
    assert "write ${NAME} and set it in the environment, or prefect://secret/<block>" in told[0]
    assert not any(secret in line for line in lines for secret in SECRETS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("deadline: 24h", "AKIAIOSFODNN7EXAMPLE: 24h"),
        ("deadline: 24h", "sk-abcdefghijklmnop1234: 24h"),
        ("local: {}", "local: https://ada:hunter2@host"),
        ("local: {}", "sk-abcdefghijklmnop1234: {}"),
        ("local: {}", "https://ada:hunter2@host"),
        ("deadline: 24h", "deadline: *sk-abcdefghijklmnop1234"),
        ("[customer, lang]", "[status, STATUS, {sk-abcdefghijklmnop1234: 1}]"),
    ],
)
def test_a_credential_in_an_odd_place_is_not_repeated_either(old: str, new: str, refused: Refused, good: str) -> None:
    whole = "\n".join(refused(good.replace(old, new)))
    assert not any(secret in whole for secret in SECRETS), whole


@pytest.mark.parametrize(
    "key", ["api_key", "apiKey", "token", "client_secret", "password", "connection_string", "sas", "AccountKey", "key"]
)
def test_a_literal_under_a_secrets_name_is_refused_among_a_backends_options(
    key: str, refused: Refused, good: str
) -> None:
    for literal in ("hunter2", "12345", "prefix-${A}", "${A:-hunter2}"):
        lines = refused(good.replace("local: {}", f'local: {{{key}: "{literal}"}}'), {"A": "x"})
        assert f"job.yaml:10: backends[0].local.{key}: found a secret written into the file (not shown)" in lines[0]
        assert not any("hunter2" in line or "12345" in line for line in lines)


@pytest.mark.parametrize("reference", ["${A}", "prefect://secret/my-key"])
def test_a_reference_under_a_secrets_name_is_no_literal(reference: str, refused: Refused, good: str) -> None:
    lines = refused(good.replace("local: {}", f'local: {{api_key: "{reference}"}}'), {"A": "hunter2"})
    assert lines == ["job.yaml:10: backends[0].local.api_key: unknown key; allowed: model, workers"]


@pytest.mark.parametrize("key", ["max_tokens", "workers_per_key_id", "key_vault", "tokenizer", "keyboard", "monkey"])
def test_names_that_only_resemble_a_secrets_are_not_taken_for_one(key: str, refused: Refused, good: str) -> None:
    [line] = refused(good.replace("local: {}", f"local: {{{key}: 3}}"))
    assert "unknown key" in line


def test_words_like_token_are_fine_everywhere_else(load: Load, good: str) -> None:
    text = good.replace("{billing: money, bug: broken}", "{token: a secret key, password: sk-short}")
    text = text.replace("[customer, lang]", "[api_key, secret]\n  text: token\n  id: key")
    job = load(text.replace("./out", "./out\n  tags: {token: abc, password: policy}"))
    assert job.source.fields == ("api_key", "secret")
    assert job.source.text == "token"


def test_an_address_with_a_password_is_refused_even_from_the_environment(refused: Refused, good: str) -> None:
    """Addresses are written into every row of the results."""
    [line] = refused(good.replace("./tickets/*.txt", "s3://${WHO}@bucket/a"), {"WHO": "ada:hunter2"})
    assert line == (
        "job.yaml:4: source.uri: found 's3://${WHO}@bucket/a' (its value is not shown); expected an address without "
        "user name and password: addresses are written into the results"
    )
