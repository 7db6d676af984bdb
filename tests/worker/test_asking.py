"""Asking an engine that answers, refuses, is busy, breaks off, hangs and dies."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from servers.engine import command, running, tokens_of
from servers.process import free_port

from lowtide.connectors.backends.openai_batch.answers import parse_answer
from lowtide_worker.answers import told, usage
from lowtide_worker.asking import HttpDesk
from lowtide_worker.bench import EngineBench
from lowtide_worker.engine import Supervisor
from lowtide_worker.layout import Engine, Fleet
from lowtide_worker.ports import EngineDown, EngineFailed

PATIENCE = 30.0
Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


def fleet(*, hang: float = 60.0, tries: int = 3, seconds: float = 20.0, most: int = 64) -> Fleet:
    engine = Engine(url="http://unused", hang_seconds=hang)
    return Fleet(model="m", engine=engine, least=1, most=most, tries=tries, request_seconds=seconds)


def line(content: str, name: str = "r0000001x1") -> bytes:
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    return json.dumps({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}).encode()


def completion(content: str = "yes") -> dict[str, object]:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return {"choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 5}}


@asynccontextmanager
async def engine_that(answers: Answering, healthy: Callable[[], bool] = lambda: True) -> AsyncIterator[str]:
    """The address of a server that answers questions so."""

    async def health(request: web.Request) -> web.Response:
        return web.Response(status=200 if healthy() else 503)

    async def answer(request: web.Request) -> web.StreamResponse:
        return await answers(request)

    app = web.Application()
    app.router.add_post("/v1/{rest:.*}", answer)
    app.router.add_get("/health", health)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", free_port())
    await site.start()
    try:
        yield site.name
    finally:
        await runner.cleanup()


def but_well(answers: Answering) -> Answering:
    """So does an engine that answers the simplest question."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return yes() if b'"Hello"' in await request.read() else await answers(request)

    return answer


def asked(answers: Answering, request: bytes, fleet: Fleet) -> Any:
    """What one request to such a server comes to, which is well otherwise."""

    async def work() -> bytes:
        async with engine_that(but_well(answers)) as url, HttpDesk(url, fleet) as desk:
            return await asyncio.wait_for(desk.ask(request), PATIENCE)

    answer = asyncio.run(work())
    assert b"\n" not in answer
    return json.loads(answer)


class Series:
    """Answers with one after the other, the last one for ever; counts how often it was asked."""

    def __init__(self, *answers: Callable[[], web.StreamResponse]) -> None:
        self._answers = answers
        self.times: list[float] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.times.append(time.monotonic())
        return self._answers[min(len(self.times), len(self._answers)) - 1]()


def yes() -> web.Response:
    return web.json_response(completion())


def refusal(status: int, error: object, **headers: str) -> Callable[[], web.Response]:
    return lambda: web.json_response({"error": error}, status=status, headers=headers)


def test_an_answer_is_spliced_into_its_line_as_it_came() -> None:
    text = '{"choices":[{"x":1.50,"message":{"content":"caf\\u00e9 \u2603"}}],"usage":{"prompt_tokens":3}}'

    async def work() -> bytes:
        answers = Series(lambda: web.Response(body=text.encode(), content_type="application/json"))
        async with engine_that(answers) as url, HttpDesk(url, fleet()) as desk:
            return await desk.ask(line("hello", 'r0000001x"\\'))

    answer = asyncio.run(work())
    assert text.encode() in answer
    found = json.loads(answer)
    assert found["custom_id"] == 'r0000001x"\\'
    assert (found["response"]["status_code"], found["error"]) == (200, None)


def test_an_answer_over_several_lines_becomes_one_line() -> None:
    pretty = json.dumps(completion("two\nlines"), indent=2).replace("\n", "\r\n")

    found = asked(Series(lambda: web.Response(body=pretty.encode())), line("hello"), fleet())

    assert found["response"]["body"] == completion("two\nlines")


def test_an_answer_that_is_no_utf_8_is_made_so() -> None:
    broken = json.dumps(completion("@@")).encode().replace(b"@@", b"\xf0\x9f")

    found = asked(Series(lambda: web.Response(body=broken)), line("hello"), fleet())

    assert "\ufffd" in found["response"]["body"]["choices"][0]["message"]["content"]


