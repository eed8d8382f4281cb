"""The engine peft as an ASGI app with those of vLLM's routes that handlers/serving uses: alias.py and the launcher's
follower work with either."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from handlers.serving import answers
from handlers.serving.errors import ServingError
from handlers.vertex import asked as asking
from handlers.vertex.asked import Asked, RefusedError
from handlers.vertex.batcher import Batcher
from handlers.vertex.jobs import End, Job, Token
from handlers.vertex.mixed_model import Adapter, MixedModel, Tokens
from handlers.vertex.shapes import Reply

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
LONG_TEXT = 4096
"""characters; turning more into tokens would hold up the event loop, and with it the health checks"""
FEW_TOKENS = 64
"""turned into text in one turn of the event loop"""
FEW_MESSAGES = 256
"""put into the chat template at once; it takes 5 microseconds for each"""
COMPLETION_TOKENS = 16
"""what /v1/completions gives where nothing is asked for, as OpenAI and vLLM do"""


class PeftApp:
    def __init__(
        self, base: str, model: MixedModel, tokens: Tokens, batcher: Batcher, max_model_len: int, max_tokens: int
    ) -> None:
        self.base = base
        self.model = model
        self.tokens = tokens
        self.batcher = batcher
        self.max_model_len = max_model_len
        self.max_tokens = max_tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        try:
            if path == "/health":
                await send_text(send, 200 if self.batcher.dead is None else 503, b"")
            elif path == "/metrics":
                await send_text(send, 200, self.metrics().encode())
            elif path in ("/v1/chat/completions", "/v1/completions"):
                await self.infer(path.endswith("/chat/completions"), receive, send)
            elif path == "/v1/load_lora_adapter":
                await self.load(asking.parse(await body_of(receive)), send)
            elif path == "/v1/unload_lora_adapter":
                await self.unload(asking.parse(await body_of(receive)), send)
            else:
                raise RefusedError(f"there is no {path} with this engine", status=404, code="not_found")
        except RefusedError as error:
            await answers.error(send, error.status, error.message, error.code, error.param)
        except ServingError as error:
            await answers.error(send, 400, error.what, error.reason or "failed")

    def metrics(self) -> str:
        rows = {
            "lorafleet_requests_running": ("gauge", len(self.batcher.rows)),
            "lorafleet_requests_waiting": ("gauge", len(self.batcher.waiting)),
            "lorafleet_generated_tokens_total": ("counter", self.batcher.made),
        }
        return "".join(f"# TYPE {name} {kind}\n{name} {value}\n" for name, (kind, value) in rows.items())

    async def load(self, body: dict[str, Any], send: Send) -> None:
        name, folder = str(body.get("lora_name")), Path(str(body.get("lora_path")))
        adapter = await asyncio.to_thread(Adapter, name, folder)
        await asyncio.wrap_future(self.batcher.call(lambda: self.model.load(name, adapter)))
        await answers.send_json(send, 200, f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(self, body: dict[str, Any], send: Send) -> None:
        name = str(body.get("lora_name"))
        if not await asyncio.wrap_future(self.batcher.call(lambda: self.model.unload(name))):
            raise RefusedError(f"{name} is not loaded", "lora_name", 404, "not_found")
        await answers.send_json(send, 200, f"Success: LoRA adapter '{name}' removed successfully.")

    async def infer(self, chat: bool, receive: Receive, send: Send) -> None:
        body = asking.parse(await body_of(receive))
        asked = asking.read(body, chat)
        adapter = None if asked.model == self.base else asked.model
        if adapter is not None and adapter not in self.model.slots:
            raise RefusedError(f"the model {asked.model[:100]!r} is not there", "model", 404, "model_not_found")
        prompt = await self.prompt(body, chat)
        running = Running(self, asked, adapter, prompt, self.room(asked, prompt, chat))
        reply = Reply(self.tokens.tokenizer, asked, chat, len(prompt), f"{uuid.uuid4().hex}", int(time.time()))
        self.batcher.submit(running.job)
        gone = asyncio.ensure_future(left(receive))
        work = asyncio.ensure_future(stream(reply, running, send) if asked.stream else whole(reply, running, send))
        try:
            await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            running.job.cancelled.set()
            gone.cancel()
            work.cancel()

    async def prompt(self, body: dict[str, Any], chat: bool) -> list[int]:
        """The prompt's tokens."""
        if chat:
            messages = asking.messages(body)
            text: Any
            render: Callable[[], str] = lambda: self.tokens.tokenizer.apply_chat_template(  # noqa: E731
                messages, tokenize=False, add_generation_prompt=True
            )
            try:
                text = render() if len(messages) <= FEW_MESSAGES else await asyncio.to_thread(render)
            except Exception as error:  # the template's own
                raise RefusedError(
                    f"the messages do not fit the chat template: {str(error)[:200]}", "messages"
                ) from None
        else:
            given = body.get("prompt")
            if isinstance(given, list):
                return self.given_tokens(given)
            text = given
        if not isinstance(text, str):
            raise RefusedError("prompt is a text, or a list of token numbers", "prompt")
        call: Callable[[], list[int]] = lambda: self.tokens.tokenizer(text, add_special_tokens=not chat)["input_ids"]  # noqa: E731
        found = call() if len(text) <= LONG_TEXT else await asyncio.to_thread(call)
        if not found:
            raise RefusedError("the prompt is empty", "prompt")
        return found

    def given_tokens(self, given: list[Any]) -> list[int]:
        vocabulary = len(self.tokens.tokenizer)
        if not given or not all(isinstance(t, int) and not isinstance(t, bool) and 0 <= t < vocabulary for t in given):
            raise RefusedError(
                f"prompt is a text, or a list of token numbers below {vocabulary}; one prompt for each request",
                "prompt",
            )
        return given

    def room(self, asked: Asked, prompt: Sequence[int], chat: bool) -> int:
        """How many tokens the answer may have."""
        room = self.max_model_len - len(prompt)
        wanted = asked.sampling.max_tokens
        if room < 1 or wanted > room:
            raise RefusedError(
                f"this model's context holds {self.max_model_len} tokens; the prompt has {len(prompt)}"
                + (f" and max_tokens asks for {wanted}" if wanted else ""),
                "messages" if chat else "prompt",
                code="context_length_exceeded",
            )
        if wanted > self.max_tokens:
            raise RefusedError(f"max_tokens is {wanted}; here an answer has at most {self.max_tokens}", "max_tokens")
        return wanted or min(room, self.max_tokens if chat else COMPLETION_TOKENS)


