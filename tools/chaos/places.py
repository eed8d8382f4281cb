"""Finds the platforms' cases: every folder of tests/fakes with a `chaos.py`. No list names them."""

from __future__ import annotations

import importlib
from pathlib import Path

from .protocol import Chaos

_FAKES = Path(__file__).resolve().parents[2] / "tests" / "fakes"


def platforms() -> list[str]:
    """Their names, sorted; imports none of them."""
    return sorted(each.parent.name for each in _FAKES.glob("*/chaos.py"))


def platform_of(name: str) -> Chaos:
    """A platform's cases."""
    chaos: Chaos = importlib.import_module(f"tests.fakes.{name}.chaos").CHAOS
    return chaos
