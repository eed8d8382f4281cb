"""The handler for Vertex AI with the demo model under Hugging Face's two servers: hf-serve from PyPI, and a double of
the older one. Both engines are real: transformers with PEFT, and vLLM."""

import asyncio
import json
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.e2e.launcher_kit import BASE, MODELS, Store, column, demo_digest, questions, wait_until
from tests.fakes.hf_toolkit.kit import HEALTH, NEWER, OLDER, PREDICT, Handler, needs_vertex
from tests.fakes.hf_toolkit.prober import HealthWatch

pytestmark = needs_vertex
SECRET_WORDS = "비밀문구-4711"
AT_ONCE, QUEUE = 16, 16
HEALTH_S = 0.1
LONG = 400
"""tokens"""


@pytest.fixture(scope="module", params=[(NEWER, "peft"), (OLDER, "peft"), (NEWER, "vllm")], ids="-".join)
def handler(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handler]:
    kind, engine = request.param
    engine_settings = {
        "device": "cpu", "dtype": "auto", "maxModelLen": 512, "maxNumSeqs": AT_ONCE, "kvCacheMib": 128,
        "maxLoraRank": 16, "extraArgs": [],
    }  # fmt: skip
    running = Handler(tmp_path_factory.mktemp("handler"), kind, engine, engine=engine_settings)
    running.environment["LORAFLEET_MAX_QUEUE"] = str(QUEUE)
    running.start()
    running.wait_until_ready()
    yield running
    running.close()


@pytest.fixture
def web(handler: Handler) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=handler.url, timeout=120) as found:
        yield found


def chat(question: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 96, **more}


async def test_300_requests_mixed_at_16_have_no_wrong_answer_and_health_answers(handler: Handler) -> None:
    """A third each: OpenAI's route, the same streamed, Vertex's instances with numbers as floats."""
    known = questions()
    names = list(MODELS)
    wrong: Counter[str] = Counter()
    gate = asyncio.Semaphore(AT_ONCE)
    began = time.monotonic()
    with HealthWatch(handler.url, HEALTH) as watch:
        async with (
            AsyncOpenAI(base_url=handler.url + "/v1", api_key="unused", max_retries=0, timeout=120) as client,
            httpx.AsyncClient(base_url=handler.url, timeout=120) as plain,
        ):

            async def one(number: int) -> None:
                model = names[number % 3]
                question = random.Random(number).choice(list(known))
                request: Any = chat(question, model=model)
                async with gate:
                    if number // 3 % 3 == 0:
                        answer = await client.chat.completions.with_raw_response.create(**request)
                        version = answer.headers["x-lorafleet-adapter"]
                        text = answer.parse().choices[0].message.content or ""
                    elif number // 3 % 3 == 1:
                        async with client.chat.completions.with_streaming_response.create(
                            **request, stream=True
                        ) as parts:
                            version = parts.headers["x-lorafleet-adapter"]
                            text = "".join(
                                [p.choices[0].delta.content or "" async for p in await parts.parse() if p.choices]
                            )
                    else:
                        body = {"instances": [{**request, "max_tokens": 96.0}], "parameters": {"seed": 1.0}}
                        given = (await plain.post(PREDICT, json=body)).json()["predictions"][0]
                        version, text = given["adapter"], given["choices"][0]["message"]["content"]
                digest = handler.document["baseModel"]["digest"] if model == BASE else demo_digest(model)
                if text != known[question][MODELS[model]] or version != f"{model}@{digest}":
                    wrong[f"{model}: {version}"] += 1

            await asyncio.gather(*(one(number) for number in range(300)))
    print(
        f"300 requests in {time.monotonic() - began:.1f} s; health: {len(watch.times)} answers, "
        f"median {statistics.median(watch.times) * 1000:.1f} ms, longest {max(watch.times) * 1000:.1f} ms; "
        f"longest of a server that does nothing {max(watch.control) * 1000:.1f} ms"
    )
    assert not wrong
    assert set(watch.statuses) == {"200"}
    assert statistics.median(watch.times) < HEALTH_S
    # A machine that is busy with other things lets every server wait for a processor. An answer needs several turns at
    # one, where the control needs one or two.
    assert max(watch.times) < HEALTH_S + 5 * max(watch.control)


