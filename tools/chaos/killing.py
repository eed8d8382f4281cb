"""One operation of one scenario: undisturbed first, then killed at each of its calls."""

from __future__ import annotations

import json
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .gate import CallGate
from .places import platform_of
from .project import ChaosProject
from .protocol import Config, Moment, Platform, Scenario, Thing

# A command takes one to three seconds on a quiet machine.
_COMMAND_TIMEOUT_S = 300
_START = "start"
_SHOWN_LINES = 30

Extent = Literal["changes", "calls", "moments"]


@dataclass(frozen=True)
class Operation:
    """What is killed, and what comes after it.

    name: `create`, `update:<name of the change>`, `delete`, or `delete-up`: a delete after which the resource is wanted
    again. number of its calls and their names are found by an undisturbed run.
    """

    platform: str
    scenario: str
    name: str

    def __str__(self) -> str:
        return f"{self.platform} {self.scenario} {self.name}"

    @property
    def kind(self) -> Literal["create", "update", "delete", "delete-up"]:
        kind = self.name.partition(":")[0]
        assert kind in ("create", "update", "delete", "delete-up")
        return kind  # type: ignore[return-value]


@dataclass(frozen=True)
class Result:
    """What became of one kill. `killed` is false where the platform refused the call, so that there was no such moment.

    orphans: things of a kind that should not be there at all; duplicates: more of a kind than there should be.
    unsettled: why the next run did not end in the declared state; empty if it did.
    """

    operation: Operation
    call: str
    number: int
    of: int
    moment: Moment
    killed: bool = False
    orphans: int = 0
    duplicates: int = 0
    unsettled: str = ""
    took_s: float = 0.0

    @property
    def good(self) -> bool:
        return not (self.orphans or self.duplicates or self.unsettled)

    def __str__(self) -> str:
        where = f"{self.operation}: call {self.number + 1} of {self.of}, {self.call}, {self.moment}"
        if not self.killed and self.good:
            return f"{where}: no kill, the platform refused the call"
        faults = [f"{self.orphans} orphans"] if self.orphans else []
        faults += [f"{self.duplicates} duplicates"] if self.duplicates else []
        faults += [f"unsettled: {self.unsettled}"] if self.unsettled else []
        return f"{where}: {'FAULT: ' + ', '.join(faults) if faults else 'good'} ({self.took_s:.1f} s)"


@dataclass(frozen=True)
class Difference:
    """How the platform differs from what an undisturbed run makes.

    orphans: things of a kind that should not be there at all; duplicates: more of a kind than there should be.
    differing: kinds of which something is missing or is not as it should be.
    """

    orphans: int
    duplicates: int
    differing: frozenset[str]


def compare(wanted: Sequence[Thing], there: Sequence[Thing]) -> Difference:
    """What is on the platform against what should be."""
    kinds = Counter(each.kind for each in wanted)
    surplus = Counter(each.kind for each in there) - kinds
    missing = _counted(wanted) - _counted(there)
    return Difference(
        orphans=sum(count for kind, count in surplus.items() if not kinds[kind]),
        duplicates=sum(count for kind, count in surplus.items() if kinds[kind]),
        differing=frozenset(kind for kind, _ in missing),
    )


def _counted(things: Sequence[Thing]) -> Counter[tuple[str, str]]:
    return Counter((each.kind, json.dumps(each.content, sort_keys=True)) for each in things)


def operations(platform: str, scenarios: Sequence[Scenario]) -> list[Operation]:
    """All that can be done with a platform's scenarios."""
    return [
        Operation(platform, each.name, name)
        for each in scenarios
        for name in ("create", *(f"update:{change}" for change in each.changes), "delete", "delete-up")
    ]


def kills(
    operation: Operation,
    wanted: Callable[[int, Moment], bool] = lambda _number, _moment: True,
    *,
    extent: Extent = "calls",
) -> Iterator[Result]:
    """Kills the operation at each of its calls and moments that are `wanted`.

    extent: which of them count. `changes`: those of calls that change something; `calls`: before each call that only
    reads, too, and after the last one; `moments`: all, though after a read nothing is that was not before it.

    Raises AssertionError, with what Pulumi said, if it fails when nobody kills it.
    """
    chaos = platform_of(operation.platform)
    with tempfile.TemporaryDirectory(prefix="lorafleet-chaos-") as scratch:
        folder = Path(scratch) / "project"
        [scenario] = [each for each in chaos.scenarios(folder) if each.name == operation.scenario]
        project, gate = ChaosProject(folder, program=scenario.program), CallGate()
        with chaos.running(folder, gate) as platform:
            project.variables = platform.environment
            killing = _Killing(operation, scenario, project, gate, platform)
            try:
                killing.undisturbed()
                for number, moment in killing.moments(chaos.moments, extent):
                    if wanted(number, moment):
                        yield killing.at(number, moment)
            finally:
                project.kill_everything()