class Running:
    """A job, and its tokens as they come to the event loop."""

    def __init__(self, app: PeftApp, asked: Asked, adapter: str | None, prompt: list[int], max_tokens: int) -> None:
        loop = asyncio.get_running_loop()
        self.items: asyncio.Queue[Token | End] = asyncio.Queue()
        self.made: list[Token] = []
        # Only who wants each token at once is woken for each: the others would cost the event loop as much.
        at_once = asked.stream or bool(asked.stops)

        def deliver(item: Token | End) -> None:
            if isinstance(item, Token) and not at_once:
                self.made.append(item)
            else:
                loop.call_soon_threadsafe(self.items.put_nowait, item)

        sampling = replace(asked.sampling, max_tokens=max_tokens)
        self.job = Job(adapter, prompt, sampling, deliver)

    async def results(self) -> AsyncIterator[Token | End]:
        while True:
            item = await self.items.get()
            if isinstance(item, End):
                for number, token in enumerate(self.made, 1):
                    yield token
                    if not number % FEW_TOKENS:
                        await asyncio.sleep(0)
            yield item
            if isinstance(item, End):
                return


async def whole(reply: Reply, running: Running, send: Send) -> None:
    async for item in running.results():
        if isinstance(item, Token):
            reply.add(item)
            if reply.stopped:
                break
        elif item.error is not None:
            await answers.error(send, 500, f"the engine failed: {item.error}", "engine_failed")
            return
        else:
            reply.finish(item.reason)
    if reply.asked.sampling.logprobs is None:
        await answers.send_json(send, 200, reply.document())
    else:  # 20 log-probabilities for each of 4096 tokens take a second
        await answers.send_json(send, 200, await asyncio.to_thread(reply.document))


async def stream(reply: Reply, running: Running, send: Send) -> None:
    """Server-sent events. The status is sent with the first token, so what fails before has its own status."""
    begun = False

    async def event(document: Any) -> None:
        nonlocal begun
        if not begun:
            headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            begun = True
            for first in reply.opening():
                await event(first)
        line = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False)
        await send({"type": "http.response.body", "body": f"data: {line}\n\n".encode(), "more_body": True})

    async for item in running.results():
        if isinstance(item, Token):
            chunk = reply.add(item)
            if chunk is not None:
                await event(chunk)
            if reply.stopped:
                break
        elif item.error is not None:
            message = f"the engine failed: {item.error}"
            if not begun:
                await answers.error(send, 500, message, "engine_failed")
                return
            await event({"error": {"message": message, "type": "server_error", "param": None, "code": "engine_failed"}})
            break
        else:
            reply.finish(item.reason)
    if reply.finished:
        for chunk in reply.closing():
            await event(chunk)
    await event("[DONE]")
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def body_of(receive: Receive) -> bytes:
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise RefusedError("the client went away", status=499, code="gone")
        parts.append(message.get("body", b""))
        more = bool(message.get("more_body"))
    return b"".join(parts)


async def left(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_text(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
