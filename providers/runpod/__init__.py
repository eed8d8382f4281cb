"""The `runpod` platform: the fleet on RunPod's GPUs, through its REST API v2.

Three kinds of targets, each with its component: `runpod` (`ServerlessEndpoint`), `runpod-queue` (`QueueEndpoint`) and
`runpod-pod` (`PodServer`). A component is loaded when it is named, so that specs and resources can be imported without
Pulumi's program side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .target import ServerlessEndpoint
    from .target_pod import PodServer
    from .target_queue import QueueEndpoint

__all__ = ["PodServer", "QueueEndpoint", "ServerlessEndpoint"]

_MODULES = {"PodServer": "target_pod", "QueueEndpoint": "target_queue", "ServerlessEndpoint": "target"}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
