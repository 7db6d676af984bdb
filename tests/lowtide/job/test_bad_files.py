"""Every mistake in a job file is told with its line, its field, what was found, and what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lowtide.errors import ConfigError
from lowtide.job import load_job

Refused = Callable[..., list[str]]


def case(old: str, new: str, *expected: str, name: str) -> object:
    return pytest.param(old, new, expected, id=name)


CHANGES = [
    # the top
    case("version: 1", "version: 2", "job.yaml:1: version: found 2; expected 1", name="version"),
    case("version: 1", 'version: "1"', "job.yaml:1: version: found '1'; expected 1", name="version as text"),
    case("version: 1", "version: true", "job.yaml:1: version: found true; expected 1", name="version as boolean"),
    case("version: 1\n", "", "job.yaml:1: version: missing; expected the version of this format", name="no version"),
    case(
        "name: tickets",
        "name: Support Tickets",
        "job.yaml:2: name: found 'Support Tickets'; expected 1 to 63 lower-case letters, digits and hyphens",
        name="name",
    ),
    case("name: tickets", "name: week=47", "job.yaml:2: name: found 'week=47'; expected", name="name with ="),
    case("name: tickets", "name: 2026", "job.yaml:2: name: found 2026; expected text (quote numbers", name="number"),
    case(
        "deadline: 24h",
        "deadlines: 24h",
        "job.yaml:11: deadlines: unknown key; did you mean 'deadline'? Allowed: "
        "version, name, source, timezone, schedule, operations, backends, deadline, budget, limits, output",
        name="unknown key",
    ),
    case("deadline: 24h", "base: /tmp", "job.yaml:11: base: unknown key", name="a name of our own"),
    case("deadline: 24h", "name: other", "job.yaml:11: name: found a second time (first on line 2)", name="twice"),
    case(
        "output:\n  root: ./out\n", "", "job.yaml:1: output: missing; expected where the results go", name="no output"
    ),
    # source
    case(
        "  uri: ./tickets/*.txt\n",
        "",
        "job.yaml:3: source.uri: missing; expected where the documents are: a path, file://, s3://",
        name="no uri",
    ),
    case(
        "./tickets/*.txt",
        "s3:/docs/*.txt",
        "job.yaml:4: source.uri: found 's3:/docs/*.txt'; expected s3:// with two slashes",
        name="one slash",
    ),
    case(
        "./tickets/*.txt",
        "gs://bucket/x",
        "job.yaml:4: source.uri: found 'gs://bucket/x'; expected a path, file://, s3:// or abfs://",
        name="unknown scheme",
    ),
    case(
        "./tickets/*.txt",
        "wasbs://c@a.blob.core.windows.net/x",
        "job.yaml:4: source.uri: found 'wasbs://c@a.blob.core.windows.net/x'; expected an Azure address of the form "
        "abfs://container@account.dfs.core.windows.net/path",
        name="another way to write Azure",
    ),
    case(
        "./tickets/*.txt",
        "https://account.blob.core.windows.net/docs/x",
        "job.yaml:4: source.uri: found 'https://account.blob.core.windows.net/docs/x'; expected an Azure address",
        name="Azure in the browser",
    ),
    case(
        "./tickets/*.txt",
        "abfs://Docs/x",
        "job.yaml:4: source.uri: found 'abfs://Docs/x'; expected abfs://container@account.dfs.core.windows.net/path or "
        "abfs://container/path, the container 3 to 63 lower-case letters",
        name="container",
    ),
    case(
        "./tickets/*.txt",
        "abfs://docs@account.example.com/x",
        "job.yaml:4: source.uri: found 'abfs://docs@account.example.com/x'; expected abfs://container@account.dfs",
        name="account",
    ),
    case(
        "./tickets/*.txt",
        "abfs://docs/x?sv=2026&sig=short",
        "job.yaml:4: source.uri: found 'abfs://docs/x?sv=2026&sig=short'; expected an address without a shared access "
        "signature: set AZURE_STORAGE_SAS_TOKEN",
        name="signature in the address",
    ),
    case(
        "./tickets/*.txt",
        '"abfs://docs/a\\tb"',
        "job.yaml:4: source.uri: found 'abfs://docs/a\\tb'; expected a path or URI without line ends",
        name="control character in Azure",
    ),
    case(
        "./tickets/*.txt",
        "file://tickets/x",
        "job.yaml:4: source.uri: found 'file://tickets/x'; expected file:// with a whole path",
        name="file without a root",
    ),
    case(
        "./tickets/*.txt",
        "s3://Bad_Bucket/x",
        "job.yaml:4: source.uri: found 's3://Bad_Bucket/x'; expected s3://bucket/path",
        name="bucket",
    ),
    case(
        "./tickets/*.txt", "*.txt", "job.yaml:4: not valid YAML", "quote a text that begins with one of *", name="glob"
    ),
    case(
        "uri:",
        "ur:",
        "job.yaml:4: source.ur: unknown key; did you mean 'uri'?",
        "job.yaml:3: source.uri: missing",
        name="misspelt uri",
    ),
    case(
        "  fields: [customer, lang]",
        "  format: doc",
        "job.yaml:5: source.format: found 'doc'; expected auto, text, "
        "markdown, html, pdf, docx, eml, jsonl, csv or parquet",
        name="format",
    ),
    case(
        "  fields: [customer, lang]",
        "  format: csv",
        "job.yaml:3: source.text: missing, though format csv means rows",
        name="rows without text",
    ),
    case(
        "*.txt", "*.jsonl.gz", "job.yaml:3: source.text: missing, though the ending of uri means rows", name="by name"
    ),
    case("[customer, lang]", "customer", "job.yaml:5: source.fields: found 'customer'; expected a list", name="fields"),
    case("[customer, lang]", "[customer, 7]", "job.yaml:5: source.fields[1]: found 7; expected text", name="field 7"),
    case(
        "[customer, lang]",
        "[customer, Status]",
        "job.yaml:5: source.fields[1]: found 'Status', which is a column of the results; expected any other name",
        name="a column",
    ),
    case(
        "[customer, lang]",
        "[window]",
        "job.yaml:5: source.fields[0]: found 'window', which is a column",
        name="a partition",
    ),
    case(
        "[customer, lang]",
        "[text]",
        "job.yaml:5: source.fields[0]: found 'text', which means the document in prompts",
        name="a slot",
    ),
    case(
        "[customer, lang]",
        "[lang, Lang]",
        "job.yaml:5: source.fields[1]: found 'Lang' beside 'lang'; expected names that differ",
        name="field twice",
    ),
    case(
        "  fields: [customer, lang]",
        "  window_by: created",
        "job.yaml:5: source.window_by: found 'created'; expected modified, field:<name>, or path:<pattern>",
        name="window_by",
    ),
    case(
        "  fields: [customer, lang]",
        '  window_by: "path:{year}/{mnth}"',
        "job.yaml:5: source.window_by: found",
        "a path pattern knows {year}, {month}, {day}, {hour}, {week}",
        name="pattern",
    ),
    case(
        "  fields: [customer, lang]",
        "  window_by: path:{month}/{day}",
        "job.yaml:5: source.window_by: found",
        "a path pattern needs {year}",
        name="pattern without year",
    ),
    case(
        "  fields: [customer, lang]",
        "  format: pdf\n  window_by: field:at",
        "job.yaml:6: source.window_by: found 'field:at', but pdf files have no fields",
        name="fields of a pdf",
    ),
    # operations
    case(
        "  - summarize: {words: 60}",
        "  - sumarize: {words: 60}",
        "job.yaml:7: operations[0]: found 'sumarize'; expected "
        "a known operation; did you mean 'summarize'? Allowed: summarize, classify, translate, extract, prompt",
        name="operation",
    ),
    case(
        "  - summarize: {words: 60}",
        "  - summarize",
        "job.yaml:7: operations[0]: found 'summarize'; expected one "
        "operation as a mapping with a single key, such as summarize: {words: 60}",
        name="no mapping",
    ),
    case(
        "  - summarize: {words: 60}",
        "  - summarize: {words: 60}\n    translate: {to: fr}",
        "job.yaml:7: operations[0]: found a mapping; expected one operation as a mapping with a single key",
        name="two keys",
    ),
    case(
        "  - summarize: {words: 60}",
        "  - summarize: {word: 60}",
        "job.yaml:7: operations[0].summarize.word: unknown "
        "key; did you mean 'words'? Allowed: name, max_output_tokens, instructions, words, language",
        name="option",
    ),
    case(
        "words: 60",
        "words: sixty",
        "job.yaml:7: operations[0].summarize.words: found 'sixty'; expected a whole number",
        name="words",
    ),
    case(
        "words: 60", "words: 0", "job.yaml:7: operations[0].summarize.words: found 0; expected 1 or more", name="none"
    ),
    case(
        "words: 60",
        "words: 6.5",
        "job.yaml:7: operations[0].summarize.words: found 6.5; expected a whole number",
        name="fraction",
    ),
    case(
        "words: 60",
        "words: true",
        "job.yaml:7: operations[0].summarize.words: found true; expected a whole number",
        name="boolean words",
    ),
    case(
        "words: 60",
        "language: the king's",
        'job.yaml:7: operations[0].summarize.language: found "the king\'s"; '
        "expected a language code such as en, fr or pt-BR",
        name="language",
    ),
    case("words: 60", "kind: summarize", "job.yaml:7: operations[0]: found the key 'kind'; expected", name="kind"),
    case(
        "name: topic, ",
        "name: summarize, ",
        "job.yaml:8: operations[1].classify.name: found 'summarize', which operations[0] is called too",
        name="names",
    ),
    case(
        "name: topic",
        "name: Topic of it",
        "job.yaml:8: operations[1].classify.name: found 'Topic of it'; expected 1 to 63 lower-case letters",
        name="operation name",
    ),
    case(
        "{billing: money, bug: broken}",
        "{billing: money}",
        "job.yaml:8: operations[1].classify.labels: found a "
        "mapping; expected a mapping of label to description, or a list of labels; at least 2",
        name="one label",
    ),
    case(
        "{billing: money, bug: broken}",
        "billing",
        "job.yaml:8: operations[1].classify.labels: found 'billing'; expected a mapping of label",
        name="labels",
    ),
    case(
        "{billing: money, bug: broken}",
        "[1, 2]",
        "job.yaml:8: operations[1].classify.labels: found a list of 2; expected",
        "quote numbers",
        name="numbers as labels",
    ),
    case(
        "{billing: money, bug: broken}",
        "[bug, Bug]",
        "job.yaml:8: operations[1].classify.labels: found a list of 2; "
        "expected labels that differ in more than capitals and spaces",
        name="the same label",
    ),
    case(
        "{billing: money, bug: broken}",
        "{billing: 3, bug: x}",
        "job.yaml:8: operations[1].classify.labels.billing: found 3; expected text",
        name="description",
    ),
    case(
        ", labels: {billing: money, bug: broken}",
        "",
        "job.yaml:8: operations[1].classify.labels: missing; expected at least 2 labels",
        name="no labels",
    ),
    case(
        "summarize: {words: 60}",
        "translate: {}",
        "job.yaml:7: operations[0].translate.to: missing; expected the language to translate into",
        name="translate to",
    ),
    case(
        "summarize: {words: 60}",
        "extract: {schema: facts.json}",
        "job.yaml:7: operations[0].extract.schema: found 'facts.json', no such file",
        name="no schema file",
    ),
    case(
        "summarize: {words: 60}",
        "extract: {schema: {type: array}}",
        'job.yaml:7: operations[0].extract.schema: found a schema without "type": "object"',
        name="schema of a list",
    ),
    case(
        "summarize: {words: 60}",
        "extract: {schema: {type: object, properties: {a: {type: strng}}}}",
        "job.yaml:7: operations[0].extract.schema: found a schema, which is no valid JSON Schema at properties.a.type",
        name="bad schema",
    ),
    case(
        "summarize: {words: 60}",
        'extract: {schema: {type: object, $ref: "https://example.com/a.json"}}',
        "job.yaml:7: "
        "operations[0].extract.schema: found a schema with a $ref to 'https://example.com/a.json'; expected references "
        "inside",
        name="remote schema",
    ),
    case(
        "summarize: {words: 60}",
        "extract: {schema: 5}",
        "job.yaml:7: operations[0].extract.schema: found 5; expected the path of a JSON Schema file",
        name="schema number",
    ),
    case(
        "summarize: {words: 60}",
        'prompt: {user: "Is it nice?"}',
        "job.yaml:7: operations[0].prompt.user: found a prompt without the document; expected {{ text }} in it",
        name="no text",
    ),
    case(
        "summarize: {words: 60}",
        'prompt: {user: "{{ text }} {{ region }}"}',
        "job.yaml:7: operations[0].prompt.user: found the slot {{ region }}; allowed: text, customer, lang",
        name="slot",
    ),
    case(
        "summarize: {words: 60}",
        'prompt: {user: "{{ text }} {{ marker }}"}',
        "job.yaml:7: operations[0].prompt.user: found the slot {{ marker }}; allowed",
        name="marker",
    ),
    case(
        "summarize: {words: 60}",
        'prompt: {user: "{{ text }} {{ a-b }}"}',
        "job.yaml:7: operations[0].prompt.user: a prompt holds '{{ a-b }}'",
        name="broken slot",
    ),
    case(
        "summarize: {words: 60}",
        'prompt: {user: "{% if x %}{{ text }}"}',
        "job.yaml:7: operations[0].prompt.user: a prompt holds '{%'",
        name="logic",
    ),
    case(
        "summarize: {words: 60}",
        'prompt: {user: "{{ text }}", system: "For {{ lang }}"}',
        "job.yaml:7: operations[0].prompt.system: found a slot; expected plain text",
        name="slot in system",
    ),
    case(
        "summarize: {words: 60}",
        "prompt: {user: {{ text }}}",
        "job.yaml:7: operations[0].prompt.user: found a list or "
        "mapping where a key belongs; quote text that begins with '{'",
        name="unquoted slot",
    ),
    case(
        "operations:\n  - summarize: {words: 60}\n  - classify: {name: topic, labels: {billing: money, bug: broken}}",
        "operations: []",
        "job.yaml:6: operations: found an empty list; expected at least one entry",
        name="no operations",
    ),
    # backends
    case(
        "local: {}",
        "azure-batch: {model: gpt, deployment: d, blob: 's3://bucket/y'}",
        "job.yaml:10: backends[0].azure-batch.blob: found 's3://bucket/y'; expected abfs://container@account",
        name="S3 for blobs",
    ),
    case(
        "local: {}",
        "bedrock: {model: m, role_arn: r, staging: 'abfs://container/y'}",
        "job.yaml:10: backends[0].bedrock.staging: found 'abfs://container/y'; expected s3://bucket/folder",
        name="blobs for S3",
    ),
    case(
        "local: {}",
        "openai-batch: {model: m, parameters: {messages: [], seed: 1}}",
        "job.yaml:10: backends[0].openai-batch.parameters.messages: found an empty list; expected text, a number, "
        "true or false",
        name="parameter",
    ),
    case(
        "local: {}",
        "openai-batch: {model: m, keep_files: no}",
        "job.yaml:10: backends[0].openai-batch.keep_files: found 'no'; expected true or false",
        name="no boolean",
    ),
    case(
        "local: {}",
        "openai-batch: {model: m, price: {input: 1}}",
        "job.yaml:10: backends[0].openai-batch.price.output: missing; expected USD for output tokens",
        name="half a price",
    ),
    case(
        "local: {}",
        "locl: {}",
        "job.yaml:10: backends[0]: found 'locl'; expected a known backend; did you mean 'local'? Allowed: local, "
        "bedrock, azure-batch, openai-batch, spot",
        name="backend",
    ),
    case(
        "local: {}",
        "realtime: {}",
        "job.yaml:10: backends[0]: found 'realtime'; expected one of: local, bedrock, azure-batch, openai-batch, spot "
        "(realtime is not available in this version)",
        name="later backend",
    ),
    case(
        "local: {}",
        "spot: {model: m, job_definition: d}",
        "job.yaml:10: backends[0].spot.queue: missing; expected the AWS Batch job queue, or launcher: process",
        name="spot without a queue",
    ),
    case(
        "local: {}",
        "spot: {model: m, launcher: process, queue: q}",
        "job.yaml:10: backends[0].spot.queue: found 'q' beside launcher: process; expected launcher: batch, or no "
        "queue",
        name="spot with a queue for processes",
    ),
    case(
        "local: {}",
        "spot: {model: m, queue: q, job_definition: d, usd_per_hour: 1}",
        "job.yaml:10: backends[0].spot.usd_per_hour: found '1' beside launcher: batch; expected launcher: process or "
        "none, or no usd_per_hour",
        name="spot with a price of its own on AWS",
    ),
    case(
        "local: {}",
        "spot: {model: m, launcher: process, instances: [g6.xlarge]}",
        "job.yaml:10: backends[0].spot.instances: found instance types beside launcher: process; expected launcher: "
        "batch, or no instances",
        name="spot with instances of its own machine",
    ),
    case(
        "local: {}",
        "spot: {model: m, launcher: none, max_usd_per_hour: 1}",
        "job.yaml:10: backends[0].spot.max_usd_per_hour: found '1' beside launcher: none; expected none: whoever "
        "starts workers decides",
        name="spot with a cap on what others start",
    ),
    case(
        "local: {}",
        "spot: {model: m, launcher: process, usd_per_hour: 2, max_usd_per_hour: 1}",
        "job.yaml:10: backends[0].spot.max_usd_per_hour: found '1', which is less than one worker costs; expected at "
        "least usd_per_hour, 2",
        name="spot with a cap below one worker",
    ),
    case(
        "local: {}",
        "spot: {model: m, launcher: process, engine: {command: [serve], url: http://127.0.0.1:8000}}",
        "job.yaml:10: backends[0].spot.engine.url: found 'http://127.0.0.1:8000' beside command; expected one of "
        "the two",
        name="spot with two engines",
    ),
    case(
        "local: {}",
        "spot: {model: m, launcher: process, engine: {url: 127.0.0.1:8000}}",
        "job.yaml:10: backends[0].spot.engine.url: found '127.0.0.1:8000'; expected an address such as "
        "http://127.0.0.1:8000",
        name="spot with an address that is none",
    ),
    case(
        "local: {}",
        "spot: {model: m, launcher: process, in_flight: {least: 9, most: 8}}",
        "job.yaml:10: backends[0].spot.in_flight.least: found '9'; expected at most in_flight.most, 8",
        name="spot with bounds the wrong way round",
    ),
    case(
        "local: {}",
        "bedrock: {model: amazon.nova-lite-v1:0}",
        "job.yaml:10: backends[0].bedrock.role_arn: missing; expected the service role",
        name="a key of a backend is missing",
    ),
    case(
        "local: {}",
        "openai-batch: {model: gpt-4o-mini, price: {input: 0.075}}",
        "job.yaml:10: backends[0].openai-batch.price.output: missing",
        name="half a price",
    ),
    case(
        "local: {}",
        "openai-batch: {model: gpt-4o-mini, price: {input: 1, output: 2, outptu: 2}}",
        "job.yaml:10: backends[0].openai-batch.price.outptu: unknown key; did you mean 'output'? Allowed: input",
        name="an unknown key of a price",
    ),
    case(
        "local: {}",
        "azure-batch: {model: m, deployment: d, regions: [{endpoint: e, deployment: d}]}",
        "job.yaml:10: backends[0].azure-batch.regions[0].region: missing; expected the name of the region",
        name="a region without a name",
    ),
    case(
        "local: {}",
        "openai-batch: {model: gpt-4o-mini, price: {input: -1, output: 2}}",
        "job.yaml:10: backends[0].openai-batch.price.input: found -1; expected an amount in USD from 0 up",
        name="a price below zero",
    ),
    case(
        "local: {}",
        "azure-batch: {model: gpt-4o-mini, deployment: d, auth: password}",
        "job.yaml:10: backends[0].azure-batch.auth: found 'password'; expected",
        name="an unknown way to sign in",
    ),
    case(
        "local: {}",
        "local: {model: gpt}",
        "job.yaml:10: backends[0].local.model: found 'gpt'; expected auto, minilm or tfidf",
        name="model",
    ),
    case(
        "local: {}",
        "local: {worker: 2}",
        "job.yaml:10: backends[0].local.worker: unknown key; did you mean 'workers'? Allowed: model, workers",
        name="backend option",
    ),
    case(
        "  - local: {}",
        "  - local: {}\n  - local: {workers: 2}",
        "job.yaml:11: backends[1].local: found a second local backend (first: backends[0])",
        name="backend twice",
    ),
    case("  - local: {}", "  local: {}", "job.yaml:9: backends: found a mapping; expected a list", name="backends"),
    # numbers and times
    case(
        "deadline: 24h",
        "deadline: 24",
        "job.yaml:11: deadline: found 24; expected a duration such as 90s, 60m, 24h or 7d",
        name="bare number",
    ),
    case("deadline: 24h", "deadline: 1 day", "job.yaml:11: deadline: found '1 day'; expected a duration", name="words"),
    case(
        "deadline: 24h",
        "deadline: 0h",
        "job.yaml:11: deadline: found '0h'; expected a duration of at least 1s",
        name="no time",
    ),
    case(
        "deadline: 24h",
        "deadline: 999999999d",
        "job.yaml:11: deadline: found '999999999d'; expected a duration of at most 366d",
        name="for ever",
    ),
    case(
        "{attempts: 3}", "{attempts: 11}", "job.yaml:13: limits.attempts: found 11; expected 10 or less", name="tries"
    ),
    case("{attempts: 3}", "{poll: 500ms}", "job.yaml:13: limits.poll: found '500ms'; expected a duration", name="ms"),
    case(
        "{attempts: 3}",
        "{poll: 0s}",
        "job.yaml:13: limits.poll: found '0s'; expected a duration of at least 1s",
        name="poll",
    ),
    case(
        "{attempts: 3}",
        "{shard_records: 0}",
        "job.yaml:13: limits.shard_records: found 0; expected 1 or more",
        name="shards",
    ),
    case("{attempts: 3}", "3", "job.yaml:13: limits: found 3; expected a mapping", name="limits"),
    case(
        "run_usd: 25",
        "run_usd: -1",
        "job.yaml:12: budget.run_usd: found -1; expected an amount in USD from 0 up",
        name="debt",
    ),
    case(
        "run_usd: 25", "run_usd: 25 USD", "job.yaml:12: budget.run_usd: found '25 USD'; expected an amount", name="USD"
    ),
    case("run_usd: 25", "run_usd: .nan", "job.yaml:12: budget.run_usd: found '.nan'; expected an amount", name="NaN"),
    case(
        "run_usd: 25",
        "run_usd: 1234567890123456",
        "job.yaml:12: budget.run_usd: found 1234567890123456; expected an amount in USD from 0 up, with at most "
        "15 digits before the point and 12 behind it",
        name="too much money",
    ),
    case(
        "run_usd: 25", "run_usd: 1.0e-20", "job.yaml:12: budget.run_usd: found 1e-20; expected an amount", name="1e-20"
    ),
    case(
        "run_usd: 25",
        "run_usd: 0.0000000000001",
        "job.yaml:12: budget.run_usd: found 1e-13; expected an amount",
        name="1e-13",
    ),
    case("run_usd: 25", "run_usd: true", "job.yaml:12: budget.run_usd: found true; expected an amount", name="boolean"),
    # output
    case("root: ./out", "root: ./out/*", "job.yaml:15: output.root: found './out/*'; expected one folder", name="root"),
    case(
        "root: ./out",
        "root: s3://bucket/a=b",
        "job.yaml:15: output.root: found 's3://bucket/a=b'; expected s3://bucket/path of letters",
        name="root with =",
    ),
    case(
        "root: ./out",
        "root: abfs://results/a//b",
        "job.yaml:15: output.root: found 'abfs://results/a//b'; expected abfs://container/path with no part that",
        name="root with an empty part",
    ),
    case(
        "root: ./out",
        "root: abfs://results/a/../b",
        "job.yaml:15: output.root: found 'abfs://results/a/../b'; expected abfs://container/path with no part that",
        name="root that climbs",
    ),
    case(
        "root: ./out",
        "root: abfs://results/*",
        "job.yaml:15: output.root: found 'abfs://results/*'; expected one folder",
        name="a pattern for an Azure root",
    ),
    case(
        "root: ./out", "root: ''", "job.yaml:15: output.root: found ''; expected a text that is not empty", name="none"
    ),
    case(
        "root: ./out",
        "root: ./out\n  tags: {year: 2026}",
        "job.yaml:16: output.tags.year: found 2026; expected text (quote numbers",
        name="tag",
    ),
]


@pytest.mark.parametrize(("old", "new", "expected"), CHANGES)
def test_a_mistake_names_line_field_found_and_allowed(
    old: str, new: str, expected: tuple[str, ...], good: str, refused: Refused
) -> None:
    assert good.count(old) == 1 or old in {"uri:", "*.txt", "words: 60", "name: topic", "[customer, lang]"}
    lines = refused(good.replace(old, new, 1))
    whole = "\n".join(lines)
    assert any(line.startswith(expected[0]) for line in lines), whole
    for part in expected[1:]:
        assert part in whole
    if not (expected[0].endswith("missing") or len(expected) > 1):
        assert len(lines) == 1, whole


FILES = [
    pytest.param(b"", "job.yaml:1: the file is empty; expected a job", id="empty"),
    pytest.param(b"# nothing yet\n", "job.yaml:1: the file is empty", id="comments only"),
    pytest.param(b"- a\n- b\n", "job.yaml:1: found a list of 2; expected a mapping", id="a list"),
    pytest.param(b"hello", "job.yaml:1: found 'hello'; expected a mapping", id="a word"),
    pytest.param(b"version: 1\nname: caf\xe9\n", "job.yaml:2: found the byte 0xe9, which is no UTF-8", id="latin-1"),
    pytest.param(b"version: 1\n\x00", "job.yaml:2: found the control character U+0000", id="NUL"),
    pytest.param(b"version: 1\nsource:\n\turi: x\n", "job.yaml:3: not valid YAML", id="a tab"),
    pytest.param(b"version: 1\nname: 'x\nsource: y\n", "job.yaml:2: not valid YAML", id="open quote"),
    pytest.param(b"version: 1\nname: a: b\n", "job.yaml:2: not valid YAML", id="two colons"),
    pytest.param(b"version: 1\n---\nversion: 1\n", "job.yaml:2: found a second document", id="two documents"),
    pytest.param(b"version: !!python/name:os.system\n", "job.yaml:1: version: found the tag", id="a tag"),
    pytest.param(b"version: 1\nname: *other\n", "job.yaml:2: name: found '*other', which names no anchor", id="alias"),
    pytest.param(b"version: 1\nx: " + b"[" * 5000, "job.yaml:2: found more than 32 levels", id="depth"),
    pytest.param(b"x" * 300_000, "job.yaml:1: found more than 256 KiB", id="too large"),
    pytest.param(b"version: 1\n? [a, b]\n: c\n", "job.yaml:2: found a list or mapping where a key belongs", id="key"),
    pytest.param(
        b"version: 1\nlimits: {<<: 3}\n",
        "job.yaml:2: limits['<<']: found 3; expected a mapping",
        id="merge of a number",
    ),
]


@pytest.mark.parametrize(("content", "expected"), FILES)
def test_a_file_that_is_no_job_is_told_so(content: bytes, expected: str, refused: Refused) -> None:
    lines = refused(content)
    assert len(lines) == 1
    assert lines[0].startswith(expected)


def test_anchors_cannot_blow_a_small_file_up(refused: Refused) -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    assert refused(bomb) == ["job.yaml:5: a4: found more than 10000 values once anchors are followed"]


def test_a_file_that_is_not_there_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: there is no such file"):
        load_job(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="is a folder; expected a job file"):
        load_job(tmp_path)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(good: str, refused: Refused) -> None:
    text = good.replace("name: tickets", "name: T").replace("words: 60", "words: 0").replace("run_usd: 25", "usd: 25")
    lines = refused(text.replace("./out", "${NOWHERE}/out"))
    assert [line.split(": ")[:2] for line in lines] == [
        ["job.yaml:2", "name"],
        ["job.yaml:7", "operations[0].summarize.words"],
        ["job.yaml:12", "budget.usd"],
        ["job.yaml:15", "output.root"],
    ]


def test_what_only_the_whole_file_tells_is_told_at_once_too(good: str, refused: Refused) -> None:
    text = good.replace("[customer, lang]", "[status, lang, LANG]").replace("name: topic, ", "name: summarize, ")
    assert [line.split(": ")[1] for line in refused(text)] == [
        "source.fields[0]",
        "source.fields[2]",
        "operations[1].classify.name",
    ]


def test_a_thousand_mistakes_are_not_all_told(good: str, refused: Refused) -> None:
    lines = refused(good.replace("[customer, lang]", str(list(range(1000)))))
    assert len(lines) == 51
    assert lines[-1] == "job.yaml: and 950 more"


def test_the_inside_of_the_program_is_not_in_the_message(good: str, refused: Refused) -> None:
    for old, new in (("version: 1", "version: x"), ("local: {}", "local: 3"), ("uri: ", "uri: [")):
        whole = "\n".join(refused(good.replace(old, new, 1)))
        assert "pydantic" not in whole
        assert "lowtide/" not in whole
        assert "Input should" not in whole


def test_a_secret_does_not_go_to_the_engine_by_way_of_the_root(good: str, refused: Refused) -> None:
    engine = "{environment: {HF_TOKEN: '${HF}', HF_HOME: /models}}"
    text = good.replace("local: {}", f"spot: {{model: m, launcher: process, engine: {engine}}}")
    [line] = refused(text, {"HF": "hunter2"})
    assert line.startswith(
        "job.yaml:10: backends[0].spot.engine.environment.HF_TOKEN: found a variable that is named like a secret, and "
        "would be written into the root; expected it in the environment of the worker"
    )


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("{url: 'https://gpu.example/v1?key=hunter2'}", "engine.url: found more than an address in it"),
        ("{url: 'https://hunter2@gpu.example/v1'}", "engine.url: found more than an address in it"),
        ("{url: 'https://gpu.example/#hunter2'}", "engine.url: found more than an address in it"),
        ("{command: [serve, '{port}', --api-key, hunter2]}", "engine.command: found a value for '--api-key'"),
        ("{command: [serve, '{port}', --api-key=hunter2]}", "engine.command: found a value for '--api-key'"),
        ("{command: [serve, '{port}', --api-key, '${KEY}']}", "engine.command: found a value for '--api-key'"),
        ("{command: [sh, -c, 'HF_TOKEN=hunter2 exec serve {port}']}", "engine.command: found a value for 'HF_TOKEN'"),
        ("{command: [sh, -c, 'serve {port} --api-key hunter2']}", "engine.command: found a value for '--api-key'"),
        ("{command: [env, HF_TOKEN=hunter2, serve, '{port}']}", "engine.command: found a value for 'HF_TOKEN'"),
        ("{command: [serve, '{port}', --hf-token, hunter2]}", "engine.command: found a value for '--hf-token'"),
    ],
)
def test_a_secret_in_the_engines_command_or_address_is_refused_and_not_told(
    good: str, refused: Refused, engine: str, expected: str
) -> None:
    text = good.replace("local: {}", f"spot: {{model: m, launcher: process, engine: {engine}}}")
    [line] = refused(text, {"KEY": "hunter2"})
    assert line.startswith(f"job.yaml:10: backends[0].spot.{expected}")
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "words",
    [
        "--long-prefill-token-threshold, '2048'",
        "--eos-token, </s>",
        "--max-num-batched-tokens, '8192'",
        "--api-key-file, /run/secrets/key",
        "--ssl-keyfile, /etc/key.pem",
        "--tokenizer, org/some-tokenizer",
        "--served-model-name, hunter2",
    ],
)
def test_what_an_engine_may_be_told_is_taken(good: str, tmp_path: Path, words: str) -> None:
    engine = f"{{command: [serve, '{{port}}', {words}]}}"
    path = tmp_path / "job.yaml"
    path.write_text(good.replace("local: {}", f"spot: {{model: m, launcher: process, engine: {engine}}}"))
    assert load_job(path)


def test_a_shell_may_name_a_secret_of_the_workers_environment(good: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    engine = "{command: [sh, -c, 'OTHER_TOKEN=$HF_TOKEN exec serve --api-key \"$KEY\" {port}']}"
    path.write_text(good.replace("local: {}", f"spot: {{model: m, launcher: process, engine: {engine}}}"))
    assert load_job(path)
