"""handlers.vertex without an engine: what it is told, instances, requests, and the front before a stub."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from handlers.serving.alias import AliasMiddleware
from handlers.serving.errors import ServingError
from handlers.serving.routes import ROUTES_VARIABLE, Routes, RoutesFile, new_admin_token
from handlers.vertex import asked as asking
from handlers.vertex import bundle, engines, instances, settings
from handlers.vertex.asked import RefusedError
from handlers.vertex.client import LoopClient, ask
from handlers.vertex.front import Front
from handlers.vertex.instances import InstancesError, Result
from tests.unit.serving_kit import LAUNCH

CHAT = {"messages": [{"role": "user", "content": "월세?"}]}


# settings


def environ(**more: str) -> dict[str, str]:
    return {"LORAFLEET_CONFIG": json.dumps(LAUNCH), **more}


@pytest.fixture
def with_packages(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Says which packages the image's Python has."""

    def have(*names: str) -> None:
        monkeypatch.setattr(settings, "find_spec", lambda name: object() if name in names else None)

    have("torch", "transformers", "peft")
    return have


def test_settings_from_the_environment_and_the_platforms_port(with_packages: Any) -> None:
    found = settings.load("/model", environ(AIP_HTTP_PORT="8099", AIP_PREDICT_ROUTE="/p", AIP_HEALTH_ROUTE="/h"))
    assert (found.engine, found.launch.port, found.most_in_flight) == ("peft", 8099, 32 + 64)
    assert found.predict_routes == {"/", "/predict", "/p"}
    assert found.health_routes == {"/", "/ready", "/h"}


def test_auto_takes_vllm_where_it_is(with_packages: Any) -> None:
    with_packages("vllm")
    assert settings.load("/model", environ()).engine == "vllm"


def test_settings_from_the_models_folder(with_packages: Any, tmp_path: Path) -> None:
    (tmp_path / "launch.json").write_text(json.dumps(LAUNCH))
    assert settings.load(str(tmp_path), {}).launch.environment == "local"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"LORAFLEET_CONFIG": "launch.json"}, "neither a JSON object nor an absolute path"),
        ({"LORAFLEET_CONFIG": "{"}, "LORAFLEET_CONFIG is not JSON"),
        ({"LORAFLEET_CONFIG": "/there/is/none"}, "the launch file /there/is/none cannot be read"),
        ({"LORAFLEET_CONFIG": '{"version": 2}'}, "store is missing"),
        (environ(LORAFLEET_ENGINE="sglang"), "LORAFLEET_ENGINE is 'sglang'"),
        (environ(LORAFLEET_ENGINE="vllm"), "has no vLLM"),
        (environ(LORAFLEET_MAX_QUEUE="-1"), "LORAFLEET_MAX_QUEUE is '-1'"),
        (environ(LORAFLEET_MAX_TOKENS="0"), "LORAFLEET_MAX_TOKENS is '0'"),
        (environ(AIP_HTTP_PORT="http"), "the port 'http' is none"),
        (environ(PORT="70000"), "the port '70000' is none"),
        (environ(AIP_PREDICT_ROUTE="predict"), "AIP_PREDICT_ROUTE is 'predict'"),
    ],
)
def test_settings_that_cannot_be_used(with_packages: Any, given: dict[str, str], told: str) -> None:
    with pytest.raises(ServingError) as caught:
        settings.load("/model", given)
    assert told in caught.value.what
    assert caught.value.next_step


def test_a_missing_package_is_named(with_packages: Any) -> None:
    with_packages("torch", "transformers")
    with pytest.raises(ServingError, match="no peft"):
        settings.load("/model", environ())


# instances


