"""Every fault, at every provider: nothing is paid twice, the ledger is the bill, and the run ends by itself."""

from __future__ import annotations

import pytest
from faults.conftest import Setting
from faults.scene import DOCUMENTS
from servers.faulty import Fault, faulty

ALL = {"ok": DOCUMENTS}
FOREVER = {"times": "forever"}


def test_without_faults(setting: Setting, backend: str) -> None:
    scene = setting(backend)
    ended = scene.finish()
    scene.check(ended, ALL)
    assert scene.emulator.bill()["records"] == DOCUMENTS


@pytest.mark.parametrize(
    "how", ["error_before", "error_after", "reset_before", "reset_after", "timeout_before", "timeout_after", "throttle"]
)
def test_a_create_call_that_fails(setting: Setting, backend: str, how: str) -> None:
    scene = setting(backend, {"on": "create", "do": how, "times": 3, "seconds": 0.5})
    scene.check(scene.finish(), ALL)
    assert sum(scene.emulator.struck()) == 3
    assert scene.emulator.bill()["records"] == DOCUMENTS


@pytest.mark.parametrize("how", ["error_before", "reset_before", "timeout_before", "error_after", "reset_after"])
def test_an_upload_that_fails(setting: Setting, how: str) -> None:
    scene = setting("openai-batch", {"on": "upload", "do": how, "times": 3, "seconds": 0.5})
    scene.check(scene.finish(), ALL)
    assert sum(scene.emulator.struck()) == 3


def test_throttling_everywhere(setting: Setting, backend: str) -> None:
    points = ["upload", "create", "get", "list", "download", "cancel", "delete"]
    scene = setting(backend, {"on": points, "do": "throttle", "rate": 0.3, "times": 40})
    scene.check(scene.finish(), ALL)


@pytest.mark.parametrize("how", ["error_before", "reset_before", "timeout_before"])
def test_polls_that_fail_for_minutes(setting: Setting, backend: str, how: str) -> None:
    scene = setting(backend, {"on": ["get", "list"], "do": how, "times": 30, "seconds": 0.3})
    scene.check(scene.finish(), ALL)


@pytest.mark.parametrize("how", ["lose", "truncate", "malform"])
def test_result_lines_that_cannot_be_had_are_paid_once(setting: Setting, backend: str, how: str) -> None:
    scene = setting(backend, {"on": "row", "do": how, "times": 25, "after": 40})
    ended = scene.finish()
    scene.check(ended)
    assert scene.emulator.bill()["records"] == DOCUMENTS
    assert ended.statuses["ok"] + ended.statuses["error"] == DOCUMENTS
    assert 0 < ended.statuses["error"] <= 25
    assert ended.code == 4
    assert ended.waste()["lost"] > 0


@pytest.mark.parametrize("how", ["late", "duplicate"])
def test_result_lines_that_come_late_or_twice(setting: Setting, backend: str, how: str) -> None:
    scene = setting(backend, {"on": "row", "do": how, "times": 25, "seconds": 60})
    ended = scene.finish()
    scene.check(ended, ALL)
    assert not ended.waste()


def test_result_lines_in_another_order(setting: Setting, backend: str) -> None:
    scene = setting(backend, {"on": "output", "do": "reorder", **FOREVER})
    scene.check(scene.finish(), ALL)


def test_rows_that_are_rejected_are_errors(setting: Setting, backend: str) -> None:
    scene = setting(backend, {"on": "row", "do": "row_error", "times": 30})
    scene.check(scene.finish(), {"ok": DOCUMENTS - 30, "error": 30})


@pytest.mark.parametrize("how", ["row_server_error", "row_throttled", "row_expired"])
def test_rows_that_were_not_answered_are_asked_again(setting: Setting, backend: str, how: str) -> None:
    scene = setting(backend, {"on": "row", "do": how, "rate": 0.1, "each": 1, **FOREVER})
    ended = scene.finish()
    scene.check(ended, ALL)
    assert max(row["attempts"] for row in ended.rows) > 1


def test_rows_that_are_refused_say_so(setting: Setting, backend: str) -> None:
    scene = setting(backend, {"on": "row", "do": "refuse", "times": 12})
    scene.check(scene.finish(), {"ok": DOCUMENTS - 12, "refused": 12})


