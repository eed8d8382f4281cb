"""Steps that all of Vertex AI's resources take: begin once, wait for long operations, find them again after a kill."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from providers import kit

from . import http, marks
from .answers import Operation
from .api import Api
from .http import OutcomeUnknownError, RefusedError

T = TypeVar("T")

_ALREADY_EXISTS = 6  # of gRPC, as operations say it
_NOT_FOUND = 5
_LONGEST_PAUSE_S = 10.0
# What Vertex AI has just made may not be found for a while.
_SHOWS_WITHIN_S = 60.0
_BEGUN_AT_MOST = 3
_REFUSED_ALONE_AT_MOST = 3


class Pauses:
    """Short ones first, then longer ones."""

    def __init__(self) -> None:
        self._next = http.FIRST_PAUSE_S

    async def pause(self) -> None:
        await asyncio.sleep(self._next)
        self._next = min(self._next * 1.6, _LONGEST_PAUSE_S)


class FailedError(kit.ResourceError):
    """An operation has ended with an error. code: of gRPC."""

    def __init__(self, what: str, *, code: int, next_action: str) -> None:
        super().__init__(what, next_action=next_action)
        self.code = code


async def finished(ctx: kit.Context, client: Api, operation: Operation, what: str) -> Operation:
    """Waits for the end of an operation. Raises FailedError if it failed.

    what: what it does, for the line that is shown meanwhile, such as `the upload`.
    """
    pauses = Pauses()
    while not operation.done:
        await ctx.status(f"{what}{': ' + operation.stage if operation.stage else ''}")
        await pauses.pause()
        found = await client.operation(operation.name)
        if found is None:
            raise kit.ResourceError(
                f"Vertex AI does not know its own operation for {what} any more",
                next_action="run the command again: it looks at what there is before it changes anything",
            )
        operation = found
    if operation.error is not None:
        raise FailedError(
            f"{what} failed: {' '.join(operation.error.message.split())[:600]}",
            code=operation.error.code,
            next_action=_next_after(operation.error.code, what),
        )
    return operation


def _next_after(code: int, what: str) -> str:
    if code == 8:
        return "there is no quota or no free machine of this kind: ask for quota, take another machine or region"
    if code == 9:
        return "wait until what uses it is gone, then run the command again"
    if "deploy" in what:
        return "read the container's log in Cloud Logging (resource.type=aiplatform.googleapis.com/Endpoint)"
    return "mend what Vertex AI complains about and run the command again"


async def begun(
    ctx: kit.Context,
    client: Api,
    begin: Callable[[], Awaitable[Operation]],
    look: Callable[[], Awaitable[bool]],
    of: str,
    what: str,
    *,
    accepted: Callable[[Operation], None] = lambda _: None,
) -> None:
    """Brings something about with a long operation and waits for its end; what is so already is not begun again.

    begin: asks Vertex AI for it. look: whether it is as wanted. of: the name of the thing whose operations tell that it
    is under way. accepted: called when Vertex AI has begun. Where no answer came, it is looked for, then asked for
    again: what is made has an id of our choice, and a second one of the same id is refused.
    """
    before = ctx.made
    for turn in range(1, _BEGUN_AT_MOST + 1):
        await settled(ctx, client, of, what)
        if await look():
            return
        try:
            operation = await when_free(ctx, client, begin, of, what)
            accepted(operation)
            await finished(ctx, client, operation, what)
            return
        except OutcomeUnknownError:
            if turn == _BEGUN_AT_MOST:
                raise
        except (RefusedError, FailedError) as refused:
            # It may be there, or on its way, from a request whose answer got lost.
            if _is_duplicate(refused) and await _appears(ctx, client, look, of, what):
                return
            ctx.made = before  # nothing was made
            raise
        await Pauses().pause()


async def when_free(ctx: kit.Context, client: Api, call: Callable[[], Awaitable[T]], of: str, what: str) -> T:
    """Calls it; where another operation on the same thing is in its way, after that one's end."""
    refused_alone = 0
    pauses = Pauses()
    while True:
        try:
            return await call()
        except RefusedError as refused:
            if refused.reason not in ("FAILED_PRECONDITION", "ABORTED"):
                raise
            under_way = [each for each in await client.operations(of) if not each.done]
            # What was in the way may have ended meanwhile.
            refused_alone += not under_way
            if refused_alone > _REFUSED_ALONE_AT_MOST:
                raise
            await ended(ctx, client, under_way, what)
            await pauses.pause()