def test_the_body_is_sent_as_it_stands_to_the_path_it_names() -> None:
    seen: list[tuple[str, bytes, str]] = []

    async def answers(request: web.Request) -> web.StreamResponse:
        seen.append((request.path, await request.read(), request.headers["Content-Type"]))
        return yes()

    body = b'{"messages" : ["a", 1.0],"model":"m"}'
    request = b'{"custom_id":"r1","method":"POST","url":"/v1/chat/other","body":' + body + b"}"
    found = asked(answers, request, fleet())

    assert seen == [("/v1/chat/other", body, "application/json")]
    assert found["response"]["status_code"] == 200


def test_a_line_cannot_lead_to_another_place() -> None:
    seen: list[str] = []

    async def answers(request: web.Request) -> web.StreamResponse:
        seen.append(request.path)
        return yes()

    asked(answers, line("x").replace(b"/v1/chat/completions", b"@elsewhere/v1/x"), fleet())

    assert seen == ["/v1/chat/completions"]


def test_what_was_counted_is_read_from_the_line() -> None:
    found = asked(Series(yes), line("hello"), fleet())

    assert usage(json.dumps(found).encode()) == (11, 5)
    assert usage(b'{"custom_id":"x","response":{"status_code":400,"body":null},"error":{"code":"y"}}') == (0, 0)
    assert usage(b"no json") == (0, 0)


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_refused_request_is_an_error_at_once(status: int) -> None:
    answers = Series(refusal(status, {"message": "too long for 4096 tokens", "type": "t", "code": "context_length"}))

    found = asked(answers, line("hello"), fleet())

    assert len(answers.times) == 1
    assert found["response"] == {"status_code": status, "body": None}
    assert found["error"] == {"code": "context_length", "message": "too long for 4096 tokens"}


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_what_is_refused_to_all_is_no_error_of_a_request(status: int) -> None:
    with pytest.raises(EngineFailed, match=f"HTTP {status}, no_key: who are you"):
        asked(Series(refusal(status, {"message": "who are you", "code": "no_key"})), line("hello"), fleet())


def asked_with_key(answers: Answering, key: str) -> Any:
    async def work() -> bytes:
        async with engine_that(answers) as url, HttpDesk(url, fleet(), key=key) as desk:
            return await desk.ask(line("hello"))

    return json.loads(asyncio.run(work()))


def test_the_key_goes_with_what_is_asked() -> None:
    sent: list[str | None] = []

    async def answers(request: web.Request) -> web.StreamResponse:
        sent.append(request.headers.get("Authorization"))
        return yes()

    assert asked_with_key(answers, "k-1234567890")["error"] is None
    assert asked_with_key(answers, "")["error"] is None
    assert sent == ["Bearer k-1234567890", None]


@pytest.mark.parametrize("status", [401, 403])
def test_of_a_refused_key_is_told_where_it_stands_and_not_what_it_is(status: int) -> None:
    key = "k-1234567890"
    said = {"message": f"Incorrect API key provided: {key}. " + "x" * 150 + key, "code": "invalid_api_key"}
    with pytest.raises(EngineFailed, match=f"HTTP {status}.*the key in the worker's environment was sent") as wrong:
        asked_with_key(Series(refusal(status, said)), key)
    assert "k-1" not in str(wrong.value)
    with pytest.raises(EngineFailed, match=f"HTTP {status}.*no key was sent: LOWTIDE_ENGINE_API_KEY is not"):
        asked_with_key(Series(refusal(status, {"message": "Unauthorized"})), "")


