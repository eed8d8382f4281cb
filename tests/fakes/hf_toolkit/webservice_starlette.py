"""What huggingface-inference-toolkit 0.5.4 does with a handler, as its source says; written anew, not copied.

- The handler is HF_MODEL_DIR/handler.py, made while the app starts up; its folder comes first in the module path.
- With AIP_MODE=PREDICTION there are the two routes that AIP_PREDICT_ROUTE and AIP_HEALTH_ROUTE name, and no others.
- A request runs in a worker thread, one at a time. Bodies without `inputs` or `instances` are refused.
- Every exception, whatever it is, is a 400 with its text, which also goes to the log.

Run as the container does: `uvicorn webservice_starlette:app`, with this folder in the module path.
"""

import asyncio
import importlib.util
import json
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette  # type: ignore[import-not-found, unused-ignore]
from starlette.requests import Request  # type: ignore[import-not-found, unused-ignore]
from starlette.responses import JSONResponse, PlainTextResponse, Response  # type: ignore[import-not-found, unused-ignore]
from starlette.routing import Route  # type: ignore[import-not-found, unused-ignore]

logging.basicConfig(level=logging.INFO)
logger = logging.getLogger("huggingface_inference_toolkit")
one_at_a_time = asyncio.Semaphore(1)
handler: Any = None


@asynccontextmanager
async def starting(_app: Starlette) -> AsyncIterator[None]:
    global handler
    folder = os.environ["HF_MODEL_DIR"]
    spec = importlib.util.spec_from_file_location("handler.EndpointHandler", Path(folder) / "handler.py")
    assert spec is not None and spec.loader is not None
    sys.path.insert(0, folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules["handler.EndpointHandler"] = module
    spec.loader.exec_module(module)
    handler = module.EndpointHandler(folder)
    yield


async def health(_request: Request) -> Response:
    return PlainTextResponse("Ok")


async def predict(request: Request) -> Response:
    try:
        if request.headers.get("content-type") not in ("application/json", "application/json; charset=UTF-8"):
            raise ValueError("Content type not supported")
        body = json.loads(await request.body())
        if "inputs" not in body and "instances" not in body:
            raise ValueError(f"Body needs to provide a inputs key, received: {body}")
        async with one_at_a_time:
            answer = await anyio.to_thread.run_sync(handler, body)
        return JSONResponse(answer)
    except Exception as error:
        logger.error(error)
        return JSONResponse({"error": str(error)}, status_code=400)


if os.environ.get("AIP_MODE") == "PREDICTION":
    routes = [
        Route(os.environ["AIP_HEALTH_ROUTE"], health, methods=["GET"]),
        Route(os.environ["AIP_PREDICT_ROUTE"], predict, methods=["POST"]),
    ]
else:
    routes = [
        Route("/", health, methods=["GET"]),
        Route("/health", health, methods=["GET"]),
        Route("/", predict, methods=["POST"]),
        Route("/predict", predict, methods=["POST"]),
    ]
app = Starlette(routes=routes, lifespan=starting)
