"""Finds the resources: every folder of `providers/` with a `resources.py` is a platform. No list names them.

A platform's module is imported when one of its resources is used, not before, and its SDK later still.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from pathlib import Path
from typing import Any

from lorafleet.errors import nearest

from .errors import ResourceError
from .resource import Resource

PACKAGE = "providers"
PROVIDER = "lorafleet"


def platforms() -> list[str]:
    """Names of the platform folders that have resources, sorted; imports none of them."""
    root = Path(__file__).parent.parent
    return sorted(
        module.name
        for module in pkgutil.iter_modules([str(root)])
        if module.ispkg and (root / module.name / "resources.py").is_file()
    )


@cache
def resources(platform: str) -> dict[str, type[Resource[Any, Any]]]:
    """{class name: class} of a platform; imports its `resources` module."""
    module = importlib.import_module(f"{PACKAGE}.{platform}.resources")
    return {
        name: member
        for name, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Resource) and not inspect.isabstract(member) and _lives_in(member, platform)
    }


def _lives_in(member: type, platform: str) -> bool:
    return member.__module__.startswith(f"{PACKAGE}.{platform}.")


def token_of(resource: type[Resource[Any, Any]]) -> str:
    """The type token, `lorafleet:<platform>:<Class>`."""
    platform = resource.__module__.split(".")[1]
    return f"{PROVIDER}:{platform}:{resource.__name__}"


def find(token: str) -> type[Resource[Any, Any]]:
    """The class for a type token.

    Raises ResourceError naming the valid tokens.
    """
    # Under a parent, the engine hands over "parentType$ownType".
    _, platform, name = ([*token.rsplit("$", 1)[-1].split(":"), "", ""])[:3]
    platform = platform.split("/", 1)[0]
    if platform in platforms():
        known = resources(platform)
        if name in known:
            return known[name]
        valid = [f"{PROVIDER}:{platform}:{each}" for each in known]
    else:
        valid = [f"{PROVIDER}:{each}:…" for each in platforms()]
    close = nearest(token, valid)
    hint = f"did you mean '{close}'?" if close else f"valid types: {', '.join(valid)}"
    raise ResourceError(f"the provider has no resource type '{token}'", next_action=hint)