@pytest.mark.parametrize(
    ("said", "code", "message"),
    [
        # vLLM, llama.cpp, FastAPI, a proxy, and nothing.
        ('{"error":{"message":"too long","type":"BadRequestError","code":400}}', "BadRequestError", "too long"),
        ('{"object":"error","message":"too long","type":"BadRequestError","code":400}', "BadRequestError", "too long"),
        ('{"error":{"code":400,"message":"too long","type":"exceed_size"}}', "exceed_size", "too long"),
        ('{"detail":[{"type":"missing","input":"x"}]}', "http_400", "the engine gave no reason"),
        ('{"error":"too long"}', "http_400", "too long"),
        ("<html>Bad Gateway</html>", "http_400", "the engine gave no reason"),
        ("", "http_400", "the engine gave no reason"),
        ('{"error":{"message":"' + "long " * 500 + '","code":"x"}}', "x", ("long " * 40)),
    ],
)
def test_refusals_are_understood_as_engines_write_them(said: str, code: str, message: str) -> None:
    found = asked(Series(lambda: web.Response(status=400, text=said)), line("hello"), fleet())

    assert found["error"] == {"code": code, "message": message}


@pytest.mark.parametrize(
    "quoted",
    [
        "bad value: Wilhelmina has gout since 1987",
        "bad value: 'Wilhelmina'",
        'parse error; last read: "Wilh',
        "bad: Wilhelmina\\nhas gout",
        'bad: {"content": "Wilhelmina\\nhas gout since 1987"}',
        "bad: WILHELMINA HAS GOUT SINCE 1987",
    ],
)
def test_no_prompt_gets_into_an_error(quoted: str) -> None:
    answers = Series(refusal(400, {"message": f"the model bears 4096 tokens, {quoted}", "code": "c"}))

    found = asked(answers, line("Wilhelmina\nhas gout since 1987"), fleet())

    assert found["error"]["message"].startswith("the model bears 4096 tokens, bad") or "parse error" in quoted
    assert "wilh" not in found["error"]["message"].lower()
    assert "gout" not in found["error"]["message"]


def test_a_failing_engine_is_asked_again_and_may_answer() -> None:
    answers = Series(refusal(500, "not now"), refusal(502, "not now"), yes)

    found = asked(answers, line("hello"), fleet())

    assert found["error"] is None
    assert len(answers.times) == 3
    assert answers.times[2] - answers.times[1] > 0.4


def test_after_all_tries_a_failure_is_an_error_that_names_it() -> None:
    answers = Series(refusal(500, {"message": "broken", "code": "internal"}))

    found = asked(answers, line("hello"), fleet(tries=2))

    assert len(answers.times) == 2
    assert found["response"] == {"status_code": 500, "body": None}
    assert found["error"] == {"code": "internal", "message": "broken"}


def test_a_busy_engine_costs_no_request_its_tries() -> None:
    answers = Series(*[refusal(429, "busy", **{"Retry-After": "0"})] * 6, yes)

    found = asked(answers, line("hello"), fleet(tries=2))

    assert found["error"] is None
    assert len(answers.times) == 7


def test_a_busy_engine_is_not_asked_before_the_time_it_names() -> None:
    answers = Series(refusal(503, "busy", **{"Retry-After": "1.5"}), yes)

    asked(answers, line("hello"), fleet())

    assert answers.times[1] - answers.times[0] >= 1.5


def test_an_engine_that_is_always_busy_costs_one_row_after_the_time_of_a_request() -> None:
    answers = Series(refusal(429, {"message": "busy", "code": "rate_limit"}, **{"Retry-After": "0"}))

    found = asked(answers, line("hello"), fleet(seconds=1.5))

    assert found["error"] == {"code": "rate_limit", "message": "busy"}


DEEP = '{"choices":' + "[" * 900 + "]" * 900 + "}"


@pytest.mark.parametrize(
    "body",
    ["<html>", '{"choices":null}', '{"choices":[]}', '{"choices":[{}]}', '{"choi', "[1]", "{}", "[" * 100_000, DEEP],
)
def test_a_success_that_is_no_completion_is_an_error_that_can_be_read_and_asked_again(body: str) -> None:
    found = asked(Series(lambda: web.Response(text=body)), line("hello"), fleet(tries=1))

    assert found["error"]["code"] == "invalid_answer"
    read = parse_answer(json.dumps(found).encode())
    assert read is not None
    assert (read.status, read.retryable) == ("error", True)


