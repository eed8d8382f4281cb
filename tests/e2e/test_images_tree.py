"""Each image's entry point, started from a folder that holds what the Dockerfile copies and nothing else.

What packages, apt and the bases bring is not there: the Python and the HAProxy of this machine stand in for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.launcher_kit import PYTHON, needs_serving
from tests.e2e.router_kit import BASE, CLIENT_KEY, RouterProcess, UpstreamProcess, wait_for
from tests.support.ports import free_port
from tools.images import dockerfiles

# Not the one of .venv, on whose module path the checkout is.
BARE_PYTHON = Path(sys.base_prefix) / "bin" / "python3"
TARGET_KEY = "sk-target-77ab3f"
IMAGES = dockerfiles.read_all()


class Container:
    """A folder like the image's root, and what runs there."""

    def __init__(self, image: str, folder: Path, python: Path) -> None:
        self.image = IMAGES[image]
        self.root = folder / "root"
        self.run_dir = folder / "run"
        self.run_dir.mkdir()
        self.python = python
        dockerfiles.mirror(self.image, self.root, IMAGES)
        self.environment = {
            "PATH": os.environ["PATH"] + ":/usr/sbin",
            "HOME": str(folder),
            "PYTHONPATH": str(self.root / "opt" / "lorafleet"),
            "PYTHONSAFEPATH": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LORAFLEET_RUN_DIR": str(self.run_dir),
        }

    def command(self, instruction: str) -> list[str]:
        """What ENTRYPOINT or HEALTHCHECK runs, with the Python of this machine, and without tini."""
        found = list(self.image.all(instruction, self.image.last_stage)[-1].values)
        words = found[next(number for number, word in enumerate(found) if word.endswith("/python")) :]
        return [str(self.python), *words[1:]]

    def start(self, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command("ENTRYPOINT"),
            env=self.environment | variables,
            cwd=self.run_dir,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment | variables
        return subprocess.run(command, env=environment, cwd=self.run_dir, text=True, capture_output=True, check=False)


@pytest.fixture
def upstream() -> Iterator[UpstreamProcess]:
    process = UpstreamProcess("server", TARGET_KEY)
    yield process
    process.kill()


@pytest.mark.parametrize("image", ["serving", "runpod", "vertex", "router"])
def test_an_image_holds_its_own_files_only(image: str, tmp_path: Path) -> None:
    laid = dockerfiles.mirror(IMAGES[image], tmp_path, IMAGES)
    names = {str(path.relative_to(tmp_path / "opt" / "lorafleet")) for path in laid}
    own_servers = {"router": ("router",), "runpod": ("serving", "runpod"), "vertex": ("serving", "vertex")}
    servers = own_servers.get(image, ("serving",))
    assert {"images/start.py", "images/health.py", *(f"handlers/{server}/__init__.py" for server in servers)} <= names
    own = tuple(f"handlers/{server}/" for server in servers)
    assert all(name.startswith(("images/", "handlers/__init__.py", *own)) for name in names)
    assert not [name for name in names if name.endswith((".pyc", ".lock", ".md"))]


def test_the_router_image_starts_a_real_router(tmp_path: Path, upstream: UpstreamProcess) -> None:
    container = Container("router", tmp_path, BARE_PYTHON)
    file = RouterProcess(tmp_path, {"server": upstream}, {BASE: ["server"]}).file
    del file["keysFile"]
    port = free_port()
    variables = {"LORAFLEET_CONFIG": json.dumps(file), "PORT": str(port)}
    process = container.start(**variables, LORAFLEET_TARGET_KEYS=json.dumps({"server": TARGET_KEY}))
    try:
        wait_for(lambda: healthy(port) or process.poll() is not None, "the router")
        assert process.poll() is None, process.communicate()[0]
        answer = httpx.post(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json={"model": BASE, "messages": [{"role": "user", "content": "{}"}]},
            headers={"authorization": f"Bearer {CLIENT_KEY}"},
            timeout=30,
        )
        assert answer.status_code == 200 and f"server as {BASE}" in answer.text
        seen = container.run(container.command("HEALTHCHECK"), **variables)
        assert (seen.returncode, seen.stdout) == (0, "/health answers 200\n")
        told = Path(f"/proc/{process.pid}/environ").read_bytes() + Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert TARGET_KEY.encode() not in told and b"LORAFLEET_CONFIG" not in told
        assert b"handlers.router" in told, "the entry point became the server itself"
        for name in ("keys.json", "router.json"):
            assert (container.run_dir / name).stat().st_mode & 0o777 == 0o600
    finally:
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert TARGET_KEY not in output
    gone = container.run(container.command("HEALTHCHECK"), **variables)
    assert gone.returncode == 1 and "ConnectionRefusedError" in gone.stdout


def healthy(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    return False


@pytest.mark.parametrize("image", ["router", "serving", "runpod", "vertex"])
def test_a_configuration_that_says_nothing_useful(image: str, tmp_path: Path) -> None:
    python = BARE_PYTHON if image == "router" else PYTHON
    if not python.exists():
        pytest.skip("make setup has not made .venv-serving yet")
    container = Container(image, tmp_path, python)
    unset = container.run(container.command("ENTRYPOINT"))
    assert unset.returncode == 2 and "LORAFLEET_CONFIG is not set" in unset.stderr
    # Past images.start: the server itself has read the file, and says in its own words what is wrong.
    wrong = container.run(container.command("ENTRYPOINT"), LORAFLEET_CONFIG='{"version": 99, "portt": 1}')
    assert wrong.returncode == (1 if image == "router" else 2), wrong.stdout + wrong.stderr
    assert "99" in wrong.stdout + wrong.stderr or "portt" in wrong.stdout + wrong.stderr
    assert "Traceback" not in wrong.stdout + wrong.stderr


@needs_serving
@pytest.mark.parametrize("image", ["serving", "vertex"])
def test_every_module_of_the_server_is_there(image: str, tmp_path: Path) -> None:
    """Imports all of handlers.serving, with vLLM's plugins: none needs a file that the image lacks."""
    container = Container(image, tmp_path, PYTHON)
    program = """
import importlib, json, pkgutil, sys
import handlers.serving as top
names = [m.name for m in pkgutil.walk_packages(top.__path__, "handlers.serving.") if not m.name.endswith("__main__")]
sys.path.insert(0, top.__path__[0] + "/vllm_plugins")
for name in [*names, "lorafleet_vllm.exaone"]:
    importlib.import_module(name)
print(json.dumps([m.__file__ for n, m in sys.modules.items() if n.split(".")[0] in ("handlers", "lorafleet_vllm")]))
"""
    done = container.run([str(PYTHON), "-c", program])
    assert done.returncode == 0, done.stderr
    files: list[Any] = json.loads(done.stdout.splitlines()[-1])
    assert len(files) > 15
    assert all(file is None or Path(file).is_relative_to(container.root) for file in files), files
