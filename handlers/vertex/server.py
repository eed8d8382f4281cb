"""The inference container's own server, into which the handler is loaded: its app, its loop, its signals, its log.

| server | module | how its handler is made |
|---|---|---|
| hf_serve (the container with torch 2.7.1 and later) | hf_serve.server | in the main thread, before uvicorn starts |
| huggingface-inference-toolkit (torch 2.3.1) | webservice_starlette | in uvicorn's loop, while the app starts up |
"""

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

App = Callable[..., Awaitable[None]]
MODULES = ("hf_serve.server", "webservice_starlette", "huggingface_inference_toolkit.webservice_starlette")
LOGGERS = ("hf-serve", "huggingface_inference_toolkit")
"""their routes write what a request says into the log, and so do their errors"""


def silence() -> None:
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def find() -> Any:
    """The server's app (Starlette or FastAPI), None when no known server loads the handler."""
    for name in MODULES:
        app = getattr(sys.modules.get(name), "app", None)
        if app is not None:
            return app
    return None


def stand_in_front(app: Any, front: App, started: Callable[[asyncio.AbstractEventLoop], None]) -> None:
    """From now on `front` gets every HTTP request of the server. `started` is called in the loop, once it runs."""
    if app.middleware_stack is None:  # the server has not started: as its outermost layer
        app.add_middleware(Layer, front=front, started=started)
    else:  # it is starting up, in this very thread
        app.middleware_stack = Layer(app.middleware_stack, front=front, started=started)
        started(asyncio.get_running_loop())


class Layer:
    def __init__(self, app: App, front: App, started: Callable[[asyncio.AbstractEventLoop], None]) -> None:
        self.app = app
        self.front = front
        self.started = started

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self.front(scope, receive, send)
            return
        if scope["type"] == "lifespan":
            self.started(asyncio.get_running_loop())
        await self.app(scope, receive, send)


def take_signals(stop: Callable[[int, FrameType | None], None]) -> None:
    """SIGTERM and SIGINT ask the launcher to stop, in the place of uvicorn's handlers: uvicorn would stop listening at
    once, and the router could not see that this server is not ready any more. Only the main thread may do this."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)


class OwnLoop:
    """An event loop in a thread of its own, for a server that is not known."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="loop", daemon=True).start()
