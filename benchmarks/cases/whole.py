"""A whole run against an emulated batch API on the loopback: read, ask, wait, collect, publish.

`lowtide` is the command as a user runs it, `lowtide run --direct`, from the job file to tables and ledger. `loop` is
what a page of code with the SDK does: upload, create, poll, download; no table, no ledger, no journal, nothing to
resume from. `pandas` is the notebook version, with a table. All go through the OpenAI SDK to the same emulator, which
is measured for nobody. CPU is that of the whole process, from the start of the interpreter; nothing of ours is imported
by the other two.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.case import Case, Check, Plan, Prepare, Setting, Target, Work
from benchmarks.figures import cpu_growth, cpu_ratio, rss_growth, rss_megabytes

if TYPE_CHECKING:
    import openai

_SHARD_RECORDS = 10_000
_PAUSE = 0.5
_JOB = """version: 1
name: bench
source: {{uri: {source}, text: body, id: ticket, fields: [customer]}}
operations: [summarize: {{words: 60}}]
backends: [openai-batch: {{model: gpt-4o-mini, price: {{input: "0.075", output: "0.30"}}}}]
limits: {{shard_records: 10000, poll: 1s}}
output: {{root: {root}}}
"""


def _setup(folder: Path, size: int) -> None:
    from benchmarks import batch, data, jobs  # noqa: PLC0415 - each variant pays for its own imports only

    data.write_parquet(folder / jobs.SOURCE, size)
    assert batch.SHARD_RECORDS == _SHARD_RECORDS
    request = batch.request_body("", "")
    request["body"] = {**request["body"], "model": "gpt-4o-mini"}  # type: ignore[dict-item]  # a mapping, as it is made
    (folder / "request.json").write_text(json.dumps(request))


def _start_anew(service: str) -> None:
    request = urllib.request.Request(f"http://{service}/_emulator/reset", b"{}")
    urllib.request.urlopen(request).close()  # noqa: S310


def _bill(service: str) -> dict[str, int]:
    with urllib.request.urlopen(f"http://{service}/_emulator/bill") as answer:
        found: dict[str, int] = json.load(answer)
    return found


def _lowtide(setting: Setting) -> Work:
    from lowtide.cli import running  # noqa: PLC0415

    job = setting.out / "job.yaml"
    job.write_text(_JOB.format(source=next(setting.data.rglob("*.parquet")), root=setting.out / "root"))
    os.environ |= {"OPENAI_BASE_URL": f"http://{setting.service}/v1", "OPENAI_API_KEY": "none"}
    _start_anew(setting.service)

    def work() -> Check:
        with contextlib.redirect_stdout(io.StringIO()):
            code = running.run(
                str(job), "all", direct=True, wait=True, retry=False, use_cache=True, refresh=False, as_json=True
            )
        assert code == 0

        def check() -> None:
            import pyarrow.compute as pc  # noqa: PLC0415
            import pyarrow.parquet as pq  # noqa: PLC0415

            rows = pq.read_table(next(setting.out.rglob("results.parquet")), columns=["document_id", "status"])
            assert len(rows) == setting.size == pc.count_distinct(rows["document_id"]).as_py()
            assert rows["status"].unique().to_pylist() == ["ok"]
            ledger = pq.read_table(next(setting.out.rglob("tables/ledger/**/*.parquet"))).to_pylist()
            bill = _bill(setting.service)
            used = [line for line in ledger if line["kind"] == "actual"]
            asked = sum(line["quantity"] for line in used if line["token_type"] in ("input", "cached_input"))
            said = sum(line["quantity"] for line in used if line["token_type"] in ("output", "reasoning"))
            assert (asked, said) == (bill["input_tokens"], bill["output_tokens"])
            assert bill["records"] == setting.size

        return check

    return work


def _loop(setting: Setting) -> Work:
    import openai  # noqa: PLC0415
    import orjson  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    template = json.loads((setting.data / "request.json").read_text())
    system, user = template["body"]["messages"]
    _start_anew(setting.service)

    def line(key: str, text: str) -> bytes:
        message = {**user, "content": f"<document>\n{text}\n</document>"}
        return orjson.dumps(
            {**template, "custom_id": key, "body": {**template["body"], "messages": [system, message]}},
            option=orjson.OPT_APPEND_NEWLINE,
        )

    def work() -> Check:
        client = openai.OpenAI(base_url=f"http://{setting.service}/v1", api_key="none", max_retries=0)
        path, batches, summaries = setting.out / "requests.jsonl", [], {}
        source = pq.ParquetFile(next(setting.data.rglob("*.parquet")), pre_buffer=False)
        for rows in source.iter_batches(batch_size=_SHARD_RECORDS):
            with path.open("wb") as out:
                for key, text in zip(rows["ticket"].to_pylist(), rows["body"].to_pylist(), strict=True):
                    out.write(line(key, text))
            batches.append(_submit(client, path))
        for batch_id in batches:
            for answer in map(orjson.loads, _answers(client, batch_id).splitlines()):
                content = answer["response"]["body"]["choices"][0]["message"]["content"]
                summaries[answer["custom_id"]] = orjson.loads(content)["summary"]

        def check() -> None:
            assert len(summaries) == setting.size

        return check

    return work


def _submit(client: openai.OpenAI, path: Path) -> str:
    with path.open("rb") as stream:
        file = client.files.create(file=("requests.jsonl", stream), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h").id


def _answers(client: openai.OpenAI, batch_id: str) -> bytes:
    while (batch := client.batches.retrieve(batch_id)).status != "completed":
        assert batch.status in ("validating", "in_progress", "finalizing")
        time.sleep(_PAUSE)
    return client.files.content(batch.output_file_id or "").content


def _pandas(setting: Setting) -> Work:
    import openai  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    template = (setting.data / "request.json").read_text()
    _start_anew(setting.service)

    def line(key: str, text: str) -> str:
        request = json.loads(template)
        request["custom_id"] = key
        request["body"]["messages"][1]["content"] = f"<document>\n{text}\n</document>"
        return json.dumps(request)

    def work() -> Check:
        client = openai.OpenAI(base_url=f"http://{setting.service}/v1", api_key="none", max_retries=0)
        documents = pd.read_parquet(next(setting.data.rglob("*.parquet")))
        path, batches, answers = setting.out / "requests.jsonl", [], []
        for start in range(0, len(documents), _SHARD_RECORDS):
            some = documents.iloc[start : start + _SHARD_RECORDS]
            path.write_text("\n".join(line(row["ticket"], row["body"]) for _, row in some.iterrows()))
            batches.append(_submit(client, path))
        for batch_id in batches:
            answers += [json.loads(text) for text in _answers(client, batch_id).decode().split("\n") if text]
        table = documents.merge(pd.json_normalize(answers), left_on="ticket", right_on="custom_id", how="left")
        table["summary"] = table["response.body.choices"].map(
            lambda choices: json.loads(choices[0]["message"]["content"])["summary"]
        )
        usage = ["response.body.usage.prompt_tokens", "response.body.usage.completion_tokens"]
        table[["ticket", "customer", "summary", *usage]].to_parquet(setting.out / "results.parquet")

        def check() -> None:
            assert len(table) == setting.size
            assert table["summary"].notna().all()

        return check

    return work


def _targets(plan: Plan) -> list[Target]:
    small, *larger = plan.variants
    ours = ("lowtide", small)
    targets = [
        Target("our CPU, in that of the bare SDK loop", cpu_ratio(ours, ("loop", small)), at_most=1.7),
        Target("CPU of pandas + json, in ours", cpu_ratio(("pandas", small), ours)),
        Target(f"peak RSS, {small:,} documents", rss_megabytes(ours), at_most=250, unit="MB"),
        Target("peak RSS of the bare SDK loop", rss_megabytes(("loop", small)), unit="MB"),
        Target("peak RSS of pandas + json", rss_megabytes(("pandas", small)), unit="MB"),
    ]
    for size in larger:
        large = ("lowtide", size)
        targets += [
            Target(f"the CPU ratio at {size:,}", cpu_ratio(large, ("loop", size))),
            Target(f"peak RSS, {size:,} documents", rss_megabytes(large), unit="MB"),
            Target(f"peak RSS, {size:,} in units of {small:,}", rss_growth(large, ours), at_most=1.2),
            Target(f"peak RSS of the bare SDK loop, {size:,}", rss_megabytes(("loop", size)), unit="MB"),
            Target(f"CPU per document, {size:,} in units of {small:,}", cpu_growth(large, ours), at_most=1.2),
        ]
    return targets


_ALL: dict[str, Prepare] = {"lowtide": _lowtide, "loop": _loop, "pandas": _pandas}

CASE = Case(
    name="whole",
    title="A whole run against an emulated batch API",
    variants=_ALL,
    full=Plan({20_000: tuple(_ALL), 200_000: ("lowtide", "loop")}, rounds=3),
    quick=Plan({5_000: tuple(_ALL)}, rounds=1),
    targets=_targets,
    setup=_setup,
    service="benchmarks.service",
    whole_process=True,
)
