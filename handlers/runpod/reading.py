"""One job's answer, read from the server piece by piece."""

import asyncio
import json
import time
from typing import Any

import aiohttp

from handlers.runpod import errors
from handlers.runpod.calls import RESPONSES, Call
from handlers.runpod.errors import JobError
from handlers.runpod.server import Server
from handlers.runpod.sse import Events

BATCH_S = 0.1
"""Each piece of a stream is one request to RunPod, so a token does not get one of its own."""
MOST_RESULT_BYTES = 10_000_000
"""What RunPod takes as the result of a job of /run. One that it refuses would leave the job without an end."""


class Reading:
    """Made in the task of the job: when that ends, in whatever way, the connection is closed, and vLLM stops working
    on the request.

    RunPod's SDK cancels the task of a job that was cancelled. While it is sending a piece of a stream, that does not
    reach the handler, which is then kept for who knows how long, and would keep the request.
    """

    def __init__(self, server: Server, call: Call) -> None:
        self.server = server
        self.call = call
        self.answer: aiohttp.ClientResponse | None = None
        self.events = Events()
        self.size = 0
        self.next_at = 0.0
        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(self.close)

    def close(self, *_task: object) -> None:
        """Can be called at any time, and again. Does not wait, as a generator that is thrown away must not."""
        if self.answer is not None:
            self.answer.close()

    async def piece(self) -> Any:
        """The whole answer as a dict, or of a stream the text of the next events; None after the last.
        Raises JobError."""
        try:
            if self.answer is None:
                self.answer = await self.server.ask(self.call)
                if self.answer.status >= 400:
                    await self.refused(self.answer.status, await self.answer.read())
                if not self.call.stream:
                    return self.whole(await self.body(self.answer))
            return await self.part(self.answer) if self.call.stream else None
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise await self.lost(error) from None

    async def body(self, answer: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        while chunk := await answer.content.readany():
            body += chunk
            self.take(len(chunk))
        return bytes(body)

    def whole(self, body: bytes) -> dict[str, Any]:
        found = json.loads(body)
        if not isinstance(found, dict):
            raise ValueError("the answer is no JSON object")
        return found

    async def part(self, answer: aiohttp.ClientResponse) -> str | None:
        await asyncio.sleep(self.next_at - time.monotonic())
        while chunk := await answer.content.readany():
            text = self.events.feed(chunk)
            if text:
                self.take(len(json.dumps(text, ensure_ascii=False).encode()))
                self.next_at = time.monotonic() + BATCH_S
                return text
        if self.events.error is not None:
            raise errors.of_answer(500, json.dumps({"error": self.events.error}).encode())
        if not self.events.done and self.call.path != RESPONSES:  # its streams have another end
            raise ValueError("the stream ended early")
        return None

    def take(self, count: int) -> None:
        self.size += count
        if self.size > MOST_RESULT_BYTES:
            raise JobError(
                f"the answer is larger than the {MOST_RESULT_BYTES} bytes that RunPod takes; ask for fewer tokens, "
                "choices (n) or logprobs",
                "answer_too_large",
                status=413,
            )

    async def refused(self, status: int, body: bytes) -> None:
        if status >= 500:
            await self.server.look_now()
        raise errors.of_answer(status, body)

    async def lost(self, error: BaseException) -> JobError:
        """The answer did not come to its end."""
        if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ServerTimeoutError):
            limit_s = self.server.settings.job_timeout_s
            return JobError(f"the job took longer than {limit_s:g} s", "job_timeout", kind="timeout_error", status=504)
        await self.server.look_now()
        what = f"{type(error).__name__}: {error}"[: errors.SHOWN]
        return errors.of_server(f"the worker lost its model server ({what}); send the job again", "server_lost")
