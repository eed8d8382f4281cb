"""A project with `stacks/serving.py` and an environment's own stack file, its platforms being stand-ins."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.fakes.gcp import CLOUD_VARIABLE, VERSION
from tests.support.stack_project import ROOT, StackProject

PROJECT = "fleet-123"
BUCKET = "fleet-123-lorafleet"
REVISION = "e" * 40
DIGESTS = {"easycontract": f"sha256:{'1' * 64}", "checklist": f"sha256:{'2' * 64}"}
IMAGE = f"asia-northeast3-docker.pkg.dev/fleet-123/lorafleet/serving@sha256:{'0' * 64}"


def filled_in(environment: str) -> dict[str, Any]:
    """The declaration as it is shipped, with a team's own words where it has `<...>`."""
    document = yaml.safe_load((ROOT / "stacks" / f"Pulumi.{environment}.yaml").read_text())
    fleet: dict[str, Any] = document["config"]["serving:fleet"]
    fleet["store"] = f"gs://{BUCKET}"
    fleet["baseModel"]["purpose"] = "tests of this project"
    for target in fleet["targets"].values():
        if "project" in target:
            target["project"] = PROJECT
        if "image" in target:
            target["image"] = IMAGE
    fleet["release"] |= {"image": IMAGE, "adapters": dict(DIGESTS)}
    assert re.search("<[^>]*>", yaml.safe_dump(fleet)) is None, "a placeholder that this function does not know"
    return fleet


@dataclass
class ServingProject(StackProject):
    """The stack `stack` as it is shipped. `variables`: what the platforms' stand-ins are found by."""

    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
        stub = {"name": "gcp", "path": str(ROOT / "tests" / "fakes" / "gcp"), "version": VERSION}
        project["plugins"]["providers"] = [{"name": "lorafleet", "path": str(ROOT / "providers")}, stub]
        (self.folder / "stacks").mkdir(parents=True)
        (self.folder / "backend").mkdir()
        (self.folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        for name in ("__main__.py", "serving.py"):
            shutil.copy(ROOT / "stacks" / name, self.folder / "stacks" / name)
        self.write_config({"serving:fleet": filled_in(self.stack)})
        self.run("stack", "init", self.stack).ok()

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in super().environment.items() if name not in _TOKENS}
        return kept | {CLOUD_VARIABLE: str(self.folder / "cloud.json")} | self.variables

    def secret(self, **values: str) -> None:
        for name, value in values.items():
            self.run("config", "set", "--secret", name, value).ok()

    def targets(self, **changes: dict[str, Any] | None) -> None:
        """Changes targets of the declaration; None takes one away."""

        def edit(fleet: dict[str, Any]) -> None:
            for name, change in changes.items():
                if change is None:
                    del fleet["targets"][name]
                else:
                    fleet["targets"][name] |= change

        self.change(edit)


# What this machine may have of a person's own.
_TOKENS = ("RUNPOD_API_KEY", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "GOOGLE_OAUTH_ACCESS_TOKEN", "HF_TOKEN")
