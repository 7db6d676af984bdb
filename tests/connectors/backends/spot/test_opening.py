"""From the job file's section to a backend: engine, requests, workers, prices."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import cast

import orjson
import pytest

from lowtide.connectors.backends import open_backend
from lowtide.connectors.backends.spot import open_spot
from lowtide.connectors.backends.spot.accounts import Charge
from lowtide.connectors.backends.spot.backend import workers_for
from lowtide.connectors.backends.spot.fleet import VLLM, asks_natively, fleet_of
from lowtide.connectors.backends.spot.rates import OwnRates, SpotRates
from lowtide.connectors.backends.spot.spot_prices import SpotPrices
from lowtide.connectors.stores.local import LocalStore
from lowtide.errors import MissingExtra, Terminal, Transient
from lowtide.job import backends as job
from lowtide.job.model import Summarize
from lowtide.operations import build_operation
from lowtide.records import Request
from lowtide_worker.layout import Engine, Fleet

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)


def spec(**options: object) -> job.SpotBackend:
    return job.SpotBackend.model_validate({"model": "Qwen/Qwen3-8B", "launcher": "process", **options})


@pytest.fixture
def root(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def test_what_the_job_file_leaves_out_is_vllm_with_the_workers_own_times() -> None:
    engine = Engine(command=VLLM, boot_seconds=1800.0, hang_seconds=900.0, restarts=3)
    assert fleet_of(spec()) == Fleet(model="Qwen/Qwen3-8B", engine=engine)


def test_what_the_job_file_says_is_what_workers_read() -> None:
    engine = {
        "command": ["serve", "{model}", "--port", "{port}"],
        "health": "/ready",
        "environment": {"HF_HOME": "/models"},
        "boot": "90s",
        "hang": "1m",
        "restarts": 1,
    }
    assert fleet_of(spec(engine=engine, in_flight={"least": 2, "most": 8})) == Fleet(
        model="Qwen/Qwen3-8B",
        engine=Engine(
            command=("serve", "{model}", "--port", "{port}"),
            health="/ready",
            environment={"HF_HOME": "/models"},
            boot_seconds=90.0,
            hang_seconds=60.0,
            restarts=1,
        ),
        # No request may take longer than an engine that hangs.
        request_seconds=60.0,
        least=2,
        most=8,
    )


def test_an_engine_that_runs_already_has_no_command() -> None:
    assert fleet_of(spec(engine={"url": "http://127.0.0.1:8000/"})).engine == Engine(url="http://127.0.0.1:8000")


@pytest.mark.parametrize(
    ("options", "native"),
    [
        ({}, True),
        ({"engine": {"command": ["/opt/vllm/bin/vllm", "serve"]}}, True),
        ({"engine": {"command": ["llama-server"]}}, False),
        ({"engine": {"url": "http://127.0.0.1:8000"}}, False),
        ({"engine": {"url": "http://127.0.0.1:8000"}, "structured_output": "native"}, True),
        ({"structured_output": "prompt"}, False),
    ],
)
def test_the_answers_schema_is_asked_for_where_the_engine_is_known_to_heed_it(
    options: dict[str, object], native: bool, root: LocalStore
) -> None:
    assert asks_natively(spec(**options)) is native
    backend = open_spot(spec(**options, parameters={"temperature": 0.5}), root)
    assert backend.parameters == {"temperature": 0.5, "structured_output": "native" if native else "prompt"}
    operation = build_operation(Summarize(words=9), Path())
    line = orjson.loads(backend.encode(Request("r0000000x0badcafe", operation, "system", "user", "text")))
    assert line["url"] == "/v1/chat/completions"
    assert line["body"]["model"] == "Qwen/Qwen3-8B"
    assert line["body"]["max_tokens"] == operation.max_output_tokens
    assert ("response_format" in line["body"]) is native


def test_workers_of_ones_own_say_who_pays_and_cost_nothing_unless_told(root: LocalStore) -> None:
    backend = open_backend(spec(), root)
    assert (backend.name, backend.provider, backend.region, backend.places) == ("spot", "own", "", ())
    for hourly, second in (("0", "0"), ("3.60", "0.001"), ("1", "0.000277777778")):
        [priced] = OwnRates(Decimal(hourly)).priced(charge())
        assert priced.usd_per_second == Decimal(second)


def test_workers_that_somebody_else_starts_need_no_package_here(
    root: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec

    def without_aiohttp(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "aiohttp" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_aiohttp)
    assert open_spot(spec(launcher="none"), root).name == "spot"
    with pytest.raises(MissingExtra, match=r"pip install 'lowtide\[spot\]'"):
        open_spot(spec(), root)


def test_on_aws_the_region_is_the_job_files_or_that_of_the_environment(root: LocalStore) -> None:
    environ = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "eu-west-1"}
    options = {"launcher": "batch", "queue": "q", "job_definition": "d", "instances": ["g6.xlarge"]}
    backend = open_spot(spec(**options), root, environ=environ)
    assert (backend.provider, backend.region) == ("aws", "eu-west-1")
    assert open_spot(spec(**options, region="us-west-2"), root, environ=environ).region == "us-west-2"


@pytest.mark.parametrize(
    ("most", "cap", "hourly", "expected"),
    [(4, None, "1", 4), (4, "2.50", "1", 2), (4, "99", "1", 4), (4, "1", "1", 1), (4, "1", "0", 4)],
)
def test_a_cap_by_the_hour_bounds_the_workers(most: int, cap: str | None, hourly: str, expected: int) -> None:
    assert workers_for(most, None if cap is None else Decimal(cap), Decimal(hourly)) == expected


@dataclass
class Prices:
    """Stands in for SpotPrices: what it was asked, and what it says."""

    history: dict[tuple[str, str], list[tuple[int, Decimal]]] = field(default_factory=dict)
    now: dict[str, Decimal] = field(default_factory=dict)
    asked: list[tuple[datetime, int]] = field(default_factory=list)

    def course(self, instance_type: str, zone: str, begun: datetime, seconds: int) -> list[tuple[int, Decimal]]:
        self.asked.append((begun, seconds))
        return self.history.get((instance_type, zone), [])

    def dearest_now(self, instance_type: str) -> Decimal | None:
        return self.now.get(instance_type)

    def rates(self, *instances: str) -> SpotRates:
        return SpotRates(cast("SpotPrices", self), instances)


def charge(instance_type: str = "", zone: str = "", seconds: int = 1) -> Charge:
    at = (AT + timedelta(seconds=1)).timestamp()
    return Charge(worker="w", seconds=seconds, waste="boot", at=at, instance_type=instance_type, zone=zone)


def test_a_second_on_aws_costs_what_it_did_then_and_there() -> None:
    prices = Prices(history={("g6.xlarge", "eu-west-1a"): [(1, Decimal("0.3600"))]})
    [priced] = prices.rates("g6.xlarge").priced(charge("g6.xlarge", "eu-west-1a"))
    assert priced.usd_per_second == Decimal("0.0001")
    assert priced.source == "AWS Spot price of g6.xlarge in eu-west-1a"
    assert prices.asked == [(AT + timedelta(seconds=1), 1)]


def test_seconds_before_and_after_a_change_of_the_price_are_charges_of_their_own() -> None:
    prices = Prices(history={("g6.xlarge", "eu-west-1a"): [(600, Decimal("0.36")), (400, Decimal("0.72"))]})
    whole = charge("g6.xlarge", "eu-west-1a", 1000)
    first, second = prices.rates("g6.xlarge").priced(whole)
    assert (first.seconds, first.usd_per_second, first.at) == (600, Decimal("0.0001"), whole.at)
    assert (second.seconds, second.usd_per_second, second.at) == (400, Decimal("0.0002"), whole.at + 600)
    assert {(one.worker, one.waste, one.zone, one.source) for one in (first, second)} == {
        ("w", "boot", "eu-west-1a", "AWS Spot price of g6.xlarge in eu-west-1a")
    }


def test_where_no_price_is_told_of_then_and_there_todays_stands_in_and_says_so() -> None:
    prices = Prices(now={"g6.xlarge": Decimal("0.72"), "g5.xlarge": Decimal("1.44")})
    [known] = prices.rates("g6.xlarge", "g5.xlarge").priced(charge("g6.xlarge", "eu-west-1a", 7))
    assert (known.seconds, known.usd_per_second, "none is told" in known.source) == (7, Decimal("0.0002"), True)
    [unknown] = prices.rates("g6.xlarge", "g5.xlarge").priced(charge())
    assert (unknown.usd_per_second, "dearest" in unknown.source) == (Decimal("0.0004"), True)


def test_without_any_price_nothing_is_settled() -> None:
    with pytest.raises(Transient, match=r"tells no Spot price of g6\.xlarge"):
        list(Prices().rates("g6.xlarge").priced(charge("g6.xlarge", "eu-west-1a")))


def test_plans_go_by_the_dearest_instance_that_may_be_started() -> None:
    prices = Prices(now={"g6.xlarge": Decimal("0.72"), "g5.xlarge": Decimal("1.44")})
    assert prices.rates("g6.xlarge", "g5.xlarge").most_per_hour() == Decimal("1.44")
    assert prices.rates().most_per_hour() is None


def test_an_instance_type_that_is_not_sold_there_stops_a_plan() -> None:
    prices = Prices(now={"g6.xlarge": Decimal("0.72")})
    with pytest.raises(Terminal, match=r"no Spot price of 'g4dn\.xlarge'"):
        prices.rates("g6.xlarge", "g4dn.xlarge").most_per_hour()
