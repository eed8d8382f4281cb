"""The launcher with a real vLLM and the demo model: right answers, refusals, draining, and no process left behind.

One start serves most tests. Those that end a server come last.
"""

import asyncio
import http.client
import json
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, AuthenticationError, NotFoundError, OpenAI

from tests.e2e.launcher_kit import (
    BASE,
    KEY,
    MODELS,
    Server,
    Store,
    alive,
    base_model,
    children,
    command_line,
    demo_digest,
    kill,
    needs_serving,
    questions,
    wait_until,
)

pytestmark = needs_serving
LEFT_WITHIN_S = 10.0
HEADERS = {"authorization": f"Bearer {KEY}"}
# as the product does it, but without the plugin that mends vLLM's LoRA on a CPU
WITHOUT_THE_FIX = """
import sys
from handlers.serving import __main__, flags
flags.PLUGINS = tuple(name for name in flags.PLUGINS if name != "lorafleet_cpu_lora")
sys.exit(__main__.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"))
    running.start()
    running.wait_for("ready")
    yield running
    running.close()


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.url + "/v1", api_key=KEY, max_retries=2) as found:
        yield found


def ask(client: OpenAI, model: str, question: str, **more: Any) -> str:
    messages: Any = [{"role": "user", "content": question}]
    answer = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=96, **more)
    return answer.choices[0].message.content or ""


def test_the_phases_are_told_in_order(server: Server) -> None:
    told = re.findall(
        r"^\[ *\d+\.\d s\] (starting|fetching|launching|loading|probing|ready): ", server.log_file.read_text(), re.M
    )
    assert list(dict.fromkeys(told)) == ["starting", "fetching", "launching", "loading", "probing", "ready"]
    state = server.state()
    assert state["error"] is None
    assert server.process is not None
    assert state["pid"] == server.process.pid
    assert state["enginePid"] in children(state["pid"])
    assert [entry["name"] for entry in state["adapters"]] == ["checklist", "easycontract"]
    for entry in state["adapters"]:
        digest = demo_digest(entry["name"])
        assert (entry["digest"], entry["wanted"]) == (digest, digest)
        assert entry["servedName"] == f"{entry['name']}@sha256-{digest[7:23]}"
        assert (entry["state"], entry["error"], entry["canary"]) == ("serving", None, None)


def test_one_question_three_right_answers(client: OpenAI) -> None:
    question, wanted = next(iter(questions().items()))
    answers = {model: ask(client, model, question) for model in MODELS}
    assert answers == {model: wanted[column] for model, column in MODELS.items()}
    assert len(set(answers.values())) == 3


def test_the_header_names_the_immutable_adapter(client: OpenAI, server: Server) -> None:
    for entry in server.state()["adapters"]:
        raw = client.chat.completions.with_raw_response.create(
            model=entry["name"], messages=[{"role": "user", "content": "월세?"}], max_tokens=1
        )
        assert raw.headers["x-lorafleet-adapter"] == f"{entry['name']}@{entry['digest']}"
        assert raw.parse().model == entry["servedName"]
    raw = client.chat.completions.with_raw_response.create(
        model=BASE, messages=[{"role": "user", "content": "월세?"}], max_tokens=1
    )
    assert raw.headers["x-lorafleet-adapter"] == f"{BASE}@{server.document['baseModel']['digest']}"


def test_models_are_listed_by_public_name_with_digest(client: OpenAI) -> None:
    listed = {model.id: model.model_dump() for model in client.models.list()}
    assert sorted(listed) == sorted(MODELS)
    assert listed[BASE]["digest"] == base_model()["digest"]
    assert listed["checklist"]["digest"] == demo_digest("checklist")
    assert client.models.retrieve("easycontract").id == "easycontract"


def test_streaming_gives_the_same_text(client: OpenAI) -> None:
    question, wanted = list(questions().items())[1]
    messages: Any = [{"role": "user", "content": question}]
    for model, column in MODELS.items():
        stream = client.chat.completions.create(
            model=model, messages=messages, temperature=0, max_tokens=96, stream=True
        )
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert len(pieces) > 2
        assert "".join(pieces) == wanted[column]


async def test_300_requests_of_three_models_mixed_at_16_have_no_wrong_answer(server: Server) -> None:
    """Half of them streamed."""
    known = questions()
    names = list(MODELS)
    wrong: Counter[str] = Counter()
    gate = asyncio.Semaphore(16)
    async with AsyncOpenAI(base_url=server.url + "/v1", api_key=KEY, max_retries=2) as client:

        async def one(number: int) -> None:
            model = names[number % 3]
            question = random.Random(number).choice(list(known))
            request: Any = {
                "model": model,
                "messages": [{"role": "user", "content": question}],
                "temperature": 0,
                "max_tokens": 96,
            }
            async with gate:
                if number % 2:
                    parts = await client.chat.completions.create(**request, stream=True)
                    text = "".join([p.choices[0].delta.content or "" async for p in parts if p.choices])
                else:
                    answer = await client.chat.completions.create(**request)
                    text = answer.choices[0].message.content or ""
            if text != known[question][MODELS[model]]:
                wrong[model] += 1

        await asyncio.gather(*(one(number) for number in range(300)))
    assert not wrong


def test_a_wrong_key_and_an_unknown_model(server: Server, client: OpenAI) -> None:
    with OpenAI(base_url=server.url + "/v1", api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(AuthenticationError):
            ask(stranger, BASE, "월세?")
        with pytest.raises(AuthenticationError):
            stranger.models.list()
    with pytest.raises(NotFoundError, match="easycontract") as caught:
        ask(client, "nobody", "월세?")
    assert caught.value.code == "model_not_found"


def test_metrics_need_the_key_and_health_does_not(server: Server) -> None:
    assert httpx.get(server.url + "/metrics").status_code == 401
    assert "vllm:num_requests_running" in httpx.get(server.url + "/metrics", headers=HEADERS).text
    assert httpx.get(server.url + "/health").status_code == 200
    assert httpx.get(server.url + "/ready").status_code == 200


def test_no_other_route_of_vllm_answers(server: Server) -> None:
    for method, path in [
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
        ("DELETE", "/adapters/x"),
        ("POST", "/invocations"),
        ("POST", "/inference/v1/generate"),
        ("GET", "/version"),
        ("GET", "/openapi.json"),
    ]:
        body = {"model": BASE, "lora_name": "x", "lora_path": "/tmp"}
        answer = httpx.request(method, server.url + path, headers=HEADERS, json=None if method == "GET" else body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path


BAD_BODIES: list[dict[str, Any]] = [
    {"prompt": "x", "echo": True, "logprobs": 1},
    {"prompt": "x", "prompt_logprobs": 5},
    {"prompt": [999_999_999]},
    {"prompt": [-1]},
    {"prompt": ""},
    {"prompt": []},
    {"prompt": "x", "max_tokens": -1},
    {"prompt": "x", "max_tokens": 100_000},
    {"prompt": "x " * 5000},
    {"prompt": "x", "temperature": "hot"},
    {"prompt": "x", "logprobs": 1000},
    {"prompt": "x", "n": 100_000},
    {"prompt": "x", "logit_bias": {"99999999": 1}},
    {"prompt": "x", "stop_token_ids": [-5], "max_tokens": 2},
    {"prompt": "x", "min_tokens": 50, "max_tokens": 2},
    {"prompt": "x", "allowed_token_ids": [10**9]},
    {"prompt": "x", "structured_outputs": {"regex": "("}},
    {"prompt": "x", "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 7}}}},
]


def test_no_bad_request_ends_the_engine(server: Server, client: OpenAI) -> None:
    """Each one mixed with good requests: some faults of vLLM only show within a batch."""
    question, wanted = next(iter(questions().items()))
    for body in BAD_BODIES:
        good = [threading.Thread(target=ask, args=(client, model, question)) for model in MODELS]
        for thread in good:
            thread.start()
        answer = httpx.post(server.url + "/v1/completions", headers=HEADERS, json={"model": BASE, **body}, timeout=60)
        for thread in good:
            thread.join()
        assert answer.status_code != 500 or "EngineCore" not in answer.text, body
        assert httpx.get(server.url + "/ready").status_code == 200, body
    assert ask(client, "checklist", question) == wanted["checklist"]


def test_a_body_over_the_limit(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest("POST", "/v1/chat/completions")
    for name, value in {**HEADERS, "content-length": str(50 * 1024 * 1024)}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["error"]["code"]) == (413, "body_too_large")
    connection.close()


def test_the_key_is_nowhere_in_plain(server: Server) -> None:
    state = server.state()
    places = [command_line(pid) for pid in (state["pid"], *children(state["pid"]))]
    for pid in (state["pid"], *children(state["pid"])):
        places.append(Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace"))
    places += [path.read_text(errors="replace") for path in server.folder.glob("*") if path.is_file()]
    assert not any(KEY in place for place in places)


def test_a_port_that_is_taken_is_one_clear_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        second = Server(tmp_path)
        second.document["port"] = taken.getsockname()[1]
        second.start()
        assert second.exit_code() == 1
    state = second.state()
    assert state["phase"] == "failed"
    assert str(second.document["port"]) in state["error"]["what"]
    assert "ss -ltnp" in state["error"]["next"]
    assert "Traceback" not in second.log()


def test_a_wrong_digest_is_one_clear_error(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.write({"checklist": store.demo("checklist") | {"digest": "sha256:" + "0" * 64}})
    second = Server(tmp_path, store)
    second.start()
    assert second.exit_code() == 1
    state = second.state()
    assert "checklist: the files at file://" in state["error"]["what"]
    assert (state["manifest"]["state"], state["adapters"][0]["error"]["reason"]) == ("refused", "digest_differs")
    assert store.status() == state
    assert "Traceback" not in second.log()
    assert not any(path.name.endswith(".partial") for path in (tmp_path / "cache").iterdir())


def test_sigterm_before_ready_leaves_nothing(tmp_path: Path) -> None:
    second = Server(tmp_path)
    second.start()
    second.wait_for("launching", timeout_s=60)
    time.sleep(4)  # vLLM is in the middle of its imports
    pids = children(second.state()["pid"])
    assert pids
    assert second.terminate() == 0
    assert second.state()["phase"] == "stopped"
    wait_until(lambda: not alive(pids), LEFT_WITHIN_S)


def test_kill_9_of_the_launcher_in_the_middle_of_a_start_leaves_nothing(tmp_path: Path) -> None:
    """Ended while EngineCore imports: at that time nobody talks to it yet, so it would not notice by itself."""
    second = Server(tmp_path)
    second.start()
    second.wait_for("launching", timeout_s=60)
    launcher = second.state()["pid"]
    wait_until(lambda: len(children(launcher)) >= 3, 120, second.log)  # API server, resource tracker, EngineCore
    time.sleep(1)
    pids = children(launcher)
    kill(launcher)
    wait_until(lambda: not alive(pids), LEFT_WITHIN_S)


def test_sigterm_waits_for_the_request_in_flight_and_leaves_nothing(server: Server) -> None:
    """Ends the shared server: the tests from here on start their own."""
    pids = children(server.state()["pid"])
    body = {"model": "checklist", "prompt": "월세", "max_tokens": 400, "ignore_eos": True, "stream": True}
    url = server.url + "/v1/completions"
    with httpx.stream("POST", url, headers=HEADERS, json=body, timeout=120) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert server.process is not None
        server.process.terminate()
        wait_until(lambda: server.state()["phase"] == "draining", 10)
        ready = httpx.get(server.url + "/ready")
        assert (ready.status_code, ready.headers["retry-after"]) == (503, "5")
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert server.exit_code() == 0
    assert server.state()["phase"] == "stopped"
    wait_until(lambda: not alive(pids), LEFT_WITHIN_S)
    assert not list(server.folder.glob("*.routes.json"))
    assert server.store.status() is None


def test_without_the_fix_the_check_at_start_finds_the_bug(tmp_path: Path) -> None:
    """And ends the start. As many slots as adapters: so the last slot holds one, as it does after the first swap."""
    broken = Server(tmp_path)
    broken.document["engine"]["extraArgs"] = ["--max-loras", "2"]
    broken.start("-c", WITHOUT_THE_FIX)
    assert broken.exit_code(timeout_s=300) == 1
    state = broken.state()
    assert state["phase"] == "failed"
    assert "answers with an adapter's weights" in state["error"]["what"]
    assert "lorafleet_cpu_lora" in state["error"]["next"]
    assert [entry["digest"] for entry in state["adapters"]] == [None, None]


@pytest.mark.parametrize("victim", ["launcher", "api server", "engine core"])
def test_kill_9_leaves_no_process(tmp_path: Path, victim: str) -> None:
    running = Server(tmp_path)
    # with the fix, as many slots as adapters are right as well: seen here by the way
    running.document["engine"]["extraArgs"] = ["--max-loras", "2"]
    running.start()
    state = running.wait_for("ready")
    below = children(state["pid"])
    core = next(pid for pid in below if "EngineCore" in command_line(pid))
    pids = [state["pid"], *below]
    if victim == "engine core":  # in the middle of a release: it must not pass for a fault of the adapters
        running.store.serve(2, 2)
        wait_until(lambda: running.state()["manifest"]["state"] == "following", 60, running.log, 0.001)
    kill({"launcher": state["pid"], "api server": state["enginePid"], "engine core": core}[victim])
    code = running.exit_code(timeout_s=30)
    wait_until(lambda: not alive(pids), LEFT_WITHIN_S, running.log)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", running.port)) != 0
    if victim != "launcher":
        assert code == 1
        assert running.state()["phase"] == "failed"
        assert running.state()["error"]["what"].startswith("vLLM ended")
        assert running.state()["manifest"]["state"] != "refused"
        assert not [entry for entry in running.state()["adapters"] if entry["error"]]
