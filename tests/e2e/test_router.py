"""The router with real HAProxy, seen from a client: key, models, routing, limits, streams, dead targets, metrics."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.router_kit import BASE, CLIENT_KEY, RouterProcess, UpstreamProcess, wait_for

MODELS = {BASE: ["left", "right"], "easycontract": ["left"], "checklist": ["right"]}


@pytest.fixture(scope="module")
def upstreams() -> Iterator[dict[str, UpstreamProcess]]:
    made = {name: UpstreamProcess(name, f"sk-target-{name}") for name in ("left", "right")}
    yield made
    for upstream in made.values():
        upstream.kill()


@pytest.fixture(scope="module")
def router(upstreams: dict[str, UpstreamProcess], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterProcess]:
    made = RouterProcess(tmp_path_factory.mktemp("router"), upstreams, MODELS)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[RouterProcess, UpstreamProcess]]:
    """One target that takes 2 at once and lets 3 wait for at most 2 s."""
    upstream = UpstreamProcess("server")
    made = RouterProcess(tmp_path, {"server": upstream}, {BASE: ["server"]})
    made.file["targets"][0] |= {"maxInFlight": 2, "maxQueue": 3}
    made.file["limits"]["queueTimeoutS"] = 2
    made.start()
    yield made, upstream
    made.stop()
    upstream.kill()


def error_of(answer: httpx.Response) -> dict[str, object]:
    """The error, in OpenAI's shape."""
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, object] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize(
    "value", [None, "Bearer wrong", "Bearer", "Basic c2s6eA==", CLIENT_KEY, f"Bearer {CLIENT_KEY}x"]
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/metrics", "/"])
def test_without_the_key_nothing_is_said(router: RouterProcess, value: str | None, path: str) -> None:
    answer = httpx.get(router.url + path, headers={} if value is None else {"authorization": value})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert error_of(answer)["code"] == "invalid_api_key"


def test_health_needs_no_key(router: RouterProcess) -> None:
    assert httpx.get(f"{router.url}/health").status_code == 200


def test_models_are_listed(router: RouterProcess) -> None:
    models = httpx.get(f"{router.url}/v1/models", headers=router.headers()).json()
    assert models["object"] == "list"
    assert [model["id"] for model in models["data"]] == list(MODELS)
    base, adapter, _ = models["data"]
    assert (base["parent"], base["root"]) == (None, BASE)
    assert (adapter["object"], adapter["parent"], adapter["owned_by"]) == ("model", BASE, "lorafleet")
    assert not any("digest" in model for model in models["data"]) and "x-lorafleet-adapter" in models["note"]
    one = httpx.get(f"{router.url}/v1/models/easycontract", headers=router.headers())
    assert one.json() == adapter
    missing = httpx.get(f"{router.url}/v1/models/easy%22contract", headers=router.headers())
    assert missing.status_code == 404 and "easycontract" in str(error_of(missing)["message"])


def test_each_adapter_goes_to_its_target_with_the_targets_key(router: RouterProcess) -> None:
    for model, target in (("easycontract", "left"), ("checklist", "right")):
        for _ in range(3):
            answer = router.post(
                router.chat(model),
            )
            assert answer.status_code == 200, answer.text
            assert answer.json()["choices"][0]["message"]["content"] == f"{target} as {model}"
            assert answer.headers["x-lorafleet-target"] == target
            assert answer.headers["x-lorafleet-adapter"] == f"{model}@sha256-00"


def test_official_client(router: RouterProcess) -> None:
    client = openai.OpenAI(base_url=f"{router.url}/v1", api_key=CLIENT_KEY, max_retries=0)
    assert [model.id for model in client.models.list()] == list(MODELS)
    assert client.models.retrieve("checklist").id == "checklist"
    answer = client.chat.completions.create(model="checklist", messages=[{"role": "user", "content": "x"}])
    assert answer.choices[0].message.content == "right as checklist"
    assert client.completions.create(model="checklist", prompt="x").choices[0].text == "right as checklist"
    stream = client.chat.completions.create(model="checklist", messages=[{"role": "user", "content": "x"}], stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in stream) == "0 1 2 "
    with pytest.raises(openai.NotFoundError, match="easycontract"):
        client.chat.completions.create(model="none", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{router.url}/v1", api_key="sk-wrong", max_retries=0).models.list()


def test_stream_is_not_held_back(router: RouterProcess) -> None:
    body = router.chat("easycontract", chunks=4, gap_s=0.3) | {"stream": True}
    came: list[float] = []
    started = time.monotonic()
    with httpx.stream("POST", f"{router.url}/v1/chat/completions", json=body, headers=router.headers()) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                came.append(time.monotonic() - started)
    assert len(came) == 4
    # The upstream sends the last chunk 0.9 s after the first: each came before the next was sent.
    assert came[0] < 0.25
    assert all(later - earlier > 0.15 for earlier, later in itertools.pairwise(came))


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, "model_missing"),
        (b"garbage", 400, "model_missing"),
        (b'["easycontract"]', 400, "model_missing"),
        (b'{"messages": [{"model": "easycontract"}]}', 400, "model_missing"),
        (b'{"model": ""}', 400, "model_missing"),
        (b'{"model": null}', 400, "model_missing"),
        (b'{"model": {"name": "easycontract"}}', 400, "model_missing"),
        (b'{"model": "Easycontract"}', 404, "model_not_found"),
        (b'{"model": "a\\"b\\\\c\\n\xed\x95\x9c%[src]"}', 404, "model_not_found"),
        (b'{"model": "' + b"x" * 100_000 + b'"}', 404, "model_not_found"),
        (b'{"model": "easycontract", "max_tokens": 4097}', 400, "max_tokens_too_large"),
        (b'{"model": "easycontract", "max_completion_tokens": 4097}', 400, "max_tokens_too_large"),
        (b'{"model": "easycontract", "max_tokens": "4097"}', 400, "max_tokens_too_large"),
        (b'{"model": "easycontract", "max_tokens": 4097.0}', 400, "max_tokens_too_large"),
        (b'{"model": "easycontract", "max_tokens": 1e7}', 400, "max_tokens_too_large"),
        (b'{"model": "easycontract", "max_tokens": 99999999999999999999}', 400, "max_tokens_too_large"),
        (b'{"model": "easycontract", "prompt": "' + b"x" * 524_288 + b'"}', 413, "body_too_large"),
        (b'{"model": "easycontract", "prompt": "' + b"x" * 5_000_000 + b'"}', 413, "body_too_large"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_bad_requests(router: RouterProcess, content: bytes, status: int, code: str) -> None:
    answer = httpx.post(f"{router.url}/v1/chat/completions", content=content, headers=router.headers())
    assert (answer.status_code, error_of(answer)["code"]) == (status, code)
    if status == 404:
        assert "exaone-3.5-2.4b, easycontract, checklist" in str(error_of(answer)["message"])


def test_chunked_body_over_the_cap(router: RouterProcess) -> None:
    def parts() -> Iterator[bytes]:
        yield b'{"model": "easycontract", "prompt": "'
        for _ in range(80):
            yield b"x" * 8192

    answer = httpx.post(f"{router.url}/v1/chat/completions", content=parts(), headers=router.headers())
    assert answer.status_code == 413


def test_body_at_the_cap_arrives_whole(router: RouterProcess) -> None:
    start, end = b'{"stream": false, "prompt": "', b'", "max_tokens": 4096, "model": "easycontract"}'
    content = start + b"x" * (524_288 - len(start) - len(end)) + end
    answer = httpx.post(f"{router.url}/v1/completions", content=content, headers=router.headers())
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["text"] == "left as easycontract"


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v1/chat/completions", 405, "POST"),
        ("DELETE", "/v1/models/easycontract", 405, "GET"),
        ("POST", "/v1/models", 405, "GET"),
        ("POST", "/v1/embeddings", 404, None),
        ("POST", "/v1/load_lora_adapter", 404, None),
        ("POST", "/v1/chat/completions/", 404, None),
        ("POST", "/v1/chat/completions/../../load", 404, None),
        ("GET", "/ready", 404, None),
        ("GET", "/", 404, None),
    ],
)
def test_other_paths_and_methods(router: RouterProcess, method: str, path: str, status: int, allow: str | None) -> None:
    answer = httpx.request(method, router.url + path, headers=router.headers())
    assert answer.status_code == status
    assert answer.headers.get("allow") == allow
    error_of(answer)


