"""A project with the stack `shared` (and programs that refer to it) on the stand-in for Google Cloud."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.fakes.gcp import CLOUD_VARIABLE, VERSION
from tests.support.stack_project import ROOT, StackProject

SETTINGS: dict[str, Any] = {
    "project": "fleet-123",
    "region": "asia-northeast3",
    "store": {"bucket": "fleet-123-lorafleet"},
    "stateBucket": "fleet-123-pulumi",
    "github": {"repository": "our-team/serving", "ownerId": 1001, "repositoryId": 2002},
    "secrets": {
        "runpod-api-key": {"readers": ["ci-deploy"]},
        "router-keys": {"readers": ["router", "gce"]},
    },
}


def settings() -> dict[str, Any]:
    """Settings that are right, to be changed."""
    copy: dict[str, Any] = json.loads(json.dumps(SETTINGS))
    return copy


@dataclass
class SharedProject(StackProject):
    """A copy of the stack `shared`, its cloud in a file."""

    stack: str = "shared"

    def __post_init__(self) -> None:
        (self.folder / "stacks").mkdir(parents=True)
        (self.folder / "backend").mkdir()
        project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
        stub = {"name": "gcp", "path": str(ROOT / "tests" / "fakes" / "gcp"), "version": VERSION}
        project["plugins"]["providers"] = [stub]
        (self.folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        for name in ("__main__.py", "shared.py"):
            shutil.copy(ROOT / "stacks" / name, self.folder / "stacks" / name)
        self.write_config({"serving:shared": settings()})
        self.run("stack", "init", self.stack).ok()

    def copied(self, folder: Path) -> SharedProject:
        """Another project in the same state, its cloud included; quicker than bringing it up again."""
        shutil.copytree(self.folder, folder)
        made = copy.copy(self)
        made.folder = folder
        # Which stack is selected is remembered for each project's folder.
        made.run("stack", "select", made.stack).ok()
        return made

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, CLOUD_VARIABLE: str(self.cloud_file)}

    @property
    def cloud_file(self) -> Path:
        return self.folder / "cloud.json"

    def cloud(self) -> dict[str, Any]:
        """What there is, as tests.fakes.gcp.cloud describes it."""
        content: dict[str, Any] = json.loads(self.cloud_file.read_text())
        return content

    def write_cloud(self, content: dict[str, Any]) -> None:
        self.cloud_file.write_text(json.dumps(content))

    def set(self, **changes: Any) -> None:
        """Writes the settings anew: the right ones with these keys changed."""
        config = self.read_config()["config"]
        config["serving:shared"] = {**settings(), **changes}
        self.write_config(config)

    def planned(self) -> list[dict[str, Any]]:
        """Every resource of a preview as the engine plans it, in the order of its URN."""
        plan = json.loads(self.preview("--json").ok().output)
        states = ({"inputs": {}, **step["newState"]} for step in plan["steps"])  # a component has none
        return sorted(states, key=lambda state: str(state["urn"]))