def test_instances_take_their_parameters_names_and_whole_numbers() -> None:
    body = {
        "instances": [{**CHAT, "adapter": "a", "max_tokens": 7.0, "seed": 1.0, "@requestFormat": "x"}, "a prompt",
                      {"inputs": "another", "temperature": 1.0}],
        "parameters": {"temperature": 0.5, "max_new_tokens": 9.0, "stop_token_ids": [1.0, 2.5]},
    }  # fmt: skip
    found = instances.requests_of(body, "base")
    assert found == [
        ("/v1/chat/completions", {**CHAT, "model": "a", "max_tokens": 7, "seed": 1, "temperature": 0.5,
                                  "stop_token_ids": [1, 2.5]}),
        ("/v1/completions", {"prompt": "a prompt", "model": "base", "max_tokens": 9, "temperature": 0.5,
                             "stop_token_ids": [1, 2.5]}),
        ("/v1/completions", {"prompt": "another", "model": "base", "max_tokens": 9, "temperature": 1.0,
                             "stop_token_ids": [1, 2.5]}),
    ]  # fmt: skip
    assert isinstance(found[0][1]["max_tokens"], int)


@pytest.mark.parametrize(
    "body",
    [
        {"instances": {}}, {"instances": []}, {"instances": [1]}, {"instances": ["x"] * 129}, {"instances": [{}]},
        {"instances": ["x"], "parameters": []}, {"instances": [{**CHAT, "prompt": "x"}]},
        {"instances": ["x"], "parameters": {"stream": True}},
    ],
)  # fmt: skip
def test_instances_that_cannot_be_taken(body: dict[str, Any]) -> None:
    with pytest.raises(InstancesError):
        instances.requests_of(body, "base")


def test_the_answers_status() -> None:
    def status(*found: int) -> int:
        return instances.status_of([Result(each, b"{}", {}) for each in found])

    assert (status(200, 429), status(429, 429), status(500, 404)) == (200, 429, 404)


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b'{"error": "text"}'])
def test_an_answer_that_is_none_becomes_an_error(body: bytes) -> None:
    assert instances.prediction(Result(500, body, {}))["error"]["status"] == 500


# requests of the engine peft


def test_a_request_is_read() -> None:
    asked = asking.read(
        {**CHAT, "model": "a", "max_tokens": 5.0, "temperature": 0, "top_k": -1, "seed": 3, "stop": "\n", "n": 1,
         "logprobs": True, "top_logprobs": 2, "stream": True, "stream_options": {"include_usage": True}, "tools": []},
        chat=True,
    )  # fmt: skip
    sampling = asked.sampling
    assert (asked.model, asked.stream, asked.include_usage, asked.stops) == ("a", True, True, ("\n",))
    assert (sampling.max_tokens, sampling.temperature, sampling.top_k, sampling.seed) == (5, 0.0, 0, 3)
    assert sampling.logprobs == 2


@pytest.mark.parametrize(
    "field",
    [
        {"max_tokens": 0}, {"max_tokens": 1.5}, {"max_tokens": True}, {"max_tokens": "5"}, {"temperature": -1},
        {"temperature": "hot"}, {"top_p": 2}, {"top_k": -2}, {"stop": [""]}, {"stop": ["x"] * 17}, {"stop": 1},
        {"stream": "yes"}, {"n": 2}, {"tools": [{}]}, {"response_format": {"type": "json_object"}}, {"echo": True},
        {"presence_penalty": 1}, {"logprobs": True, "top_logprobs": 21}, {"seed": "x"}, {"min_tokens": 3},
        {"guided_json": {"type": "object"}}, {"continue_final_message": True}, {"skip_special_tokens": False},
        {"do_sample": False}, {"allowed_token_ids": [1]}, {"reasoning_effort": "high"},
    ],
    ids=str,
)  # fmt: skip
def test_a_request_that_is_refused_names_its_field(field: dict[str, Any]) -> None:
    with pytest.raises(RefusedError) as caught:
        asking.read({**CHAT, "model": "a", **field}, chat=True)
    assert caught.value.param in field
    assert caught.value.param in caught.value.message


@pytest.mark.parametrize(
    "messages",
    [None, [], ["x"], [{"role": "robot", "content": "x"}], [{"role": "user"}], [{"role": "user", "content": []}],
     [{"role": "user", "content": [{"type": "image_url"}]}]],
)  # fmt: skip
def test_messages_that_are_refused(messages: Any) -> None:
    with pytest.raises(RefusedError):
        asking.messages({"messages": messages})


