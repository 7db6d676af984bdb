from __future__ import annotations

import random

import pytest

from lowtide.emulators.faults import BadPlan, Fault, Faults, read_plan


def plan(*rules, seed=7):
    return Faults({"seed": seed, "rules": list(rules)})


def test_a_rule_strikes_as_often_as_it_says_and_then_no_more():
    faults = plan({"on": "create", "do": "error_after", "times": 2})
    assert [faults.take("create") is not None for _ in range(4)] == [True, True, False, False]
    assert faults.done() == [2]


def test_once_is_the_default_and_forever_has_no_end():
    faults = plan({"on": "get", "do": "not_found"}, {"on": "list", "do": "throttle", "times": "forever"})
    assert [faults.take("get") is not None for _ in range(3)] == [True, False, False]
    assert all(faults.take("list") for _ in range(50))


def test_the_first_occasions_can_be_skipped():
    faults = plan({"on": "get", "do": "error_before", "after": 2})
    assert [faults.take("get") is not None for _ in range(4)] == [False, False, True, False]


def test_a_rule_strikes_only_at_its_points_and_where_its_facts_hold():
    faults = plan(
        {"on": ["get", "list"], "do": "throttle", "times": "forever", "match": {"service": "azure"}},
        {"on": "row", "do": "poison", "times": "forever", "match": {"text": "POISON"}},
    )
    assert faults.take("create", service="azure") is None
    assert faults.take("get", service="bedrock") is None
    assert faults.take("list", service="azure") == Fault("throttle")
    assert faults.take("row", record="r", text="no harm") is None
    assert faults.take("row", record="r", text="some POISON here") == Fault("poison")
    assert faults.take("row", record="r") is None


def test_chance_depends_on_the_seed_and_the_record_and_not_on_the_order():
    def struck(seed: int, order: list[str]) -> set[str]:
        faults = plan({"on": "row", "do": "lose", "times": "forever", "rate": 0.2}, seed=seed)
        return {record for record in order if faults.take("row", record=record)}

    records = [f"r{number}" for number in range(1000)]
    shuffled = random.Random(1).sample(records, len(records))
    assert struck(7, records) == struck(7, shuffled)
    assert struck(7, records) != struck(8, records)
    assert 140 < len(struck(7, records)) < 260


def test_chance_of_calls_is_drawn_anew_for_each_and_the_same_again_for_the_same_seed():
    def drawn(seed: int) -> list[bool]:
        faults = plan({"on": "get", "do": "throttle", "times": "forever", "rate": 0.5}, seed=seed)
        return [faults.take("get") is not None for _ in range(200)]

    assert drawn(3) == drawn(3) != drawn(4)
    assert 60 < sum(drawn(3)) < 140


def test_a_record_that_was_struck_is_drawn_for_anew_and_one_that_was_spared_is_not():
    faults = plan({"on": "row", "do": "row_error", "times": "forever", "rate": 0.3})
    records = [f"r{number}" for number in range(500)]
    first = {record for record in records if faults.take("row", record=record)}
    second = {record for record in records if faults.take("row", record=record)}
    assert second < first
    assert second


def test_each_bounds_the_strikes_on_one_record():
    faults = plan({"on": "row", "do": "row_error", "times": "forever", "each": 2})
    assert [faults.take("row", record="a") is not None for _ in range(4)] == [True, True, False, False]
    assert faults.take("row", record="b") is not None


def test_wants_says_whether_a_rule_is_left_at_a_point():
    faults = plan({"on": "row", "do": "lose"})
    assert faults.wants("row")
    assert not faults.wants("output")
    faults.take("row", record="a")
    assert not faults.wants("row")


def test_a_new_plan_takes_the_place_of_the_old_and_reset_starts_the_first_again():
    faults = plan({"on": "get", "do": "throttle"})
    faults.take("get")
    faults.follow({})
    assert faults.take("get") is None
    faults.reset()
    assert faults.take("get") == Fault("throttle")


def test_a_fault_carries_what_its_rule_says(tmp_path):
    path = tmp_path / "faults.yaml"
    path.write_text("seed: 3\nrules:\n- {on: create, do: timeout_after, seconds: 2.5, code: c, message: m}\n")
    assert Faults(read_plan(path)).take("create") == Fault("timeout_after", 2.5, "c", "m")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rules": [{"on": "create"}]}, "rule 1 needs"),
        ({"rules": [{"on": "nowhere", "do": "throttle"}]}, "nowhere"),
        ({"rules": [{"on": "row", "do": "throttle"}]}, "throttle"),
        ({"rules": [{"on": "get", "do": "lose"}]}, "lose"),
        ({"rules": [{"on": "get", "do": "throttle", "often": 1}]}, "rule 1"),
        ({"rules": [{"on": "get", "do": "throttle", "times": "often"}]}, "times"),
        ({"rules": [{"on": "get", "do": "throttle", "rate": "x"}]}, "rule 1"),
        ({"rules": {}, "seeds": 1}, "seeds"),
        ({"seed": "x"}, "seed"),
        ({"rules": [{"on": "get", "do": "throttle", "rate": 1.5}]}, "rule 1: `rate` is a number from 0 to 1, not 1.5"),
        ({"rules": [{"on": "get", "do": "throttle", "rate": -0.1}]}, "rule 1: `rate`"),
        ({"rules": [{"on": "get", "do": "throttle", "times": -1}]}, "rule 1: `times` is a whole number from 0 up"),
        ({"rules": [{"on": "get", "do": "throttle", "times": True}]}, "rule 1: `times`"),
        ({"rules": [{"on": "get", "do": "throttle", "after": -1}]}, "rule 1: `after`"),
        ({"rules": [{"on": "get", "do": "timeout_after", "seconds": -1}]}, "rule 1: `seconds`"),
        ({"rules": [{"on": "get", "do": "throttle", "match": {"servce": "x"}}]}, "'servce'; did you mean 'service'"),
        ({"rules": [{"on": "get", "do": "throttel"}]}, "'throttel'; did you mean 'throttle'"),
        ({"rules": [{"on": "gett", "do": "throttle"}]}, "'gett'; did you mean 'get'"),
        ({"rules": [{"on": "get", "do": "throttle", "tmes": 1}]}, "rule 1: unknown: 'tmes'; did you mean 'times'"),
        ({"rules": [{"on": [["get"]], "do": ["throttle"]}]}, "rule 1: `on`"),
        ({"rules": [{"on": "get", "do": ["throttle"]}]}, "rule 1: `do`"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(given, said):
    with pytest.raises(BadPlan, match=said):
        Faults(given)


@pytest.mark.parametrize("text", ["[]", "false", "''", "rules: [{on: get, do: dance}]"])
def test_a_file_that_is_no_plan_is_refused_by_its_name(tmp_path, text):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(BadPlan, match=r"plan\.yaml: "):
        read_plan(path)


def test_an_empty_file_is_a_plan_without_rules(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("# nothing\n")
    assert read_plan(path) == {}
