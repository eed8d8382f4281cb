"""A Pulumi project of its own for one scenario: real engine, real plugin, state in a scratch folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.support.stack_project import ROOT, StackProject
from tools.stack import recovery

from .protocol import Config

_STACK = "chaos"


@dataclass
class ChaosProject(StackProject):
    """A project whose stack is one scenario's program.

    variables: what its commands get beside the environment. saved: a copy of the backend, or None.
    """

    stack: str = _STACK
    program: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
        settings["plugins"]["providers"][0]["path"] = str(ROOT / "providers")
        self.name = str(settings["name"])
        (self.folder / "stacks").mkdir(parents=True)
        (self.folder / "backend").mkdir()
        (self.folder / "Pulumi.yaml").write_text(yaml.safe_dump(settings))
        (self.folder / "stacks" / "__main__.py").write_text(self.program)
        self.write_config({})
        self.run("stack", "init", self.stack).ok()

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, **self.variables}

    def declare(self, config: Config) -> None:
        self.write_config(dict(config))

    def keep(self, name: str) -> None:
        """Copies the state, to be put back by `put_back` any number of times."""
        shutil.copytree(self.folder / "backend", self.folder / f"backend-{name}")

    def put_back(self, name: str) -> None:
        shutil.rmtree(self.folder / "backend")
        shutil.copytree(self.folder / f"backend-{name}", self.folder / "backend")

    def recover(self) -> None:
        """What `make up` does before anything else (tools/stack/commands.py): by docs/engine.md, after a kill."""
        if any((self.folder / "backend" / ".pulumi" / "locks").rglob("*.json")):
            self.run("cancel", "--yes", self.stack).ok()
        if recovery.pending_operations(json.dumps({"deployment": self._deployment()})):
            self.refresh("--clear-pending-creates").ok()

    def _deployment(self) -> dict[str, Any] | None:
        """What the backend has of the stack; reading it is quicker than `pulumi stack export`."""
        file = self.folder / "backend" / ".pulumi" / "stacks" / self.name / f"{self.stack}.json"
        latest: dict[str, Any] | None = json.loads(file.read_text())["checkpoint"]["latest"]
        return latest