def test_request_id_is_made_kept_or_replaced(router: RouterProcess, upstreams: dict[str, UpstreamProcess]) -> None:
    def ask(sent: str | None) -> str:
        more = {} if sent is None else {"x-request-id": sent}
        answer = httpx.post(
            f"{router.url}/v1/chat/completions", json=router.chat("easycontract"), headers=router.headers() | more
        )
        given = answer.headers["x-request-id"]
        assert upstreams["left"].seen()["headers"]["x-request-id"] == given
        return given

    assert ask("my-id.1") == "my-id.1"
    assert ask(None) != ask(None)
    assert ask('bad "id') != 'bad "id'
    assert ask("x" * 200) != "x" * 200


def test_log_has_one_json_line_for_each_request_and_no_key(router: RouterProcess) -> None:
    def lines() -> list[dict[str, object]]:
        return [line for line in router.log_lines() if line["requestId"] == "log-test"]

    httpx.post(
        f"{router.url}/v1/chat/completions",
        json=router.chat("checklist", secret="not for logs"),
        headers=router.headers() | {"x-request-id": "log-test"},
    )
    wait_for(lines, "the log line")
    [line] = lines()
    assert (line["model"], line["target"], line["status"]) == ("checklist", "right", 200)
    assert line["path"] == "/v1/chat/completions" and isinstance(line["totalMs"], int)
    text = router.log_path.read_text() + router.notices_path.read_text()
    assert "not for logs" not in text and "sk-" not in text


