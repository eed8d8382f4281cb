"""The `modal` platform: our serving image as a Modal Server, from no container at all up to a declared number.

A stack imports `App`. It is loaded when it is named, so that the platform's spec and its resources can be imported
without Pulumi's program side. (The SDK is the package `modal`; this one is `providers.modal`.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .target import App

__all__ = ["App"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from . import target

        return getattr(target, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
