"""A project of its own around the real Pulumi engine and the real plugin, with its state in a scratch folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from providers.local import process
from tests.support.ports import free_port
from tests.support.stored import store_adapter

ROOT = Path(__file__).resolve().parents[2]
_COMMAND_TIMEOUT_S = 300  # vLLM needs 15 to 60 s to start, more on a busy machine


@dataclass
class Ran:
    """A finished command."""

    code: int
    output: str

    def ok(self) -> Ran:
        assert self.code == 0, self.output
        return self


@dataclass
class StackProject:
    """A copy of the repository's stack, with free ports; `real`: with vLLM, else with a stand-in for it."""

    folder: Path
    stack: str = "local"
    real: bool = False
    ports: dict[str, int] = field(default_factory=dict)
    digests: dict[tuple[str, str], str] = field(default_factory=dict)
    """{("adapters" or "adapters-v2", name): digest} of what the store has"""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
        project["plugins"]["providers"][0]["path"] = str(ROOT / "providers")
        (self.folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        (self.folder / "stacks").mkdir()
        for name in ("__main__.py", "local.py"):
            shutil.copy(ROOT / "stacks" / name, self.folder / "stacks" / name)
        shutil.copytree(ROOT / "demo", self.folder / "demo")
        for place in ("adapters", "adapters-v2"):
            for name in ("easycontract", "checklist"):
                self.digests[place, name] = store_adapter(self.store, name, ROOT / "demo" / place / name)
        self.stand_in = self.folder / "stand-in" / "python"
        self.stand_in.parent.mkdir()
        shutil.copy(ROOT / "tests" / "support" / "stand_in_server.py", self.stand_in)
        (self.folder / "backend").mkdir()
        self.ports = {"server": free_port(), "router": free_port(), "metrics": free_port()}
        config = yaml.safe_load((ROOT / "stacks" / "Pulumi.local.yaml").read_text())["config"]
        fleet = config["serving:fleet"]
        python = ROOT / ".venv-serving" / "bin" / "python" if self.real else self.stand_in
        fleet["targets"]["server"] |= {"port": self.ports["server"], "python": str(python), "drainTimeoutS": 1}
        fleet["router"] |= {"port": self.ports["router"], "metricsPort": self.ports["metrics"]}
        self.write_config({"serving:fleet": fleet})
        self.run("stack", "init", self.stack).ok()

    # -- the declaration ------------------------------------------------------------------------------------

    @property
    def stack_file(self) -> Path:
        return self.folder / "stacks" / f"Pulumi.{self.stack}.yaml"

    def read_config(self) -> dict[str, Any]:
        config: dict[str, Any] = yaml.safe_load(self.stack_file.read_text())
        return config

    def write_config(self, config: dict[str, Any]) -> None:
        document = yaml.safe_load(self.stack_file.read_text()) if self.stack_file.exists() else {}
        document["config"] = config
        self.stack_file.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))

    def change(self, edit: Callable[[dict[str, Any]], object]) -> None:
        """Changes the fleet's declaration in place."""
        config = self.read_config()["config"]
        edit(config["serving:fleet"])
        self.write_config(config)

    def behave(self, **behaviour: Any) -> None:
        """Tells the stand-in what to do from its next start on."""
        (self.stand_in.parent / "behaviour.json").write_text(json.dumps(behaviour))

    # -- commands -------------------------------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PULUMI_")}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        return {
            **kept,
            "PULUMI_HOME": str(self.folder / "home"),
            "PULUMI_BACKEND_URL": f"file://{self.folder / 'backend'}",
            "PULUMI_CONFIG_PASSPHRASE": "a passphrase for tests",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a command in a process group of its own."""
        return subprocess.Popen(
            ["pulumi", *arguments, "--non-interactive", "--color", "never"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> Ran:
        child = self.start(*arguments)
        output, _ = child.communicate(timeout=_COMMAND_TIMEOUT_S)
        return Ran(child.returncode, output)

    def up(self, *arguments: str) -> Ran:
        return self.run("up", "--yes", "--skip-preview", *arguments)

    def preview(self, *arguments: str) -> Ran:
        return self.run("preview", *arguments)

    def refresh(self, *arguments: str) -> Ran:
        return self.run("refresh", "--yes", "--skip-preview", *arguments)

    def destroy(self) -> Ran:
        return self.run("destroy", "--yes", "--skip-preview")

    def recover(self) -> None:
        """What the README tells to do after a run that was killed."""
        if any((self.folder / "backend" / ".pulumi" / "locks").rglob("*.json")):
            self.run("cancel", "--yes", self.stack).ok()
        self.refresh("--clear-pending-creates").ok()

    # -- what there is --------------------------------------------------------------------------------------

    @property
    def store(self) -> Path:
        return self.folder / ".lorafleet" / "store"

    def manifest(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.store / "manifests" / f"{self.stack}.json").read_text())
        return document

    @property
    def state_dir(self) -> Path:
        return self.folder / ".lorafleet" / self.stack

    def state(self, name: str = "server") -> dict[str, Any]:
        """A resource's outputs in the state, by the last part of its URN, of the custom resource that has a pid."""
        deployment = json.loads(self.run("stack", "export").ok().output)["deployment"]
        for resource in deployment.get("resources", []):
            if resource["urn"].endswith(f"::{name}") and "pid" in resource.get("outputs", {}):
                outputs: dict[str, Any] = {**resource["outputs"], "id": resource["id"]}
                return outputs
        return {}

    def state_text(self) -> str:
        """Everything that the backend keeps."""
        return "\n".join(p.read_text(errors="replace") for p in (self.folder / "backend").rglob("*") if p.is_file())

    def output(self, name: str) -> Any:
        return json.loads(self.run("stack", "output", name, "--json", "--show-secrets").ok().output)

    def leaders(self, what: str = "handlers.serving") -> list[process.Member]:
        """Supervised processes of this project whose command line has `what`."""
        return [
            member
            for run in process.run_folders(self.state_dir / "run")
            for member in process.members(run)
            if member.leads and what in command_line(member.identity.pid)
        ]

    def processes(self) -> list[process.Member]:
        """Every process that belongs to a run folder of this project."""
        return [m for run in process.run_folders(self.state_dir / "run") for m in process.members(run)]

    def kill_everything(self) -> None:
        """Whatever stack or folder of this project it belongs to."""
        for run in process.run_folders(self.folder):
            for member in process.members(run):
                member.identity.signal(signal.SIGKILL)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """A process and all below it, itself last."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in re.findall(r"\d+", task.read_text()):
            found += descendants(int(child))
    return [*found, pid]


def kill(pid: int) -> None:
    """kill -9; it may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait_for(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.01)
