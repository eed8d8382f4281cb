"""The artifact store: adapters, models, releases, and the manifest that running servers follow.

A stack imports `manifest`. It is loaded when it is named, so that the store can be used without Pulumi.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .target import manifest

__all__ = ["manifest"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from . import target

        return getattr(target, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
