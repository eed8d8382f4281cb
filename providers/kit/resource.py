"""A provider resource: two pydantic models and a few methods; everything else is the kit's.

    class Endpoint(kit.Resource[Endpoint.Inputs, Endpoint.Outputs]) ...

Only `create`, `read` and `delete` must be written. What a method may rely on:
- its inputs are valid, complete and plain (secrets included); nothing is unknown;
- `create` is called only after `find` showed that no killed run left something to take over;
- an exception ends in one clear message; what `ctx.exists` recorded before it stays in the state;
- it is cancelled when its time is up or the engine asks for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar, cast, get_args, get_origin

from .errors import Problem
from .fields import Inputs, Outputs

Severity = Literal["status", "info", "warning"]
I = TypeVar("I", bound=Inputs)  # noqa: E741
O = TypeVar("O", bound=Outputs)  # noqa: E741


@dataclass(frozen=True)
class Reading(Generic[I, O]):
    """The truth about a resource.

    inputs: what the platform has now, in the form of inputs (for drift and import).
    unhealthy: why it does not work, one sentence each; the next `pulumi up` calls `update` to mend it.
    """

    inputs: I
    outputs: O
    unhealthy: tuple[str, ...] = ()


@dataclass(frozen=True)
class Leftover:
    """Something on the platform that carries this resource's mark.

    newest: sorts leftovers; the last one is taken over, the others are deleted.
    """

    id: str
    newest: float = 0.0


@dataclass
class Context:
    """One call. `name` may change under an alias; the `urn` is what a mark on the platform names."""

    urn: str
    name: str
    owned: frozenset[str] = frozenset()
    """Ids of this resource type that the state is known to own, from what this run has seen so far."""
    say: Callable[[str, Severity], Awaitable[None]] | None = None
    waiting_for: str = ""
    made: tuple[str, Outputs] | None = field(default=None)

    async def status(self, message: str) -> None:
        """Shows what is being waited for; the line is replaced by the next one."""
        if message == self.waiting_for:
            return
        self.waiting_for = message
        if self.say is not None:
            await self.say(message, "status")

    async def info(self, message: str) -> None:
        """A line that stays in the output of `pulumi up`."""
        if self.say is not None:
            await self.say(message, "info")

    async def warn(self, message: str) -> None:
        """A warning that stays in the output."""
        if self.say is not None:
            await self.say(message, "warning")

    def exists(self, resource_id: str, outputs: Outputs) -> None:
        """From here on something exists: whatever fails now, the state keeps this id and these outputs."""
        self.made = (resource_id, outputs)


class Resource(ABC, Generic[I, O]):
    """Base of all provider resources. One instance serves all resources of its type; it holds no state."""

    reads_at_diff: ClassVar[bool] = False
    """Read the truth at each diff, so that a preview sees what died meanwhile, without a refresh. For cheap reads.

    (The protocol has `refresh_before_update` for this; it makes the engine start a second plugin, before the program.)
    """
    delete_before_replace: ClassVar[bool] = False
    """The old one must go before the new one can be made (it holds a port, a name)."""

    @classmethod
    def inputs_model(cls) -> type[I]:
        return cast(type[I], cls._model(0))

    @classmethod
    def outputs_model(cls) -> type[O]:
        return cast(type[O], cls._model(1))

    @classmethod
    def _model(cls, index: int) -> Any:
        for base in getattr(cls, "__orig_bases__", ()):
            origin = get_origin(base)
            if isinstance(origin, type) and issubclass(origin, Resource):
                return get_args(base)[index]
        raise TypeError(f"{cls.__name__} must derive from kit.Resource[ItsInputs, ItsOutputs]")

    def reads_before_diff(self, inputs: I) -> bool:
        """Whether the truth about this one is read at each diff; where it is not `reads_at_diff` for all of them."""
        return self.reads_at_diff

    def time_limit_s(self, inputs: I | None) -> float:
        """Time limit of a create, update or delete in seconds, unless the program sets `custom_timeouts`."""
        return 600.0

    async def problems(self, ctx: Context, inputs: I, old: I | None) -> AsyncIterator[Problem]:
        """Faults that only this machine or the platform can tell (a port taken, a quota). Must not change anything.

        Called at preview and before create and update, once no input is wrong. At preview, reading an input that
        is still unknown ends the method; what it needs none of those for comes first.
        """
        return
        yield  # makes this method a generator

    async def find(self, ctx: Context, inputs: I) -> Sequence[Leftover]:
        """What carries the mark of `ctx.urn` on the platform. The kit leaves alone what the state owns."""
        return ()

    def preview(self) -> Mapping[str, Callable[[I], Any]]:
        """Outputs (Python names) that follow from the inputs, each with how: known before anything is made.

        One that does not follow this time raises NotKnownYetError.
        """
        return {}

    @abstractmethod
    async def create(self, ctx: Context, inputs: I) -> tuple[str, O]:
        """Makes it and returns its id and outputs. Calls `ctx.exists` as soon as something exists."""

    @abstractmethod
    async def read(self, ctx: Context, resource_id: str, inputs: I | None, outputs: O | None) -> Reading[I, O] | None:
        """The truth, or None if it is gone. `inputs` and `outputs` are the state's, None at import."""

    async def update(self, ctx: Context, resource_id: str, old: I | None, inputs: I) -> O:
        """Changes it in place; also mends what `read` called unhealthy. `old` is None for a leftover taken over.

        A resource whose inputs all need a replacement has none.
        """
        raise NotImplementedError

    @abstractmethod
    async def delete(self, ctx: Context, resource_id: str, inputs: I | None) -> None:
        """Removes it; no error if it is gone already."""
