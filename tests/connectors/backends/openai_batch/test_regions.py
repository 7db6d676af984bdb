"""Several deployments of one model share a run: shards go where there is room, and are found wherever they went."""

from __future__ import annotations

import pytest
from support.openai_support import KEY, Clock, answers_of, azure_backend, ended, request_of, shard_of

from lowtide.connectors.backends.openai_batch import open_azure
from lowtide.errors import QuotaFull, SubmitUnknown, Terminal, Transient
from lowtide.job.backends import AzureBatchBackend

NAMES = ("east", "west", "north")


def spec_for(url, names=NAMES, **options):
    places = [
        {"endpoint": f"{url}/azure/{name}", "deployment": f"batch-in-the-{name}", "region": name} for name in names
    ]
    first, *further = places
    return AzureBatchBackend.model_validate({"model": "gpt-4.1-mini", **first, "regions": further, **options})


@pytest.fixture
def settle(emulator):
    """`settle(east=50)`: each region has its deployment, with that quota of tokens, and fails fast."""

    def apply(*, fail_fast=True, **tokens):
        resources = {
            name: {
                "deployments": {f"batch-in-the-{name}": {"model": "gpt-4.1-mini", "enqueued_tokens": tokens.get(name)}},
                "fail_fast": fail_fast,
            }
            for name in NAMES
        }
        emulator.settings(openai={"resources": resources})

    apply()
    return apply


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def backend(emulator, settle, clock):
    found = open_azure(spec_for(emulator.url), environ={"AZURE_OPENAI_API_KEY": KEY})
    found._room._clock = clock
    return found


def submitted(backend, name="t1", count=5):
    return backend.submit(
        shard_of(backend, [request_of(at, f"Document {at} tells of a bridge.") for at in range(count)]), name
    )


def test_the_first_region_takes_everything_while_it_has_room(backend):
    ids = [submitted(backend, f"t{at}") for at in range(3)]
    assert {batch_id.partition("/")[0] for batch_id in ids} == {"east"}


def test_a_shard_goes_where_there_is_room_under_the_name_of_the_deployment_there(backend, settle, emulator):
    settle(east=10, west=10)
    batch_id = submitted(backend)
    assert batch_id.startswith("north/batch_")
    status = ended(backend, batch_id)
    assert (status.outcome, status.region, status.charged) == ("completed", "north", 5)
    answers = answers_of(backend, batch_id)
    assert {answer.status for answer in answers.values()} == {"ok"}
    assert len(answers) == 5
    assert backend.find("t1") == [batch_id]
    assert emulator.bill()["most_billed"] == 1
    backend.cancel(batch_id)
    backend.discard(batch_id)


def test_files_of_a_shard_that_went_elsewhere_are_deleted_where_it_was_refused(backend, settle, emulator):
    settle(east=10, west=10)
    submitted(backend)
    counts = emulator.calls()["counts"]["azure"]
    assert (counts["upload"], counts["create"], counts["delete"]) == (3, 3, 2)


def test_a_full_region_is_left_alone_for_a_while_and_then_asked_again(backend, settle, clock, emulator):
    settle(east=10)
    assert submitted(backend, "t1").startswith("west/")
    settle()
    assert submitted(backend, "t2").startswith("west/")
    clock.now += 5
    assert submitted(backend, "t3").startswith("west/")
    assert emulator.calls()["counts"]["azure"]["create"] == 4


def test_the_least_recently_full_region_is_tried_first(backend, settle, clock):
    settle(east=10, west=10, north=10)
    with pytest.raises(QuotaFull, match="token_limit_exceeded"):
        submitted(backend)
    with pytest.raises(QuotaFull, match="asked again in 5 s"):
        submitted(backend)
    clock.now += 5
    settle(west=10)
    assert submitted(backend).startswith("east/")


def test_a_batch_that_ends_makes_its_region_worth_a_try(backend, settle):
    first = submitted(backend, "t1")
    settle(east=10, west=10, north=10)
    with pytest.raises(QuotaFull):
        submitted(backend, "t2")
    settle()
    ended(backend, first)
    assert submitted(backend, "t2").startswith("east/")


def test_a_region_that_cannot_be_reached_is_passed_over_when_submitting(emulator, settle):
    spec = spec_for(emulator.url)
    nowhere = spec.model_copy(update={"endpoint": "http://127.0.0.1:9"})
    backend = open_azure(nowhere, environ={"AZURE_OPENAI_API_KEY": KEY})
    assert submitted(backend).startswith("west/")


def test_a_region_that_cannot_be_reached_leaves_nothing_known_when_looking(emulator, settle):
    spec = spec_for(emulator.url)
    further = spec.regions[1].model_copy(update={"endpoint": "http://127.0.0.1:9"})
    partly = spec.model_copy(update={"regions": (spec.regions[0], further)})
    backend = open_azure(partly, environ={"AZURE_OPENAI_API_KEY": KEY})
    submitted(backend)
    with pytest.raises(Transient):
        backend.find("t1")


@pytest.mark.parametrize("do", ["error_after", "reset_after"])
def test_a_submission_that_is_lost_in_one_region_is_not_repeated_in_another(backend, settle, emulator, do):
    settle(east=10)
    emulator.faults([{"on": "create", "do": do, "match": {"account": "azure/west"}}])
    with pytest.raises(SubmitUnknown):
        submitted(backend)
    [batch_id] = backend.find("t1")
    assert batch_id.startswith("west/")
    ended(backend, batch_id)
    assert emulator.bill()["most_billed"] == 1


def test_batches_of_one_token_in_several_regions_are_all_found(emulator, backend, settle):
    first = submitted(backend)
    settle(east=10)
    emulator.clock(advance=60)
    second = submitted(backend)
    assert backend.find("t1") == [first, second]


def test_quota_that_is_full_only_after_create_sends_the_next_shard_elsewhere(backend, settle):
    settle(fail_fast=False, east=10)
    first = submitted(backend, "t1")
    assert first.startswith("east/")
    assert ended(backend, first).fault == "quota"
    assert submitted(backend, "t2").startswith("west/")


def test_a_batch_of_a_region_that_the_job_no_longer_names_says_so(backend, emulator):
    with pytest.raises(Terminal, match="'south', which the job file no longer names"):
        backend.poll("south/batch_1")
    alone = azure_backend(f"{emulator.url}/azure/east", deployment="batch-in-the-east", region="east")
    assert ended(alone, submitted(backend)).outcome == "completed"


def test_the_batches_of_a_run_that_began_with_one_region_are_those_of_the_first(backend, emulator):
    alone = azure_backend(f"{emulator.url}/azure/east", deployment="batch-in-the-east", region="east")
    batch_id = submitted(alone)
    assert "/" not in batch_id
    assert ended(backend, batch_id).region == "east"


def test_each_region_is_looked_at(backend):
    names = [finding.name for finding in backend.examine()]
    assert [name for name in names if name.endswith("deployment")] == [f"{name}: deployment" for name in NAMES]
