"""The `local` platform: the fleet as processes of this machine, for development and tests.

A stack imports `Server` and `Router`. They are loaded when they are named, so that the platform's spec and its
resources can be imported without Pulumi's program side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .target import Router, Server

__all__ = ["Router", "Server"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from . import target

        return getattr(target, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
