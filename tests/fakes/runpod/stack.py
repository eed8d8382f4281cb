"""A project of its own around the real Pulumi engine, with RunPod's resources alone, declared as data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml

from tests.support.stack_project import ROOT, StackProject

TOKEN = "rpa_secret-token-of-the-tests"
# {name: (class, inputs)}; "@name" anywhere in the inputs is the id of another resource.
Declaration = dict[str, tuple[str, dict[str, Any]]]
_PROGRAM = """
import json, pathlib, pulumi
from providers.kit.program import declare
from providers.runpod import resources

made = {}

def filled(value):
    if isinstance(value, dict):
        return {key: filled(each) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each) for each in value]
    return made[value[1:]].id if isinstance(value, str) and value[:1] == "@" else value

for name, (kind, inputs) in json.loads(pathlib.Path("resources.json").read_text()).items():
    made[name] = declare(getattr(resources, kind), name, filled(inputs))
    pulumi.export(name, made[name].id)
"""


@dataclass
class RunpodProject(StackProject):
    """Its stack has what was last given to `declare`."""

    def __post_init__(self) -> None:
        project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
        project["plugins"]["providers"][0]["path"] = str(ROOT / "providers")
        (self.folder / "stacks").mkdir(parents=True)
        (self.folder / "backend").mkdir()
        (self.folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        (self.folder / "stacks" / "__main__.py").write_text(_PROGRAM)
        self.stack_file.write_text("config: {}\n")
        self.run("stack", "init", self.stack).ok()

    def declare(self, resources: Declaration) -> None:
        (self.folder / "stacks" / "resources.json").write_text(json.dumps(resources))

    def resources(self) -> dict[str, dict[str, Any]]:
        """What the state has, by name."""
        deployment = json.loads(self.run("stack", "export").ok().output)["deployment"]
        return {each["urn"].rsplit("::", 1)[-1]: each for each in deployment.get("resources", [])}

    def ids(self) -> dict[str, str]:
        """The id of each resource, by name."""
        found: dict[str, str] = json.loads(self.run("stack", "output", "--json").ok().output)
        return found

    def planned(self) -> dict[str, tuple[str, set[str]]]:
        """What `pulumi preview` would do: {name: (`update`, `replace` …, wire names of the fields that differ)}."""
        shown = json.loads(self.run("preview", "--json").ok().output)
        found: dict[str, tuple[str, set[str]]] = {}
        for step in shown["steps"]:
            name = step["urn"].rsplit("::", 1)[-1]
            if step["op"] in ("update", "replace", "create", "delete"):
                found[name] = (
                    step["op"],
                    {path.split(".")[0].split("[")[0] for path in step.get("detailedDiff") or {}},
                )
        return found
