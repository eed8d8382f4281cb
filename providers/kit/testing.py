"""What a platform says about its resources so that the contract tests can run over them.

A platform's `contract.py` has a function `cases() -> list[Case]`; tests/contract finds it. So a new platform
brings its contract tests in its own folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .resource import Resource


@dataclass(frozen=True)
class Place:
    """Where a case runs: a scratch folder of its own, and TCP ports of 127.0.0.1 that are free."""

    folder: Path
    free_port: Callable[[], int]
    _ports: dict[str, int] = field(default_factory=dict)

    def port(self, use: str) -> int:
        """A free port; the same one for the same `use`."""
        if use not in self._ports:
            self._ports[use] = self.free_port()
        return self._ports[use]


@dataclass(frozen=True)
class Case:
    """One resource with valid inputs, in a place where its platform (or a fake of it) answers.

    inputs: valid wire inputs, the same at each call; put `kit.values.Sealed` around
        secrets, which are at least 8 characters long.
    changes: {wire field: another valid value}; each must be seen by diff, and applied or replaced.
    vanish: makes the real thing go away behind the provider's back; None if nothing real exists.
    platform: entered around the whole case: starts what the resource needs.
    importable: whether `read` works from the id alone.
    has_leftovers: whether a killed create can leave something that the next create must take over.
    """

    resource: type[Resource[Any, Any]]
    inputs: Callable[[Place], dict[str, Any]]
    changes: Callable[[Place], Mapping[str, Any]] = lambda _: {}
    vanish: Callable[[Place, str], None] | None = None
    platform: Callable[[Place], AbstractContextManager[Any]] | None = None
    importable: bool = True
    has_leftovers: bool = True
    name: str = field(default="")

    def __str__(self) -> str:
        return self.name or self.resource.__name__
