"""The stack `local` as a user has it: real engine, real plugin, real vLLM, real HAProxy, the official client.

One start of vLLM serves all tests but the last ones, which kill it and bring it back.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.support.stack_project import ROOT, StackProject, command_line, wait_for

BASE, ADAPTERS = "exaone-3.5-2.4b", ("easycontract", "checklist")
MODELS = (BASE, *ADAPTERS)
QUESTIONS: dict[str, dict[str, str]] = json.loads((ROOT / "demo" / "questions.json").read_text())["questions"]
REQUESTS, AT_ONCE = 300, 16


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackProject]:
    made = StackProject(tmp_path_factory.mktemp("local") / "project", real=True)
    try:
        made.up().ok()
        yield made
    finally:
        made.kill_everything()


@pytest.fixture(scope="module")
def key(project: StackProject) -> str:
    return str(project.output("apiKey"))


def right(model: str, question: str) -> str:
    return QUESTIONS[question]["base" if model == BASE else model]


def client(project: StackProject, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{project.ports['router']}/v1", api_key=key, max_retries=0)


def test_one_question_has_three_right_answers(project: StackProject, key: str) -> None:
    question = next(iter(QUESTIONS))
    answers = set()
    for model in MODELS:
        answer = client(project, key).chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=128
        )
        assert answer.choices[0].message.content == right(model, question)
        answers.add(answer.choices[0].message.content)
    assert len(answers) == 3


def test_models_are_the_base_and_the_adapters(project: StackProject, key: str) -> None:
    assert {model.id for model in client(project, key).models.list()} == set(MODELS)
    assert set(project.output("models")) == set(MODELS)


async def test_no_wrong_answer_of_300_mixed_at_16(project: StackProject, key: str) -> None:
    """The three models mixed, half of them streamed."""
    asking = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{project.ports['router']}/v1", api_key=key, max_retries=0)
    at_once, draw, wrong = asyncio.Semaphore(AT_ONCE), random.Random(16), Counter[str]()
    questions = list(QUESTIONS)

    async def ask(number: int) -> None:
        model, question = MODELS[number % 3], draw.choice(questions)
        async with at_once:
            request = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0}
            if number % 2:
                stream = await asking.chat.completions.create(**request, max_tokens=128, stream=True)  # type: ignore[call-overload]
                text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
            else:
                answer = await asking.chat.completions.create(**request, max_tokens=128)  # type: ignore[call-overload]
                text = answer.choices[0].message.content
        wrong[model] += text != right(model, question)

    begun = time.monotonic()
    await asyncio.gather(*(ask(number) for number in range(REQUESTS)))
    print(f"{REQUESTS} requests, {AT_ONCE} at once: {time.monotonic() - begun:.1f} s, wrong {dict(wrong)}")
    assert sum(wrong.values()) == 0


def test_metrics_count_per_adapter_and_per_target(project: StackProject) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{project.ports['metrics']}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    for model in MODELS:
        counted = [float(each.split()[-1]) for each in lines if each.startswith("haproxy_backend_http_requests_total")
                   and f'proxy="model_{model}"' in each]  # fmt: skip
        assert counted and counted[0] > 0, f"nothing counted for {model}"
    assert any('proxy="target_server"' in line for line in lines)


def test_nothing_changes_the_second_time(project: StackProject) -> None:
    project.up("--expect-no-changes").ok()
    project.refresh("--expect-no-changes").ok()


def test_the_key_is_nowhere_in_plain_text(project: StackProject, key: str) -> None:
    kept = [path for path in project.folder.rglob("*") if path.is_file()]
    assert [path for path in kept if key.encode() in path.read_bytes()] == []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            assert key not in command_line(int(entry.name))


def test_a_wrong_key_is_refused(project: StackProject) -> None:
    with pytest.raises(openai.AuthenticationError):
        client(project, "lf-wrong").models.list()


@pytest.mark.parametrize("victim", ["engine", "launcher"])
def test_kill_9_of_vllm(project: StackProject, key: str, victim: str) -> None:
    def ask() -> str | None:
        answer = (
            client(project, key)
            .with_options(timeout=10)
            .chat.completions.create(
                model="checklist", messages=[{"role": "user", "content": question}], max_tokens=128, temperature=0
            )
        )
        return answer.choices[0].message.content

    question = next(iter(QUESTIONS))
    [launcher] = project.leaders()
    served_by = [m for m in project.processes() if "handlers.serving.engine" in command_line(m.identity.pid)]
    assert served_by, "vLLM's processes must carry the mark of their run folder"
    killed = launcher if victim == "launcher" else served_by[0]
    killed.identity.signal(signal.SIGKILL)
    wait_for(lambda: not any(m.identity.alive() for m in (launcher, *served_by)), 15, "vLLM to be gone altogether")

    begun = time.monotonic()
    with pytest.raises(openai.InternalServerError) as refused:
        ask()
    assert refused.value.status_code == 503
    assert int(refused.value.response.headers["retry-after"]) > 0
    assert time.monotonic() - begun < 5, "clients hang"

    refreshed = project.refresh().ok().output
    # A launcher that sees its engine die says so itself; one that was killed cannot.
    told = {"engine": "the model server failed: ", "launcher": "the model server is not running"}
    assert told[victim] in refreshed
    assert "~status" in refreshed
    project.up().ok()
    assert len(project.leaders()) == 1
    deadline = time.monotonic() + 5
    while True:
        try:
            assert ask() == right("checklist", question)
            break
        except openai.InternalServerError:
            assert time.monotonic() < deadline, "the router does not see the server again"


def test_destroy_leaves_the_logs_alone(project: StackProject) -> None:
    project.destroy().ok()
    assert project.processes() == []
    left = [path for path in project.state_dir.rglob("*") if path.is_file()]
    assert {path.parent.name for path in left} == {"logs"}, left