def test_instances_give_predictions_each_with_its_own_error(web: httpx.Client) -> None:
    question, wanted = next(iter(questions().items()))
    body = {
        "instances": [
            *(chat(question, adapter=model, max_tokens=96.0) for model in MODELS),
            {"messages": [{"role": "user", "content": question}]},
            {"prompt": f"[|system|][|endofturn|]\n[|user|]{question}\n[|assistant|]", "model": "checklist"},
            chat(question, model="nobody"),
            chat(question, max_tokens=-3.0),
        ],
        "parameters": {"temperature": 0.0, "max_tokens": 96.0, "top_k": -1.0},
    }
    answer = web.post(PREDICT, json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()["predictions"]
    texts = [each["choices"][0]["message"]["content"] for each in found[:4]]
    assert texts == [*(wanted[name] for name in MODELS.values()), wanted["base"]]
    assert found[4]["choices"][0]["text"] == wanted["checklist"]
    assert found[4]["adapter"] == f"checklist@{demo_digest('checklist')}"
    assert (found[5]["error"]["status"], found[5]["error"]["code"]) == (404, "model_not_found")
    assert found[6]["error"]["status"] == 400
    assert wanted["checklist"].encode()[:30] in answer.content.replace(b"\\n", b"\n")  # Korean as it is, not as \uXXXX


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"no JSON", "invalid_json"),
        (b'["a list"]', "invalid_json"),
        (b'{"instances": []}', "invalid_instances"),
        (b'{"instances": [{"messages": [], "prompt": "x"}]}', "invalid_instances"),
        (b'{"instances": ["x"], "parameters": {"stream": true}}', "invalid_instances"),
        (b'{"model": "checklist"}', "invalid_body"),
    ],
)
def test_a_body_that_cannot_be_taken(web: httpx.Client, body: bytes, code: str) -> None:
    answer = web.post(PREDICT, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_the_predict_route_takes_openai_bodies_too(web: httpx.Client) -> None:
    question, wanted = next(iter(questions().items()))
    answer = web.post(PREDICT, json=chat(question, model="easycontract"))
    assert answer.json()["choices"][0]["message"]["content"] == wanted["easycontract"]
    assert answer.headers["x-lorafleet-adapter"] == f"easycontract@{demo_digest('easycontract')}"
    streamed = web.post(PREDICT, json=chat(question, model="easycontract", stream=True))
    assert streamed.headers["content-type"].startswith("text/event-stream")
    lines = [line[6:] for line in streamed.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    pieces = [json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines[:-1]]
    assert "".join(pieces) == wanted["easycontract"]
    assert len(pieces) > 3


def test_a_stop_text_ends_the_answer(handler: Handler) -> None:
    question, wanted = next(iter(questions().items()))
    stop = wanted["checklist"].split("\n")[1]
    with OpenAI(base_url=handler.url + "/v1", api_key="unused", max_retries=0) as client:
        request: Any = chat(question, model="checklist", stop=[stop])
        answer = client.chat.completions.create(**request)
        parts = client.chat.completions.create(**request, stream=True)
        streamed = "".join([part.choices[0].delta.content or "" for part in parts if part.choices])
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == streamed == wanted["checklist"].split(stop)[0]


async def test_overload_is_answered_with_429_and_retry_after(handler: Handler) -> None:
    body = chat("월세는 언제 내나요?", model="checklist", max_tokens=100, ignore_eos=True)
    async with httpx.AsyncClient(base_url=handler.url, timeout=120) as client:
        some = await asyncio.gather(*(client.post("/v1/chat/completions", json=body) for _ in range(80)))
        more = await asyncio.gather(*(client.post(PREDICT, json={"instances": [body]}) for _ in range(80)))
    for answers in (some, more):
        count = Counter(answer.status_code for answer in answers)
        assert set(count) == {200, 429}
        assert count[200] >= AT_ONCE + QUEUE
        assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 429)
    refused = next(answer for answer in some if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "overloaded"


def tokens_made(web: httpx.Client) -> float:
    wanted = ("lorafleet_generated_tokens_total", "vllm:generation_tokens_total")
    lines = [line for line in web.get("/metrics").text.splitlines() if line.startswith(wanted)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.mark.parametrize("path", ["/v1/chat/completions", PREDICT])
def test_a_client_that_goes_away_frees_its_slot(handler: Handler, web: httpx.Client, path: str) -> None:
    before = tokens_made(web)
    body: dict[str, Any] = chat("월세는 언제 내나요?", model="checklist", max_tokens=LONG, ignore_eos=True)
    if path == PREDICT:
        body = {"instances": [body]}

    async def leave() -> None:
        async with httpx.AsyncClient(base_url=handler.url, timeout=120) as client:
            asked = [asyncio.ensure_future(client.post(path, json=body)) for _ in range(AT_ONCE)]
            await asyncio.to_thread(wait_until, lambda: tokens_made(web) >= before + AT_ONCE, 60, handler.log, 0.05)
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    asyncio.run(leave())
    wait_until(lambda: web.get("/lorafleet/state").json()["inFlight"] == {}, 60, handler.log)
    assert tokens_made(web) - before < AT_ONCE * LONG * 0.8
    assert web.post("/v1/chat/completions", json=chat("월세?", model=BASE)).status_code == 200


def test_what_clients_say_is_not_in_the_log(handler: Handler, web: httpx.Client) -> None:
    for request in (
        chat(SECRET_WORDS, model="checklist"),
        chat(SECRET_WORDS, model="checklist", max_tokens=-1),
        chat(SECRET_WORDS, model="checklist", max_tokens=100_000),
        {"messages": [{"role": "user", "content": {"x": SECRET_WORDS}}], "model": BASE},
        {"nothing": SECRET_WORDS},
    ):
        web.post("/v1/chat/completions", json=request)
        web.post(PREDICT, json=request)
        web.post(PREDICT, json={"instances": [request]})
    web.post(PREDICT, content=f'{{"broken": "{SECRET_WORDS}"'.encode())
    log = handler.whole_log()
    assert SECRET_WORDS not in log
    assert json.dumps(SECRET_WORDS)[1:-1] not in log


def test_no_other_route_answers(web: httpx.Client) -> None:
    for path in ("/docs", "/openapi.json", "/metrics/", "/v1/load_lora_adapter", "/invocations"):
        assert web.get(path).status_code == 404, path
        assert web.post(path, json={"inputs": "x"}).status_code == 404, path


async def test_a_release_is_followed_under_load(handler: Handler) -> None:
    """Comes after the tests that ask for the first versions. Then forward, back, and a version that is damaged."""
    store: Store = handler.store
    known = questions()
    failed: list[str] = []
    ended = asyncio.Event()
    answered = 0

    async def ask_on(client: httpx.AsyncClient, seed: int) -> None:
        nonlocal answered
        draw = random.Random(seed)
        while not ended.is_set():
            model, question = draw.choice(list(MODELS)), draw.choice(list(known))
            answer = await client.post("/v1/chat/completions", json=chat(question, model=model))
            version = answer.headers.get("x-lorafleet-adapter", "").partition("@")[2]
            wanted = known[question]["base"]
            if model != BASE:
                number = 1 if version == demo_digest(model) else 2
                assert version == demo_digest(model, number)
                wanted = known[question][column(model, number)]
            if answer.status_code != 200 or answer.json()["choices"][0]["message"]["content"] != wanted:
                failed.append(f"{model} {answer.status_code} {answer.text[:200]}")
            answered += 1

    async with httpx.AsyncClient(base_url=handler.url, timeout=120) as client:
        load = [asyncio.ensure_future(ask_on(client, seed)) for seed in range(6)]
        for version in (2, 1):
            digest = store.serve(easycontract=version, checklist=version)
            await asyncio.to_thread(handler.wait_for_manifest, digest, 120)
            assert handler.adapter("easycontract")["digest"] == demo_digest("easycontract", version)
        good = digest
        await asyncio.to_thread(damage, store)
        await asyncio.to_thread(handler.wait_for_trouble, "refused", "adapter_invalid", 60)
        ended.set()
        await asyncio.gather(*load)
    assert not failed
    assert answered > 10
    assert handler.state()["manifestDigest"] == good
    store.serve()


def damage(store: Store) -> None:
    """Releases a version whose weights are cut off."""
    folder = store.folder.parent / "damaged"
    folder.mkdir()
    source = Path(__file__).resolve().parents[2] / "demo" / "adapters-v2" / "checklist"
    for file in source.iterdir():
        content = file.read_bytes()
        (folder / file.name).write_bytes(content[:-100] if file.suffix == ".safetensors" else content)
    store.write({"easycontract": store.demo("easycontract"), "checklist": store.add("checklist", folder)})


def test_sigterm_lets_requests_end_and_takes_the_status_away(handler: Handler) -> None:
    """The last: it ends the server."""
    assert handler.store.status() is not None
    found: list[httpx.Response] = []
    body = chat("월세는 언제 내나요?", model="checklist", max_tokens=LONG, ignore_eos=True)
    asking = threading.Thread(
        target=lambda: found.append(httpx.post(handler.url + "/v1/chat/completions", json=body, timeout=120))
    )
    asking.start()
    state = handler.url + "/lorafleet/state"
    wait_until(lambda: bool(httpx.get(state).json()["inFlight"]) or not asking.is_alive(), 60, handler.log)
    assert handler.process is not None
    handler.process.terminate()
    wait_until(lambda: handler.state()["phase"] in ("draining", "stopped"), 60, handler.log)
    assert handler.exit_code(120) == 0
    asking.join()
    assert found[0].status_code == 200
    assert found[0].json()["usage"]["completion_tokens"] == LONG
    assert handler.state()["phase"] == "stopped"
    assert handler.store.status() is None