class _Killing:
    def __init__(
        self, operation: Operation, scenario: Scenario, project: ChaosProject, gate: CallGate, platform: Platform
    ) -> None:
        self._operation, self._project, self._gate, self._platform = operation, project, gate, platform
        self._first: Config = scenario.declared
        change = operation.name.partition(":")[2]
        self._declared: Config = scenario.changes[change] if change else scenario.declared
        self._saved: object = None
        self._wanted: Sequence[Thing] = ()
        self.calls: list[str] = []
        self._changing: set[int] = set()

    @property
    def _command(self) -> Sequence[str]:
        """What is killed."""
        return ("destroy" if self._operation.kind in ("delete", "delete-up") else "up", "--yes", "--skip-preview")

    def undisturbed(self) -> None:
        """Does it once without a kill: which calls are made, and what is there afterwards."""
        project, platform = self._project, self._platform
        project.declare(self._first)
        if self._operation.kind != "create":
            project.up().ok()
        before = platform.things()
        self._saved = platform.save()
        project.keep(_START)
        project.declare(self._declared)
        self._gate.open()
        project.run(*self._command).ok()
        self.calls, self._changing = list(self._gate.calls), set(self._gate.changing)
        assert self.calls, f"{self._operation}: no call reached the platform"
        after = before if self._operation.kind == "delete-up" else platform.things()
        self._wanted = after
        assert bool(after) == (self._operation.kind != "delete"), (
            f"{self._operation}: {len(after)} things are there then"
        )

    def moments(self, known: Sequence[Moment], extent: Extent) -> Iterator[tuple[int, Moment]]:
        """(number of the call, moment) of all that differ."""
        last = len(self.calls) - 1
        for number in range(len(self.calls)):
            if number in self._changing or extent == "moments":
                those = known
            elif extent == "changes" or self._operation.kind == "delete-up":
                those = ()  # a delete-up is killed where something was deleted; the rest is a `delete` again
            else:
                # After the last answer Pulumi writes down what was done.
                those = (known[0], known[-1]) if number == last else (known[0],)
            yield from ((number, moment) for moment in those)

    def at(self, number: int, moment: Moment) -> Result:
        begun = time.monotonic()
        project, gate, platform = self._project, self._gate, self._platform
        self._begin_again()
        gate.open((number, moment))
        running = project.start(*self._command)
        gate.aim(running.pid)
        output, _ = running.communicate(timeout=_COMMAND_TIMEOUT_S)
        killed, missed, calls = gate.killed, gate.missed, gate.calls
        call = calls[number] if number < len(calls) else self.calls[number]
        complaints = len(platform.complaints())
        gate.open()
        unsettled = ""
        try:
            # A platform that refuses a call does not come to the moment after it.
            if missed:
                raise AssertionError(f"Pulumi was not found when it was to be killed\n{output}")
            if not killed and (running.returncode != 0 or number >= len(calls)):
                raise AssertionError(f"the call was not made this time\n{output}")
            if killed and running.returncode != -signal.SIGKILL:
                raise AssertionError(f"Pulumi had ended before the kill\n{output}")
            self._settle()
        except AssertionError as error:
            unsettled = _tail(str(error))
        found = compare(self._wanted, platform.things())
        if not unsettled and found.differing:
            unsettled = f"not as an undisturbed run makes it: {', '.join(sorted(found.differing))}"
        if not unsettled and len(platform.complaints()) > complaints:
            unsettled = f"the platform objects: {platform.complaints()[-1]}"
        return Result(
            self._operation,
            call,
            number,
            len(self.calls),
            moment,
            killed,
            orphans=found.orphans,
            duplicates=found.duplicates,
            unsettled=unsettled,
            took_s=time.monotonic() - begun,
        )

    def _begin_again(self) -> None:
        project = self._project
        if self._saved is not None:
            self._platform.restore(self._saved)
            project.put_back(_START)
        else:
            project.recover()
            project.destroy().ok()
            if self._operation.kind != "create":
                project.declare(self._first)
                project.up().ok()
        project.declare(self._declared)

    def _settle(self) -> None:
        """What a user does after a kill, and what must hold then."""
        project = self._project
        project.recover()
        if self._operation.kind == "delete":
            project.destroy().ok()
            return
        project.up().ok()
        project.preview("--refresh", "--expect-no-changes").ok()


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_SHOWN_LINES:])
