"""The handler that RunPod's SDK calls for each job."""

import asyncio
import sys
import time
import traceback
from collections.abc import AsyncGenerator
from typing import Any

from handlers.runpod import calls
from handlers.runpod.errors import JobError
from handlers.runpod.reading import Reading
from handlers.runpod.server import Server

KEEP_STOPPED_S = 10.0


class Stopped:
    """Jobs that were cancelled before they began."""

    def __init__(self) -> None:
        self.jobs: dict[str, float] = {}

    def add(self, job_id: str) -> None:
        now = time.monotonic()
        self.jobs = {job: at for job, at in self.jobs.items() if now - at < KEEP_STOPPED_S}
        self.jobs[job_id] = now

    def take(self, job_id: str) -> bool:
        """Whether it was, once: a job that is sent again later has the same id."""
        at = self.jobs.pop(job_id, None)
        return at is not None and time.monotonic() - at < KEEP_STOPPED_S


class Jobs:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.stopped = Stopped()

    async def handle(self, job: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """Yields the answer as a dict; of a stream, texts of whole server-sent events; of a failure, one
        `{"error": ...}` (errors.py), by which RunPod marks the job FAILED. Lets nothing but a cancellation out."""
        job_id = str(job.get("id"))
        if self.stopped.take(job_id):
            raise asyncio.CancelledError
        reading: Reading | None = None
        streamed = False
        try:
            reading = Reading(self.server, calls.read(job.get("input")))
            while (piece := await reading.piece()) is not None:
                yield piece
                streamed = isinstance(piece, str)
            return
        except JobError as error:
            failed = error
        except Exception as error:
            traceback.print_exc()  # for the log; a client has no use for it
            what = f"{type(error).__name__} in the worker"
            failed = JobError(what, "worker_error", kind="server_error", status=500)
        finally:
            if reading is not None:
                reading.close()
        sys.stderr.write(f"worker: job {job_id} failed: {failed.error['code']} (HTTP {failed.status})\n")
        sys.stderr.flush()
        if streamed:
            yield failed.event()
        yield failed.result()
