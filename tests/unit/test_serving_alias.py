"""handlers.serving.alias: the middleware in front of an ASGI app that notes what reaches it."""

import asyncio
import hashlib
import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from handlers.serving.alias import AliasMiddleware
from handlers.serving.base_check import compare, difference
from handlers.serving.errors import ServingError
from handlers.serving.manifest import AdapterSpec, Canary, Version
from handlers.serving.probe import Answer
from handlers.serving.routes import ROUTES_VARIABLE, Routes, RoutesFile, new_admin_token

V1 = Version("easycontract", "file:///1", None, "sha256:" + "1" * 64)
V2 = Version("easycontract", "file:///2", None, "sha256:" + "2" * 64)
TAG1, TAG2 = f"easycontract@{V1.digest}", f"easycontract@{V2.digest}"
BASE_TAG = "base@sha256:" + "b" * 64
Message = MutableMapping[str, Any]


class Inner:
    """Stands where vLLM stands; holds a request as long as `gate` is closed."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, Any]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        if scope["method"] == "POST":
            body = (await receive())["body"]
            length = dict(scope["headers"]).get(b"content-length")
            assert length is None or int(length) == len(body)
        self.seen.append((scope["method"], scope["path"], json.loads(body) if body else None))
        await self.gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"inner"})


class Reply:
    def __init__(self, sent: list[Message]) -> None:
        self.status = sent[0]["status"]
        self.headers = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
        self.body = b"".join(message.get("body", b"") for message in sent[1:])

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json()["error"]["code"])


class Server:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.token, token_sha256 = new_admin_token()
        keys = (hashlib.sha256(b"other").hexdigest(), hashlib.sha256(b"right").hexdigest())
        routes = Routes("base", "sha256:" + "b" * 64, keys, token_sha256, (AdapterSpec(V1),), True, True)
        self.routes = RoutesFile(folder / "routes.json", routes)
        self.routes.set(routes)
        monkeypatch.setenv(ROUTES_VARIABLE, str(self.routes.path))
        self.inner = Inner()
        self.app = AliasMiddleware(self.inner)

    async def __call__(
        self, method: str, path: str, body: Any = None, key: str | None = "right", chunks: int = 1, **headers: str
    ) -> Reply:
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        if key is not None:
            given.append((b"authorization", f"Bearer {key}".encode()))
        step = max(1, -(-len(raw) // chunks))
        parts = [raw[i : i + step] for i in range(0, len(raw), step)] or [b""]
        queue = [
            {"type": "http.request", "body": part, "more_body": number < len(parts)}
            for number, part in enumerate(parts, 1)
        ]
        sent: list[Message] = []

        async def receive() -> Message:
            return queue.pop(0) if queue else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app({"type": "http", "method": method, "path": path, "headers": given}, receive, send)
        return Reply(sent)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(tmp_path, monkeypatch)


CHAT = "/v1/chat/completions"


async def test_a_public_name_becomes_the_immutable_one_and_the_header_says_so(server: Server) -> None:
    reply = await server(
        "POST", CHAT, {"model": "easycontract", "messages": [{"content": "월세?"}]}, content_length="999"
    )
    assert reply.status == 200
    assert reply.headers["x-lorafleet-adapter"] == TAG1
    assert server.inner.seen == [("POST", CHAT, {"model": V1.served_name, "messages": [{"content": "월세?"}]})]


async def test_base_and_immutable_names_pass_as_they_are(server: Server) -> None:
    for name, tag in (("base", BASE_TAG), (V1.served_name, TAG1)):
        reply = await server("POST", CHAT, {"model": name}, chunks=3)
        assert reply.headers["x-lorafleet-adapter"] == tag
    assert [item[2]["model"] for item in server.inner.seen] == ["base", V1.served_name]


@pytest.mark.parametrize("model", ["nobody", V2.served_name, "", 7, None, ["base"], "../../etc", "base "])
async def test_an_unknown_model_gets_404_in_openais_shape(server: Server, model: Any) -> None:
    reply = await server("POST", CHAT, {"model": model})
    assert (reply.status, reply.code, reply.json()["error"]["param"]) == (404, "model_not_found", "model")
    assert "easycontract" in reply.json()["error"]["message"]
    assert server.inner.seen == []


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[]", b'"x"', b"null", b"{}", b"[" * 100_000])
async def test_a_body_that_names_no_model(server: Server, body: bytes) -> None:
    reply = await server("POST", CHAT, body)
    assert reply.status == 400
    assert server.inner.seen == []


@pytest.mark.parametrize("more", [{"prompt_logprobs": 1}, {"prompt_logprobs": 0}, {"echo": True, "logprobs": 1}])
async def test_what_would_end_the_engine_is_refused(server: Server, more: dict[str, Any]) -> None:
    reply = await server("POST", "/v1/completions", {"model": "base", "prompt": "x", **more})
    assert (reply.status, reply.code) == (400, "unsupported")
    assert server.inner.seen == []


@pytest.mark.parametrize("key", [None, "", "wrong", "right ly"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", CHAT),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/base"),
        ("GET", "/metrics"),
        ("GET", "/lorafleet/state"),
    ],
)
async def test_no_key_no_answer(server: Server, key: str | None, method: str, path: str) -> None:
    reply = await server(method, path, {"model": "base"}, key=key)
    assert (reply.status, reply.code) == (401, "invalid_api_key")
    assert reply.headers["www-authenticate"] == "Bearer"
    assert server.inner.seen == []


async def test_every_key_of_the_list_is_good_and_an_empty_list_asks_for_none(server: Server) -> None:
    assert (await server("GET", "/v1/models", key="other")).status == 200
    assert (await server("GET", "/v1/models", key=None, authorization="bearer right")).status == 200
    assert (await server("GET", "/v1/models", key=None, authorization="Basic right")).status == 401
    server.routes.change(api_key_sha256=())
    assert (await server("GET", "/v1/models", key=None)).status == 200


async def test_health_needs_nothing_and_ready_asks_the_engine_too(server: Server) -> None:
    assert (await server("GET", "/health", key=None)).body == b"inner"
    assert (await server("GET", "/ready", key=None)).status == 200
    assert server.inner.seen[-1][1] == "/health"
    server.routes.change(ready=False)
    reply = await server("GET", "/ready", key=None)
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")


async def test_ping_tells_a_start_from_an_end(server: Server, tmp_path: Path) -> None:
    assert (await server("GET", "/ping", key=None)).status == 200
    state = tmp_path / "state.json"
    server.routes.change(ready=False, state_file=str(state))
    for phase, status in (("loading", 204), ("probing", 204), ("draining", 503), ("failed", 503)):
        state.write_text(json.dumps({"phase": phase, "padding": "x" * len(phase)}))
        assert (await server("GET", "/ping", key=None)).status == status, phase


async def test_requests_before_ready_and_while_draining(server: Server) -> None:
    server.routes.change(ready=False)  # the grace: not ready, but requests are still taken
    assert (await server("POST", CHAT, {"model": "base"})).status == 200
    server.routes.change(accepting=False)
    reply = await server("POST", CHAT, {"model": "base"})
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "not_ready", "5")
    assert (await server("GET", "/v1/models")).status == 200
    admin = await server("POST", CHAT, {"model": "base"}, key=None, x_lorafleet_admin=server.token)
    assert admin.status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
        ("POST", "/adapters"),
        ("DELETE", "/adapters/x"),
        ("POST", "/invocations"),
        ("POST", "/inference/v1/generate"),
        ("POST", "/scale_elastic_ep"),
        ("POST", "/tokenize"),
        ("POST", "/v1/messages"),
        ("GET", "/v1/responses/x"),
        ("GET", "/version"),
        ("GET", "/docs"),
        ("GET", CHAT),
        ("POST", "/health"),
        ("POST", "//v1/chat/completions"),
        ("POST", CHAT + "/"),
        ("POST", CHAT + "/batch"),
    ],
)
async def test_nothing_else_of_vllm_can_be_reached(server: Server, method: str, path: str) -> None:
    reply = await server(method, path, {"model": "base", "lora_name": "x"}, x_lorafleet_admin="guess")
    assert (reply.status, reply.code) == (404, "not_found")
    assert server.inner.seen == []


async def test_the_launchers_token_opens_the_adapter_routes(server: Server) -> None:
    path = "/v1/load_lora_adapter"
    assert (await server("POST", path, {"lora_name": "x"}, key=None, x_lorafleet_admin=server.token)).status == 200
    assert (await server("POST", CHAT, {"model": "x"}, key=None, x_lorafleet_admin=server.token)).status == 200
    assert [item[1] for item in server.inner.seen] == [path, CHAT]
    assert (await server("POST", "/adapters", {}, key=None, x_lorafleet_admin=server.token)).status == 404
    assert server.token not in server.routes.path.read_text()
    assert server.routes.path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("announce", [True, False])
async def test_a_body_over_the_limit_is_refused_before_it_is_read_whole(server: Server, announce: bool) -> None:
    server.routes.change(max_body_bytes=100)
    headers = {"content_length": "5000"} if announce else {}
    reply = await server("POST", CHAT, b"x" * 5000, chunks=50, **headers)
    assert (reply.status, reply.code, reply.headers["connection"]) == (413, "body_too_large", "close")
    server.routes.change(max_body_bytes=100_000)
    assert (await server("POST", CHAT, {"model": "base", "x": "y" * 5000}, chunks=50)).status == 200


async def test_a_switch_moves_new_requests_and_the_old_ones_are_counted_to_their_end(server: Server) -> None:
    server.inner.gate.clear()
    old = asyncio.create_task(server("POST", CHAT, {"model": "easycontract"}))
    await asyncio.sleep(0)
    server.routes.change(adapters=(AdapterSpec(V2),))
    new = asyncio.create_task(server("POST", CHAT, {"model": "easycontract"}))
    await asyncio.sleep(0)
    state = (await server("GET", "/lorafleet/state")).json()
    assert state["inFlight"] == {V1.served_name: 1, V2.served_name: 1}
    server.inner.gate.set()
    assert (await old).headers["x-lorafleet-adapter"] == TAG1
    assert (await new).headers["x-lorafleet-adapter"] == TAG2
    state = (await server("GET", "/lorafleet/state")).json()
    assert (state["inFlight"], state["done"]) == ({}, {V1.served_name: 1, V2.served_name: 1})


async def test_models_lists_public_names_with_digests(server: Server) -> None:
    listed = (await server("GET", "/v1/models")).json()["data"]
    assert [(model["id"], model["digest"], model["served_name"]) for model in listed] == [
        ("base", "sha256:" + "b" * 64, "base"),
        ("easycontract", V1.digest, V1.served_name),
    ]
    assert (await server("GET", "/v1/models/easycontract")).json()["parent"] == "base"
    assert (await server("GET", "/v1/models/nobody")).code == "model_not_found"


def with_canary(weight: int) -> tuple[AdapterSpec, ...]:
    return (AdapterSpec(V1, Canary(V2, weight)),)


def in_canary(session: str, weight: int) -> bool:
    """As docs/architecture.md says it."""
    digest = hashlib.sha256(b"\0".join([b"easycontract", V2.digest.encode(), session.encode()])).digest()
    return int.from_bytes(digest[:8], "big") % 10000 < weight * 100


async def test_a_session_stays_where_it_is_while_the_canary_grows(server: Server) -> None:
    sessions = [f"사용자-{number}" for number in range(300)]
    before: set[str] = set()
    for weight in (1, 25, 99):
        server.routes.change(adapters=with_canary(weight))
        now = set()
        for session in sessions:
            replies = [
                await server("POST", CHAT, {"model": "easycontract"}, x_lorafleet_session=session) for _ in range(2)
            ]
            tags = {reply.headers["x-lorafleet-adapter"] for reply in replies}
            assert tags == {TAG2 if in_canary(session, weight) else TAG1}
            if tags == {TAG2}:
                now.add(session)
        assert before <= now
        assert abs(len(now) / 300 - weight / 100) < 0.13  # five standard deviations
        before = now


async def test_requests_without_a_session_are_shared_out(server: Server) -> None:
    server.routes.change(adapters=with_canary(30))
    given: list[dict[str, Any]] = [{}, {"x_lorafleet_session": ""}]
    for headers in given:
        replies = [await server("POST", CHAT, {"model": "easycontract"}, **headers) for _ in range(1000)]
        share = [reply.headers["x-lorafleet-adapter"] for reply in replies].count(TAG2) / 1000
        assert 0.22 < share < 0.38  # five standard deviations
    assert {item[2]["model"] for item in server.inner.seen} == {V1.served_name, V2.served_name}


async def test_the_canary_is_listed_and_may_be_asked_for_by_its_immutable_name(server: Server) -> None:
    server.routes.change(adapters=with_canary(1))
    reply = await server("POST", CHAT, {"model": V2.served_name})
    assert reply.headers["x-lorafleet-adapter"] == TAG2
    listed = (await server("GET", "/v1/models")).json()["data"]
    assert [model["id"] for model in listed] == ["base", "easycontract"]
    assert listed[1]["canary"] == {"digest": V2.digest, "served_name": V2.served_name, "weight": 1}
    server.routes.change(adapters=(AdapterSpec(V1),))
    assert (await server("POST", CHAT, {"model": V2.served_name})).code == "model_not_found"


async def test_the_state_has_the_status_file(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert (await server("GET", "/lorafleet/state")).json() == {"inFlight": {}, "done": {}, "status": None}
    server.routes.change(state_file=str(path))
    assert (await server("GET", "/lorafleet/state")).json()["status"] is None
    for number in range(3):
        new = tmp_path / "new"
        new.write_text(json.dumps({"phase": "ready", "number": number}))
        new.replace(path)
        assert (await server("GET", "/lorafleet/state")).json()["status"] == {"phase": "ready", "number": number}
    path.write_text("{")
    assert (await server("GET", "/lorafleet/state")).json()["status"]["number"] == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"adapters": 3, "base": "x"}', "{}"])
async def test_a_broken_routes_file_leaves_the_last_good_one(server: Server, content: str) -> None:
    assert (await server("POST", CHAT, {"model": "easycontract"})).status == 200
    server.routes.path.write_text(content)
    assert (await server("POST", CHAT, {"model": "easycontract"})).status == 200
    assert (await server("POST", CHAT, {"model": "easycontract"}, key="wrong")).status == 401


async def test_without_a_routes_file_nothing_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(tmp_path, monkeypatch)
    server.routes.remove()
    server.app = AliasMiddleware(server.inner)
    assert (await server("GET", "/ready", key=None)).status == 503
    assert (await server("POST", CHAT, {"model": "base"})).status == 401
    assert (await server("GET", "/v1/models", x_lorafleet_admin=server.token)).status == 401


async def test_a_client_that_leaves_within_its_body(server: Server) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"authorization", b"Bearer right")]
    await server.app({"type": "http", "method": "POST", "path": CHAT, "headers": headers}, receive, send)
    assert sent == []
    assert server.app.in_flight == {}


def answer(*values: float, tokens: str = "abc") -> Answer:
    candidates = tuple({token: v, "z": -9.0} for token, v in zip(tokens, values, strict=True))
    return Answer(tokens, tuple(tokens), values, candidates)


def test_the_base_check_tells_noise_from_other_weights() -> None:
    before = answer(-0.1, -0.2, -0.3)
    assert difference(before, before) == 0
    assert difference(before, answer(-0.1, -0.5, -0.3)) == pytest.approx(0.1)
    parted = answer(-0.1, -0.2, -0.3, tokens="abz")
    assert difference(before, parted) > 1  # "c" is not among the candidates any more
    rounding = [answer(-0.1001, -0.2, -0.3)] * 6
    assert compare([before] * 6, rounding, "float32", "alone") < 0.001
    with pytest.raises(ServingError, match="answers with an adapter's weights"):
        compare([before] * 6, [parted] * 6, "bfloat16", "alone")
    with pytest.raises(ServingError, match="answers with an adapter's weights"):
        compare([before] * 6, [answer(-0.2, -0.3, -0.4)] * 6, "float32", "alone")
    compare([before] * 6, [answer(-0.15, -0.25, -0.35)] * 6, "bfloat16", "alone")
