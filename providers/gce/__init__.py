"""The fleet on Google Compute Engine: VMs with a GPU that run the serving image (docs/gce.md).

The component is loaded when it is named, so that a declaration can be checked without Pulumi and its Google Cloud SDK.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .target import VllmVm

__all__ = ["VllmVm"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.target"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
