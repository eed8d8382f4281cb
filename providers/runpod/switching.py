"""Starting and stopping a pod."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from providers import kit

from . import answers, api, http
from .http import OutcomeUnknownError, RefusedError

# What a pod was told to do may not show in its state for a while.
_SHOWS_WITHIN_S = 15.0
_LONGEST_PAUSE_S = 5.0  # RunPod allows about one request a second


async def switch(client: api.Api, pod_id: str, *, on: bool) -> None:
    """Has RunPod start or stop a pod, and waits for nothing.

    Raises OutcomeUnknownError where no answer came, else kit.ResourceError with what to do.
    """
    try:
        await client.act_on_pod(pod_id, "start" if on else "stop")
    except RefusedError as refused:
        if not on or refused.status in (401, 403, 429):
            raise
        # The API's description: a stopped pod resumes onto the same host.
        hint = (
            "if the machine that it was on has no free card, delete the pod in RunPod's console: `pulumi refresh` and "
            "`pulumi up` then make one elsewhere"
        )
        raise RefusedError(refused.status, refused.what, next_action=hint) from None


async def switched(
    ctx: kit.Context, client: api.Api, found: answers.Pod, look: Callable[[], Awaitable[answers.Pod]], *, on: bool
) -> answers.Pod:
    """Starts or stops the pod that was found, and waits; the kit ends the wait when the time limit is over."""
    pause = http.FIRST_PAUSE_S
    told: _Told | None = None
    while found.status != ("RUNNING" if on else "EXITED"):
        if not on and found.status == "ERROR":
            break  # it costs nothing and does nothing
        if told is None or not told.may_still_show(found.status):
            if on and told is not None and told.sure and found.status == "ERROR":
                raise kit.ResourceError(
                    f"{found.name} could not be started: RunPod says ERROR",
                    next_action="look at the pod's log in RunPod's console, mend the cause and run `pulumi up` again",
                )
            if not on or found.status in ("EXITED", "ERROR"):
                told = await _tell(client, found, on, told)
        await ctx.status(f"{found.name} to be {'running' if on else 'stopped'}, it is {found.status}")
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_S)
        found = await look()
    return found


@dataclass(frozen=True)
class _Told:
    """A pod was told to start or stop, when it was in the state `was`. sure: RunPod has answered that it will."""

    at: float
    was: str
    sure: bool

    def may_still_show(self, status: str) -> bool:
        """Whether RunPod may not show yet what it was told. Told again, it would refuse what is under way."""
        failed = status == "ERROR" and self.was != "ERROR"
        return self.sure and not failed and time.monotonic() < self.at + _SHOWS_WITHIN_S


async def _tell(client: api.Api, found: answers.Pod, on: bool, before: _Told | None) -> _Told:
    """Where no answer came `before`, a refusal because of what is under way (409) is the answer to that."""
    sure = True
    try:
        await switch(client, found.id, on=on)
    except OutcomeUnknownError:
        sure = False
    except RefusedError as refused:
        if refused.status != 409 or before is None or before.sure:
            raise
    return _Told(time.monotonic(), found.status, sure)
