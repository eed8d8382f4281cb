"""A stand-in for the part of RunPod that a worker talks to, and a real worker (`python -m handlers.runpod`).

The stand-in holds requests open as RunPod does. Paths and answers are what runpod 1.12.0 asks for and reads
(serverless/modules/rp_job.py, rp_http.py, rp_ping.py of that package).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import web

from tests.e2e.launcher_kit import PYTHON, ROOT, Server, children, command_line
from tests.support.ports import free_port

SDK_PYTHON = ROOT / ".venv-runpod" / "bin" / "python"
API_KEY = "rpa_key-of-the-tests-for-runpod"
POD = "pod-1"
HOLD_S = 25.0
"""how long it holds a request for a job that does not come"""

needs_worker = pytest.mark.skipif(
    not (PYTHON.exists() and SDK_PYTHON.exists()),
    reason="make setup has not made .venv-serving, or python3 -m tools.setup --dev not .venv-runpod",
)
T = TypeVar("T")


@dataclass
class Job:
    """One job, as RunPod's /status and /stream would show it."""

    id: str
    input: Any
    chunks: list[Any] = field(default_factory=list)
    result: dict[str, Any] | None = None
    taken_at: float | None = None
    first_at: float | None = None
    done_at: float | None = None
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def status(self) -> str:
        if self.result is None:
            return "IN_QUEUE" if self.taken_at is None else "IN_PROGRESS"
        return "FAILED" if self.result.get("error") else "COMPLETED"

    def error(self) -> dict[str, Any]:
        assert self.result is not None
        found: dict[str, Any] = json.loads(self.result["error"])
        return found


class JobApi:
    """RunPod's job API for one endpoint, on a thread of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self.jobs: dict[str, Job] = {}
        self.waiting: list[Job] = []
        self.stops: list[str] = []
        self.pings: list[dict[str, str]] = []
        self.refused: list[str] = []
        self.most_at_once = 0
        self.batches: list[int] = []
        self.hold_streams = False
        """whether parts of streams are taken, but not acknowledged"""
        self.loop = asyncio.new_event_loop()
        self.changed: asyncio.Condition
        self.thread = threading.Thread(target=self._run, name="job-api", daemon=True)
        started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.started = started
        self.thread.start()
        started.result(timeout=30)

    def environment(self) -> dict[str, str]:
        """What RunPod sets in a worker."""
        base = f"http://127.0.0.1:{self.port}/v2/ep-1"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=L4",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=L4",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=L4",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID",
            "RUNPOD_PING_INTERVAL": "1000",
            "RUNPOD_AI_API_KEY": API_KEY,
            "RUNPOD_POD_ID": POD,
        }

    # what a test does

    def submit(self, given: Any, job_id: str | None = None) -> Job:
        async def add() -> Job:
            job = Job(job_id or f"job-{len(self.jobs)}-{os.urandom(3).hex()}", given)
            self.jobs[job.id] = job
            self.waiting.append(job)
            await self._tell()
            return job

        return self._do(add())

    def stop(self, *job_ids: str) -> None:
        """What a cancellation, or a job's time that is over, tells the worker."""

        async def add() -> None:
            self.stops += job_ids
            await self._tell()

        self._do(add())

    def in_progress(self) -> int:
        return sum(job.status == "IN_PROGRESS" for job in list(self.jobs.values()))

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout=30)

    # what the worker asks

    async def take(self, request: web.Request) -> web.Response:
        return await self._held(request, 1)

    async def take_batch(self, request: web.Request) -> web.Response:
        return await self._held(request, int(request.query["batch_size"]))

    async def _held(self, request: web.Request, most: int) -> web.Response:
        self._check(request)
        if not await self._wait(lambda: bool(self.waiting)):
            return web.Response(status=204)
        taken, self.waiting = self.waiting[:most], self.waiting[most:]
        for job in taken:
            job.taken_at = time.monotonic()
        self.batches.append(len(taken))
        self.most_at_once = max(self.most_at_once, self.in_progress())
        found = [{"id": job.id, "input": job.input} for job in taken]
        return web.json_response(found if "batch_size" in request.query else found[0])

    async def job_stop(self, request: web.Request) -> web.Response:
        self._check(request)
        if not await self._wait(lambda: bool(self.stops)):
            return web.Response(status=204)
        found, self.stops = self.stops, []
        return web.json_response({"jobsToStop": found})

    async def job_stream(self, request: web.Request) -> web.Response:
        job = self._job(request)
        job.first_at = job.first_at or time.monotonic()
        job.chunks.append(json.loads(await request.text())["output"])
        if self.hold_streams:
            await asyncio.sleep(HOLD_S)
        return web.Response(text="{}")

    async def job_done(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if job.done.is_set():
            self.refused.append(f"a second result for {job.id}")
        job.result = json.loads(await request.text())
        job.done_at = time.monotonic()
        job.done.set()
        return web.Response(text="{}")

    async def ping(self, request: web.Request) -> web.Response:
        self._check(request)
        self.pings.append(dict(request.query))
        return web.Response(text="{}")

    def _job(self, request: web.Request) -> Job:
        self._check(request)
        return self.jobs[request.match_info["job"]]

    def _check(self, request: web.Request) -> None:
        if request.headers.get("authorization") != API_KEY or request.match_info["pod"] != POD:
            self.refused.append(f"{request.method} {request.path}")
            raise web.HTTPUnauthorized

    async def _wait(self, true: Callable[[], bool]) -> bool:
        async with self.changed:
            try:
                async with asyncio.timeout(HOLD_S):
                    await self.changed.wait_for(true)
            except TimeoutError:
                return False
        return True

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=60)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._serve())
        self.loop.run_forever()

    async def _serve(self) -> None:
        self.changed = asyncio.Condition()
        app = web.Application(client_max_size=1 << 26)
        place = "/v2/ep-1"
        app.add_routes(
            [
                web.get(place + "/job-take/{pod}", self.take),
                web.get(place + "/job-take-batch/{pod}", self.take_batch),
                web.get(place + "/job-stop/{pod}", self.job_stop),
                web.post(place + "/job-stream/{pod}/{job}", self.job_stream),
                web.post(place + "/job-done/{pod}/{job}", self.job_done),
                web.get(place + "/ping/{pod}", self.ping),
            ]
        )
        # A worker that goes away while it waits for a job must not get one.
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        self.started.set_result(None)


