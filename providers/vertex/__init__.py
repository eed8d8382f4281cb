"""The `vertex` platform: the fleet on Vertex AI, through its REST API.

A stack imports `HandlerEndpoint`. It is loaded when it is named, so that the platform's spec and its resources can be
imported without Pulumi's program side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .target import HandlerEndpoint

__all__ = ["HandlerEndpoint"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from . import target

        return getattr(target, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