def test_a_poison_row_ends_as_an_error_and_holds_nothing_up(setting: Setting, backend: str) -> None:
    scene = setting(
        backend, {"on": ["row", "converse", "chat"], "do": "poison", **FOREVER, "match": {"text": "POISON"}}
    )
    scene.check(scene.finish(), {"ok": DOCUMENTS - 1, "error": 1})


def test_a_batch_that_fails_in_validation_once_is_sent_again(setting: Setting) -> None:
    scene = setting("bedrock", {"on": "validate", "do": "fail_validation", "times": 2})
    scene.check(scene.finish(), ALL)


@pytest.mark.parametrize("backend", ["openai-batch", "azure-batch"])
def test_a_batch_that_can_never_pass_validation_is_not_tried_again(setting: Setting, backend: str) -> None:
    scene = setting(backend, {"on": "validate", "do": "fail_validation", "code": "model_not_found", **FOREVER})
    ended = scene.finish()
    scene.check(ended, {"error": DOCUMENTS})
    assert scene.emulator.struck() == [4]
    assert scene.emulator.bill()["records"] == 0


def test_all_rows_fail(setting: Setting, backend: str) -> None:
    scene = setting(backend, {"on": "row", "do": "row_error", **FOREVER})
    scene.check(scene.finish(), {"error": DOCUMENTS})


@pytest.mark.parametrize("how", ["fail", "expire", "partial"])
def test_batches_that_end_before_all_is_answered(setting: Setting, backend: str, how: str) -> None:
    scene = setting(backend, {"on": "process", "do": how, "times": 3})
    scene.check(scene.finish(), ALL)


def test_no_room_for_a_while(setting: Setting, backend: str) -> None:
    scene = setting(backend, {"on": "create", "do": "quota", "times": 6})
    scene.check(scene.finish(), ALL)


def test_no_room_after_the_create_call(setting: Setting) -> None:
    scene = setting("openai-batch", {"on": "validate", "do": "quota", "times": 6})
    scene.check(scene.finish(), ALL)


@pytest.mark.parametrize("backend", ["openai-batch", "azure-batch"])
def test_an_output_file_that_is_not_there_once(setting: Setting, backend: str) -> None:
    scene = setting(backend, {"on": "download", "do": "not_found", "times": 3})
    scene.check(scene.finish(), ALL)


def test_output_objects_that_are_not_there_once(
    setting: Setting, moto_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = setting("bedrock")
    with faulty(moto_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.faults = [
            Fault("GET", 404, "NoSuchKey", where=".jsonl.out", times=3),
            Fault("GET", 503, "SlowDown", where="manifest", times=2),
        ]
        scene.check(scene.finish(), ALL)
        assert not any(fault.times for fault in proxy.faults)


@pytest.mark.parametrize("how", ["upper_case", "iso_times", "empty_file_ids"])
@pytest.mark.parametrize("backend", ["openai-batch", "azure-batch"])
def test_odd_forms_of_an_answer(setting: Setting, backend: str, how: str) -> None:
    scene = setting(backend, {"on": ["create", "get", "list", "cancel"], "do": how, **FOREVER})
    scene.check(scene.finish(), ALL)


@pytest.mark.parametrize("skew", [-7200.0, 7200.0])
def test_clocks_that_differ_by_hours(setting: Setting, backend: str, skew: float) -> None:
    scene = setting(backend, {"on": "create", "do": "reset_after", "times": 2})
    scene.clock.skew = skew
    scene.check(scene.finish(), ALL)


def test_batches_that_show_late_in_listings(setting: Setting, backend: str) -> None:
    scene = setting(backend, {"on": "create", "do": "error_after", "times": 4})
    name = "bedrock" if backend == "bedrock" else "openai"
    scene.emulator.settings(**{name: {"visible_after": 60}})
    scene.check(scene.finish(), ALL)


def test_answers_of_the_wrong_form_are_asked_again_and_waste(setting: Setting, backend: str) -> None:
    scene = setting(backend, {"on": "row", "do": "invalid", "rate": 0.1, "each": 1, **FOREVER})
    ended = scene.finish()
    scene.check(ended, ALL, again=["an answer that is none was asked for again"])
    assert ended.waste()["invalid"] > 0
