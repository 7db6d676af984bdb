"""Collecting: from the provider's shuffled output files to the published table and the ledger.

The run is built and submitted by the setup. What is measured is one pass of the engine over batches that have ended: it
keeps the raw output, parses, validates, joins, prices, sorts, publishes and writes the ledger. The others read the
same files; `stream` is msgspec and pyarrow without any of our code, and without raw copy, sorting, journal and hashes.
"""

from __future__ import annotations

import shutil
from decimal import Decimal
from pathlib import Path

from benchmarks import batch, data
from benchmarks.case import Case, Check, Plan, Prepare, Setting, Target, Work
from benchmarks.figures import cpu_growth, cpu_ratio, rss_growth, rss_megabytes
from benchmarks.jobs import SOURCE, Shelf, work_on

_TEXT_BYTES = 120
"""Small documents: what collecting costs does not depend on them, and a million stay cheap to prepare."""


def _setup(folder: Path, size: int) -> None:
    from lowtide.engine import drive, open_run  # noqa: PLC0415 - each variant pays for its own imports only

    data.write_parquet(folder / SOURCE, size, size=_TEXT_BYTES)
    (folder / "answers").mkdir()
    run = open_run(work_on(folder, folder / "root", Shelf(folder / "answers", ended=False)))
    progress = drive(run, poll=1, until=0)
    assert progress.open_batches == -(-size // batch.SHARD_RECORDS)


def _answers(folder: Path) -> list[Path]:
    return sorted((folder / "answers").iterdir())


def _indexes(folder: Path) -> list[Path]:
    return sorted((folder / "root").rglob("index/*.parquet"))


def _lowtide(setting: Setting) -> Work:
    from lowtide.engine import drive, open_run  # noqa: PLC0415

    root = setting.out / "root"
    shutil.copytree(setting.data / "root", root, ignore=shutil.ignore_patterns("requests"))

    def work() -> Check:
        run = open_run(work_on(setting.data, root, Shelf(setting.data / "answers", ended=True)))
        progress = drive(run, poll=0)
        assert progress.done

        def check() -> None:
            results = next(root.rglob("results.parquet"))
            check_results(results, setting, sums=True)
            check_ledger(next(root.rglob("tables/ledger/**/*.parquet")), results)

        return check

    return work


def _stream(setting: Setting) -> Work:
    import numpy as np  # noqa: PLC0415
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    prices = [int(batch.PRICE.unit(kind) * 10**12) for kind in ("input", "output")]
    money = pa.decimal128(38, 12)

    def work() -> Check:
        decode, summary = batch.line_decoder.decode, batch.summary_decoder.decode
        writer = ledger = None
        target = setting.out / "results.parquet"
        for answers, path in zip(_answers(setting.data), _indexes(setting.data), strict=True):
            index = pq.read_table(path, use_threads=False, pre_buffer=False)
            ordinals, texts, summaries = [], [], []
            tokens_in, tokens_out = [], []
            with answers.open("rb") as source:
                for line in source:
                    found = decode(line)
                    body = found.response.body
                    content = body.choices[0].message.content or ""
                    verdict = summary(content)
                    ordinals.append(int(found.custom_id[1:8]))
                    texts.append(content)
                    summaries.append(verdict.summary)
                    tokens_in.append(body.usage.prompt_tokens)
                    tokens_out.append(body.usage.completion_tokens)
            rows = index.take(pa.array(ordinals))
            cost = np.array(tokens_in) * prices[0] + np.array(tokens_out) * prices[1]
            costs = pa.array(cost).cast(pa.decimal128(19, 0))
            table = pa.table(
                {
                    "document_id": rows["document_id"],
                    "document_uri": rows["document_uri"],
                    "status": pa.repeat("ok", len(rows)),
                    "output_text": summaries,
                    "output": texts,
                    "input_tokens": tokens_in,
                    "output_tokens": tokens_out,
                    "cost_usd": pa.compute.multiply(costs, pa.scalar(Decimal("1e-12"), pa.decimal128(12, 12))).cast(
                        money
                    ),
                    "content_sha256": rows["content_sha256"],
                    "customer": rows["field:customer"],
                }
            )
            entry = pa.table(
                {
                    "shard": [answers.stem] * 2,
                    "token_type": ["input", "output"],
                    "quantity": [sum(tokens_in), sum(tokens_out)],
                }
            )
            if writer is None or ledger is None:
                writer = pq.ParquetWriter(target, table.schema, compression="zstd", compression_level=1)
                ledger = pq.ParquetWriter(setting.out / "ledger.parquet", entry.schema)
            writer.write_table(table)
            ledger.write_table(entry)
        if writer is not None and ledger is not None:
            writer.close()
            ledger.close()
        return lambda: check_results(target, setting, sums=True)

    return work


def _pandas(setting: Setting) -> Work:
    import json  # noqa: PLC0415

    import pandas as pd  # noqa: PLC0415

    def work() -> Check:
        lines = []
        for number, path in enumerate(_answers(setting.data)):
            with path.open() as source:
                for text in source:
                    line = json.loads(text)
                    line["shard"] = number
                    lines.append(line)
        answers = pd.json_normalize(lines)
        answers["first"] = answers["custom_id"].str[1:8].astype(int)
        indexes = [pd.read_parquet(path).assign(shard=number) for number, path in enumerate(_indexes(setting.data))]
        rows = pd.concat(indexes).merge(answers, on=["shard", "first"], how="left")
        content = rows["response.body.choices"].map(lambda choices: choices[0]["message"]["content"])
        said = pd.json_normalize(content.map(json.loads).tolist())
        table = pd.DataFrame(
            {
                "document_id": rows["document_id"],
                "document_uri": rows["document_uri"],
                "status": "ok",
                "output_text": said["summary"],
                "output": content,
                "input_tokens": rows["response.body.usage.prompt_tokens"],
                "output_tokens": rows["response.body.usage.completion_tokens"],
                "content_sha256": rows["content_sha256"],
                "customer": rows["field:customer"],
            }
        )
        table["cost_usd"] = table["input_tokens"] * float(batch.PRICE.unit("input")) + table["output_tokens"] * float(
            batch.PRICE.unit("output")
        )
        target = setting.out / "results.parquet"
        table.sort_values("document_id").to_parquet(target, compression="zstd")
        return lambda: check_results(target, setting, sums=False)

    return work


def check_results(path: Path, setting: Setting, *, sums: bool) -> None:
    """All rows are there once, every summary is its own document's, and the money is that of the tokens, exactly."""
    import pyarrow.compute as pc  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    columns = ["document_id", "output_text", "content_sha256", "status", "input_tokens", "output_tokens", "cost_usd"]
    table = pq.read_table(path, columns=columns)
    assert len(table) == setting.size == len(table["document_id"].unique())
    assert table["status"].unique().to_pylist() == ["ok"]
    for row in table.slice(0, 50).to_pylist() + table.slice(setting.size - 50).to_pylist():
        assert row["output_text"].endswith(" " + row["content_sha256"][:12])
    if sums:
        price = batch.PRICE
        quantities = {"input": pc.sum(table["input_tokens"]).as_py(), "output": pc.sum(table["output_tokens"]).as_py()}
        assert pc.sum(table["cost_usd"]).as_py() == price.amount(quantities)


def check_ledger(path: Path, results: Path) -> None:
    import pyarrow.compute as pc  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    ledger = pq.read_table(path)
    actual = ledger.filter(pc.equal(ledger["kind"], "actual"))
    assert pc.sum(actual["amount"]).as_py() == pc.sum(pq.read_table(results, columns=["cost_usd"])["cost_usd"]).as_py()


def _targets(plan: Plan) -> list[Target]:
    small, *larger = plan.variants
    ours = ("lowtide", small)
    targets = [
        Target("CPU of json_normalize + merge, in ours", cpu_ratio(("pandas", small), ours), at_least=10),
        Target("our CPU, in that of the bare msgspec stream", cpu_ratio(ours, ("stream", small)), at_most=1.5),
        Target(f"peak RSS, {small:,} answers", rss_megabytes(ours), at_most=350, unit="MB"),
        Target("peak RSS of the bare msgspec stream", rss_megabytes(("stream", small)), unit="MB"),
        Target("peak RSS of json_normalize + merge", rss_megabytes(("pandas", small)), unit="MB"),
    ]
    for size in larger:
        large = ("lowtide", size)
        targets += [
            Target(f"the same at {size:,}", cpu_ratio(large, ("stream", size)), at_most=1.5),
            Target(f"peak RSS, {size:,} answers", rss_megabytes(large), at_most=350, unit="MB"),
            Target(f"peak RSS, {size:,} in units of {small:,} answers", rss_growth(large, ours), at_most=1.15),
            Target(f"CPU per answer, {size:,} in units of {small:,}", cpu_growth(large, ours), at_most=1.2),
        ]
    return targets


_ALL: dict[str, Prepare] = {"lowtide": _lowtide, "stream": _stream, "pandas": _pandas}

CASE = Case(
    name="collect",
    title="Results table and ledger from shuffled output files",
    variants=_ALL,
    full=Plan({100_000: tuple(_ALL), 1_000_000: ("lowtide", "stream")}, rounds=2),
    quick=Plan({10_000: tuple(_ALL)}, rounds=1),
    targets=_targets,
    setup=_setup,
)
