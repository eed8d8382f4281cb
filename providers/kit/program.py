"""A provider resource as a class for Pulumi programs.

server = kit.program.declare(ModelServer, "server", {"port": 8101, ...}, opts=...)
server.url            # pulumi.Output, by the Python name of an input or output
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import pulumi

from lorafleet.errors import nearest

from . import fields, registry
from .resource import Resource

if TYPE_CHECKING:

    class Declared(pulumi.CustomResource):
        """A resource in a program; every input and output is an attribute by its Python name."""

        def __getattr__(self, name: str) -> pulumi.Output[Any]: ...

else:

    class Declared(pulumi.CustomResource):
        """A resource in a program; every input and output is an attribute by its Python name."""


def declare(
    resource: type[Resource[Any, Any]],
    name: str,
    inputs: Mapping[str, Any],
    opts: pulumi.ResourceOptions | None = None,
) -> Declared:
    """Declares a resource. `inputs` has Python names at the top and wire names (camelCase) below.

    Raises pulumi.RunError, which ends the program with one line, for a name that is no input.
    """
    model = resource.inputs_model()
    for key in inputs:
        if key not in model.model_fields:
            close = nearest(key, list(model.model_fields))
            hint = f"did you mean '{close}'? " if close else ""
            raise pulumi.RunError(
                f"{registry.token_of(resource)} '{name}' has no input '{key}'; {hint}"
                f"inputs: {', '.join(model.model_fields)}"
            )
    given = {fields.alias(model, key): value for key, value in inputs.items() if value is not None}
    if resource.delete_before_replace:
        # The plugin says so too, in its diff, but a replacement that was forced has none.
        opts = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(delete_before_replace=True))
    # Every output is named, or the program would never see it.
    outputs = dict.fromkeys([*fields.by_alias(model), *fields.by_alias(resource.outputs_model())])
    return _class_for(resource)(registry.token_of(resource), name, {**outputs, **given}, opts)


def without_none(value: Any) -> Any:
    """Inputs without what is None: the engine drops nulls inside of inputs at times and keeps them at others."""
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_none(item) for item in value]
    return value


@cache
def _class_for(resource: type[Resource[Any, Any]]) -> type[Declared]:
    wire_names = {
        python: info.alias or python
        for model in (resource.inputs_model(), resource.outputs_model())
        for python, info in model.model_fields.items()
    }
    properties = {python: _getter(wire) for python, wire in wire_names.items()}
    return type(resource.__name__, (Declared,), {"__doc__": resource.__doc__, **properties})


def _getter(wire: str) -> property:
    return property(lambda self: pulumi.get(self, wire))
