"""What a platform says so that `make chaos` can run over it: its `tests/fakes/<platform>/chaos.py` has `CHAOS`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Moment = Literal["before", "after", "answered"]
"""When Pulumi is killed at a call: before the platform did it; after that and before its answer; after its answer."""

MOMENTS: tuple[Moment, ...] = ("before", "after", "answered")
Config = Mapping[str, Any]
"""What the stack file has under `config`."""


class Gate(Protocol):
    """What a stand-in asks at each call. Both methods may be called from any thread."""

    def reached(self, call: str, *, reads: bool = False) -> Moment | None:
        """To be called when a call arrives, whether it reads or changes something, and before anything of it is done.

        call: its name without ids that differ between runs, such as `POST /v2/pods` or `AppPublish`.
        reads: it can change nothing, so that the moments before it and after it are one.
        Gives the moment at which the stand-in must call `kill()`; None: it goes on as ever.
        """

    def kill(self) -> None:
        """Kills Pulumi, its plugins and its program, all at once, and returns.

        At `before` the stand-in must then not do the work, and at `after` not answer: it drops the connection.
        """


@dataclass(frozen=True)
class Thing:
    """One thing that exists on the platform and costs something or is in somebody's way.

    kind: such as `endpoints`.
    content: what it is, as JSON values, without what differs from run to run (ids, times, nonces in names), so that it
        must be equal to what a run that nobody killed makes. Secrets may be in it: it is compared and never shown.
    """

    kind: str
    content: Any = None


class Platform(Protocol):
    """A stand-in that runs."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that lead the plugin to it."""

    def things(self) -> Sequence[Thing]:
        """All that exists there, but not what was there before the first run."""

    def complaints(self) -> Sequence[str]:
        """What the stand-in holds against the requests so far, such as ones that its platform's description forbids."""

    def save(self) -> Any:
        """All that exists there, to be put back by `restore` any number of times; None: this can't be done."""

    def restore(self, saved: Any) -> None: ...


@dataclass(frozen=True)
class Scenario:
    """A small stack.

    name: of the resource or component, such as `ServerlessEndpoint`; unique in its platform, without spaces.
    program: the stack's program, Python source. `tools/chaos/scenarios.py` has the usual ones.
    declared: what it is first declared as; changes: {name of a change: what is declared after it}.
    """

    name: str
    program: str
    declared: Config
    changes: Mapping[str, Config] = field(default_factory=dict)


class Chaos(Protocol):
    """A platform. Nothing may be started before `running`."""

    @property
    def moments(self) -> Sequence[Moment]: ...

    def scenarios(self, folder: Path) -> Sequence[Scenario]:
        """Always the same ones; `folder`: the project's, for those that need files."""

    def running(self, folder: Path, gate: Gate) -> AbstractContextManager[Platform]:
        """A new, empty stand-in while the context lasts; `folder`: the project's, which is there already."""
