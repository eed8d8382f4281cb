"""`python -m handlers.runpod.worker`: RunPod's SDK and the handler.

Started by supervisor.py, which says over standard input what to serve. Further arguments are the SDK's own
(--rp_serve_api, --rp_api_port N).
"""

import asyncio
import importlib
import os
import sys
from typing import Any

from handlers.runpod import scaler, settings, tied
from handlers.runpod.jobs import Jobs
from handlers.runpod.server import NotReadyError, Server

# Before the SDK is imported. Its log would show every prompt and every token at its own default, DEBUG. Its checks of
# memory, disk and network would end a worker that does what it is for: the server has been asked real questions.
DEFAULTS = {"RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true", "RUNPOD_SKIP_GPU_CHECK": "true"}
LOG_LEVELS = ("RUNPOD_LOG_LEVEL", "RUNPOD_DEBUG_LEVEL")


def main() -> int:
    os.register_at_fork(after_in_child=tied.to_parent)  # the SDK's process that pings RunPod
    told = settings.read(sys.stdin.readline())
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if not any(os.environ.get(name) for name in LOG_LEVELS):
        os.environ[LOG_LEVELS[0]] = "INFO"
    config: dict[str, Any] = {}
    server = Server(told, on_broken=lambda: give_up(config))
    jobs = Jobs(server)
    sdk: Any = importlib.import_module("runpod.serverless")
    scaler.install(importlib.import_module("runpod.serverless.modules.rp_scale"), jobs, server)

    async def server_is_ready() -> None:
        await server.wait_until_ready()

    if "--rp_serve_api" in sys.argv:  # the SDK makes its checks only where jobs come from RunPod
        try:
            asyncio.run(server_is_ready())
        except NotReadyError as error:
            sys.stderr.write(f"error: {error}\n")
            return 1
    else:
        # A check that fails is told to RunPod with its reason, then the SDK ends this process.
        sdk.register_fitness_check(server_is_ready)
    config.update(
        handler=jobs.handle,
        concurrency_modifier=lambda _current: told.concurrency,
        return_aggregate_stream=True,  # else only /stream has the results, which are gone when they were asked for once
    )
    sdk.start(config)
    return 1 if server.broken else 0


def give_up(config: dict[str, Any]) -> None:
    """The SDK adds to the next results that RunPod shall stop this worker, and takes no more jobs."""
    config["refresh_worker"] = True
    scaler.end_this_worker()


if __name__ == "__main__":
    sys.exit(main())
