"""Serves the stand-in over gRPC, in a thread of the test's own process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpclib.const
import grpclib.server
from grpclib import GRPCError, Status
from grpclib.encoding.proto import ProtoCodec
from modal_proto import api_grpc

from .cloud import Cloud, Named
from .faults import Faults
from .rpcs import Rpcs

_STATUS = {
    "unavailable": (Status.UNAVAILABLE, "the service is not available"),
    "denied": (Status.PERMISSION_DENIED, "this token may not do that"),
    "exhausted": (Status.RESOURCE_EXHAUSTED, "Workspace quota exceeded"),
}
# An answer that the SDK does not wait on and try again. Nobody reads it: the caller is dead.
_KILLED = GRPCError(Status.PERMISSION_DENIED, "the caller was killed")


@dataclass
class FakeModal:
    """A running stand-in.

    `calls()` are the names of the calls whose work was done, in their order, `arrived` those of all that came.
    """

    token: tuple[str, str]
    url: str = ""
    cloud: Cloud = field(default_factory=Cloud)
    faults: Faults = field(default_factory=Faults)
    arrived: list[str] = field(default_factory=list)
    dedupes: bool = True
    """Whether a call that is sent again with its idempotency key is answered as before, and not done again."""

    def calls(self, *ignored: str) -> list[str]:
        return [name for name, _ in self.cloud.calls if name not in ignored]

    def put_secret(self, environment: str, name: str, **content: str) -> None:
        """A secret that somebody made by hand."""
        with self.cloud.lock:
            self.cloud.secrets[environment, name] = Named(self.cloud.new_id("st"), name, time.time(), content)

    def put_volume(self, environment: str, name: str) -> None:
        """A volume that somebody made by hand."""
        with self.cloud.lock:
            self.cloud.volumes[environment, name] = Named(self.cloud.new_id("vo"), name, time.time())

    def environ(self) -> dict[str, str]:
        """The variables that lead the provider here."""
        return {
            "MODAL_SERVER_URL": self.url,
            "MODAL_TOKEN_ID": self.token[0],
            "MODAL_TOKEN_SECRET": self.token[1],
            # Nothing of the user's own ~/.modal.toml.
            "MODAL_CONFIG_PATH": "/nonexistent/modal.toml",
        }


class _Service:
    """All calls of the protocol, as grpclib asks for them."""

    def __init__(self, fake: FakeModal) -> None:
        self._fake, self._rpcs = fake, Rpcs(fake.cloud)
        self._answers: dict[str, Any] = {}
        declared: dict[str, grpclib.const.Handler] = _unwritten().__mapping__()
        self._handlers = {
            path: each._replace(func=self._handler(path.rsplit("/", 1)[1], each.reply_type))
            for path, each in declared.items()
        }

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        return self._handlers

    def _handler(self, name: str, reply: type[Any]) -> Callable[[Any], Coroutine[Any, Any, None]]:
        async def handle(stream: Any) -> None:
            faults = self._fake.faults
            request = await stream.recv_message()
            given = (stream.metadata.get("x-modal-token-id"), stream.metadata.get("x-modal-token-secret"))
            if given != self._fake.token:
                raise GRPCError(Status.UNAUTHENTICATED, "Token validation failed: the token ID or secret is invalid.")
            if (gate := faults.gate) is not None and gate.reached.is_set():
                await _wait(gate)
            if name != "AppHeartbeat":  # which comes when it likes
                self._fake.arrived.append(name)
            await asyncio.sleep(faults.delay_s)
            if (held := faults.take(name, "hold_before")) is not None:
                await _wait(held)
            if (refused := faults.take(name, *_STATUS)) is not None:
                raise GRPCError(*_STATUS[refused.kind])
            if faults.take(name, "reset_before") is not None:
                stream._stream._transport.abort()
                return
            moment = faults.life() if name != "AppHeartbeat" else None
            if moment == "before":
                raise _KILLED
            answer = self._answer(name, request, str(stream.metadata.get("x-idempotency-key", "")))
            if moment == "after":
                raise _KILLED
            if faults.take(name, "reset_after") is not None:
                stream._stream._transport.abort()
                return
            if (held := faults.take(name, "hold_after")) is not None:
                await _wait(held)
            for message in answer if isinstance(answer, list) else [answer if answer is not None else reply()]:
                await stream.send_message(message)
                if faults.take(name, "reset_half") is not None:
                    stream._stream._transport.abort()
                    return
            if (held := faults.take(name, "hold_answered")) is not None:
                held.reached.set()

        return handle

    def _answer(self, name: str, request: Any, key: str) -> Any:
        work = getattr(self._rpcs, name, None)
        if work is None:
            raise GRPCError(Status.UNIMPLEMENTED, f"the stand-in has no {name}")
        if self._fake.dedupes and key and key in self._answers:
            return self._answers[key]
        with self._fake.cloud.lock:
            answer = work(request)
            self._fake.cloud.calls.append((name, request))
        self._answers[key] = answer
        return answer


def _unwritten() -> Any:
    """An instance without behaviour, to read the protocol's mapping from."""
    every: Any = type("Every", (api_grpc.ModalClientBase,), {})
    every.__abstractmethods__ = frozenset()
    return every()


async def _wait(held: Any) -> None:
    held.reached.set()
    while not held.release.is_set():  # noqa: ASYNC110 - it is set from another thread
        await asyncio.sleep(0.01)


@contextmanager
def serving(token_id: str = "ak-for-tests-0123", token_secret: str = "as-for-tests-4567") -> Iterator[FakeModal]:
    """A new, empty Modal on a free port of 127.0.0.1, while the context lasts."""
    fake = FakeModal((token_id, token_secret))
    loop = asyncio.new_event_loop()

    async def start() -> grpclib.server.Server:
        # With a codec named, grpclib does not import google.rpc, whose messages Pulumi's own would clash with.
        server = grpclib.server.Server([_Service(fake)], codec=ProtoCodec())
        await server.start("127.0.0.1", 0)
        return server

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    server: Any = asyncio.run_coroutine_threadsafe(start(), loop).result(60)
    fake.url = f"http://127.0.0.1:{server._server.sockets[0].getsockname()[1]}"
    try:
        yield fake
    finally:
        fake.faults.clear()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
