"""The launcher's requests to the engine in its own process: HTTP's words, without a connection."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from handlers.serving.client import EngineClient
from handlers.serving.routes import ADMIN_HEADER

App = Callable[..., Awaitable[None]]


class LoopClient(EngineClient):
    """Calls `app` (ASGI) on `loop`, from any thread but the loop's own."""

    def __init__(self, app: App, loop: asyncio.AbstractEventLoop, token: str) -> None:
        super().__init__("127.0.0.1", 0, token)
        self.app = app
        self.loop = loop

    def request(
        self, method: str, path: str, document: Any = None, timeout_s: float = 120
    ) -> tuple[int, bytes, dict[str, str]]:
        body = b"" if document is None else json.dumps(document).encode()
        headers = {ADMIN_HEADER: self.token, "content-type": "application/json"}
        future = asyncio.run_coroutine_threadsafe(ask(self.app, method, path, body, headers), self.loop)
        try:
            return future.result(timeout_s)
        except FutureTimeout:
            future.cancel()
            raise TimeoutError(f"no answer within {timeout_s:g} s") from None
        except OSError:
            raise
        except Exception as error:  # of the app
            raise OSError(f"{type(error).__name__}: {error}") from None


async def ask(
    app: App, method: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, bytes, dict[str, str]]:
    """One request to an ASGI app; status, whole body and headers of the answer. Cancelled, the app sees it as a client
    that went away."""
    fixed = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"",
        "headers": [(b"host", b"in-process"), *fixed, (b"content-length", str(len(body)).encode())],
        "client": None, "server": ("127.0.0.1", 0), "state": {},
    }  # fmt: skip
    given = False
    ended = asyncio.Event()
    status, answered, parts = 0, {}, []

    async def receive() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            await ended.wait()
            return {"type": "http.disconnect"}
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status, answered
        if message["type"] == "http.response.start":
            status = message["status"]
            answered = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in message.get("headers", [])}
        elif message["type"] == "http.response.body":
            parts.append(bytes(message.get("body", b"")))
            if not message.get("more_body"):
                ended.set()

    await app(scope, receive, send)
    return status, b"".join(parts), answered