def test_metrics_count_each_adapter_and_each_target(router: RouterProcess) -> None:
    def counts() -> list[float]:
        return [
            router.metric("haproxy_backend_http_requests_total", proxy="model_easycontract"),
            router.metric("haproxy_backend_http_requests_total", proxy="model_checklist"),
            router.metric("haproxy_backend_http_responses_total", proxy="target_left", code="2xx"),
            router.metric("haproxy_backend_http_responses_total", proxy="target_right", code="2xx"),
        ]

    before = counts()
    for _ in range(3):
        router.post(router.chat("easycontract"))
    router.post(router.chat("checklist"))
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [3, 1, 3, 1]
    # The names that the README gives for the rest.
    adapter_on_target = {"proxy": "model_easycontract", "server": "left"}
    assert router.metric("haproxy_server_http_responses_total", **adapter_on_target, code="2xx") >= 3
    assert router.metric("haproxy_server_status", proxy="target_left", state="UP") == 1
    for name in ("haproxy_server_current_sessions", "haproxy_backend_current_queue"):
        assert f'{name}{{proxy="target_left"' in router.metrics()


def test_full_queue_says_429_and_capacity_is_kept(small: tuple[RouterProcess, UpstreamProcess]) -> None:
    router, upstream = small

    async def burst() -> list[httpx.Response]:
        async with httpx.AsyncClient(headers=router.headers(), timeout=30) as client:
            url, body = f"{router.url}/v1/chat/completions", router.chat(wait_s=0.8)
            return await asyncio.gather(*(client.post(url, json=body) for _ in range(12)))

    answers = asyncio.run(burst())
    assert Counter(answer.status_code for answer in answers) == {200: 5, 429: 7}
    assert upstream.seen()["most_in_flight"] == 2
    for answer in answers:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert error_of(answer)["code"] == "overloaded"
            assert "x-lorafleet-reason" not in answer.headers


def test_waiting_too_long_in_the_queue_says_429(small: tuple[RouterProcess, UpstreamProcess]) -> None:
    router, upstream = small

    async def burst() -> list[tuple[int, float]]:
        async with httpx.AsyncClient(headers=router.headers(), timeout=30) as client:

            async def one() -> tuple[int, float]:
                started = time.monotonic()
                answer = await client.post(f"{router.url}/v1/chat/completions", json=router.chat(wait_s=4))
                return answer.status_code, time.monotonic() - started

            return await asyncio.gather(*(one() for _ in range(4)))

    answers = sorted(asyncio.run(burst()))
    assert [status for status, _ in answers] == [200, 200, 429, 429]
    assert all(1.9 < seconds < 3 for status, seconds in answers if status == 429)
    assert upstream.seen()["requests"] == 2


def test_no_queue_at_all(small: tuple[RouterProcess, UpstreamProcess]) -> None:
    router, _ = small
    router.file["targets"][0]["maxQueue"] = 0
    assert router.reload()["error"] is None

    async def burst() -> list[int]:
        async with httpx.AsyncClient(headers=router.headers(), timeout=30) as client:
            url, body = f"{router.url}/v1/chat/completions", router.chat(wait_s=0.5)
            return [a.status_code for a in await asyncio.gather(*(client.post(url, json=body) for _ in range(5)))]

    assert Counter(asyncio.run(burst())) == {200: 2, 429: 3}


def test_client_that_hangs_up_frees_the_target(small: tuple[RouterProcess, UpstreamProcess]) -> None:
    router, upstream = small
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{router.url}/v1/chat/completions", json=router.chat(wait_s=20), headers=router.headers(), timeout=0.5
        )
    wait_for(lambda: upstream.seen()["in_flight"] == 0, "the end of the generation", 3)
    assert upstream.seen()["hung_up"] == 1


