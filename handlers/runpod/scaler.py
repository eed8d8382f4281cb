"""What RunPod's SDK (1.12) lacks for a worker of many jobs: no pause between them, no delay and no lost job at the end.

The SDK's JobScaler asks RunPod for jobs and for cancellations with requests that RunPod holds open, for up to 90 s.
After SIGTERM it waits for both, and starts no job any more that comes in this time. Here they end at once, and what
came before is done. With as many jobs at work as it may have, it looks once a second whether there is room again; here
ten times.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any, TypeVar

import aiohttp

from handlers.runpod.jobs import Jobs
from handlers.runpod.server import Server

T = TypeVar("T")
PAUSE_S = 0.5
ROOM_EVERY_S = 0.1


def install(rp_scale: ModuleType, jobs: Jobs, server: Server) -> None:
    """Puts the class below in the place of the SDK's; `rp_scale` is runpod.serverless.modules.rp_scale."""
    base: Any = rp_scale.JobScaler

    class Scaler(base):  # type: ignore[misc]
        def __init__(self, config: dict[str, Any]) -> None:
            super().__init__(config)
            self.take_jobs: Callable[..., Awaitable[list[dict[str, Any]] | None]] = rp_scale.get_job
            self.take_stops: Callable[..., Awaitable[list[str]]] = rp_scale.get_stop_signals
            self.jobs_fetcher = self.take
            self.stop_signals_fetcher = self.stops
            self.loop: asyncio.AbstractEventLoop | None = None
            self.ending = asyncio.Event()
            self.taking = False
            """whether jobs may be on their way from `take` to the SDK's queue"""

        async def run(self) -> None:
            self.loop = asyncio.get_running_loop()
            server.watch()
            try:
                await super().run()
            finally:
                await server.close()

        def kill_worker(self) -> None:
            super().kill_worker()
            if self.loop is not None:  # it is called by a signal handler, too
                self.loop.call_soon_threadsafe(self.ending.set)

        def is_alive(self) -> bool:
            return self.taking or not self._shutdown_event.is_set()

        async def set_scale(self) -> None:
            await super().set_scale()
            # The SDK counts a job twice until it has left its queue for a task, which takes a tenth of a second.
            while self.current_occupancy() >= self.current_concurrency and not self.ending.is_set():  # noqa: ASYNC110
                await asyncio.sleep(ROOM_EVERY_S)

        async def take(self, session: aiohttp.ClientSession, number: int = 1) -> list[dict[str, Any]] | None:
            self.taking = not self._shutdown_event.is_set()
            if not self.taking:
                return None
            if not server.ready:
                await asyncio.sleep(PAUSE_S)
                return None
            return await self.unless_ending(self.take_jobs(session, number))

        async def stops(self, session: aiohttp.ClientSession) -> list[str]:
            try:
                found = await self.unless_ending(self.take_stops(session)) or []
            except aiohttp.ClientResponseError as error:
                if error.status not in (404, 405):
                    raise
                # Asking again would be a line in the log each second.
                await self.ending.wait()
                return []
            for job_id in found:
                if job_id not in self.jobs_tasks:
                    jobs.stopped.add(job_id)
            return found

        async def unless_ending(self, asked: Awaitable[T]) -> T | None:
            """What is asked for, or None as soon as the worker is to end."""
            answer = asyncio.ensure_future(asked)
            ending = asyncio.ensure_future(self.ending.wait())
            try:
                await asyncio.wait({answer, ending}, return_when=asyncio.FIRST_COMPLETED)
                return answer.result() if answer.done() else None
            finally:
                answer.cancel()
                ending.cancel()

    rp_scale.JobScaler = Scaler  # type: ignore[attr-defined]


def end_this_worker() -> None:
    """As RunPod asks for it: no more jobs, those at work are finished."""
    signal.raise_signal(signal.SIGTERM)