def test_an_answer_that_takes_too_long_is_an_error() -> None:
    async def answers(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(PATIENCE)
        return yes()

    found = asked(answers, line("hello"), fleet(seconds=0.3, tries=2))

    assert found["error"]["code"] == "timeout"
    assert found["response"] is None


def test_a_connection_that_breaks_is_tried_again_while_the_engine_is_well() -> None:
    times = 0

    async def answers(request: web.Request) -> web.StreamResponse:
        nonlocal times
        times += 1
        if times < 3:
            assert request.transport is not None
            request.transport.abort()
        return yes()

    assert asked(answers, line("hello"), fleet())["error"] is None
    assert times == 3


def test_a_connection_that_always_breaks_is_an_error_of_that_request() -> None:
    async def answers(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return yes()

    assert asked(answers, line("hello"), fleet(tries=2))["error"]["code"] == "connection_lost"


def test_a_line_that_cannot_be_read_is_an_error_of_its_record() -> None:
    found = asked(Series(yes), b'{"custom_id": "r0000007x3", "body": {"messages": [}', fleet())

    assert found["custom_id"] == "r0000007x3"
    assert found["error"]["code"] == "invalid_line"


def down(work: Callable[[], Awaitable[object]]) -> str:
    async def bounded() -> None:
        await asyncio.wait_for(work(), PATIENCE)

    with pytest.raises(EngineDown) as gone:
        asyncio.run(bounded())
    return str(gone.value)


def test_an_engine_that_fails_and_is_not_well_is_down_and_costs_no_row() -> None:
    async def work() -> None:
        answers = Series(refusal(500, "EngineDeadError"))
        async with engine_that(answers, healthy=lambda: False) as url, HttpDesk(url, fleet()) as desk:
            await desk.ask(line("hello"))

    assert "HTTP 503" in down(work)


def broken(answers: Answering, beside: int = 0) -> tuple[list[object], str]:
    """What requests to an engine that looks healthy come to, and why it is down."""

    async def work() -> tuple[list[object], str]:
        async with engine_that(answers) as url, HttpDesk(url, fleet(tries=2)) as desk:
            asking = asyncio.gather(*(desk.ask(line("hello")) for _ in range(1 + beside)), return_exceptions=True)
            ends = list(await asyncio.wait_for(asking, PATIENCE))
            assert desk.broken
            return ends, str(ends[0])

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (refusal(500, {"message": "of Wilhelmina", "code": "cuda"}), "HTTP 500, cuda"),
        (lambda: web.Response(text="<html>a proxy's page"), "the engine's answer is no completion"),
    ],
)
def test_an_engine_that_looks_healthy_and_fails_at_everything_costs_no_row(
    answer: Callable[[], web.Response], why: str
) -> None:
    ends, said = broken(Series(answer), beside=40)

    assert all(isinstance(end, EngineDown) for end in ends)
    assert said == f"the engine looks healthy, and fails at the simplest request: {why}"


