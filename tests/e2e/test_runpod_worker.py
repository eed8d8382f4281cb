"""The queue worker with RunPod's real SDK, a real vLLM and the demo model, against a stand-in for RunPod's job API.

One start serves all tests here; the last one ends it.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest

from handlers.runpod.reading import BATCH_S
from tests.e2e.launcher_kit import BASE, MODELS, alive, children, command_line, questions, wait_until
from tests.e2e.runpod_worker_kit import API_KEY, HOLD_S, Job, JobApi, Worker, cpu_s, needs_worker, peak_mib

pytestmark = needs_worker
CONCURRENCY = 8
LONG: dict[str, Any] = {"model": "checklist", "prompt": "월세", "max_tokens": 480, "ignore_eos": True, "stream": True}
"""takes several seconds"""
LONGEST = LONG | {"max_tokens": 2000}
"""takes more than any of the waits below"""
IDLE_WITHIN_S = 8.0
"""A cancelled job's request must be gone after that; none of those above would be over."""


@pytest.fixture(scope="module")
def api() -> Iterator[JobApi]:
    running = JobApi()
    yield running
    running.close()


@pytest.fixture(scope="module")
def worker(api: JobApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    running = Worker(tmp_path_factory.mktemp("worker"), api, drainTimeoutS=120)
    running.document["engine"] |= {"maxNumSeqs": CONCURRENCY, "maxModelLen": 2048}
    running.start()
    running.wait_for("ready")
    yield running
    running.close()


def ended(job: Job, worker: Worker, timeout_s: float = 180) -> Job:
    wait_until(lambda: job.done.is_set(), timeout_s, worker.log)
    return job


def text_of(job: Job) -> str:
    """The answer's text, of a stream or not."""
    assert job.result is not None and "output" in job.result, job.result
    output = job.result["output"]
    if isinstance(output[0], dict):
        assert len(output) == 1
        return str(output[0]["choices"][0]["message"]["content"])
    events = "".join(output).split("\n\n")
    assert events.pop() == "" and events.pop() == "data: [DONE]"
    parts = [json.loads(event.removeprefix("data: "))["choices"] for event in events]
    return "".join(choice[0]["delta"].get("content") or "" for choice in parts if choice)


def test_50_jobs_mixed_at_concurrency_8(worker: Worker, api: JobApi) -> None:
    """Over both adapters and the base, in both shapes of the input, half of them streamed."""
    known, names = questions(), list(MODELS)
    wanted: dict[str, str] = {}
    jobs: list[Job] = []
    begun = time.monotonic()
    for number in range(50):
        model = names[number % 3]
        question = random.Random(number).choice(list(known))
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": question}]}
        body |= {"temperature": 0, "max_tokens": 96, "stream": number % 2 == 0}
        openai = {"openai_route": "/v1/chat/completions", "openai_input": body}
        jobs.append(api.submit(openai if number % 4 < 2 else body))
        wanted[jobs[-1].id] = known[question][MODELS[model]]
    for job in jobs:
        ended(job, worker)
    took_s = time.monotonic() - begun
    wrong = [job.id for job in jobs if job.status != "COMPLETED" or text_of(job) != wanted[job.id]]
    out_of_order = [job.id for job in jobs if job.result is not None and job.result["output"] != job.chunks]
    delays = [job.done_at - job.taken_at for job in jobs if job.taken_at is not None and job.done_at is not None]
    figures = {
        "jobs": len(jobs), "wrong": len(wrong), "outOfOrder": len(out_of_order), "mostAtOnce": api.most_at_once,
        "seconds": round(took_s, 2), "jobP50S": round(statistics.median(delays), 2), "jobMaxS": round(max(delays), 2),
        "streamParts": sum(len(job.chunks) for job in jobs if isinstance(job.chunks[0], str)),
        "peakMib": {name: round(peak_mib(pid)) for name, pid in worker.processes().items()},
    }  # fmt: skip
    print("\n" + json.dumps(figures))
    assert (wrong, out_of_order, api.refused) == ([], [], [])
    assert api.most_at_once == CONCURRENCY
    assert max(api.batches) > 1, "the worker takes several jobs at a time"


def test_a_stream_comes_in_parts_while_the_job_runs(worker: Worker, api: JobApi) -> None:
    job = ended(api.submit(LONG), worker)
    assert job.first_at is not None and job.done_at is not None and job.taken_at is not None
    assert job.first_at - job.taken_at < (job.done_at - job.taken_at) / 2
    # One part for each token would be several times as many, but on a machine that has other things to do.
    assert 5 < len(job.chunks) < (job.done_at - job.taken_at) / BATCH_S + 5
    assert '"finish_reason":"length"' in "".join(job.chunks)


def test_the_models_by_name(worker: Worker, api: JobApi) -> None:
    listed = ended(api.submit({"openai_route": "/v1/models", "openai_input": {}}), worker)
    assert listed.result is not None
    assert sorted(model["id"] for model in listed.result["output"][0]["data"]) == sorted(MODELS)
    one = ended(api.submit({"openai_route": "/v1/models/checklist"}), worker)
    assert one.result is not None and one.result["output"][0]["parent"] == BASE


def wait_until_idle(worker: Worker) -> None:
    """vLLM's engine does nothing any more."""
    engine = worker.processes()["engine"]
    end = time.monotonic() + IDLE_WITHIN_S
    used = 1.0
    while used > 0.1:
        assert time.monotonic() < end, f"the engine still works ({used:.2f} of the last 0.5 s)\n{worker.log()}"
        before = cpu_s(engine)
        time.sleep(0.5)
        used = cpu_s(engine) - before


@pytest.mark.parametrize("held", [False, True], ids=["while it is asked", "while a part is sent"])
def test_cancelled_jobs_stop_in_vllm_and_others_go_on(worker: Worker, api: JobApi, held: bool) -> None:
    if held:
        api.hold_streams = True
    jobs = [api.submit(LONGEST) for _ in range(CONCURRENCY)]
    wait_until(lambda: all(job.chunks for job in jobs), 60, worker.log)
    wait_until(lambda: any(job.id in ping.get("job_id", "") for job in jobs for ping in api.pings), 20, worker.log)
    busy = cpu_s(worker.processes()["engine"])
    time.sleep(0.3)
    assert cpu_s(worker.processes()["engine"]) > busy, "the engine is at work"
    api.stop(*(job.id for job in jobs))
    wait_until_idle(worker)
    api.hold_streams = False
    question, known = next(iter(questions().items()))
    other = api.submit({"model": "checklist", "messages": [{"role": "user", "content": question}], "temperature": 0})
    assert text_of(ended(other, worker)) == known["checklist"]
    assert not any(job.done.is_set() for job in jobs), "a cancelled job has no result"


def test_one_of_several_is_cancelled(worker: Worker, api: JobApi) -> None:
    jobs = [api.submit(LONG) for _ in range(3)]
    wait_until(lambda: all(job.chunks for job in jobs), 60, worker.log)
    api.stop(jobs[1].id)
    for job in (jobs[0], jobs[2]):
        assert ended(job, worker).status == "COMPLETED"
        assert '"finish_reason":"length"' in "".join(job.chunks)
    assert not jobs[1].done.is_set()
    assert len(jobs[1].chunks) < len(jobs[0].chunks)


def test_a_job_that_is_cancelled_before_it_came_does_not_begin(worker: Worker, api: JobApi) -> None:
    api.stop("job-early")
    wait_until(lambda: not api.stops, 30, worker.log)
    time.sleep(0.5)
    early = api.submit(LONGEST, "job-early")
    later = ended(api.submit({"model": BASE, "prompt": "월세", "max_tokens": 2}), worker)
    assert later.status == "COMPLETED"
    wait_until(lambda: early.taken_at is not None, 30, worker.log)
    wait_until_idle(worker)
    assert (early.chunks, early.result) == ([], None)
    again = api.submit({"model": BASE, "prompt": "월세", "max_tokens": 2}, "job-early")  # as /retry does it
    assert ended(again, worker).status == "COMPLETED"


BAD: list[tuple[Any, str | None]] = [
    (None, "invalid_input"),
    ("hello", "invalid_input"),
    ([], "invalid_input"),
    ({}, "invalid_input"),
    ({"model": BASE}, "invalid_input"),
    ({"model": BASE, "mesages": []}, "invalid_input"),
    ({"model": BASE, "prompt": "x", "messages": []}, "invalid_input"),
    ({"model": BASE, "prompt": "x", "stream": "yes"}, "invalid_input"),
    ({"model": BASE, "prompt": "x", "sampling_params": {"temperature": 0}}, "unknown_field"),
    ({"openai_route": "/metrics", "openai_input": {}}, "unknown_route"),
    ({"openai_route": "/v1/models/../../metrics"}, "unknown_route"),
    ({"openai_route": "/v1/load_lora_adapter", "openai_input": {"lora_name": "x"}}, "unknown_route"),
    ({"openai_route": "/v1/chat/completions"}, "invalid_input"),
    ({"openai_route": "/v1/chat/completions", "openai_input": [1]}, "invalid_input"),
    ({"prompt": "x"}, "missing_model"),
    ({"model": "nobody", "prompt": "x"}, "model_not_found"),
    ({"model": 7, "prompt": "x"}, "model_not_found"),
    ({"model": "nobody", "prompt": "x", "stream": True}, "model_not_found"),
    ({"model": BASE, "messages": "hi"}, "http_400"),
    ({"model": BASE, "messages": "hi", "stream": True}, "http_400"),
    ({"model": BASE, "prompt": "x", "max_tokens": -1}, "http_400"),
    ({"model": BASE, "prompt": "x " * 5000}, "http_400"),
    ({"model": BASE, "prompt": "x" * 2_000_000}, "body_too_large"),
    ({"model": BASE, "prompt": "x\ud83d", "max_tokens": 2}, None),
]


def test_bad_jobs_are_failed_jobs_and_nothing_more(worker: Worker, api: JobApi) -> None:
    before = worker.processes()
    jobs = [(ended(api.submit(given), worker), code) for given, code in BAD]
    for job, code in jobs:
        if code is None:  # whatever the server makes of it
            continue
        assert job.status == "FAILED" and job.result is not None and set(job.result) == {"error"}, job.input
        error = job.error()
        assert error["code"] == code, (job.input, error)
        assert error["message"] and error["type"] and 400 <= error["status"] < 500
        assert "Traceback" not in job.result["error"]
    assert worker.processes() == before, "no process ended"
    assert ended(api.submit({"model": BASE, "prompt": "월세", "max_tokens": 2}), worker).status == "COMPLETED"


def test_neither_keys_nor_prompts_are_told(worker: Worker, api: JobApi) -> None:
    ended(api.submit({"model": BASE, "prompt": "비밀스러운 질문", "max_tokens": 4}), worker)
    assert worker.process is not None
    told = [worker.text(), *(command_line(pid) for pid in children(worker.process.pid))]
    launch = json.loads((worker.folder / "state.launch.json").read_text())
    assert (worker.folder / "state.launch.json").stat().st_mode & 0o777 == 0o600
    assert launch["host"] == "127.0.0.1" and len(launch["apiKeySha256"]) == 1
    assert launch["apiKeySha256"] != worker.document["apiKeySha256"], "RunPod's clients have no key for the server"
    assert not any(secret in place for secret in (API_KEY, "비밀스러운") for place in told)


def test_sigterm_finishes_jobs_takes_none_and_leaves_nothing(worker: Worker, api: JobApi) -> None:
    """Ends the worker. RunPod holds two of its requests at that moment, which the SDK alone would wait for."""
    assert worker.process is not None
    pids = children(worker.process.pid)
    job = api.submit(LONG)
    wait_until(lambda: bool(job.chunks), 60, worker.log)
    begun = time.monotonic()
    worker.process.terminate()
    time.sleep(1)
    late = api.submit(LONG)
    assert worker.exit_code(timeout_s=200) == 0, worker.log()
    took_s = time.monotonic() - begun
    assert job.status == "COMPLETED" and "".join(job.chunks).endswith("data: [DONE]\n\n")
    assert late.status == "IN_QUEUE", "it stays in the queue, for another worker"
    assert job.done_at is not None and took_s - (job.done_at - begun) < HOLD_S - 10
    assert worker.state()["phase"] == "stopped"
    wait_until(lambda: not alive(pids), 10)
    # At the start of a line: vLLM's own stand behind its process's name.
    assert "\nTraceback" not in worker.text(), worker.log()
    assert "Unclosed" not in worker.text()
