"""The order in which a resource's methods are called, so that a run may be killed at any moment.

A killed run can leave something on the platform that no state knows. So a create first looks for things that
carry its mark and takes one over. It must never take what the state owns: when a resource is replaced, the
engine will delete the old one later in the same run. What the state owns shows in the requests of the run
(diff, read, update, delete name the id); such ids are left alone. What cannot be seen that way is a resource
whose replacement was forced (`pulumi up --replace`) and is not read first. Should it be taken over, the delete
that follows in the same run is not carried out, so one thing exists at the end; only a run that is killed between
the two leaves a pending delete of what is in use. Resources that are deleted before they are replaced never get there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from . import fields, values
from .check import PartlyKnown, dump
from .errors import NotKnownYetError, ResourceError
from .fields import Inputs, Outputs
from .resource import Context, Reading, Resource

T = TypeVar("T")
AnyResource = Resource[Any, Any]


@dataclass
class Ownership:
    """What this run of the plugin has seen. Ids are unique within a resource type."""

    by_state: set[tuple[str, str]] = field(default_factory=set)
    taken_over: set[tuple[str, str]] = field(default_factory=set)


class InitFailedError(Exception):
    """The resource exists but does not work: the state keeps it, and the next `up` goes on from there."""

    def __init__(self, resource_id: str, outputs: Outputs, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.resource_id, self.outputs, self.reasons = resource_id, outputs, reasons


class Lifecycle:
    """Calls one resource type's methods."""

    def __init__(self, token: str, resource: AnyResource, ownership: Ownership) -> None:
        self.token, self.resource, self._ownership = token, resource, ownership

    def owned(self, resource_id: str) -> None:
        """The state names this id."""
        if resource_id:
            self._ownership.by_state.add((self.token, resource_id))

    def owned_ids(self) -> frozenset[str]:
        """The ids of this resource type that the state is known to own."""
        return frozenset(owned for token, owned in self._ownership.by_state if token == self.token)

    async def create(self, ctx: Context, inputs: Inputs, timeout_s: float) -> tuple[str, Outputs]:
        """Takes over what a killed run left, or makes it.

        Raises InitFailedError: something exists but is not as it should be. ResourceError: nothing was made.
        """
        return await self._guarded(ctx, self._take_over_or_create(ctx, inputs), timeout_s or self._limit(inputs))

    async def _take_over_or_create(self, ctx: Context, inputs: Inputs) -> tuple[str, Outputs]:
        found = await self.resource.find(ctx, inputs)
        free = sorted(
            (item for item in found if (self.token, item.id) not in self._ownership.by_state),
            key=lambda item: item.newest,
        )
        for extra in free[:-1]:
            await ctx.info(f"removing {extra.id}, left over from an earlier run")
            await self.resource.delete(ctx, extra.id, None)
        if free:
            kept = free[-1].id
            reading = await self.resource.read(ctx, kept, None, None)
            if reading is not None:
                await ctx.info(f"taking over {kept}, left over from an earlier run")
                self._ownership.taken_over.add((self.token, kept))
                self.owned(kept)
                ctx.exists(kept, reading.outputs)
                return kept, await self.resource.update(ctx, kept, None, inputs)
            await self.resource.delete(ctx, kept, None)
        created_id, outputs = await self.resource.create(ctx, inputs)
        self.owned(created_id)
        return created_id, outputs

    async def update(
        self,
        ctx: Context,
        resource_id: str,
        old: Inputs,
        inputs: Inputs,
        last: Outputs | None,
        timeout_s: float,
    ) -> Outputs:
        """Changes or mends it; a failure keeps what is known (`last`: the outputs in the state)."""
        self.owned(resource_id)
        if last is not None:
            ctx.exists(resource_id, last)
        work = self.resource.update(ctx, resource_id, old, inputs)
        return await self._guarded(ctx, work, timeout_s or self._limit(inputs))

    async def read(
        self, ctx: Context, resource_id: str, inputs: Inputs | None, outputs: Outputs | None
    ) -> Reading[Any, Any] | None:
        reading = await self.resource.read(ctx, resource_id, inputs, outputs)
        if reading is not None and inputs is not None:
            self.owned(resource_id)
            # A name made in check belongs to the state: a thing that was taken over keeps an older one.
            kept = {
                name: getattr(inputs, name)
                for name, info in type(inputs).model_fields.items()
                if fields.has(info, fields.auto_name)
            }
            reading = Reading(reading.inputs.model_copy(update=kept), reading.outputs, reading.unhealthy)
        return reading

    async def delete(self, ctx: Context, resource_id: str, inputs: Inputs | None, timeout_s: float) -> None:
        if (self.token, resource_id) in self._ownership.taken_over:
            # The state held it twice: as what was to be replaced and, since this run, as what replaces it.
            await ctx.info(f"{resource_id} is kept: it was taken over in this run")
            return
        self.owned(resource_id)
        work = self.resource.delete(ctx, resource_id, inputs)
        await self._guarded(ctx, work, timeout_s or self._limit(inputs))

    def preview(self, checked: dict[str, Any]) -> dict[str, Any]:
        """Every declared output: known where it follows from inputs that are known, else unknown."""
        inputs: Any = PartlyKnown(self.resource.inputs_model(), checked)
        follows = self.resource.preview()
        outputs: dict[str, Any] = {}
        for name, info in self.resource.outputs_model().model_fields.items():
            value: Any = values.UNKNOWN
            if name in follows:
                with contextlib.suppress(NotKnownYetError):
                    value = follows[name](inputs)
            outputs[info.alias or name] = values.seal(value) if fields.has(info, fields.secret) else value
        secrets = values.secret_texts(checked)
        return {**checked, **{key: values.seal_echoes(value, secrets) for key, value in outputs.items()}}

    def _limit(self, inputs: Inputs | None) -> float:
        return self.resource.time_limit_s(inputs)

    async def _guarded(self, ctx: Context, work: Awaitable[T], limit_s: float) -> T:
        try:
            async with asyncio.timeout(limit_s) as limit:
                return await work
        except TimeoutError as error:
            if not limit.expired():
                raise self._failure(ctx, error) from error
            waiting = f" while waiting for: {ctx.waiting_for}" if ctx.waiting_for else ""
            reason = ResourceError(
                f"took longer than {limit_s:g} s{waiting}",
                next_action="run the command again to go on, or raise the time limit (custom_timeouts)",
            )
            raise self._failure(ctx, reason) from error
        except asyncio.CancelledError:
            waiting = f" while waiting for: {ctx.waiting_for}" if ctx.waiting_for else ""
            reason = ResourceError(f"was cancelled{waiting}", next_action="run the command again to go on")
            raise self._failure(ctx, reason) from None
        except Exception as error:
            raise self._failure(ctx, error) from error

    @staticmethod
    def _failure(ctx: Context, error: Exception) -> Exception:
        if ctx.made is None:
            return error
        resource_id, outputs = ctx.made
        return InitFailedError(resource_id, outputs, [describe(error)])


def describe(error: BaseException) -> str:
    """One clear message; an error that is not the kit's own says its kind, never a traceback."""
    if isinstance(error, ResourceError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}\n  next: put that right on this machine and run the command again"
    return (
        f"{type(error).__name__}: {error}\n"
        "  next: this is a fault of the provider; report it with the command that led here"
    )


def state_of(inputs: dict[str, Any], outputs: Outputs, secrets: set[str]) -> dict[str, Any]:
    """The properties kept in the state: inputs and outputs, with everything marked that is or shows a secret."""
    shown = dump(outputs)
    # A declared output without a value is kept as null: a program that reads it must not wait for it.
    absent = {fields.alias(type(outputs), name): None for name in type(outputs).model_fields}
    sealed = values.reseal(shown, fields.secret_paths(type(outputs), shown))
    marked = {
        key: value if isinstance(value, values.Sealed) else values.seal_echoes(value, secrets)
        for key, value in sealed.items()
    }
    return {**inputs, **absent, **marked}
