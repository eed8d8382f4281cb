"""Starts the server and the worker beside it, and ends both when one ends: a container of half of them is of no use."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

from handlers.runpod import tied
from handlers.runpod.settings import Settings, failure, state_of
from handlers.serving import config
from handlers.serving.errors import ServingError
from handlers.serving.state import write_json

ROOT = Path(__file__).resolve().parents[2]
"""where handlers/ lies"""
SDK_PYTHON = Path("/opt/runpod/bin/python")
HOST = "127.0.0.1"
GET_JOB = "RUNPOD_WEBHOOK_GET_JOB"
JOB_TIMEOUT = "LORAFLEET_JOB_TIMEOUT_S"
LONGEST_JOB_S = 7 * 24 * 3600
"""that RunPod allows"""
LAST_RESULTS_S = 15.0
"""for the worker to tell RunPod of jobs that failed with the server"""
SEES_IT_S = 30.0
"""for the worker, which may still be importing the SDK, to tell RunPod why the server failed"""
STOP_PATIENCE_S = 20.0


class Supervisor:
    """One run, in the main thread. `worker_arguments` go to RunPod's SDK."""

    def __init__(self, launch_file: Path, sdk_python: Path, worker_arguments: Sequence[str]) -> None:
        self.launch = config.load(launch_file)
        self.document: dict[str, Any] = json.loads(launch_file.read_text(encoding="utf-8"))
        self.job_timeout_s = job_timeout(os.environ)
        if not os.access(sdk_python, os.X_OK):
            raise ServingError(
                f"{sdk_python} is not there: the environment with RunPod's SDK",
                "build the image anew, or say --sdk-python",
            )
        if not os.environ.get(GET_JOB) and not worker_arguments:
            raise ServingError(
                f"{GET_JOB} is not set, so this is no worker of a queue endpoint of RunPod",
                "use this image for endpoints of the type QUEUE, and the image serving for all others; to try it out, "
                "end the command with: -- --rp_serve_api",
            )
        self.worker_command = [str(sdk_python), "-P", "-m", "handlers.runpod.worker", *worker_arguments]
        self.asked = 0
        """how many signals to stop came; the second ends the wait for jobs"""
        self.wake = threading.Event()
        self.server: subprocess.Popen[bytes] | None = None
        self.worker: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Returns the exit status: 0 stopped as asked, 1 one of the two ended by itself."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.on_signal)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: self.wake.set())
        try:
            self.start()
            return self.watch()
        finally:
            for process in (self.worker, self.server):
                if process is not None:
                    end_group(process)

    def start(self) -> None:
        key = secrets.token_urlsafe(32)
        state_file = self.launch.state_file
        state_file.unlink(missing_ok=True)  # of a former run
        launch_file = state_file.with_suffix(".launch.json")
        write_json(launch_file, for_this_worker(self.document, key), mode=0o600)
        self.server = spawn([sys.executable, "-P", "-m", "handlers.serving", "--config", str(launch_file)])
        told = Settings(
            url=f"http://{HOST}:{self.launch.port}",
            key=key,
            concurrency=self.launch.engine.max_num_seqs,
            state_file=str(state_file),
            start_timeout_s=self.launch.start_timeout_s,
            job_timeout_s=self.job_timeout_s,
        )
        self.worker = spawn(self.worker_command, stdin=subprocess.PIPE)
        assert self.worker.stdin is not None
        with contextlib.suppress(OSError), self.worker.stdin as pipe:  # one that ended at once is seen below
            pipe.write(told.text().encode() + b"\n")

    def watch(self) -> int:
        assert self.server is not None and self.worker is not None
        while not self.asked and self.server.poll() is None and self.worker.poll() is None:
            self.wait(1.0)
        if self.asked:
            return self.stop(self.server, self.worker)
        if self.server.poll() is not None:
            say(f"error: {self.server_end(self.server)}; this worker ends")
            # The worker sees what the server says of its failure, tells RunPod, and ends by itself.
            if failure(self.state()) is None or not self.wait_for(self.worker, SEES_IT_S):
                self.worker.terminate()
                self.wait_for(self.worker, LAST_RESULTS_S)
        else:
            # The server says at once why its start failed, the worker sees it there, and may be quicker to end.
            reason = failure(self.state())
            say(f"error: {reason or f'the worker process ended ({ending(self.worker)}), see its lines above'}; "
                "the server ends too")  # fmt: skip
            self.server.terminate()
            self.wait_for(self.server, STOP_PATIENCE_S)
        return 1

    def stop(self, server: subprocess.Popen[bytes], worker: subprocess.Popen[bytes]) -> int:
        """No more jobs, those at work are finished, at most drainTimeoutS; then the server."""
        limit_s = self.launch.drain_timeout_s
        say(f"draining: no more jobs, those at work have {limit_s:g} s")
        worker.terminate()
        if not self.wait_for(worker, limit_s, patient=True):
            say("draining: jobs are cut off")
        server.terminate()
        self.wait_for(worker, LAST_RESULTS_S)
        self.wait_for(server, STOP_PATIENCE_S)
        say("stopped on request")
        return 0

    def server_end(self, server: subprocess.Popen[bytes]) -> str:
        reason = failure(self.state())
        return f"the server ended ({ending(server)})" + (f": {reason}" if reason else ", see its lines above")

    def state(self) -> dict[str, object]:
        return state_of(str(self.launch.state_file))

    def wait_for(self, process: subprocess.Popen[bytes], seconds: float, patient: bool = False) -> bool:
        """Whether it ended in this time. `patient`: a second signal ends the wait."""
        end = time.monotonic() + seconds
        while process.poll() is None:
            if time.monotonic() >= end or (patient and self.asked > 1):
                return False
            self.wait(min(1.0, max(0.01, end - time.monotonic())))
        return True

    def wait(self, seconds: float) -> None:
        self.wake.wait(seconds)
        self.wake.clear()

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.asked += 1
        self.wake.set()


def for_this_worker(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The launch file with which nobody but the worker reaches the server: it asks RunPod for who may send jobs. The
    waiting for jobs at work is the worker's, so the server's own would be time lost."""
    digest = sha256(key.encode()).hexdigest()
    return {**document, "host": HOST, "apiKeySha256": [digest], "drainTimeoutS": 0}


def job_timeout(environ: Mapping[str, str]) -> float:
    text = environ.get(JOB_TIMEOUT, "")
    if not text:
        return float(LONGEST_JOB_S)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= LONGEST_JOB_S):
        raise ServingError(
            f"{JOB_TIMEOUT} is {text[:20]!r}", f"give whole seconds, 1 to {LONGEST_JOB_S}, or leave it out"
        )
    return float(text)


def spawn(command: Sequence[str], stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """In a group of its own, which Ctrl-C does not reach, and which the kernel ends with this process."""
    parent = os.getpid()

    def tie() -> None:  # runs in the child; this process has one thread, so it may
        tied.to_parent()
        if os.getppid() != parent:
            os._exit(1)  # it ended before: no signal will come any more

    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(command, stdin=stdin, env=environment, start_new_session=True, preexec_fn=tie)


def end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ending(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody may read the log any more
        sys.stdout.write(f"[worker] {line}\n")
        sys.stdout.flush()
