"""The cases of `make chaos` of the processes on this machine (docs/chaos.md).

There is no call to stop at: a thread looks at the run folders, and Pulumi is killed as soon as a step is seen.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from providers.kit.testing import Case, Place
from providers.local import contract, process
from tests.support.ports import free_port
from tools.chaos.protocol import Gate, Moment, Platform, Scenario, Thing
from tools.chaos.scenarios import of_contract

# In the order in which they are passed on the way up.
_STEPS = ("folder claimed", "configuration written", "starting", "fetching", "launching", "loading", "probing", "ready")
# Long enough for each to be seen.
_PHASE_S = 0.2
_LOOK_EVERY_S = 0.01


@dataclass
class _Watch:
    """Tells the gate of each step of the project's one resource, in the order in which they come."""

    state_dir: Path
    gate: Gate
    level: int = -1
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.over.wait(_LOOK_EVERY_S):
            level = self._look()
            if level < self.level:
                self._tell("stopped" if level >= 0 else "folder gone")
            for passed in range(self.level + 1, level + 1):
                self._tell(_STEPS[passed])
            self.level = level

    def _look(self) -> int:
        """The last step that was passed, -1 before the first."""
        found = -1
        for folder in (self.state_dir / "run").glob("[!.]*"):
            level = int((folder / process.CONFIG_NAME).exists())
            state = folder / "state.json"
            phase = json.loads(state.read_text() or "{}").get("phase") if state.exists() else None
            found = max(found, _STEPS.index(phase) if phase in _STEPS else level)
        return found

    def _tell(self, step: str) -> None:
        if self.gate.reached(step) is not None:
            self.gate.kill()


@dataclass
class _Platform:
    place: Place
    environment: Mapping[str, str] = field(default_factory=dict)

    def things(self) -> Sequence[Thing]:
        # A folder without a name is what a kill left of making one; it is swept away with the next delete.
        folders = sorted(self.place.folder.glob("*/run/[!.]*"))
        leaders = [
            member for run in process.run_folders(self.place.folder) for member in process.members(run) if member.leads
        ]
        return [
            *(Thing("run folders", each.parts[-3]) for each in folders),
            *(Thing("processes", each.urn) for each in leaders),
        ]

    def complaints(self) -> Sequence[str]:
        return ()

    def save(self) -> Any:
        return None

    def restore(self, saved: Any) -> None:
        raise NotImplementedError("processes can't be put back")


@cache
def _place(folder: Path) -> Place:
    return Place(folder, free_port)


class _Chaos:
    moments: Sequence[Moment] = ("answered",)

    def scenarios(self, folder: Path) -> Sequence[Scenario]:
        return [of_contract(each, _place(folder), without=_WITHOUT.get(str(each), ())) for each in _cases()]

    @contextmanager
    def running(self, folder: Path, gate: Gate) -> Iterator[Platform]:
        place = _place(folder)
        (folder / "behaviour.json").write_text(json.dumps({"phaseS": _PHASE_S}))
        with ExitStack() as stack:
            for each in _cases():
                if each.platform is not None:
                    stack.enter_context(each.platform(place))
            watch = _Watch(folder / "state", gate)
            thread = threading.Thread(target=watch.run, daemon=True)
            thread.start()
            try:
                yield _Platform(place)
            finally:
                watch.over.set()
                thread.join()


# Other ports, folders and stores are of no more interest than another setting, and would move the watched folder.
_WITHOUT = {"ModelServer": ("port", "store", "environment", "target", "stateDir"), "RouterProcess": ("port", "targets")}


def _cases() -> list[Case]:
    return contract.cases()


CHAOS = _Chaos()
