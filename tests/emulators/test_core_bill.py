from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from lowtide.emulators.bill import Bill, Charge, request_hash

CHARGE = Charge("bedrock", "1:us-east-1", "m", "batch", "b1", "r1", request_hash({"q": 1}), 10, 4, 5, 2)


@pytest.fixture
def bill(tmp_path):
    bill = Bill(tmp_path)
    yield bill
    bill.close()


def test_totals_add_up_by_service_model_and_tier(bill):
    bill.record(CHARGE)
    bill.record(replace(CHARGE, record_id="r2", request_sha256=request_hash({"q": 2}), input_tokens=100))
    bill.record(replace(CHARGE, tier="on_demand", batch_id="", record_id=""))
    batch, on_demand = bill.totals()
    assert (batch.tier, batch.records, batch.requests, batch.input_tokens) == ("batch", 2, 2, 110)
    assert (batch.cached_tokens, batch.output_tokens, batch.reasoning_tokens) == (8, 10, 4)
    assert (on_demand.tier, on_demand.records, on_demand.input_tokens) == ("on_demand", 1, 10)


def test_the_same_question_is_seen_whatever_its_record_its_batch_and_its_tier_are(bill):
    bill.record(CHARGE)
    bill.record(replace(CHARGE, record_id="other", batch_id="b2"))
    bill.record(replace(CHARGE, tier="on_demand"))
    bill.record(replace(CHARGE, request_sha256=request_hash({"q": 2})))
    assert bill.billed_per_request(more_than=1) == {CHARGE.request_sha256: 3}
    assert sorted(bill.billed_per_request().values()) == [1, 3]
    summary = bill.summary()
    assert (summary["records"], summary["requests"], summary["most_billed"]) == (4, 2, 3)
    assert summary["billed_again"] == {CHARGE.request_sha256: 3}
    assert summary["tiers"] == {"batch": 3, "on_demand": 1}


def test_the_hash_of_a_question_ignores_the_order_of_its_keys_and_nothing_else():
    assert request_hash({"a": 1, "b": [1, 2]}) == request_hash({"b": [1, 2], "a": 1})
    assert request_hash({"a": 1, "b": [1, 2]}) != request_hash({"a": 1, "b": [2, 1]})


def test_charges_come_back_as_they_were_and_by_batch(bill):
    many = [replace(CHARGE, record_id=f"r{number}", batch_id=f"b{number % 2}") for number in range(4500)]
    for charge in many:
        bill.record(charge)
    assert list(bill.charges()) == many
    assert list(bill.charges(batch_id="b1")) == many[1::2]
    assert sum(total.records for total in bill.totals(batch_id="b1")) == 2250


def test_many_threads_lose_nothing(bill):
    def charge() -> None:
        for _ in range(500):
            bill.record(CHARGE)

    threads = [threading.Thread(target=charge) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bill.billed_per_request() == {CHARGE.request_sha256: 4000}


def test_an_empty_or_a_cleared_bill_says_zero(bill):
    bill.record(CHARGE)
    bill.clear()
    assert bill.totals() == []
    assert bill.billed_per_request() == {}
    assert bill.summary()["most_billed"] == 0
