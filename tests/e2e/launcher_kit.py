"""A real server of the demo model for the tests: `python -m handlers.serving` in `.venv-serving`."""

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "demo"
PYTHON = ROOT / ".venv-serving" / "bin" / "python"
BASE = "exaone-3.5-2.4b"
MODELS = {BASE: "base", "easycontract": "easycontract", "checklist": "checklist"}
KEY = "a key for the tests"
START_TIMEOUT_S = 300

needs_serving = pytest.mark.skipif(not PYTHON.exists(), reason="make setup has not made .venv-serving yet")


def questions() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((DEMO / "questions.json").read_text(encoding="utf-8"))["questions"]
    return found


def manifest() -> dict[str, Any]:
    digests = json.loads((DEMO / "digests.json").read_text())

    def weights(name: str, folder: Path, digest: str) -> dict[str, Any]:
        return {"name": name, "source": f"file://{folder}", "revision": None, "digest": digest}

    adapters = [
        weights(name, DEMO / "adapters" / name, digests["adapters"][name]) | {"rank": 8}
        for name in ("easycontract", "checklist")
    ]
    return {"version": 1, "baseModel": weights(BASE, DEMO / "base", digests["base"]), "adapters": adapters}


class Server:
    """One launcher and what belongs to it, in `folder`."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.state_file = folder / "state.json"
        self.log_file = folder / "log"
        self.document: dict[str, Any] = {
            "version": 1,
            "manifest": manifest(),
            "store": str(folder / "store"),
            "host": "127.0.0.1",
            "port": self.port,
            "apiKeySha256": [hashlib.sha256(KEY.encode()).hexdigest()],
            "stateFile": str(self.state_file),
            "engine": {
                "device": "cpu",
                "dtype": "auto",
                "maxModelLen": 512,
                "maxNumSeqs": 32,
                "kvCacheMib": 128,
                "maxLoraRank": 16,
                "extraArgs": [],
            },
            "startTimeoutS": START_TIMEOUT_S,
            "drainTimeoutS": 30,
            **changes,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *program: str) -> None:
        """Starts the launcher; `program` stands in the place of `-m handlers.serving`."""
        config = self.folder / "launch.json"
        config.write_text(json.dumps(self.document))
        self.state_file.unlink(missing_ok=True)
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [str(PYTHON), *(program or ("-m", "handlers.serving")), "--config", str(config)],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.state_file.read_text()) if self.state_file.exists() else {}
        return found

    def wait_for(self, *phases: str, timeout_s: float = START_TIMEOUT_S) -> dict[str, Any]:
        """The state, once its phase is one of `phases`; fails at `failed` and when the time is over."""
        wait_until(lambda: self.state().get("phase") in (*phases, "failed"), timeout_s, self.log)
        state = self.state()
        assert state["phase"] in phases, f"{state['error']}\n{self.log()}"
        return state

    def log(self) -> str:
        """The end of the log, for the message of a test that fails."""
        return self.log_file.read_text(errors="replace")[-6000:]

    def exit_code(self, timeout_s: float = 60) -> int:
        assert self.process is not None
        return self.process.wait(timeout=timeout_s)

    def terminate(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.exit_code()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def wait_until(true: Callable[[], bool], timeout_s: float, told: Callable[[], str] = str) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, f"not within {timeout_s} s\n{told()}"
        time.sleep(0.1)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    """All processes below `pid`, the nearest first."""
    found: list[int] = []
    for table in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in table.read_text().split()]
        except OSError:
            continue
    return found + [below for child in found for below in children(child)]


def alive(pids: list[int]) -> list[int]:
    """Those that still run; a process that ended and was not waited for counts as gone."""
    running = []
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if status != "Z":
            running.append(pid)
    return running


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