def _is_duplicate(refused: RefusedError | FailedError) -> bool:
    if isinstance(refused, RefusedError):
        return refused.reason == "ALREADY_EXISTS" or refused.status == 409
    return refused.code == _ALREADY_EXISTS


async def _appears(ctx: kit.Context, client: Api, look: Callable[[], Awaitable[bool]], of: str, what: str) -> bool:
    deadline, pauses = time.monotonic() + _SHOWS_WITHIN_S, Pauses()
    while time.monotonic() < deadline:
        await settled(ctx, client, of, what)
        if await look():
            return True
        await pauses.pause()
    return False


async def settled(ctx: kit.Context, client: Api, of: str, what: str) -> None:
    """Waits for the operations of a thing that are still under way; how they end shows in the thing."""
    await ended(ctx, client, [each for each in await client.operations(of) if not each.done], what)


async def after_removals(ctx: kit.Context, client: Api, of: str) -> None:
    """Waits for removals that a killed run has begun: until their end, what they remove looks as if it were to stay."""
    operations = await client.operations(of)
    under_way = [each for each in operations if not each.done and each.kind in ("Delete", "UndeployModel")]
    await ended(ctx, client, under_way, "a removal")


async def ended(ctx: kit.Context, client: Api, operations: Sequence[Operation], what: str) -> None:
    """Waits for operations that an earlier run, or another resource of this one, has begun."""
    for operation in operations:
        await ctx.status(f"{what}: waiting for an operation that is under way")
        try:
            await finished(ctx, client, operation, what)
        except FailedError:
            continue  # what begins it anew will say why


async def shown(ctx: kit.Context, get: Callable[[], Awaitable[T | None]], name: str) -> T:
    """Waits until Vertex AI finds what it has just made."""
    deadline, pauses = time.monotonic() + _SHOWS_WITHIN_S, Pauses()
    while True:
        found = await get()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise kit.ResourceError(
                f"Vertex AI made {name}, but does not find it after {_SHOWS_WITHIN_S:g} s",
                next_action="run `pulumi refresh`, which tells whether it is there, then `pulumi up`",
            )
        await ctx.status(f"{name} to be found by Vertex AI, which made it")
        await pauses.pause()


async def removed(
    ctx: kit.Context,
    client: Api,
    begin: Callable[[], Awaitable[Operation | None]],
    look: Callable[[], Awaitable[bool]],
    of: str,
    what: str,
) -> None:
    """Begins a removal and waits for its end; no error if there is nothing to remove. As `begun`."""
    for turn in range(1, _BEGUN_AT_MOST + 1):
        await settled(ctx, client, of, what)
        if not await look():
            return
        try:
            operation = await when_free(ctx, client, begin, of, what)
            if operation is not None:
                await finished(ctx, client, operation, what)
            return
        except OutcomeUnknownError:
            if turn == _BEGUN_AT_MOST:
                raise
        except (RefusedError, FailedError) as refused:
            if _is_gone(refused):
                return
            raise
        await Pauses().pause()


def _is_gone(refused: RefusedError | FailedError) -> bool:
    return refused.status == 404 if isinstance(refused, RefusedError) else refused.code == _NOT_FOUND


async def looked_up(
    ctx: kit.Context, get: Callable[[], Awaitable[T | None]], listed: Callable[[], Awaitable[Sequence[str]]], name: str
) -> T | None:
    """What has this name, or None if it is gone: what was made just now may not be found yet, but it is listed."""
    found = await get()
    if found is None and any(marks.last(each) == marks.last(name) for each in await listed()):
        return await shown(ctx, get, name)
    return found


def is_free(ctx: kit.Context, name: str) -> bool:
    """Whether no state owns it, by whichever name of its project."""
    return marks.last(name) not in {marks.last(each) for each in ctx.owned}


async def remove_leftovers(ctx: kit.Context, names: Sequence[str], delete: Callable[[str], Awaitable[None]]) -> None:
    """Removes what an earlier, killed run left and what cannot be taken over."""
    for name in names:
        await ctx.info(f"removing {name}, left over from an earlier run")
        try:
            await delete(name)
        except kit.ResourceError as error:
            await ctx.warn(f"{name} was left over from an earlier run and stays: {error.what}")


def gone(name: str) -> kit.ResourceError:
    return kit.ResourceError(
        f"{name} is gone: somebody deleted it", next_action="run `pulumi refresh`, then `pulumi up`"
    )
