"""What a job file says that a backend charges: exact to the last decimal, or refused with its place."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest
from support.spot_support import Bench
from support.standins import MemoryStore

from lowtide.billing.reading import is_priced
from lowtide.connectors.assembly import assemble
from lowtide.connectors.pricing import machines_allowed
from lowtide.errors import ConfigError
from lowtide.job import load_job
from lowtide.job.backends import SpotBackend
from lowtide.prices import Price
from lowtide.windows import parse_window

JOB = """
version: 1
name: tides
source: {uri: ./documents/*.txt}
operations: [{summarize: {words: 20}}]
backends:
  - openai-batch: {model: gpt-4o-mini, price: PRICE, on_demand_price: DEMAND}
deadline: 24h
output: {root: ./out}
"""


def price_in(folder: Path, price: str, demand: str = "{input: 2, output: 4}") -> Price:
    (folder / "documents").mkdir()
    job = folder / "job.yaml"
    job.write_text(JOB.replace("PRICE", price).replace("DEMAND", demand))
    return assemble(load_job(job, environ={}), parse_window("all"), keyed=False).price


@pytest.mark.parametrize(
    ("price", "each"),
    [
        ("{input: 0.00000015, output: 1, per: 1}", "0.00000015"),
        ("{input: 0.15, output: 0.60}", "0.00000015"),
        ("{input: 7.000000000007, output: 7, per: 7}", "1.000000000001"),
        ("{input: 999999999999999.999999999999, output: 0, per: 1}", None),
    ],
)
def test_a_price_in_the_job_file_is_exact(price: str, each: str | None, tmp_path: Path) -> None:
    found = price_in(tmp_path, price.replace("999999999999999.999999999999", "'999999999999999.999999999999'"))
    assert found.unit("input") == found.unit("cached_input") == Decimal(each or "999999999999999.999999999999")


@pytest.mark.parametrize(
    ("price", "demand", "place"),
    [
        ("{input: 1, output: 7, per: 7}", "{input: 2, output: 4}", "price.input: found 1 USD for 7 tokens"),
        ("{input: 7, output: 1, per: 7}", "{input: 2, output: 4}", "price.output: found 1 USD for 7 tokens"),
        ("{input: 7, output: 7, cached_input: 0.5, per: 7}", "{input: 2, output: 4}", "price.cached_input: found 0.5"),
        ("{input: 1, output: 1}", "{input: 3, output: 1, per: 9}", "on_demand_price.input: found 3 USD for 9 tokens"),
        ("{input: 0.0000001, output: 1}", "{input: 3, output: 1}", "price.input: found 0.0000001 USD for 1,000,000"),
    ],
)
def test_a_price_that_does_not_divide_is_named_by_its_field(
    price: str, demand: str, place: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        price_in(tmp_path, price, demand)
    assert str(refused.value).startswith(f"backends[0].openai-batch.{place}")


def spot_job(folder: Path, paid: str, launcher: str = "process", boot: str = "5m") -> Path:
    """A job for workers of one's own."""
    (folder / "documents").mkdir()
    spot = f"{{model: m, launcher: {launcher}, {paid} engine: {{url: 'http://gpu:8000', boot: {boot}}}}}"
    job = folder / "job.yaml"
    job.write_text(re.sub("openai-batch: .*", f"spot: {spot}", JOB))
    return job


@pytest.mark.parametrize(
    ("launcher", "boot", "start"), [("process", "30m", 1800), ("process", "5m", 300), ("none", "5m", 300 + 900)]
)
def test_what_a_worker_may_take_to_start_is_what_its_machine_and_its_engine_may(
    launcher: str, boot: str, start: int, tmp_path: Path
) -> None:
    """3.60 USD an hour are 0.001 USD a second. A machine of one's own has started already."""
    job = spot_job(tmp_path, "usd_per_hour: 3.60, tokens_per_second: 1000,", launcher, boot)
    found = assemble(load_job(job, environ={}), parse_window("all"), keyed=False).price
    assert (found.fixed, found.least, found.start) == (0, Decimal("0.6"), Decimal("0.001") * start)


@pytest.mark.parametrize(
    ("hourly", "price_id", "source"),
    [
        (
            "usd_per_hour: 3.60, tokens_per_second: 1000,",
            "machines of your own",
            "3.60 USD an hour of a worker, by the job file; 1,000",
        ),
        ("usd_per_hour: 0,", "machines of your own", "0.00 USD an hour of a worker, by the job file"),
        ("", "machines of your own: no price", "not known: usd_per_hour is missing"),
    ],
)
def test_machines_whose_price_nobody_gives_are_not_taken_for_free(
    hourly: str, price_id: str, source: str, tmp_path: Path
) -> None:
    work = assemble(load_job(spot_job(tmp_path, hourly), environ={}), parse_window("all"), keyed=False)
    assert work.price.price_id == price_id
    assert work.price.source.startswith(source)
    assert is_priced(work.price.price_id, Decimal(0)) == bool(hourly)


@pytest.mark.parametrize(("most", "allowed"), [(None, None), ("3.60", 1), ("8", 2), ("3.59", 0)])
def test_a_cap_on_what_machines_cost_allows_so_many(most: str | None, allowed: int | None) -> None:
    spec = SpotBackend(model="m", queue="q", job_definition="d", max_usd_per_hour=most)
    bench = Bench(MemoryStore())
    assert machines_allowed(spec, bench.backend, "backends[0]") == allowed
