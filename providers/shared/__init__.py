"""The foundations in Google Cloud: what the stack `shared` makes, and how the other stacks refer to it.

They are loaded when they are named, so that the settings can be imported without Pulumi and its Google Cloud SDK.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .github import GitHub
    from .identities import Identities
    from .images import Images
    from .program import Reference, export, reference, settings, values
    from .project import Project
    from .secrets import Secrets
    from .store import Store

_HOMES = {
    "GitHub": "github",
    "Identities": "identities",
    "Images": "images",
    "Project": "project",
    "Reference": "program",
    "Secrets": "secrets",
    "Store": "store",
    "export": "program",
    "reference": "program",
    "settings": "program",
    "values": "program",
}

__all__ = [
    "GitHub",
    "Identities",
    "Images",
    "Project",
    "Reference",
    "Secrets",
    "Store",
    "export",
    "reference",
    "settings",
    "values",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
