"""The server beside the worker, as the worker sees it: is it ready, and one connection for each job."""

import asyncio
import sys
import time
from collections.abc import Callable

import aiohttp

from handlers.runpod.calls import Call
from handlers.runpod.settings import Settings, failure, state_of

LOOK_EVERY_S = 1.0
LOOK_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 10.0
BROKEN_AFTER_S = 10.0
"""not ready for as long, once it was: another worker had better take over"""
GRACE_S = 30.0
"""that the server has to say by itself that its start took too long"""


class NotReadyError(Exception):
    """The server did not come up. The text says why and what to do."""


class Server:
    """`ready` is what its /ready said last. `on_broken` is called once, when it is not ready any more for good."""

    def __init__(self, settings: Settings, on_broken: Callable[[], None]) -> None:
        self.settings = settings
        self.on_broken = on_broken
        self.ready = False
        self.broken: str | None = None
        self.session: aiohttp.ClientSession | None = None
        self.watching: asyncio.Task[None] | None = None

    async def wait_until_ready(self) -> None:
        """Raises NotReadyError with the server's own reason when it fails, or when its time is over."""
        limit_s = self.settings.start_timeout_s + GRACE_S
        end = time.monotonic() + limit_s
        async with self.client() as session:
            while not await self.look(session):
                reason = failure(state_of(self.settings.state_file))
                if reason is not None:
                    raise NotReadyError(f"the server did not start: {reason}")
                if time.monotonic() > end:
                    raise NotReadyError(
                        f"the server was not ready within {limit_s:g} s\n  next: see its lines in this log; on a slow "
                        "machine raise startTimeoutS in the launch file"
                    )
                await asyncio.sleep(0.5)
        self.ready = True

    async def ask(self, call: Call) -> aiohttp.ClientResponse:
        """The server's answer to one call, to be closed. Raises aiohttp.ClientError, and TimeoutError when the job's
        time is over, which it also does later, while the answer is read."""
        headers = {"authorization": f"Bearer {self.settings.key}", "content-type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=self.settings.job_timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        return await self.shared().request(
            call.method, self.settings.url + call.path, data=call.body, headers=headers, timeout=timeout
        )

    async def look(self, session: aiohttp.ClientSession) -> bool:
        try:
            timeout = aiohttp.ClientTimeout(total=LOOK_TIMEOUT_S)
            async with session.get(f"{self.settings.url}/ready", timeout=timeout) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def look_now(self) -> bool:
        """Looks again after a job failed for no fault of its own; a server that is not ready then is broken."""
        self.ready = await self.look(self.shared())
        if not self.ready:
            self.give_up("it failed a job and is not ready any more")
        return self.ready

    def watch(self) -> None:
        """Looks regularly from now on. Called in the loop that runs the jobs."""
        if self.watching is None:
            self.watching = asyncio.get_running_loop().create_task(self.keep_looking())

    async def keep_looking(self) -> None:
        seen = time.monotonic()
        while self.broken is None:
            self.ready = await self.look(self.shared())
            failed = None if self.ready else failure(state_of(self.settings.state_file))
            if self.ready:
                seen = time.monotonic()
            elif failed is not None:
                self.give_up(failed)
            elif time.monotonic() - seen > BROKEN_AFTER_S:
                self.give_up(f"it was not ready for {BROKEN_AFTER_S:g} s")
            await asyncio.sleep(LOOK_EVERY_S)

    def give_up(self, why: str) -> None:
        if self.broken is None:
            self.broken = why
            sys.stderr.write(f"worker: the server is broken ({why}); this worker takes no more jobs and ends\n")
            sys.stderr.flush()
            self.on_broken()

    async def close(self) -> None:
        if self.watching is not None:
            self.watching.cancel()
        if self.session is not None:
            await self.session.close()

    def shared(self) -> aiohttp.ClientSession:
        """Made at the first use, as it belongs to the loop that runs then."""
        if self.session is None:
            self.session = self.client()
        return self.session

    def client(self) -> aiohttp.ClientSession:
        # One connection for each request: a kept one may be closed by the server just when the next is sent.
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
