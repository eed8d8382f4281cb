"""Stacks with one resource, or one target, alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from providers.kit import fields, registry
from providers.kit.resource import Resource
from providers.kit.testing import Case, Place
from providers.kit.values import Sealed

from .protocol import Config, Scenario

_PROGRAM = """
import pulumi
from providers.kit import fields, registry
from providers.kit.program import declare

for name, declared in pulumi.Config("chaos").require_object("resources").items():
    resource = registry.find(declared["type"])
    python_names = {wire: python for wire, (python, _) in fields.by_alias(resource.inputs_model()).items()}
    declare(resource, name, {python_names[wire]: value for wire, value in declared["inputs"].items()})
"""


def alone(
    resource: type[Resource[Any, Any]],
    inputs: Mapping[str, Any],
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    name: str = "",
) -> Scenario:
    """One resource. `inputs`: wire inputs, as in a platform's contract.py; `changes`: {name: inputs that are other}."""

    def config(changed: Mapping[str, Any]) -> Config:
        declared = {"type": registry.token_of(resource), "inputs": plain({**inputs, **changed})}
        return {"chaos:resources": {"thing": declared}}

    declared = {each: config(changed) for each, changed in (changes or {}).items()}
    return Scenario(name or resource.__name__, _PROGRAM, config({}), declared)


def plain(value: Any) -> Any:
    """Inputs without the marks of secrets: the kit knows by its models what is one."""
    if isinstance(value, Sealed):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def of_contract(
    case: Case, place: Place, *, without: Collection[str] = (), more: Mapping[str, Collection[str]] | None = None
) -> Scenario:
    """The resource of a contract case: changed in place, in all fields at once, and changed so that it is replaced.

    place: its folder is the project's. without: fields that stay out of it, as they do not go together with the others.
    more: {name of a further change: the fields of the case's `changes` that it has}.
    """
    changes = case.changes(place)
    model = fields.by_alias(case.resource.inputs_model())
    replacing = [each for each in changes if fields.has(model[each][1], fields.replaces)]
    groups: dict[str, Collection[str]] = {
        "in-place": [each for each in changes if each not in replacing and each not in without],
        "replaced": replacing[:1],
        **(more or {}),
    }
    wanted = {name: {each: changes[each] for each in group} for name, group in groups.items() if group}
    name = str(case).split(".", 1)[-1].replace(" of type ", "-").replace(" ", "-")
    return alone(case.resource, case.inputs(place), wanted, name=name)


def component(
    name: str,
    target: Mapping[str, Any],
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    settings: Mapping[str, str] | None = None,
    **fleet: Any,
) -> Scenario:
    """One target with all that its component makes, of a fleet that no bucket is needed for.

    target: its declaration; changes: {name: fields of the declaration that are other}; fleet: more of the fleet's.
    settings: {key without `serving:`: what the stack's configuration has beside the fleet}.
    """

    def config(changed: Mapping[str, Any]) -> Config:
        beside = {f"serving:{key}": value for key, value in (settings or {}).items()}
        return {**beside, "serving:fleet": {**_FLEET, **fleet, "targets": {"burst": {**target, **changed}}}}

    return Scenario(name, _COMPONENT, config({}), {each: config(changed) for each, changed in (changes or {}).items()})


_COMPONENT = '''
import pulumi
from providers import stack

class Manifest(pulumi.ComponentResource):
    """Stands for the manifest in the store, which is not written here."""
    def __init__(self):
        super().__init__("chaos:index:Manifest", "manifest")
        self.served = pulumi.Output.from_input({})

fleet = stack.fleet()
stack.targets(fleet, Manifest())
'''
_FLEET: dict[str, Any] = {
    "store": "gs://a-bucket/fleet",
    "baseModel": {
        "name": "exaone-3.5-2.4b",
        "source": "hf://an-owner/a-model",
        "license": "none needed (made for tests)",
    },
    "adapters": {"easycontract": {"rank": 8}},
    "router": {"port": 8100, "metricsPort": 8102},
    "release": {
        "image": f"registry.example.com/serving@sha256:{'0' * 64}",
        "baseModel": {"revision": "e" * 40},
        "adapters": {"easycontract": f"sha256:{'1' * 64}"},
    },
}
