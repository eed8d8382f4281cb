"""ASGI middleware inside vLLM (--middleware): the only way in.

- Public model names become the immutable names under which vLLM knows the adapters, those of the canary for its share;
  the answer's header `x-lorafleet-adapter` says which version it was (table.py). Looking the name up and counting the
  request happen in one step of the event loop, so a switch to a new version and the end of the last request on the old
  one cannot miss each other.
- Clients show a key (Bearer) everywhere but at /health, /ready and /ping; keys are compared by their SHA-256.
- Everything that is not in ROUTES below is answered with 404, whatever vLLM offers. Loading and unloading adapters, and
  any request before the server is ready, need the launcher's own token.

What the names stand for is in the routes file (routes.py), whose path is in the environment variable LORAFLEET_ROUTES.
"""

import hashlib
import hmac
import json
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from handlers.serving import answers
from handlers.serving.routes import ADMIN_HEADER, ROUTES_VARIABLE
from handlers.serving.table import SESSION_HEADER, RouteTable, StatusFile, Target

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

INFERENCE = {"/v1/chat/completions", "/v1/completions", "/v1/responses"}
ADMIN = {"/v1/load_lora_adapter", "/v1/unload_lora_adapter"}
READ = {"/v1/models", "/metrics", "/lorafleet/state"}
RETRY_AFTER_S = 5
STARTING = {"launching", "loading", "probing"}  # phases before `ready` in which this answers


