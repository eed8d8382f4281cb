"""Lines for the reader of `pulumi up`: what a resource is doing, while it does it."""

from __future__ import annotations

import grpc
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc


class EngineLog:
    """Sends lines to the engine; silent when there is none (a plugin started by hand)."""

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._stub: engine_pb2_grpc.EngineAsyncStub | None = None

    def attach(self, address: str) -> None:
        self._address, self._stub = address, None

    async def say(self, urn: str, message: str, *, ephemeral: bool) -> None:
        """A line on a resource: `ephemeral` ones replace each other and vanish at the end."""
        if not self._address:
            return
        if self._stub is None:
            # The channel belongs to the running event loop, so it is opened at first use.
            channel = grpc.aio.insecure_channel(self._address)
            self._stub = engine_pb2_grpc.EngineStub(channel)  # type: ignore[assignment]
        request = engine_pb2.LogRequest(
            severity=engine_pb2.INFO, message=message, urn=urn, streamId=0, ephemeral=ephemeral
        )
        try:
            assert self._stub is not None
            await self._stub.Log(request)
        except grpc.RpcError:
            return  # the engine is gone; what is under way ends by itself
