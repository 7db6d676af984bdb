"""What a job file says that a backend charges: exact to the last decimal, or refused with its place."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from lowtide.connectors.assembly import assemble
from lowtide.errors import ConfigError
from lowtide.job import load_job
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