def test_the_simplest_request_is_asked_once_for_all_that_have_failed() -> None:
    simple: list[bytes] = []

    async def answers(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if b'"Hello"' in body:
            simple.append(body)
            await asyncio.sleep(0.5)
            return yes()
        return refusal(500, "broken")()

    async def work() -> list[bytes]:
        async with engine_that(answers) as url, HttpDesk(url, fleet(tries=1)) as desk:
            return await asyncio.gather(*(desk.ask(line("hello")) for _ in range(30)))

    ends = asyncio.run(work())
    assert all(json.loads(end)["error"]["message"] == "broken" for end in ends)
    assert len(simple) == 1
    assert json.loads(simple[0])["model"] == "m"


def test_an_engine_that_is_broken_even_when_started_again_is_given_up(tmp_path: Path) -> None:
    async def work() -> None:
        bench = EngineBench(fleet_with(command("--refuses", "500")), tmp_path)
        try:
            desk = await bench.desk()
            with pytest.raises(EngineDown):
                await desk.ask(line("hello"))
            await bench.renew(4)
        finally:
            await bench.close()

    with pytest.raises(EngineFailed, match="simplest request: HTTP 500, server_error, started again or not"):
        asyncio.run(asyncio.wait_for(work(), PATIENCE))


def fleet_with(words: tuple[str, ...]) -> Fleet:
    return Fleet(model="m", engine=Engine(command=words), least=1, most=4, tries=1)


def test_a_refusal_of_a_long_request_does_not_hold_the_others_up() -> None:
    # Few prompts are harder to look through than one that is all escapes. What counts is the processor's time of the
    # loop's own thread: other things that the machine does are none of it.
    long, said = r"\u00e9" * 140_000, "no such thing: " + r"\u00e8" * 30
    began = time.thread_time()
    told(400, json.dumps({"error": said}).encode(), json.dumps({"messages": [{"content": long}]}).encode())
    took = time.thread_time() - began

    async def work() -> float:
        gaps, last = [], time.thread_time()
        async with engine_that(Series(refusal(400, said))) as url, HttpDesk(url, fleet()) as desk:
            asking = asyncio.create_task(desk.ask(line(long)))
            while not asking.done():
                await asyncio.sleep(0.001)
                now = time.thread_time()
                gaps.append(now - last)
                last = now
            assert json.loads(await asking)["error"]["message"]
        return max(gaps)

    assert asyncio.run(work()) < took / 2


def test_an_engine_that_refuses_connections_is_down() -> None:
    async def work() -> None:
        async with HttpDesk(f"http://127.0.0.1:{free_port()}", fleet()) as desk:
            await desk.ask(line("hello"))

    assert "connection refused" in down(work)


def test_an_engine_whose_process_has_ended_is_down_without_a_look() -> None:
    async def work() -> None:
        async with engine_that(Series(refusal(500, "x"))) as url, HttpDesk(url, fleet(), alive=lambda: False) as desk:
            await desk.ask(line("hello"))

    assert "process has ended" in down(work)


def test_everything_that_was_asked_of_a_dying_engine_hears_of_it_at_once(tmp_path: Path) -> None:
    async def work() -> list[object]:
        engine = Supervisor(Engine(command=command()), "m", tmp_path)
        try:
            async with HttpDesk(await engine.start(), fleet(), alive=lambda: engine.alive) as desk:
                hanging = [asyncio.create_task(desk.ask(line("[hang]"))) for _ in range(20)]
                await asyncio.sleep(0.3)
                poison = asyncio.create_task(desk.ask(line("[poison]")))
                ends = await asyncio.wait_for(asyncio.gather(*hanging, poison, return_exceptions=True), PATIENCE)
                with pytest.raises(EngineDown):
                    await desk.ask(line("hello"))
                return list(ends)
        finally:
            await engine.stop()

    begun = time.monotonic()
    ends = asyncio.run(work())
    assert len(ends) == 21
    assert all(isinstance(end, EngineDown) for end in ends)
    assert time.monotonic() - begun < 15


def test_an_engine_that_gives_no_answer_at_all_is_taken_for_hung() -> None:
    with running() as served:

        async def work() -> None:
            async with HttpDesk(served.url, fleet(hang=2.0)) as desk:
                assert await desk.ask(line("hello"))
                begun = time.monotonic()
                freezing = asyncio.gather(*(desk.ask(line("[freeze]")) for _ in range(5)), return_exceptions=True)
                ends = await freezing
                assert all(isinstance(end, EngineDown) for end in ends)
                assert 1.9 < time.monotonic() - begun < 10
                await desk.ask(line("hello"))

        assert down(work) == "the engine hangs: no answer for 2 s"


def test_an_engine_may_be_found_hung_while_its_health_is_looked_at() -> None:
    with running() as served:

        async def work() -> list[object]:
            async with HttpDesk(served.url, fleet(hang=1.0)) as desk:
                freezing = asyncio.create_task(desk.ask(line("[freeze]")))
                await asyncio.sleep(0.2)
                # It fails, and then its health check has no answer either.
                return await asyncio.gather(freezing, desk.ask(line("[refuse:9]")), return_exceptions=True)

        ends = asyncio.run(asyncio.wait_for(work(), PATIENCE))
        assert [str(end) for end in ends if isinstance(end, EngineDown)] == ["the engine hangs: no answer for 1 s"] * 2


def test_an_engine_that_was_asked_nothing_for_long_is_not_hung() -> None:
    with running() as served:

        async def work() -> list[bytes]:
            async with HttpDesk(served.url, fleet(hang=1.5)) as desk:
                before = await desk.ask(line("hello"))
                await asyncio.sleep(2.0)
                return [before, await desk.ask(line("[slow:0.7]"))]

        assert all(json.loads(end)["error"] is None for end in asyncio.run(work()))


def test_one_slow_answer_beside_others_is_no_hang() -> None:
    with running() as served:

        async def work() -> bytes:
            async with HttpDesk(served.url, fleet(hang=2.0)) as desk:
                slow = asyncio.create_task(desk.ask(line("[slow:3]")))
                while not slow.done():
                    await desk.ask(line("hello"))
                    await asyncio.sleep(0.2)
                return await slow

        assert json.loads(asyncio.run(work()))["error"] is None


def test_a_desk_that_is_closed_breaks_off_what_was_asked() -> None:
    with running() as served:

        async def work() -> None:
            desk = HttpDesk(served.url, fleet())
            asking = asyncio.create_task(desk.ask(line("[hang]")))
            await asyncio.sleep(0.3)
            await desk.close()
            await asking

        assert "closed" in down(work)


async def ask_all(desk: HttpDesk, rows: int) -> list[bytes]:
    """Ask as many at a time as there is room for."""
    left, ends, asking = rows, [], set[asyncio.Task[bytes]]()
    while left or asking:
        while left and len(asking) < desk.room:
            left -= 1
            asking.add(asyncio.create_task(desk.ask(line("x"))))
        done, asking = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        ends += [task.result() for task in done]
    return ends


def test_an_engine_with_a_limit_is_not_asked_beyond_it_for_long() -> None:
    limit, out = 6, 0
    refused: list[bool] = []

    async def answers(request: web.Request) -> web.StreamResponse:
        nonlocal out
        refused.append(out >= limit)
        if out >= limit:
            return web.json_response({"error": "busy"}, status=429, headers={"Retry-After": "0"})
        out += 1
        try:
            await asyncio.sleep(0.01)
            return yes()
        finally:
            out -= 1

    async def work() -> list[bytes]:
        async with engine_that(answers) as url, HttpDesk(url, fleet(most=40)) as desk:
            return await asyncio.wait_for(ask_all(desk, 800), PATIENCE)

    ends = asyncio.run(work())
    assert len(ends) == 800
    assert all(json.loads(end)["error"] is None for end in ends)
    assert any(refused[:40])
    assert sum(refused[-400:]) < 100


def test_an_engine_that_answers_faster_for_it_gets_more() -> None:
    async def answers(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.5)
        return yes()

    async def work() -> tuple[int, int]:
        async with engine_that(answers) as url, HttpDesk(url, fleet(most=64)) as desk:
            first = desk.room
            await asyncio.wait_for(ask_all(desk, 96), PATIENCE)
            return first, desk.room

    assert asyncio.run(work()) == (32, 64)


def test_the_largest_room_may_be_less_than_the_fleets() -> None:
    async def work() -> tuple[int, int]:
        url, all_of_it = "http://127.0.0.1:1", fleet(most=64)
        async with HttpDesk(url, all_of_it, most=3) as small, HttpDesk(url, all_of_it, most=0) as smallest:
            return small.room, smallest.room

    assert asyncio.run(work()) == (3, 1)


def test_the_stand_in_and_the_desk_agree_on_what_was_answered() -> None:
    with running() as served:

        async def work() -> list[bytes]:
            async with HttpDesk(served.url, fleet()) as desk:
                return await asyncio.gather(*(desk.ask(line(f"text {at}", f"r{at}")) for at in range(50)))

        lines = asyncio.run(work())
        assert [json.loads(one)["custom_id"] for one in lines] == [f"r{at}" for at in range(50)]
        assert [usage(one) for one in lines] == [tokens_of(f"text {at}") for at in range(50)]
        assert set(served.answered().values()) == {1}