def test_messages_as_text_and_in_parts() -> None:
    parts = [{"type": "text", "text": "월"}, {"type": "text", "text": "세"}]
    given = [{"role": "developer", "content": "짧게"}, {"role": "user", "content": parts}]
    assert asking.messages({"messages": given}) == [
        {"role": "system", "content": "짧게"}, {"role": "user", "content": "월세"},
    ]  # fmt: skip


# the front, before a stub


class Stub:
    """An engine that notes what it gets and answers when `gate` is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.seen: list[tuple[str, Any]] = []
        self.left = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive()).get("body", b"") if scope["method"] == "POST" else b""
        self.seen.append((scope["path"], json.loads(body) if body else None))
        gone = asyncio.ensure_future(receive())
        opened = asyncio.ensure_future(self.gate.wait())
        await asyncio.wait({gone, opened}, return_when=asyncio.FIRST_COMPLETED)
        self.left += gone.done() and not self.gate.is_set()
        gone.cancel()
        opened.cancel()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": '{"text": "월세"}'.encode()})


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - what is waited for sets no event
        await asyncio.sleep(0)


class World:
    def __init__(self, folder: Path, keys: tuple[str, ...] = ()) -> None:
        self.token, digest = new_admin_token()
        self.routes = RoutesFile(folder / "routes.json", Routes("base", "1" * 40, keys, digest))
        self.routes.change(ready=True, accepting=True)
        self.stub = Stub()
        launch = {**LAUNCH, "engine": {**LAUNCH["engine"], "maxNumSeqs": 2}}
        found = settings.load("/model", {"LORAFLEET_CONFIG": json.dumps(launch), "LORAFLEET_MAX_QUEUE": "1"})
        self.alias = AliasMiddleware(self.stub)
        self.front = Front(found, self.alias)

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any, dict[str, str]]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, answer, told = await ask(self.front, "POST", path, raw, headers)
        return status, json.loads(answer), told


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_packages: Any) -> World:
    monkeypatch.setenv(ROUTES_VARIABLE, str(tmp_path / "routes.json"))
    return World(tmp_path)


async def test_the_front_gives_each_instance_its_answer(world: World) -> None:
    status, body, _ = await world.post("/predict", {"instances": ["x", {**CHAT, "model": "nobody"}]})
    assert status == 200
    assert body["predictions"][0] == {"text": "월세", "adapter": f"base@{'1' * 40}"}
    assert body["predictions"][1]["error"]["status"] == 404
    assert world.stub.seen == [("/v1/completions", {"prompt": "x", "model": "base"})]


async def test_an_instance_at_which_the_engine_fails_spoils_no_other(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fails_at_chats(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == instances.CHAT:
            raise RuntimeError("with what the client said")
        await world.stub(scope, receive, send)

    world.alias.app = fails_at_chats
    status, body, _ = await world.post("/predict", {"instances": [CHAT, "x"]})
    assert status == 200
    assert body["predictions"][0]["error"]["status"] == 500
    assert body["predictions"][1]["text"] == "월세"
    assert world.front.held == 0
    assert capsys.readouterr().err == "the engine failed at an instance: RuntimeError\n"


def test_vllm_gets_the_cap_on_tokens_and_no_middleware() -> None:
    given = ("--model", "m", "--middleware", "alias", "--override-generation-config", '{"max_new_tokens": 5}')
    assert engines.own_arguments(given, 24) == [
        "--override-generation-config", '{"max_new_tokens": 24}', "--model", "m", *given[-2:],
    ]  # fmt: skip


async def test_korean_is_not_escaped(world: World) -> None:
    _, raw, _ = await ask(world.front, "POST", "/predict", '{"instances": ["월세"]}'.encode(), {})
    assert "월세".encode() in raw


async def test_health_routes_answer_as_ready(world: World) -> None:
    for path in ("/", "/ready", "/health"):
        assert (await ask(world.front, "GET", path, b"", {}))[0] == 200
    world.routes.change(ready=False)
    assert (await ask(world.front, "GET", "/", b"", {}))[0] == 503
    assert (await ask(world.front, "GET", "/health", b"", {}))[0] == 200


async def test_many_at_once_are_counted_before_any_is_waited_for(world: World) -> None:
    world.stub.gate.clear()
    asked = [asyncio.ensure_future(world.post("/v1/completions", {"model": "base", "prompt": "x"})) for _ in range(8)]
    more = [asyncio.ensure_future(world.post("/predict", {"instances": ["x", "y"]})) for _ in range(2)]
    await until(lambda: len(world.stub.seen) >= 3 and sum(each.done() for each in asked + more) >= 7)
    world.stub.gate.set()
    answers = await asyncio.gather(*asked, *more)
    assert Counter(status for status, _, _ in answers) == {200: 3, 429: 7}
    assert all(headers["retry-after"] == "1" for status, _, headers in answers if status == 429)
    assert (await world.post("/v1/completions", {"model": "base", "prompt": "x"}))[0] == 200
    assert world.front.held == 0


@pytest.mark.parametrize("body", [{"instances": ["x", "y"]}, {"prompt": "x", "model": "base"}])
async def test_a_client_that_goes_away_is_told_to_the_engine(world: World, body: dict[str, Any]) -> None:
    world.stub.gate.clear()
    gone = asyncio.Event()
    given = False

    async def receive() -> dict[str, Any]:
        nonlocal given
        if given:
            await gone.wait()
            return {"type": "http.disconnect"}
        given = True
        return {"type": "http.request", "body": json.dumps(body).encode()}

    async def send(_message: Any) -> None: ...

    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
    asked = asyncio.ensure_future(world.front(scope, receive, send))
    await until(lambda: bool(world.stub.seen))
    gone.set()
    await asyncio.wait_for(asked, 30)
    await until(lambda: not world.front.held)
    assert world.alias.in_flight == {}


async def test_a_stranger_is_refused_on_every_route(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_packages: Any
) -> None:
    import hashlib

    monkeypatch.setenv(ROUTES_VARIABLE, str(tmp_path / "routes.json"))
    world = World(tmp_path, (hashlib.sha256(b"key").hexdigest(),))
    for path, body in (("/predict", {"instances": ["x"]}), ("/", CHAT), ("/v1/completions", {"prompt": "x"})):
        assert (await world.post(path, body))[0] == 401, path
    assert world.stub.seen == []
    for path in ("/predict", "/"):
        status, answer, _ = await world.post(path, {"instances": ["x"]}, authorization="Bearer key")
        assert (status, answer["predictions"][0]["text"]) == (200, "월세")


async def test_the_launcher_asks_from_another_thread(world: World) -> None:
    client = LoopClient(world.alias, asyncio.get_running_loop(), world.token)
    assert await asyncio.to_thread(client.healthy)
    assert await asyncio.to_thread(client.in_flight) == {}
    world.stub.gate.clear()
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(client.request, "POST", "/v1/completions", {"model": "x", "prompt": "x"}, 0.1)
    await until(lambda: not world.alias.in_flight)


# the model's folder


def test_the_bundle_is_whole_and_can_be_written_again(tmp_path: Path) -> None:
    for _ in range(2):
        assert bundle.main([str(tmp_path / "model")]) == 0
    found = {str(path.relative_to(tmp_path / "model")) for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert {"handler.py", "requirements.txt", "handlers/__init__.py", "handlers/vertex/endpoint.py"} <= found
    assert "handlers/serving/vllm_plugins/lorafleet_vllm-1.0.dist-info/entry_points.txt" in found
    assert not any("__pycache__" in name for name in found)
    # From anywhere, with the folder alone: a wrong launch file is told in one line.
    code = "import sys; sys.path[:0] = [sys.argv[1]]; import handler; handler.EndpointHandler(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path / "model")], cwd=tmp_path, capture_output=True, text=True,
        check=False, env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 1
    assert f"error: the launch file {tmp_path}/model/launch.json cannot be read" in done.stderr


def test_packages_are_those_of_the_lock() -> None:
    lock = (Path(__file__).resolve().parents[2] / "requirements" / "vertex.lock").read_text()
    for line in bundle.REQUIREMENTS.splitlines():
        assert ">=" in line or f"\n{line} " in f"\n{lock}"
