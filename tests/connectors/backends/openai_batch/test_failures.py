"""Every answer to a call, and what is made of it: what was accepted, refused, or may have been either."""

from __future__ import annotations

import json
import socket
import time

import pytest
from support.openai_support import KEY, openai_backend, request_of, shard_of

from lowtide.connectors.backends.openai_batch import remote
from lowtide.errors import QuotaFull, SubmitUnknown, Terminal, Transient

SECRET_TEXT = "the text of a document that nobody may see in a log"
FILE = {"id": "file-1", "object": "file", "status": "processed", "bytes": 1, "filename": "f", "purpose": "batch"}
BATCH = {"id": "batch_1", "status": "validating", "created_at": 1, "metadata": {"lowtide_token": "t1"}}


def error(code, message="no"):
    return {"error": {"code": code, "message": message, "type": "some_type", "param": None}}


@pytest.fixture
def submit(scripted):
    """`submit(create=Reply)` or `submit(upload=Reply)`: submit a shard to a server that answers so."""

    def run(create=None, upload=None):
        def answer(method, path, body):
            if path == "/v1/files":
                return upload or type(create)(200, FILE)
            if path == "/v1/batches":
                return create
            return type(create or upload)(200, {"id": "file-1", "deleted": True})

        scripted.answer = answer
        backend = openai_backend(scripted.url)
        return backend.submit(shard_of(backend, [request_of(1, SECRET_TEXT)]), "t1")

    return run


@pytest.mark.parametrize(
    ("status", "body", "raised", "said"),
    [
        (400, error("token_limit_exceeded"), QuotaFull, "no room"),
        (400, error("400", "Enqueued token limit reached for gpt in organization"), QuotaFull, "no room"),
        (400, {"error": {"code": "BadRequest", "inner_error": {"code": "token_limit_exceeded"}}}, QuotaFull, "room"),
        (429, error("rate_limit_exceeded"), QuotaFull, "no room"),
        (429, b"not json at all", QuotaFull, "HTTP 429"),
        (429, error("insufficient_quota"), Terminal, "no credit left"),
        (400, error("invalid_request"), Terminal, "invalid_request"),
        (401, error("invalid_api_key"), Terminal, "OPENAI_API_KEY"),
        (403, error(None), Terminal, "Batches: write"),
        (404, error("not_found"), Terminal, "endpoint"),
        (422, error("x"), Terminal, "HTTP 422"),
        (307, {}, Terminal, "leads elsewhere"),
        (409, error("conflict"), Transient, "HTTP 409"),
        (408, error("timeout"), SubmitUnknown, "may have been created"),
        (500, error("server_error"), SubmitUnknown, "may have been created"),
        (502, b"<html>bad gateway</html>", SubmitUnknown, "HTTP 502"),
        (503, error("overloaded"), SubmitUnknown, "HTTP 503"),
        (200, b"<html>", SubmitUnknown, "does not say which"),
        (200, {"object": "batch"}, SubmitUnknown, "does not say which"),
        (200, [], SubmitUnknown, "does not say which"),
    ],
)
def test_a_create_call_is_refused_only_where_the_provider_says_so(submit, scripted, reply, status, body, raised, said):
    with pytest.raises(raised, match=said) as caught:
        submit(create=reply(status, body, {"Location": "/v1/elsewhere"} if status == 307 else {}))
    assert scripted.seen.count("POST /v1/batches") == 1
    assert not any("elsewhere" in seen for seen in scripted.seen)
    assert type(caught.value) is raised


def test_a_connection_that_is_reset_at_create_leaves_the_outcome_unknown(submit, scripted, reply):
    with pytest.raises(SubmitUnknown):
        submit(create=reply(0))
    assert scripted.seen.count("POST /v1/batches") == 1


def test_a_create_call_that_is_not_answered_in_time_leaves_the_outcome_unknown(submit, scripted, reply, monkeypatch):
    monkeypatch.setattr(remote, "_CREATE_SECONDS", 0.3)
    with pytest.raises(SubmitUnknown, match="ReadTimeout"):
        submit(create=reply(200, BATCH, silence=30))
    assert scripted.seen.count("POST /v1/batches") == 1


@pytest.mark.parametrize(
    ("status", "body", "raised"),
    [
        (400, error("invalid_file"), Terminal),
        (401, error("invalid_api_key"), Terminal),
        (403, error(None), Terminal),
        (413, error("too_large"), Terminal),
        (429, error("insufficient_quota"), Terminal),
        (408, error("x"), Transient),
        (429, error("rate_limit_exceeded"), Transient),
        (500, error("server_error"), Transient),
        (0, None, Transient),
        (200, b"<html>", Transient),
        (200, {"status": "processed"}, Transient),
    ],
)
def test_an_upload_that_fails_is_never_a_submission_whose_outcome_is_unknown(
    submit, scripted, reply, status, body, raised
):
    with pytest.raises((Terminal, Transient, SubmitUnknown, QuotaFull)) as caught:
        submit(upload=reply(status, body))
    assert type(caught.value) is raised
    assert scripted.seen == ["POST /v1/files"]