class AliasMiddleware:
    def __init__(self, app: App) -> None:
        self.app = app
        self.table = RouteTable(Path(os.environ[ROUTES_VARIABLE]))
        self.in_flight: dict[str, int] = {}
        self.done: dict[str, int] = {}
        self.status = StatusFile()
        self.created = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            self.table.refresh()
            await self.http(scope, receive, send)
        else:  # a websocket: nothing here needs one
            await send({"type": "websocket.close", "code": 1008})

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        table = self.table.document
        reads = method in ("GET", "HEAD")
        if path == "/health" and reads:
            await self.app(scope, receive, send)
        elif path == "/ready" and reads:
            await self.ready(scope, receive, send)
        elif path == "/ping" and reads:
            await self.ping(scope, receive, send)
        elif not known(path, method):
            await answers.error(send, 404, f"there is no {method} {path} here", "not_found")
        elif self.is_launcher(scope):
            await (self.infer(scope, receive, send) if path in INFERENCE else self.launcher(scope, receive, send))
        elif path in ADMIN:
            await answers.error(send, 404, f"there is no {method} {path} here", "not_found")
        elif not self.has_key(scope):
            await answers.error(
                send, 401, "a valid API key is needed: Authorization: Bearer KEY", "invalid_api_key",
                headers=[(b"www-authenticate", b"Bearer")],
            )  # fmt: skip
        elif path in INFERENCE and not table.get("accepting"):
            await self.not_ready(send)
        elif path in INFERENCE:
            await self.infer(scope, receive, send)
        elif path == "/metrics":
            await self.app(scope, receive, send)
        else:
            await self.read(path, send)

    async def ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        """200 when the launcher found every adapter well and the engine is alive now."""
        if not self.table.document.get("ready"):
            await self.not_ready(send)
            return
        await self.app({**scope, "path": "/health", "raw_path": b"/health"}, receive, send)

    async def ping(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What RunPod's balancer asks: as `ready`, but a server that is still starting says 204, not a failure."""
        table = self.table.document
        state = self.status.read(table.get("stateFile"))
        if isinstance(state, dict) and state.get("phase") in STARTING:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self.ready(scope, receive, send)

    async def not_ready(self, send: Send) -> None:
        await answers.error(
            send, 503, "the server is not ready (starting, or about to stop); try again", "not_ready",
            headers=[(b"retry-after", str(RETRY_AFTER_S).encode())],
        )  # fmt: skip

    async def launcher(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in ADMIN or scope["path"] == "/metrics":
            await self.app(scope, receive, send)
        else:
            await self.read(scope["path"], send)

    async def read(self, path: str, send: Send) -> None:
        table = self.table.document
        if path == "/lorafleet/state":
            status = self.status.read(table.get("stateFile"))
            document = {"inFlight": self.in_flight, "done": self.done, "status": status}
            await answers.send_json(send, 200, document)
            return
        models = answers.models(table, self.created)
        if path == "/v1/models":
            await answers.send_json(send, 200, {"object": "list", "data": models})
            return
        name = path.removeprefix("/v1/models/")
        for model in models:
            if model["id"] == name:
                await answers.send_json(send, 200, model)
                return
        await self.unknown_model(name, send)

    async def unknown_model(self, name: object, send: Send) -> None:
        known_names = ", ".join(model["id"] for model in answers.models(self.table.document, 0))
        shown = str(name)[:100]
        await answers.error(
            send, 404, f"the model {shown!r} is not served here; there are {known_names}", "model_not_found", "model"
        )

    async def infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await self.read_body(scope, receive, send)
        if body is None:
            return
        try:
            document = json.loads(body)
            asked = document["model"]
        except (ValueError, RecursionError):
            await answers.error(send, 400, "the body is not JSON", "invalid_json")
            return
        except (LookupError, TypeError):
            await answers.error(send, 400, "the body needs a field model", "missing_model", "model")
            return
        if document.get("prompt_logprobs") is not None or (
            document.get("echo") and document.get("logprobs") is not None
        ):
            # On the CPU path with adapters, such a request in a batch ends the engine (vLLM 0.32, see probe.py).
            await answers.error(send, 400, "log-probabilities of the prompt are not available here", "unsupported")
            return
        # the file may have changed while the body came in
        self.table.refresh()
        target = self.table.choose(asked, session_of(scope)) if isinstance(asked, str) else None
        if target is None and isinstance(asked, str) and self.is_launcher(scope):
            # the launcher probes adapters that have no public name yet; vLLM itself says 404 for one that is not loaded
            target = Target(asked, asked.encode("latin-1", "replace"))
        if target is None:
            await self.unknown_model(asked, send)
            return
        name = target.served_name
        if name != asked:
            document["model"] = name
            try:
                body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
            except UnicodeEncodeError:  # half a surrogate pair: escaped, as it came
                body = json.dumps(document).encode()
            headers = [(key, value) for key, value in scope["headers"] if key != b"content-length"]
            scope = {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
        self.in_flight[name] = self.in_flight.get(name, 0) + 1
        try:
            await self.app(scope, replayed(body, receive), tagged(target.header, send))
        finally:
            self.finished(name)

    def finished(self, name: str) -> None:
        left = self.in_flight[name] - 1
        if left:
            self.in_flight[name] = left
        else:
            del self.in_flight[name]
        self.done[name] = self.done.get(name, 0) + 1
        while len(self.done) > 256:  # names come and go with every new version of an adapter
            del self.done[next(iter(self.done))]

    async def read_body(self, scope: Scope, receive: Receive, send: Send) -> bytes | None:
        """The whole body, or None when it was refused (and answered) or the client went away."""
        limit = int(self.table.document.get("maxBodyBytes", 0))
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        size = int(announced) if announced.isdigit() else 0
        parts: list[bytes] = []
        received, more = 0, size <= limit
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return None
            parts.append(message.get("body", b""))
            received += len(parts[-1])
            more = bool(message.get("more_body")) and received <= limit
        if max(size, received) > limit:
            # the rest of the body is not read; so the connection cannot be used again
            await answers.error(
                send,
                413,
                f"the body is larger than {limit} bytes",
                "body_too_large",
                headers=[(b"connection", b"close")],
            )
            return None
        return b"".join(parts)

    def is_launcher(self, scope: Scope) -> bool:
        token = dict(scope["headers"]).get(ADMIN_HEADER.encode())
        wanted = self.table.document.get("adminSha256")
        return token is not None and isinstance(wanted, str) and same_digest(token, wanted)

    def has_key(self, scope: Scope) -> bool:
        keys = self.table.document.get("apiKeySha256")
        if keys is None:
            return False  # no table was read yet: rather closed than open
        if not keys:
            return True
        scheme, _, key = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        # every key is compared, so that the time says nothing about which one was near
        matches = [same_digest(key.strip(), wanted) for wanted in keys]
        return scheme.lower() == b"bearer" and any(matches)


def session_of(scope: Scope) -> bytes | None:
    """The header that keeps a user or a conversation on one version; an empty one is none."""
    for name, value in scope["headers"]:
        if name == SESSION_HEADER:
            return bytes(value) or None
    return None


def known(path: str, method: str) -> bool:
    if method == "POST":
        return path in INFERENCE or path in ADMIN
    return method in ("GET", "HEAD") and (path in READ or path.startswith("/v1/models/"))


def same_digest(secret: bytes, wanted_sha256: str) -> bool:
    return hmac.compare_digest(hashlib.sha256(secret).hexdigest(), wanted_sha256)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once, then what really comes (the client's leaving)."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def tagged(header: bytes, send: Send) -> Send:
    async def with_header(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", []), (b"x-lorafleet-adapter", header)]
            message = {**message, "headers": headers}
        await send(message)

    return with_header
