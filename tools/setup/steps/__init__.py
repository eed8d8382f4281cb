"""The steps of the set-up, in order. Each says whether it is done already, and does only what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tools.setup.progress import Task


class Step(Protocol):
    """One step. `present` must be quick (tens of milliseconds): it runs at every `make up`."""

    title: str

    def present(self) -> str | None:
        """What is there already, in a few words; None when there is something to do."""

    def needs_gib(self) -> dict[Path, float]:
        """The disk space that `install` takes, by place. Asked only if `present` gave None."""

    def install(self, task: Task) -> str:
        """Does what is missing; can be interrupted and run again. Gives what is there now, in a few words.

        Raises:
            SetupError: it can't be done; says what to do.
        """


def all_steps() -> list[Step]:
    """Every step, in order."""
    from tools.setup.steps.demo import Demo
    from tools.setup.steps.devenv import DevEnv
    from tools.setup.steps.engine import Engine
    from tools.setup.steps.haproxy import HAProxy
    from tools.setup.steps.servingenv import ServingEnv
    from tools.setup.steps.store import Store
    from tools.setup.steps.toolchain import Toolchain
    from tools.setup.steps.uv import Uv

    return [Toolchain(), Uv(), DevEnv(), HAProxy(), Engine(), ServingEnv(), Demo(), Store()]


def dev_steps() -> list[Step]:
    """Only what the linters and the type checker need."""
    from tools.setup.steps.actionlint import Actionlint

    return [*all_steps()[:3], Actionlint()]


def test_steps() -> list[Step]:
    """What the tests and the benchmarks need beside `all_steps` and `dev_steps`: environments of other images."""
    from tools.setup.steps.runpodenv import RunpodEnv
    from tools.setup.steps.vertexenv import VertexEnv

    return [*all_steps()[:3], RunpodEnv(), VertexEnv()]


def ci_steps() -> list[Step]:
    """Only what previews and deployments need: no server runs there."""
    from tools.setup.steps.engine import Engine

    return [*all_steps()[:3], Engine()]
