"""One resource as an engine keeps it, in the test's own process: quick enough for a kill at every call.

The real engine and a real plugin run in tests/engine and in the plugin's tests; what is left out here is the wire
between them. To Modal a run ends as by kill -9 (`Faults.kill_caller`): nothing that it sends after it has an effect.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from providers.kit import registry, values
from providers.kit.check import check, dump, load
from providers.kit.diff import diff, diff_outputs
from providers.kit.fields import Inputs, Outputs
from providers.kit.lifecycle import InitFailedError, Lifecycle, Ownership
from providers.kit.resource import Context, Resource
from providers.modal import api

from . import FakeModal, serving
from .faults import Moment

T = TypeVar("T")


@contextmanager
def modal_here() -> Iterator[FakeModal]:
    """A stand-in that this process's own SDK talks to."""
    with serving() as modal, pytest.MonkeyPatch.context() as patch:
        for name, value in modal.environ().items():
            patch.setenv(name, value)
        patch.setattr(api, "_LOOK_EVERY_S", 0.01)
        yield modal


class KilledError(Exception):
    """The run was killed: nothing of its last step is in the state."""


@dataclass
class State:
    """What the state has of the resource. inputs: on the wire; failed: it was kept by an error."""

    id: str
    inputs: dict[str, Any]
    outputs: Outputs | None
    failed: bool = False


class Life:
    """A resource of one stack, over several runs."""

    def __init__(self, modal: FakeModal, resource: type[Resource[Any, Any]], name: str = "spill") -> None:
        self.modal, self.resource = modal, resource
        self.urn = f"urn:pulumi:dev::serving::{registry.token_of(resource)}::{name}"
        self.state: State | None = None
        self.doomed: list[State] = []
        """Replaced, and not deleted yet."""

    # -- commands -------------------------------------------------------------------------------------------

    def up(self, news: dict[str, Any]) -> list[str]:
        """Brings it to `news` (inputs on the wire). Returns the steps that it took; none: there was no change.

        Raises what the resource says, and KilledError.
        """
        run = self._run()
        asked = self._checked(news, self.state.inputs if self.state is not None else {})
        steps: list[str] = []
        if self.state is None:
            steps.append("create")
            self.state = self._create(run, asked)
        else:
            run.owned(self.state.id)
            changes = diff(self.resource.inputs_model(), self.state.inputs, asked)
            outputs = dump(self.state.outputs) if self.state.outputs is not None else {}
            changes += diff_outputs(self.resource.outputs_model(), outputs)
            if any(change.replace for change in changes):
                steps.append("replace")
                self._replace(run, self._checked(news, {}))
            elif changes or self.state.failed:
                steps.append("update")
                self._update(run, self.state, asked)
        while self.doomed:
            self._step(run.delete(self._context(run), self.doomed[0].id, self._load(self.doomed[0].inputs), 0))
            self.doomed.pop(0)
        return steps

    def refresh(self) -> set[str]:
        """Brings the state up to the truth. Returns the inputs that are not as they were; {"gone"} if it is."""
        if self.state is None:
            return set()
        run = self._run()
        reading = self._step(
            run.read(self._context(run), self.state.id, self._load(self.state.inputs), self.state.outputs)
        )
        if reading is None:
            self.state = None
            return {"gone"}
        truth, before = dump(reading.inputs), self.state.inputs
        drifted = {
            str(change.path[0]) for change in diff(self.resource.inputs_model(), values.unseal(before), dict(truth))
        }
        self.state = State(self.state.id, truth, reading.outputs, bool(reading.unhealthy))
        return drifted

    def destroy(self) -> None:
        run = self._run()
        for each in [*self.doomed, *([self.state] if self.state is not None else [])]:
            self._step(run.delete(self._context(run), each.id, self._load(each.inputs), 0))
        self.state, self.doomed = None, []

    # -- kills ----------------------------------------------------------------------------------------------

    def calls_of(self, work: Callable[[], object]) -> list[str]:
        """The calls that `work` makes."""
        before = len(self.modal.arrived)
        work()
        return self.modal.arrived[before:]

    def killed(self, call: int, moment: Moment, work: Callable[[], object]) -> None:
        """Runs `work` up to its `call`-th call, where it is killed."""
        self.modal.faults.kill_caller(call, moment)
        try:
            with pytest.raises(Exception):  # noqa: B017 - nobody reads what a dead process says
                work()
            assert self.modal.faults.dead, "it never made that call"
        finally:
            self.modal.faults.clear()

    # -- steps ----------------------------------------------------------------------------------------------

    def _replace(self, run: Lifecycle, asked: dict[str, Any]) -> None:
        assert self.state is not None
        old = self.state
        if self.resource.delete_before_replace:
            self._step(run.delete(self._context(run), old.id, self._load(old.inputs), 0))
            self.state = None
            self.state = self._create(run, asked)
        else:
            made = self._create(run, asked)
            self.doomed.append(old)
            self.state = made

    def _create(self, run: Lifecycle, asked: dict[str, Any]) -> State:
        try:
            made, outputs = self._step(run.create(self._context(run), self._load(asked), 0))
        except InitFailedError as error:
            if not self.modal.faults.dead:
                self.state = State(error.resource_id, asked, error.outputs, failed=True)
            raise
        return State(made, asked, outputs)

    def _update(self, run: Lifecycle, state: State, asked: dict[str, Any]) -> None:
        old = self._load(state.inputs)
        try:
            outputs = self._step(run.update(self._context(run), state.id, old, self._load(asked), state.outputs, 0))
        except InitFailedError as error:
            if not self.modal.faults.dead:
                self.state = State(state.id, asked, error.outputs, failed=True)
            raise
        self.state = State(state.id, asked, outputs)

    def _step(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        done = asyncio.run(awaited())
        if self.modal.faults.dead:
            raise KilledError
        return done

    def _run(self) -> Lifecycle:
        """The plugin of one run: it knows of no other."""
        return Lifecycle(registry.token_of(self.resource), self.resource(), Ownership())

    def _context(self, run: Lifecycle) -> Context:
        return Context(urn=self.urn, name=self.urn.rsplit("::", 1)[-1], owned=run.owned_ids())

    def _checked(self, news: dict[str, Any], olds: dict[str, Any]) -> dict[str, Any]:
        model = self.resource.inputs_model()
        result = check(model, news, olds or None, name=self.urn.rsplit("::", 1)[-1], seed=os.urandom(32))
        assert result.problems == []
        return values.unseal(result.inputs)  # type: ignore[no-any-return]

    def _load(self, inputs: dict[str, Any]) -> Inputs:
        return load(self.resource.inputs_model(), inputs)
