"""How a queue worker begins and ends: broken servers, broken starts, RunPod's own local server."""

from __future__ import annotations

import ast
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.launcher_kit import MODELS, PYTHON, Store, alive, children, kill, questions, wait_until
from tests.e2e.runpod_worker_kit import SDK_PYTHON, JobApi, Worker, needs_worker
from tools.images import dockerfiles

pytestmark = needs_worker
LONG = {"model": "checklist", "prompt": "월세", "max_tokens": 2000, "ignore_eos": True}


@pytest.fixture
def api() -> Iterator[JobApi]:
    running = JobApi()
    yield running
    running.close()


@pytest.fixture
def worker(api: JobApi, tmp_path: Path) -> Iterator[Worker]:
    running = Worker(tmp_path, api)
    running.document["engine"]["maxModelLen"] = 2048
    yield running
    running.close()


def test_an_engine_that_dies_fails_its_jobs_and_has_the_worker_replaced(worker: Worker, api: JobApi) -> None:
    worker.start()
    worker.wait_for("ready")
    assert worker.process is not None
    pids = children(worker.process.pid)
    jobs = [api.submit({**LONG, "stream": number % 2 == 0}) for number in range(4)]
    wait_until(lambda: all(job.chunks for job in jobs[::2]), 60, worker.log)
    kill(worker.processes()["engine"])
    late = api.submit(LONG)
    for job in jobs:
        wait_until(lambda job=job: job.done.is_set(), 60, worker.log)  # type: ignore[misc]
        assert job.status == "FAILED"
        error = job.error()
        assert error["status"] >= 500 and error["message"], error
    assert any(job.result is not None and job.result.get("stopPod") for job in jobs), "RunPod is to replace it"
    for job in jobs[::2]:
        assert '"error"' in job.chunks[-1], "a client of the stream is told too"
    assert worker.exit_code(timeout_s=60) == 1
    assert "[worker] error: the server ended" in worker.text() or "the server is broken" in worker.text()
    assert late.status in ("IN_QUEUE", "FAILED")
    wait_until(lambda: not alive(pids), 10)


def test_a_start_that_fails_is_told_to_runpod_and_in_the_log(tmp_path: Path, api: JobApi) -> None:
    store = Store(tmp_path / "store")
    store.write({"checklist": store.demo("checklist") | {"digest": "sha256:" + "0" * 64}})
    worker = Worker(tmp_path, api, store=store)
    worker.start()
    waiting = api.submit(LONG)
    assert worker.exit_code(timeout_s=60) == 1
    assert "checklist: the files at file://" in worker.text().split("[worker] error: ")[1]
    told = [ping for ping in api.pings if ping.get("status") == "unhealthy"]
    assert len(told) == 1 and "checklist: the files at file://" in told[0]["reason"]
    assert waiting.status == "IN_QUEUE"


@pytest.mark.parametrize("victim", ["worker", "launcher", "supervisor"])
def test_kill_9_of_one_ends_all(worker: Worker, victim: str) -> None:
    worker.start()
    worker.wait_for("launching", timeout_s=60)
    wait_until(lambda: "worker" in worker.processes() and "API server" in worker.processes(), 30, worker.log)
    assert worker.process is not None
    pids = children(worker.process.pid)
    kill(worker.processes()[victim])
    assert worker.exit_code(timeout_s=60) == (-signal.SIGKILL if victim == "supervisor" else 1)
    wait_until(lambda: not alive(pids), 10)
    if victim != "supervisor":
        assert "SIGKILL" in worker.text().split("[worker] error: ")[1], "the log says which one, and how"


def test_sigterm_in_the_middle_of_a_start_leaves_nothing(worker: Worker) -> None:
    worker.start()
    worker.wait_for("launching", timeout_s=60)
    wait_until(lambda: "API server" in worker.processes(), 30, worker.log)
    assert worker.process is not None
    pids = children(worker.process.pid)
    assert worker.terminate() == 0
    assert worker.state()["phase"] == "stopped"
    wait_until(lambda: not alive(pids), 10)
    assert "Traceback" not in worker.text().split("[worker] draining")[1]


def test_the_image_has_all_that_the_worker_needs(tmp_path: Path) -> None:
    images = dockerfiles.read_all()
    dockerfiles.mirror(images["runpod"], tmp_path, images)
    root = tmp_path / "opt" / "lorafleet"
    for python, module in ((SDK_PYTHON, "handlers.runpod.worker"), (PYTHON, "handlers.runpod.__main__")):
        program = (
            f"import {module}, sys; print([m.__file__ for n, m in sys.modules.items() if n.startswith('handlers.')])"
        )
        done = subprocess.run(
            [str(python), "-P", "-c", program],
            env={"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        files = ast.literal_eval(done.stdout)
        assert len(files) > 5 and all(Path(file).is_relative_to(root) for file in files), files


@pytest.mark.parametrize(
    ("variables", "changes", "words"),
    [
        ({"RUNPOD_WEBHOOK_GET_JOB": ""}, {}, "RUNPOD_WEBHOOK_GET_JOB is not set"),
        ({"LORAFLEET_JOB_TIMEOUT_S": "ten"}, {}, "LORAFLEET_JOB_TIMEOUT_S is 'ten'"),
        ({}, {"portt": 1}, "portt is not a known key"),
    ],
)
def test_what_cannot_be_used_is_one_error(
    worker: Worker, variables: dict[str, str], changes: dict[str, Any], words: str
) -> None:
    worker.environment |= variables
    worker.document |= changes
    worker.start()
    assert worker.exit_code(timeout_s=60) == 2
    assert words in worker.text() and "next: " in worker.text() and "Traceback" not in worker.text()


def test_the_sdks_own_local_server_and_a_jobs_time(tmp_path: Path) -> None:
    """What a developer uses who has no endpoint: --rp_serve_api. It has its jobs' time from us alone."""
    worker = Worker(tmp_path, None)
    worker.document["engine"]["maxModelLen"] = 2048
    worker.environment["LORAFLEET_JOB_TIMEOUT_S"] = "3"
    worker.start()
    try:
        worker.wait_for("ready")
        url = f"http://127.0.0.1:{worker.local_port}"
        wait_until(lambda: "Uvicorn running" in worker.text(), 60, worker.log)
        question, wanted = next(iter(questions().items()))
        for model, column in MODELS.items():
            given = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0}
            answer = httpx.post(f"{url}/runsync", json={"input": given}, timeout=60).json()
            assert answer["status"] == "COMPLETED"
            assert answer["output"][0]["choices"][0]["message"]["content"] == wanted[column]
        begun = httpx.post(f"{url}/run", json={"input": {**LONG, "stream": True, "max_tokens": 5}}, timeout=60).json()
        parts = httpx.post(f"{url}/stream/{begun['id']}", timeout=60).json()["stream"]
        assert "".join(part["output"] for part in parts).endswith("data: [DONE]\n\n")
        slow = {**LONG, "n": 8}
        late = httpx.post(f"{url}/runsync", json={"input": slow}, timeout=60).json()
        assert '"code": "job_timeout"' in late["output"][0]["error"], late
    finally:
        worker.close()
    assert worker.state()["phase"] == "stopped"
