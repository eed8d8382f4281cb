"""The plugin process: prints its port, serves, and ends when its engine does."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import grpc

from .engine_log import EngineLog
from .protocol import provider_pb2_grpc
from .service import ProviderService

# Adapters and models are named in requests, never sent: 64 MiB is far above any request.
_OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


def main(version: str, argv: list[str], engine_pid: int) -> int:
    """Serves the engine whose address is the first argument; returns the exit status."""
    asyncio.run(_serve(version, next((arg for arg in argv if not arg.startswith("-")), None), engine_pid))
    return 0


async def _serve(version: str, engine_address: str | None, engine_pid: int) -> None:
    server = grpc.aio.server(options=_OPTIONS)
    service = ProviderService(version, EngineLog(engine_address))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    watcher = asyncio.create_task(_watch_parent(engine_pid, ended))
    await ended.wait()
    watcher.cancel()
    # The engine says so when all is done, or is gone. Nobody waits for an answer, but a preview waits for this
    # process: taking gRPC and the interpreter apart in good order would cost it 50 ms.
    os._exit(0)


async def _watch_parent(parent: int, ended: asyncio.Event) -> None:
    """The engine starts plugins in process groups of their own: one that was killed leaves them behind."""
    while os.getppid() == parent:  # noqa: ASYNC110 - nothing tells a process that its parent is gone
        await asyncio.sleep(0.5)
    ended.set()
