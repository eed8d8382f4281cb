"""Steps that all of RunPod's resources take: make once, wait until it is found, bring to what is wanted, clean up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from providers import kit

from . import http, marks
from .api import Named
from .http import OutcomeUnknownError

N = TypeVar("N", bound=Named)

# What RunPod has just made may not be found for a while.
_SHOWS_WITHIN_S = 60.0
_SOUGHT_FOR_S = 15.0
_CHANGES_TRIED = 5


async def create_once(
    make: Callable[[], Awaitable[N]], listed: Callable[[], Awaitable[list[N]]], name: str, urn: str
) -> N:
    """Makes something, and never a second one: where no answer came, looks for it by its unique name."""
    try:
        return await make()
    except OutcomeUnknownError as unknown:
        deadline = time.monotonic() + _SOUGHT_FOR_S
        pause = http.FIRST_PAUSE_S
        while True:
            found = [each for each in await listed() if marks.is_named(each.name, name, urn)]
            if found:
                return found[0]
            if time.monotonic() > deadline:
                raise unknown
            await asyncio.sleep(pause)
            pause = min(pause * 2, 3.0)


async def shown(ctx: kit.Context, get: Callable[[str], Awaitable[N | None]], resource_id: str) -> N:
    """Waits until RunPod finds what it has just made."""
    deadline = time.monotonic() + _SHOWS_WITHIN_S
    pause = http.FIRST_PAUSE_S
    while True:
        found = await get(resource_id)
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise kit.ResourceError(
                f"RunPod made {resource_id}, but does not find it after {_SHOWS_WITHIN_S:g} s",
                next_action="run `pulumi refresh`, which tells whether it is there, then `pulumi up`",
            )
        await ctx.status(f"{resource_id} to be found by RunPod, which made it")
        await asyncio.sleep(pause)
        pause = min(pause * 2, 3.0)


async def looked_up(
    get: Callable[[str], Awaitable[N | None]], listed: Callable[[], Awaitable[list[N]]], resource_id: str
) -> N | None:
    """What has this id, or None if it is gone: one that is asked for by id too soon is not found, yet it is listed."""
    return await get(resource_id) or next((each for each in await listed() if each.id == resource_id), None)


async def deleted(
    delete: Callable[[str], Awaitable[bool]], listed: Callable[[], Awaitable[Sequence[Named]]], resource_id: str
) -> None:
    """Deletes; no error if it is gone already. What was made just now may not be found yet: then it is still listed."""
    deadline = time.monotonic() + _SHOWS_WITHIN_S
    pause = http.FIRST_PAUSE_S
    while not await delete(resource_id):
        if all(each.id != resource_id for each in await listed()):
            return
        if time.monotonic() > deadline:
            raise kit.ResourceError(
                f"RunPod lists {resource_id}, but does not find it when it is to be deleted",
                next_action="run the command again, or delete it in RunPod's console",
            )
        await asyncio.sleep(pause)
        pause = min(pause * 2, 3.0)


async def remove_leftovers(ctx: kit.Context, marked: Sequence[Named], delete: Callable[[str], Awaitable[None]]) -> None:
    """Removes what an earlier, killed run left and what cannot be taken over; what the state owns stays."""
    for each in marked:
        if each.id in ctx.owned:
            continue
        await ctx.info(f"removing {each.id}, left over from an earlier run")
        try:
            await delete(each.id)
        except kit.ResourceError as error:
            await ctx.warn(f"{each.id} was left over from an earlier run and stays: {error.what}")


async def brought_to(
    look: Callable[[], Awaitable[N]],
    differing: Callable[[N], dict[str, Any]],
    change: Callable[[dict[str, Any]], Awaitable[N]],
) -> N:
    """Changes what differs, and nothing else, until nothing does.

    differing: the body of a PATCH, empty when all is as wanted. What it says is absolute, so it may be said again where
    no answer came or only a part of it was done.
    """
    found = await look()
    pause = http.FIRST_PAUSE_S
    for _ in range(_CHANGES_TRIED):
        body = differing(found)
        if not body:
            return found
        try:
            # The answer has the new settings, which a look right after it may not have yet.
            found = await change(body)
            if not differing(found):
                return found
        except OutcomeUnknownError:
            pass  # looking tells
        await asyncio.sleep(pause)
        pause = min(pause * 2, 3.0)
        found = await look()
    body = differing(found)
    if not body:
        return found
    raise kit.ResourceError(
        f"RunPod took the change of {found.id}, but still has another {', '.join(body)}",
        next_action="look in RunPod's console for what it says of these settings, then run the command again",
    )


def gone(resource_id: str) -> kit.ResourceError:
    return kit.ResourceError(
        f"{resource_id} is gone: somebody deleted it", next_action="run `pulumi refresh`, then `pulumi up`"
    )
