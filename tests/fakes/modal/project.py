"""A Pulumi project of its own, on the real engine, whose platform is the stand-in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.support.stack_project import ROOT, StackProject

from . import FakeModal

# Declares what resources.json names: {name: [type, inputs on the wire]}.
_RESOURCES = """
import json
from providers import stack
from providers.kit import fields, registry
from providers.kit.program import declare

for name, (token, inputs) in json.loads((stack.root() / "resources.json").read_text()).items():
    resource = registry.find(token)
    names = {wire: python for wire, (python, _) in fields.by_alias(resource.inputs_model()).items()}
    declare(resource, name, {names[wire]: value for wire, value in inputs.items()})
"""


class ModalProject(StackProject):
    """program: of the stack; without one, it declares what `declare` was told."""

    modal: FakeModal

    def __init__(self, folder: Path, modal: FakeModal, program: str = _RESOURCES, stack: str = "spilling") -> None:
        self.modal, self._program = modal, program
        super().__init__(folder, stack=stack)

    def __post_init__(self) -> None:
        (self.folder / "stacks").mkdir(parents=True)
        (self.folder / "backend").mkdir()
        project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
        project["plugins"]["providers"][0]["path"] = str(ROOT / "providers")
        (self.folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        shutil.copy(ROOT / "stacks" / "__main__.py", self.folder / "stacks")
        (self.folder / "stacks" / f"{self.stack}.py").write_text(self._program)
        self.write_config({})
        self.run("stack", "init", self.stack).ok()

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | self.modal.environ()

    def declare(self, resources: dict[str, tuple[str, dict[str, Any]]]) -> None:
        """What the stack has: {name: (type, inputs on the wire)}"""
        (self.folder / "resources.json").write_text(json.dumps(resources))

    def deployment(self) -> dict[str, Any]:
        """The stack's state, secrets encrypted."""
        exported: dict[str, Any] = json.loads(self.run("stack", "export").ok().output)
        return exported

    def resources(self) -> dict[str, dict[str, Any]]:
        """{name: what the state has of it}"""
        found = self.deployment()["deployment"].get("resources", [])
        return {each["urn"].rsplit("::", 1)[-1]: each for each in found if ":modal:" in each["type"]}

    def planned(self) -> dict[str, tuple[str, set[str]]]:
        """{name: (step, the inputs that differ)} of a preview; what stays as it is, is not in it."""
        steps = json.loads(self.run("preview", "--json").ok().output)["steps"]
        return {
            each["urn"].rsplit("::", 1)[-1]: (
                each["op"],
                {path.split(".")[0].split("[")[0] for path in each.get("detailedDiff") or {}},
            )
            for each in steps
            if each["op"] not in ("same", "create-replacement", "delete-replaced")
        }
