"""All HTTP of the container: in front of what the inference container's own server has, none of which is reachable.

Its routes block the event loop or take one request at a time, log whole payloads, and turn a 429 into a 400 or 500.

| route | what |
|---|---|
| POST to the predict route, /predict, / | `instances` (instances.py), or a body in OpenAI's shape: chat or completion |
| GET the health route, / | 200 when every adapter was probed, else 503: as /ready |
| all else | as handlers/serving has it: /v1/…, /health, /ready, /metrics, /lorafleet/state |
"""

import asyncio
import json
import sys
from typing import Any

from handlers.serving import answers
from handlers.serving.alias import INFERENCE, AliasMiddleware, App, Receive, Scope, Send, replayed
from handlers.vertex import instances
from handlers.vertex.client import ask
from handlers.vertex.instances import InstancesError, Result
from handlers.vertex.settings import Settings

RETRY_AFTER_S = 1
LARGE_BYTES = 256 * 1024
KEPT_HEADERS = (b"authorization", b"x-lorafleet-session", b"x-request-id")
"""of a request with instances, those that each instance's own request gets"""


class Front:
    """`alias` has the engine behind it, which may come later: until then all is `not ready`."""

    def __init__(self, settings: Settings, alias: AliasMiddleware) -> None:
        self.settings = settings
        self.alias = alias
        self.held = 0
        """requests for the engine, at work and waiting"""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if method in ("GET", "HEAD") and path in self.settings.health_routes:
            await self.alias(at(scope, "/ready"), receive, send)
        elif method == "POST" and path in self.settings.predict_routes:
            await self.predict(scope, receive, send)
        else:
            await self.capped(scope, receive, send)

    async def capped(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request more than the engine and the queue take is refused at once, not left to wait for its time-out. The
        launcher's own do not come this way: a probe waits its turn."""
        if scope["path"] not in INFERENCE:
            await self.alias(scope, receive, send)
            return
        if self.held >= self.settings.most_in_flight:
            await answers.error(
                send, 429, "as many requests are waiting as may; try again", "overloaded",
                headers=[(b"retry-after", str(RETRY_AFTER_S).encode())],
            )  # fmt: skip
            return
        # counted before anything is waited for: many may come in one turn of the loop
        self.held += 1
        try:
            await self.alias(scope, receive, send)
        finally:
            self.held -= 1

    async def predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.alias.table.refresh()
        if not self.alias.has_key(scope):  # before the body is read: strangers' bodies are not parsed
            await self.alias(at(scope, instances.CHAT), receive, send)
            return
        raw = await self.alias.read_body(scope, receive, send)
        if raw is None:
            return
        try:
            body: Any = json.loads(raw)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            await answers.error(send, 400, "the body is not a JSON object", "invalid_json")
        elif "instances" not in body:
            await self.raw(scope, raw, body, receive, send)
        else:
            await self.instances(scope, body, receive, send)

    async def raw(self, scope: Scope, raw: bytes, body: dict[str, Any], receive: Receive, send: Send) -> None:
        if "messages" in body or "prompt" in body:
            path = instances.CHAT if "messages" in body else instances.TEXT
            await self.capped(at(scope, path), replayed(raw, receive), send)
            return
        await answers.error(send, 400, "the body needs instances, messages or prompt", "invalid_body")

    async def instances(self, scope: Scope, body: dict[str, Any], receive: Receive, send: Send) -> None:
        try:
            wanted = instances.requests_of(body, str(self.alias.table.document.get("base")))
        except InstancesError as error:
            await answers.error(send, 400, str(error), "invalid_instances")
            return
        kept = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"] if k in KEPT_HEADERS}
        work = asyncio.ensure_future(self.all_of(wanted, kept))
        gone = asyncio.ensure_future(leaving(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return
            results = work.result()
        finally:
            work.cancel()  # a client that went away: each request sees that its client has gone, and frees its slot
            gone.cancel()
        status = instances.status_of(results)
        # many or long answers would hold up the event loop, and with it the health checks
        few = sum(len(result.body) for result in results) <= LARGE_BYTES
        predictions = told(results) if few else await asyncio.to_thread(told, results)
        retry = [(b"retry-after", str(RETRY_AFTER_S).encode())] if status in (429, 503) else []
        await answers.send_json(send, status, {"predictions": predictions}, retry)

    async def all_of(self, wanted: list[tuple[str, dict[str, Any]]], headers: dict[str, str]) -> list[Result]:
        async def one(path: str, request: dict[str, Any]) -> Result:
            try:
                raw = json.dumps(request, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                raw = json.dumps(request).encode()
            try:
                found = await ask(self.capped, "POST", path, raw, {"content-type": "application/json", **headers})
            except Exception as error:  # of the engine; the other instances have nothing to do with it
                sys.stderr.write(f"the engine failed at an instance: {type(error).__name__}\n")
                found = 500, b"", {}
            return Result(*found)

        return list(await asyncio.gather(*(one(path, request) for path, request in wanted)))


def told(results: list[Result]) -> list[dict[str, Any]]:
    return [instances.prediction(result) for result in results]


def at(scope: Scope, path: str) -> Scope:
    return {**scope, "path": path, "raw_path": path.encode()}


async def leaving(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class NotYet:
    """Stands where the engine will be."""

    def __init__(self) -> None:
        self.app: App | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.app is not None:
            await self.app(scope, receive, send)
        else:
            await answers.error(send, 503, "the engine is starting", "not_ready", headers=[(b"retry-after", b"5")])
