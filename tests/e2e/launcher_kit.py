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

from handlers.serving import digest
from handlers.serving.manifest import manifest_digest
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


def demo_digest(name: str, version: int = 1) -> str:
    """The content digest of a demo adapter."""
    digests = json.loads((DEMO / "digests.json").read_text())
    return str(digests["adapters" if version == 1 else "adapters-v2"][name])


def column(name: str, version: int = 1) -> str:
    """Where questions.json has the answers of this version."""
    return name if version == 1 else f"{name}-v2"


def base_model() -> dict[str, Any]:
    digest = json.loads((DEMO / "digests.json").read_text())["base"]
    return {"name": BASE, "source": f"file://{DEMO / 'base'}", "revision": None, "digest": digest}


class Store:
    """The store of the environment `test`, in a folder or, with `url` and `put`, elsewhere."""

    def __init__(self, folder: Path, url: str | None = None, put: Callable[[str, bytes], None] | None = None) -> None:
        self.folder = folder
        self.url = url or f"file://{folder}"
        self.put = put or self.put_file

    def put_file(self, path: str, content: bytes) -> None:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f".{place.name}.new")
        temporary.write_bytes(content)
        temporary.replace(place)

    def add(self, name: str, source: Path) -> dict[str, Any]:
        """Stores the adapter in `source`; gives its source and digest."""
        wanted = digest.of_adapter(source)
        path = f"adapters/{name}/{wanted.replace(':', '-')}"
        for file in digest.ADAPTER_FILES:
            self.put(f"{path}/{file}", (source / file).read_bytes())
        return {"source": f"{self.url}/{path}", "digest": wanted}

    def demo(self, name: str, version: int = 1) -> dict[str, Any]:
        return self.add(name, DEMO / ("adapters" if version == 1 else "adapters-v2") / name)

    def write(self, adapters: dict[str, dict[str, Any]], base: dict[str, Any] | None = None) -> str:
        """Writes the manifest with these adapters (name -> source, digest, maybe canary); gives its digest."""
        document = {
            "version": 1,
            "baseModel": base or base_model(),
            "adapters": [{"name": name, **adapter} for name, adapter in sorted(adapters.items())],
        }
        self.put("manifests/test.json", json.dumps(document).encode())
        return manifest_digest(document)

    def serve(self, easycontract: int = 1, checklist: int = 1) -> str:
        """Writes the manifest with these versions of the demo's adapters."""
        return self.write(
            {"easycontract": self.demo("easycontract", easycontract), "checklist": self.demo("checklist", checklist)}
        )

    def status(self) -> dict[str, Any] | None:
        path = self.folder / "status/test/server/0.json"
        found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
        return found


class Server:
    """One launcher and what belongs to it, in `folder`. Without a store it gets one with the demo's adapters."""

    def __init__(self, folder: Path, store: Store | None = None, **changes: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        if store is None:
            store = Store(folder / "store")
            store.serve()
        self.store = store
        self.environment = dict(os.environ)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.state_file = folder / "state.json"
        self.log_file = folder / "log"
        self.document: dict[str, Any] = {
            "version": 2,
            "store": store.url,
            "environment": "test",
            "target": "server",
            "replica": "0",
            "baseModel": base_model(),
            "cache": str(folder / "cache"),
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
                env=self.environment,
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

    def adapter(self, name: str) -> dict[str, Any]:
        """What the state says of this adapter; nothing when it does not name it."""
        return next((entry for entry in self.state().get("adapters", []) if entry["name"] == name), {})

    def wait_for_manifest(self, digest: str, timeout_s: float = 60) -> dict[str, Any]:
        """The state, once this manifest is served."""
        wait_until(lambda: self.state()["manifestDigest"] == digest, timeout_s, self.log)
        return self.state()

    def wait_for_trouble(self, state: str, reason: str, timeout_s: float = 60) -> dict[str, Any]:
        """What the state says of the manifest, once it has this state and reason."""

        def there() -> bool:
            found = self.state()["manifest"]
            return found["state"] == state and (found["error"] or {}).get("reason") == reason

        wait_until(there, timeout_s, lambda: f"{self.state()['manifest']}\n{self.log()}")
        found: dict[str, Any] = self.state()["manifest"]
        return found

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


def wait_until(true: Callable[[], bool], timeout_s: float, told: Callable[[], str] = str, step_s: float = 0.1) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, f"not within {timeout_s} s\n{told()}"
        time.sleep(step_s)


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