class Worker(Server):
    """The supervisor with a real server and a real worker. Without an `api` it runs the SDK's own local server."""

    def __init__(self, folder: Path, api: JobApi | None, **changes: Any) -> None:
        super().__init__(folder, **changes)
        self.local_port = free_port()
        self.arguments: list[str] = []
        if api is None:
            self.arguments = [
                "--",
                "--rp_serve_api",
                "--rp_api_host",
                "127.0.0.1",
                "--rp_api_port",
                str(self.local_port),
            ]
        for name in [name for name in self.environment if name.startswith("RUNPOD_")]:
            del self.environment[name]
        # get_credentials() of the SDK looks into the home folder.
        self.environment |= {"HOME": str(folder), **(api.environment() if api else {})}

    def start(self, *program: str) -> None:
        """Starts the supervisor; `program` stands in the place of `-m handlers.runpod`."""
        config = self.folder / "launch.json"
        config.write_text(json.dumps(self.document))
        started = [*(program or ("-m", "handlers.runpod")), "--config", str(config), "--sdk-python", str(SDK_PYTHON)]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [str(PYTHON), *started, *self.arguments],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def text(self) -> str:
        """The whole log."""
        return self.log_file.read_text(errors="replace")

    def processes(self) -> dict[str, int]:
        """Process ids by what they are."""
        assert self.process is not None
        found = {"supervisor": self.process.pid}
        for pid in children(self.process.pid):
            line = command_line(pid)
            for word, name in NAMES.items():
                if word in line:
                    found.setdefault(name if name not in found else f"{name}'s child", pid)
                    break
        return found


NAMES = {
    "handlers.runpod.worker": "worker",
    "EngineCore": "engine",
    "handlers.serving.engine": "API server",
    "handlers.serving": "launcher",
}
"""by a part of the command line; the first that is found counts"""


def peak_mib(pid: int) -> float:
    """The most memory that it has had at once, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