def test_slow_target_is_not_asked_twice(small: tuple[RouterProcess, UpstreamProcess]) -> None:
    router, upstream = small
    router.file["limits"]["responseTimeoutS"] = 1
    router.reload()
    answer = router.post(router.chat(wait_s=3))
    assert (answer.status_code, error_of(answer)["code"]) == (504, "target_timeout")
    assert upstream.seen()["requests"] == 1


def test_broken_off_request_is_sent_once_more(small: tuple[RouterProcess, UpstreamProcess]) -> None:
    router, upstream = small
    answer = router.post(router.chat(break_off=True))
    assert (answer.status_code, error_of(answer)["code"]) == (502, "target_broke_off")
    assert upstream.seen()["requests"] == 2


def test_killed_target_under_load_and_its_return(small: tuple[RouterProcess, UpstreamProcess]) -> None:
    """kill -9 with requests in flight and in the queue: each ends within seconds; afterwards 503 at once."""
    router, upstream = small
    seen: list[tuple[int, float, httpx.Response]] = []

    async def load() -> None:
        async with httpx.AsyncClient(headers=router.headers(), timeout=30) as client:

            async def one(wait_s: float) -> None:
                started = time.monotonic()
                answer = await client.post(f"{router.url}/v1/chat/completions", json=router.chat(wait_s=wait_s))
                seen.append((answer.status_code, time.monotonic() - started, answer))

            flight = [asyncio.create_task(one(20)) for _ in range(5)]
            await asyncio.sleep(0.5)
            upstream.kill()
            for _ in range(10):
                flight.append(asyncio.create_task(one(0)))
                await asyncio.sleep(0.05)
            await asyncio.gather(*flight)

    asyncio.run(load())
    assert len(seen) == 15
    for status, seconds, answer in seen:
        assert status in (502, 503, 429), answer.text
        assert seconds < 3.5
        assert "retry-after" in answer.headers
        error_of(answer)
    started = time.monotonic()
    answer = router.post(router.chat())
    assert answer.status_code == 503 and time.monotonic() - started < 0.2
    assert httpx.get(f"{router.url}/health").status_code == 503
    upstream.start()
    wait_for(lambda: router.post(router.chat()).status_code == 200, "recovery", 4)
    assert httpx.get(f"{router.url}/health").status_code == 200


def test_target_killed_within_a_stream_ends_the_stream(small: tuple[RouterProcess, UpstreamProcess]) -> None:
    router, upstream = small
    body = router.chat(chunks=100, gap_s=0.2) | {"stream": True}
    killed_at = 0.0
    with (
        pytest.raises(httpx.RemoteProtocolError),
        httpx.stream("POST", f"{router.url}/v1/chat/completions", json=body, headers=router.headers()) as answer,
    ):
        for line in answer.iter_lines():
            if line and not killed_at:
                upstream.kill()
                killed_at = time.monotonic()
    assert killed_at and time.monotonic() - killed_at < 1


def test_other_target_takes_over(tmp_path: Path) -> None:
    """The base is served by both; one is killed under load: no request that it had not begun fails."""
    both = {name: UpstreamProcess(name) for name in ("left", "right")}
    router = RouterProcess(tmp_path, both, {BASE: ["left", "right"]})
    router.start()
    try:
        statuses: Counter[int] = Counter()

        async def load() -> None:
            async with httpx.AsyncClient(headers=router.headers(), timeout=30) as client:

                async def worker() -> None:
                    for _ in range(40):
                        answer = await client.post(f"{router.url}/v1/chat/completions", json=router.chat(wait_s=0.02))
                        statuses[answer.status_code] += 1

                workers = [asyncio.create_task(worker()) for _ in range(8)]
                await asyncio.sleep(0.4)
                both["left"].kill()
                await asyncio.gather(*workers)

        asyncio.run(load())
        # Those that were with the killed one at that moment may be lost; HAProxy sends most of them again.
        assert statuses[200] >= 320 - 8, statuses
        assert set(statuses) <= {200, 502, 503}
    finally:
        router.stop()
        for upstream in both.values():
            upstream.kill()


def test_unready_target_gets_nothing_also_after_a_reload(small: tuple[RouterProcess, UpstreamProcess]) -> None:
    router, upstream = small
    upstream.set_ready(False)
    wait_for(lambda: router.post(router.chat()).status_code == 503, "the mark", 5)
    before = upstream.seen()["requests"]
    router.reload()
    for _ in range(5):
        assert router.post(router.chat()).status_code == 503
    assert upstream.seen()["requests"] == before
    upstream.set_ready(True)
    wait_for(lambda: router.post(router.chat()).status_code == 200, "recovery", 4)
    assert json.loads(router.state_path.read_text())["phase"] == "ready"
