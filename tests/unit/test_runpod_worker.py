"""handlers/runpod without RunPod's SDK: inputs, events, errors, and answers of servers that do wrong."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from handlers.runpod import calls, errors, reading, settings, supervisor
from handlers.runpod.calls import CHAT, COMPLETIONS, RESPONSES, Call
from handlers.runpod.errors import JobError
from handlers.runpod.jobs import Jobs, Stopped
from handlers.runpod.server import Server
from handlers.runpod.sse import Events
from handlers.serving.errors import ServingError
from tests.support.ports import free_port

CHAT_BODY = {"model": "checklist", "messages": [{"role": "user", "content": "월세?"}], "stream": True}
TEXT_BODY = {"model": "checklist", "prompt": "월세"}


@pytest.mark.parametrize(
    ("job_input", "path", "body", "stream"),
    [
        (CHAT_BODY, CHAT, CHAT_BODY, True),
        (TEXT_BODY, COMPLETIONS, TEXT_BODY, False),
        ({**TEXT_BODY, "messages": None}, COMPLETIONS, {**TEXT_BODY, "messages": None}, False),
        ({"openai_route": CHAT, "openai_input": CHAT_BODY}, CHAT, CHAT_BODY, True),
        ({"openai_route": "v1/completions/", "openai_input": TEXT_BODY}, COMPLETIONS, TEXT_BODY, False),
        ({"openai_route": RESPONSES, "openai_input": {"input": "x"}}, RESPONSES, {"input": "x"}, False),
        ({"openai_input": CHAT_BODY}, CHAT, CHAT_BODY, True),
        ({"openai_input": TEXT_BODY}, COMPLETIONS, TEXT_BODY, False),
    ],
)
def test_inputs_become_calls(job_input: Any, path: str, body: Any, stream: bool) -> None:
    call = calls.read(job_input)
    assert (call.method, call.path, call.stream) == ("POST", path, stream)
    assert call.body is not None and json.loads(call.body) == body


@pytest.mark.parametrize("name", ["", "/checklist", "/exaone-3.5-2.4b"])
@pytest.mark.parametrize("body", [{}, {"openai_input": {}}, {"openai_input": None}])
def test_models_are_asked_with_get(name: str, body: Any) -> None:
    assert calls.read({"openai_route": f"/v1/models{name}", **body}) == Call("GET", f"/v1/models{name}", None, False)


@pytest.mark.parametrize(
    "route",
    ["/metrics", "/v1/models/../metrics", "/v1/models/%2e%2e/x", "/v1/models?x=1", "/v1/models#x", "//metrics", "/v1",
     "http://127.0.0.1/v1/models", "/v1/chat/completions?x=1", "/v1/load_lora_adapter", "", "/", 7, [], "/v1/models/é"],
)  # fmt: skip
def test_only_the_openai_routes_are_there(route: Any) -> None:
    with pytest.raises(JobError) as caught:
        calls.read({"openai_route": route, "openai_input": {}})
    assert (caught.value.error["code"], caught.value.error["param"]) == ("unknown_route", "openai_route")


def test_a_near_name_is_told_and_a_prompt_is_not() -> None:
    with pytest.raises(JobError, match=r'did you mean messages by "mesages"'):
        calls.read({"model": "x", "mesages": []})
    with pytest.raises(JobError) as caught:
        calls.read("비밀 " * 500)
    assert len(str(caught.value)) < 400


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: (
    st.lists(inner) | st.dictionaries(
        st.sampled_from(["model", "messages", "prompt", "stream", "openai_route", "openai_input", "route", "x"]) |
        st.text(), inner)), max_leaves=12))  # fmt: skip
def test_any_input_is_a_call_or_one_clear_error(job_input: Any) -> None:
    try:
        call = calls.read(job_input)
    except JobError as error:
        found = json.loads(error.result()["error"])
        assert found["message"] and found["code"] and found["status"] in (400, 404)
    else:
        assert call.path in calls.ASKED or call.path.startswith(calls.MODELS)


STREAM = "".join(f'data: {{"text":"{word}"}}\n\n' for word in ("쉽게", "말하면", "🙂", "끝")) + "data: [DONE]\n\n"


@given(st.lists(st.integers(0, len(STREAM.encode())), max_size=12))
def test_events_are_whole_wherever_the_network_cuts(cuts: list[int]) -> None:
    raw, events = STREAM.encode(), Events()
    places = [0, *sorted(cuts), len(raw)]
    texts = [events.feed(raw[start:end]) for start, end in itertools.pairwise(places)]
    assert "".join(texts) == STREAM and events.done
    assert all(text.endswith("\n\n") for text in texts if text)


def test_an_error_within_a_stream_is_seen() -> None:
    events = Events()
    events.feed(b'data: {"choices":[{"text":"\\"error\\""}]}\n\n')
    assert events.error is None
    events.feed(b'data: {"error": {"message": "out of memory"}}\n\n')
    assert events.error == {"message": "out of memory"}


ADAPTER_GONE = b'{"error": {"message": "m", "type": "t", "param": "model", "code": "model_not_found"}}'
VLLM_400 = b'{"error": {"message": "m", "type": "BadRequestError", "param": null, "code": 400}}'


@pytest.mark.parametrize(
    ("status", "body", "code", "kind"),
    [
        (404, ADAPTER_GONE, "model_not_found", "t"),
        (400, VLLM_400, "http_400", "BadRequestError"),
        (503, b"<html>", "http_503", "service_unavailable"),
        (500, b"", "http_500", "server_error"),
        (500, b'{"error": "x"}', "http_500", "server_error"),
        (422, b"[" * 100_000, "http_422", "invalid_request_error"),
    ],
)
def test_what_a_server_answers_is_an_openai_error(status: int, body: bytes, code: str, kind: str) -> None:
    found = json.loads(errors.of_answer(status, body).result()["error"])
    assert (found["status"], found["code"], found["type"]) == (status, code, kind)
    assert found["message"] and len(found["message"]) <= errors.SHOWN


@asynccontextmanager
async def stand_in(answer: Any, ready: int = 200, job_timeout_s: float = 30) -> AsyncIterator[tuple[Server, list[int]]]:
    """A server whose every POST is answered by `answer`; and how often the worker gave it up."""

    async def handle(request: web.Request) -> web.StreamResponse:
        found: web.StreamResponse = await answer(request)
        return found

    async def ready_or_not(_request: web.Request) -> web.Response:
        return web.Response(status=ready)

    app = web.Application()
    app.add_routes([web.post("/{path:.*}", handle), web.get("/ready", ready_or_not)])
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    given_up: list[int] = []
    told = settings.Settings(f"http://127.0.0.1:{port}", "key", 8, "/nonexistent", 60, job_timeout_s)
    server = Server(told, lambda: given_up.append(1))
    try:
        yield server, given_up
    finally:
        await server.close()
        await runner.cleanup()


async def results(server: Server, body: Any) -> list[Any]:
    return [piece async for piece in Jobs(server).handle({"id": "job", "input": body})]


def error_of(pieces: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pieces[-1]["error"])
    return found


def streaming(*parts: str) -> Any:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for part in parts:
            await response.write(part.encode())
        return response

    return answer


async def test_a_stream_that_stops_early_is_a_failed_job() -> None:
    async with stand_in(streaming('data: {"text": "a"}\n\n', 'data: {"te')) as (server, given_up):
        pieces = await results(server, {**TEXT_BODY, "stream": True})
    assert pieces[0] == 'data: {"text": "a"}\n\n'
    assert json.loads(pieces[1].removeprefix("data: "))["error"]["code"] == "server_lost"
    assert error_of(pieces)["status"] == 503 and not given_up, "the server itself is well"


async def test_an_error_within_a_stream_is_a_failed_job() -> None:
    parts = ('data: {"text": "a"}\n\n', 'data: {"error": {"message": "dead", "code": 500}}\n\n', "data: [DONE]\n\n")
    async with stand_in(streaming(*parts)) as (server, _):
        pieces = await results(server, {**TEXT_BODY, "stream": True})
    assert error_of(pieces)["message"] == "dead"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_runpod_would_refuse_is_refused_here(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_RESULT_BYTES", 100_000)
    monkeypatch.setattr(reading, "BATCH_S", 0)
    ended = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b'data: {"text": "' + b"x" * 1000 + b'"}\n\n')
        finally:
            ended.set()

    async with stand_in(answer) as (server, _):
        pieces = await results(server, {**TEXT_BODY, "stream": stream})
        await asyncio.wait_for(ended.wait(), 30)
    assert error_of(pieces)["code"] == "answer_too_large"


@pytest.mark.parametrize("content", [b"not JSON", b"[1]", b'"text"', b""])
async def test_an_answer_that_is_no_object(content: bytes) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=content)

    async with stand_in(answer) as (server, _):
        assert error_of(await results(server, TEXT_BODY))["code"] == "server_lost"


async def test_a_job_that_takes_too_long() -> None:
    async def answer(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with stand_in(answer, job_timeout_s=0.2) as (server, given_up):
        assert error_of(await results(server, TEXT_BODY))["code"] == "job_timeout"
    assert not given_up


@pytest.mark.parametrize(("ready", "times"), [(200, 0), (503, 1)])
async def test_a_server_that_fails_a_job_and_is_not_ready_is_given_up_once(ready: int, times: int) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "EngineCore died", "type": "x", "code": 500}}, status=500)

    async with stand_in(answer, ready=ready) as (server, given_up):
        for _ in range(3):
            assert error_of(await results(server, TEXT_BODY))["message"] == "EngineCore died"
        assert server.ready is (ready == 200)
    assert len(given_up) == times


async def test_the_end_of_a_jobs_task_closes_its_connection() -> None:
    """Even if nobody closes the generator: the task is cancelled while the SDK sends a piece."""
    gone = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b'data: {"text": "a"}\n\n')
                await asyncio.sleep(0.01)
        finally:
            gone.set()

    async with stand_in(answer) as (server, _):
        generator = Jobs(server).handle({"id": "job", "input": {**TEXT_BODY, "stream": True}})

        async def job() -> None:
            await anext(generator)
            await asyncio.sleep(60)  # where the SDK sends the piece

        task = asyncio.create_task(job())
        await asyncio.sleep(0.5)
        assert not gone.is_set()
        task.cancel()
        await asyncio.wait_for(gone.wait(), 30)
        await generator.aclose()


def test_stopped_jobs_are_remembered_once() -> None:
    stopped = Stopped()
    stopped.add("a")
    assert (stopped.take("b"), stopped.take("a"), stopped.take("a")) == (False, True, False)


def test_the_workers_launch_file_lets_nobody_else_in() -> None:
    document = {"version": 2, "host": "0.0.0.0", "port": 8000, "apiKeySha256": [], "drainTimeoutS": 30, "store": "x"}
    made = supervisor.for_this_worker(document, "key")
    assert made == {
        **document,
        "host": "127.0.0.1",
        "drainTimeoutS": 0,
        "apiKeySha256": ["2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"],
    }


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "ten", "604801", "٣"])
def test_a_jobs_time_is_checked(value: str) -> None:
    assert supervisor.job_timeout({}) == supervisor.LONGEST_JOB_S
    assert supervisor.job_timeout({"LORAFLEET_JOB_TIMEOUT_S": "600"}) == 600
    with pytest.raises(ServingError, match="LORAFLEET_JOB_TIMEOUT_S"):
        supervisor.job_timeout({"LORAFLEET_JOB_TIMEOUT_S": value})


def test_settings_survive_the_pipe() -> None:
    told = settings.Settings("http://127.0.0.1:1", "key", 8, "/state.json", 900, 600)
    assert settings.read(told.text()) == told and "\n" not in told.text()