def test_nobody_at_the_address_means_that_nothing_was_sent():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        backend = openai_backend(f"http://127.0.0.1:{probe.getsockname()[1]}")
        with pytest.raises(Transient, match=r"ConnectError: .*refused"):
            backend.submit(shard_of(backend, [request_of(1)]), "t1")


def test_a_create_call_that_could_not_be_sent_is_known_to_have_had_no_effect():
    """The server takes the upload and is gone before the create call."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        backend = openai_backend(f"http://127.0.0.1:{listener.getsockname()[1]}")
        place = backend._places[0]
    with pytest.raises(Transient, match="ConnectError"):
        place.remote.create({"input_file_id": "file-1"})


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
@pytest.mark.parametrize("where", ["create", "upload"])
def test_no_error_repeats_the_key_or_a_document(submit, reply, status, where):
    message = f"Incorrect API key provided: {KEY}. {'It is wrong. ' * 100}"
    if where == "upload":
        message = f"{message[:50]} Your file was: {SECRET_TEXT}"
    with pytest.raises((Terminal, Transient, QuotaFull, SubmitUnknown)) as caught:
        submit(**{where: reply(status, error("some_code", message))})
    shown = str(caught.value)
    assert KEY not in shown
    assert SECRET_TEXT not in shown
    assert len(shown) < 700
    # Nor does a traceback, which shows what an error was raised from.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_the_scopes_that_a_key_misses_are_named(submit, reply):
    message = "You have insufficient permissions for this operation. Missing scopes: api.files.write, x. Check"
    with pytest.raises(Terminal, match=r"Missing scopes: api\.files\.write"):
        submit(upload=reply(401, error(None, message)))


@pytest.mark.parametrize(
    ("status", "raised"), [(401, Terminal), (403, Terminal), (404, Transient), (400, Transient), (429, Transient)]
)
def test_looking_fails_for_good_only_where_credentials_are_refused(scripted, reply, status, raised):
    scripted.answer = lambda method, path, body: reply(status, error("x"), {"x-should-retry": "false"})
    backend = openai_backend(scripted.url)
    for look in (lambda: backend.poll("b1"), lambda: backend.find("t1"), lambda: list(backend.outputs("b1"))):
        with pytest.raises(raised):
            look()


@pytest.mark.parametrize("headers", [{"Retry-After": "100"}, {"retry-after-ms": "100000"}, {"Retry-After": "Sat, 1"}])
def test_a_long_wait_that_a_server_asks_for_is_left_to_the_run(scripted, reply, headers):
    scripted.answer = lambda method, path, body: reply(429, error("x"), headers)
    started = time.monotonic()
    with pytest.raises(Transient):
        openai_backend(scripted.url).poll("b1")
    assert time.monotonic() - started < 10
    assert len(scripted.seen) == 1


def test_a_listing_that_cannot_be_read_leaves_nothing_known(scripted, reply):
    backend = openai_backend(scripted.url)
    for body in (b"<html>", {}, {"data": None}, {"data": [{"object": "batch"}]}, []):
        scripted.answer = lambda method, path, sent, body=body: reply(200, body)
        with pytest.raises(Transient):
            backend.find("t1")


def listing(reply, batches, page, *, key="data", has_more=True):
    """A server with these batches, the newest first, so many to a page."""

    def answer(method, path, body):
        after = path.partition("after=")[2].partition("&")[0]
        ids = [batch["id"] for batch in batches]
        start = ids.index(after) + 1 if after else 0
        found = {key: batches[start : start + page]}
        if has_more:
            found["has_more"] = start + page < len(batches)
        return reply(200, found)

    return answer


@pytest.mark.parametrize(("key", "has_more"), [("data", True), ("data", False), ("value", True)])
def test_every_page_is_looked_through_and_all_matches_are_found_oldest_first(scripted, reply, key, has_more):
    batches = [
        {"id": f"b{number}", "status": "Completed", "created_at": 1000 - number, "metadata": None}
        for number in range(25)
    ]
    for number in (3, 24, 11):
        batches[number]["metadata"] = {"lowtide_token": "t1"}
    scripted.answer = listing(reply, batches, 7, key=key, has_more=has_more)
    backend = openai_backend(scripted.url)
    assert backend.find("t1") == ["b24", "b11", "b3"]
    assert backend.find("t2") == []
    assert all("limit=100" in seen for seen in scripted.seen)


def test_matches_without_a_time_keep_the_order_of_the_listing(scripted, reply):
    batches = [{"id": f"b{at}", "status": "failed", "metadata": {"lowtide_token": "t1"}} for at in range(3)]
    scripted.answer = listing(reply, batches, 2)
    assert openai_backend(scripted.url).find("t1") == ["b2", "b1", "b0"]


def test_a_server_that_gives_the_same_page_for_ever_is_asked_twice(scripted, reply):
    page = {"data": [{"id": "b1", "status": "completed", "metadata": {"lowtide_token": "t1"}}], "has_more": True}
    scripted.answer = lambda method, path, body: reply(200, page)
    assert openai_backend(scripted.url).find("t1") == ["b1"]
    assert len(scripted.seen) == 2


def test_a_page_that_fails_leaves_nothing_known(scripted, reply):
    batches = [{"id": f"b{at}", "status": "failed", "metadata": {"lowtide_token": "t1"}} for at in range(6)]
    pages = listing(reply, batches, 2)
    scripted.answer = lambda method, path, body: (
        reply(404, error("x")) if "after=b3" in path else pages(method, path, body)
    )
    with pytest.raises(Transient):
        openai_backend(scripted.url).find("t1")


def test_a_shard_that_was_refused_is_uploaded_once(scripted, reply):
    replies = [reply(429, error("x")), reply(200, BATCH)]

    def answer(method, path, body):
        if path == "/v1/batches":
            return replies.pop(0)
        return reply(200, FILE)

    scripted.answer = answer
    backend = openai_backend(scripted.url)
    shard = shard_of(backend, [request_of(1)])
    with pytest.raises(QuotaFull):
        backend.submit(shard, "t1")
    with pytest.raises(QuotaFull, match="asked again in"):
        backend.submit(shard, "t1")
    backend._room.eased(backend._places[0])
    assert backend.submit(shard, "t1") == "batch_1"
    assert scripted.seen == ["POST /v1/files", "POST /v1/batches", "GET /v1/files/file-1", "POST /v1/batches"]
    assert json.loads(scripted.bodies[-1]) == {
        "completion_window": "24h",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file-1",
        "metadata": {"lowtide_token": "t1"},
        "output_expires_after": {"anchor": "created_at", "seconds": 2_592_000},
    }


def test_a_shard_whose_batch_is_refused_for_good_leaves_no_file_behind(submit, scripted, reply):
    with pytest.raises(Terminal):
        submit(create=reply(400, error("invalid_request")))
    assert scripted.seen[-1] == "DELETE /v1/files/file-1"


def test_nothing_is_created_long_after_the_submission_began(scripted, reply, monkeypatch):
    scripted.answer = lambda method, path, body: reply(200, FILE)
    backend = openai_backend(scripted.url)
    now = time.time()
    clock = iter([now, now + 500])
    monkeypatch.setattr("time.time", lambda: next(clock, now + 500))
    with pytest.raises(Transient, match="too long"):
        backend.submit(shard_of(backend, [request_of(1)]), "t1")
    assert "POST /v1/batches" not in scripted.seen


@pytest.mark.parametrize("status", [400, 404, 409])
def test_cancelling_what_has_ended_is_no_error(scripted, reply, status):
    state = {"status": "completed"}

    def answer(method, path, body):
        return reply(status, error("x")) if method == "POST" else reply(200, {**BATCH, **state})

    scripted.answer = answer
    backend = openai_backend(scripted.url)
    backend.cancel("batch_1")
    state["status"] = "cancelling"
    backend.cancel("batch_1")
    state["status"] = "in_progress"
    with pytest.raises(Transient, match="could not be cancelled"):
        backend.cancel("batch_1")


def test_a_key_that_may_not_delete_does_not_stop_a_run(scripted, reply):
    def answer(method, path, body):
        if method == "DELETE":
            return reply(403, error("x"))
        return reply(200, {**BATCH, "status": "completed", "input_file_id": "file-1"})

    scripted.answer = answer
    with pytest.raises(Transient, match="HTTP 403"):
        openai_backend(scripted.url).discard("batch_1")


def test_files_of_a_batch_that_is_not_ours_or_has_not_ended_stay(scripted, reply):
    batch = {**BATCH, "status": "in_progress", "input_file_id": "file-1", "output_file_id": "file-2"}
    scripted.answer = lambda method, path, body: reply(200, batch)
    backend = openai_backend(scripted.url)
    with pytest.raises(Transient, match="still needs its files"):
        backend.discard("batch_1")
    batch |= {"status": "completed", "metadata": None}
    backend.discard("batch_1")
    assert not any(seen.startswith("DELETE") for seen in scripted.seen)


def test_kept_files_are_not_even_looked_at(scripted):
    openai_backend(scripted.url, keep_files=True).discard("batch_1")
    assert scripted.seen == []


def test_a_denial_names_who_lacks_what_in_the_provider_s_own_words(submit, reply):
    with pytest.raises(Terminal, match=r"HTTP 403, AuthorizationFailed \(OPENAI_API_KEY lacks a permission, or"):
        submit(create=reply(403, error("AuthorizationFailed")))
    with pytest.raises(QuotaFull):
        submit(create=reply(400, error("Token_Limit_Exceeded")))
