"""A whole run against a batch API on the loopback: read, ask, wait, collect, publish.

`loop` is what a page of code with the SDK does: no table, no ledger, no journal, nothing to resume from. `pandas` is
the notebook version, with a table. All go through the OpenAI SDK to the same server, which is measured for nobody. CPU
is that of the whole process, from the start of the interpreter; nothing of ours is imported by the other two.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.case import Case, Check, Plan, Prepare, Setting, Target, Work, cpu_growth, cpu_ratio, rss_megabytes

_SHARD_RECORDS = 10_000


def _setup(folder: Path, size: int) -> None:
    from benchmarks import batch, data, jobs  # noqa: PLC0415 - each variant pays for its own imports only

    data.write_parquet(folder / jobs.SOURCE, size)
    assert batch.SHARD_RECORDS == _SHARD_RECORDS
    (folder / "request.json").write_text(json.dumps(batch.request_body("", "")))


def _lowtide(setting: Setting) -> Work:
    from benchmarks.jobs import Loopback, close, work_on  # noqa: PLC0415
    from lowtide.engine import drive, open_run  # noqa: PLC0415

    def work() -> Check:
        job = work_on(setting.data, setting.out, Loopback(setting.service))
        progress = drive(open_run(job), poll=0)
        close(job)
        assert progress.done

        def check() -> None:
            from benchmarks.cases.collect import check_ledger, check_results  # noqa: PLC0415

            results = next(setting.out.rglob("results.parquet"))
            check_results(results, setting, sums=True)
            check_ledger(next(setting.out.rglob("tables/ledger/**/*.parquet")), results)

        return check

    return work


def _loop(setting: Setting) -> Work:
    import openai  # noqa: PLC0415
    import orjson  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    template = json.loads((setting.data / "request.json").read_text())
    system, user = template["body"]["messages"]

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
            with path.open("rb") as stream:
                file = client.files.create(file=("requests.jsonl", stream), purpose="batch")
            batches.append(
                client.batches.create(
                    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
                ).id
            )
        for batch_id in batches:
            status = client.batches.retrieve(batch_id)
            assert status.status == "completed"
            for answer in map(orjson.loads, client.files.content(status.output_file_id or "").content.splitlines()):
                content = answer["response"]["body"]["choices"][0]["message"]["content"]
                summaries[answer["custom_id"]] = orjson.loads(content)["summary"]

        def check() -> None:
            assert len(summaries) == setting.size

        return check

    return work


def _pandas(setting: Setting) -> Work:
    import openai  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    template = (setting.data / "request.json").read_text()

    def line(key: str, text: str) -> str:
        request = json.loads(template)
        request["custom_id"] = key
        request["body"]["messages"][1]["content"] = f"<document>\n{text}\n</document>"
        return json.dumps(request)

    def work() -> Check:
        client = openai.OpenAI(base_url=f"http://{setting.service}/v1", api_key="none", max_retries=0)
        documents = pd.read_parquet(next(setting.data.rglob("*.parquet")))
        batches, answers = [], []
        for start in range(0, len(documents), _SHARD_RECORDS):
            some = documents.iloc[start : start + _SHARD_RECORDS]
            lines = "\n".join(line(row["ticket"], row["body"]) for _, row in some.iterrows())
            file = client.files.create(file=("requests.jsonl", lines.encode()), purpose="batch")
            batches.append(
                client.batches.create(
                    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
                ).id
            )
        for batch_id in batches:
            output = client.files.content(client.batches.retrieve(batch_id).output_file_id or "").text
            answers += [json.loads(text) for text in output.split("\n") if text]
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
            Target(f"peak RSS of the bare SDK loop, {size:,}", rss_megabytes(("loop", size)), unit="MB"),
            Target(f"CPU per document, {size:,} in units of {small:,}", cpu_growth(large, ours), at_most=1.2),
        ]
    return targets


_ALL: dict[str, Prepare] = {"lowtide": _lowtide, "loop": _loop, "pandas": _pandas}

CASE = Case(
    name="whole",
    title="A whole run against a batch API on the loopback",
    variants=_ALL,
    full=Plan({20_000: tuple(_ALL), 200_000: ("lowtide", "loop")}, rounds=3),
    quick=Plan({5_000: tuple(_ALL)}, rounds=1),
    targets=_targets,
    setup=_setup,
    service="benchmarks.server",
    whole_process=True,
)
