"""EndpointHandler: what Hugging Face's servers make once, with the model's folder, and call with each request."""

import asyncio
import json
import os
import sys
import threading
from typing import Any

from handlers.serving.errors import ServingError
from handlers.vertex import instances, server, settings
from handlers.vertex.client import LoopClient
from handlers.vertex.instances import InstancesError, Result
from handlers.vertex.launcher import HandlerLauncher

CALL_TIMEOUT_S = 600.0


class EndpointHandler:
    """`model_dir` may hold launch.json (settings.py). The server listens at once; its health route says 503 until the
    model and every adapter are there. A start that fails ends the process with 1, and the log says why.

    With a server of server.py every HTTP request is taken by front.py. `__call__` is for others."""

    def __init__(self, model_dir: str = "", **_: Any) -> None:
        server.silence()
        try:
            found = settings.load(model_dir, os.environ)
            app = server.find()
            if app is None and found.launch.api_key_sha256:
                raise ServingError(
                    "the server that loads the handler is not known, so clients' keys could not be checked",
                    f"use one of {', '.join(server.MODULES)}; or take apiKeySha256 out and let the platform check",
                )
            self.launcher = HandlerLauncher(found)
        except ServingError as error:
            sys.stderr.write(f"error: {error}\n")
            raise
        if app is None:
            self.launcher.loops.put(server.OwnLoop().loop)
        else:
            server.stand_in_front(app, self.launcher.front, self.started)
        threading.Thread(target=self.launcher.run, name="launcher", daemon=True).start()

    def started(self, loop: asyncio.AbstractEventLoop) -> None:
        server.take_signals(self.launcher.on_signal)
        self.loop = loop
        self.launcher.loops.put(loop)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """{"instances": […], "parameters": {…}} to {"predictions": […]}, one after the other (instances.py). For
        threads other than the server's loop. Raises ValueError for what the client did wrong, RuntimeError else."""
        client: LoopClient | None = self.launcher.client
        if client is None or not self.launcher.alias.table.document.get("accepting"):
            raise RuntimeError("the model is not ready yet")
        if not isinstance(data, dict):
            raise ValueError("the body is not a JSON object")
        try:
            wanted = instances.requests_of(data, self.launcher.config.base.name)
        except InstancesError as error:
            raise ValueError(str(error)) from None
        results = [Result(*client.request("POST", path, request, CALL_TIMEOUT_S)) for path, request in wanted]
        predictions = [instances.prediction(result) for result in results]
        status = instances.status_of(results)
        if status != 200:
            message = json.dumps(predictions[0]["error"].get("message", ""), ensure_ascii=False)
            raise ValueError(message) if status < 429 else RuntimeError(message)
        return {"predictions": predictions}
