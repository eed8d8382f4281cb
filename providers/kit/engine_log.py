"""Lines for the reader of `pulumi up`: what a resource is doing, while it does it."""

from __future__ import annotations

import grpc

from . import protocol
from .resource import Severity


class EngineLog:
    """Sends lines to the engine; silent when there is none (a plugin started by hand)."""

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._stub: protocol.engine_pb2_grpc.EngineAsyncStub | None = None

    def attach(self, address: str) -> None:
        self._address, self._stub = address, None

    async def say(self, urn: str, message: str, severity: Severity) -> None:
        """A line on a resource: status lines replace each other and vanish at the end."""
        if not self._address:
            return
        if self._stub is None:
            # The channel belongs to the running event loop, so it is opened at first use.
            channel = grpc.aio.insecure_channel(self._address)
            self._stub = protocol.engine_pb2_grpc.EngineStub(channel)  # type: ignore[assignment]
        request = protocol.engine_pb2.LogRequest(
            severity=protocol.engine_pb2.WARNING if severity == "warning" else protocol.engine_pb2.INFO,
            message=message,
            urn=urn,
            streamId=0,
            ephemeral=severity == "status",
        )
        try:
            assert self._stub is not None
            await self._stub.Log(request)
        except grpc.RpcError:
            return  # the engine is gone; what is under way ends by itself
