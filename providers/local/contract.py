"""Contract cases of the processes on this machine: a stand-in for vLLM, the real HAProxy."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from providers.kit.testing import Case, Place
from providers.kit.values import Sealed

from . import process
from .resources import ModelServer, RouterProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

_BASE = {"name": "base", "source": "file:///nowhere", "digest": f"sha256:{'0' * 64}"}
_STAND_IN = Path(__file__).resolve().parents[2] / "tests" / "support" / "stand_in_server.py"


def cases() -> list[Case]:
    return [
        Case(ModelServer, _server, _server_changes, _kill, _with_python),
        Case(RouterProcess, _router, _router_changes, _kill, _with_target),
    ]


@contextmanager
def _with_python(place: Place) -> Iterator[None]:
    shutil.copy(_STAND_IN, place.folder / "python")
    for store, environment in (("store", "test"), ("store", "other"), ("other", "test"), ("other", "other")):
        file = place.folder / store / "manifests" / f"{environment}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"version": 1, "baseModel": _BASE, "adapters": []}))
    yield


class _Answers(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return None

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()


@contextmanager
def _with_target(place: Place) -> Iterator[None]:
    """A target for the router that is always ready."""
    server = ThreadingHTTPServer(("127.0.0.1", place.port("target")), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _server(place: Place) -> dict[str, Any]:
    return {
        "stateDir": str(place.folder / "state"),
        "port": place.port("api"),
        "python": str(place.folder / "python"),
        "store": f"file://{place.folder / 'store'}",
        "environment": "test",
        "target": "server",
        "baseModel": _BASE,
        "engine": {"maxModelLen": 512},
        "apiKeySha256": [Sealed("5e" * 32)],
    }


def _server_changes(place: Place) -> dict[str, Any]:
    return {
        "port": place.port("another"),
        "engine": {"maxModelLen": 256},
        "baseModel": {**_BASE, "digest": f"sha256:{'2' * 64}"},
        "store": f"file://{place.folder / 'other'}",
        "environment": "other",
        "target": "burst",
        "apiKeySha256": [Sealed("6f" * 32)],
        "stateDir": str(place.folder / "elsewhere"),
        "drainTimeoutS": 3,
        "startTimeoutS": 100,
    }


def _router(place: Place) -> dict[str, Any]:
    return {
        "stateDir": str(place.folder / "state"),
        "port": place.port("api"),
        "metricsPort": place.port("metrics"),
        "clientKeysSha256": [Sealed("5e" * 32)],
        "baseModel": "base",
        "models": [{"name": "base"}, {"name": "a"}],
        "targets": [_target(place, "server")],
    }


def _target(place: Place, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "local",
        "url": f"http://127.0.0.1:{place.port('target')}",
        "models": ["base", "a"],
        "healthPath": "/ready",
        "maxInFlight": 4,
        "maxQueue": 4,
        "key": Sealed("target-key-0123456789"),
    }


def _router_changes(place: Place) -> dict[str, Any]:
    return {
        "metricsPort": place.port("other metrics"),
        "limits": {"maxTokens": 100},
        "models": [{"name": "a"}, {"name": "base"}],
        "port": place.port("another"),
        "targets": [_target(place, "server"), {**_target(place, "burst"), "key": Sealed("another-key-0123456789")}],
        "clientKeysSha256": [Sealed("5e" * 32), Sealed("6f" * 32)],
    }


def _kill(place: Place, run: str) -> None:
    for member in process.members(Path(run)):
        os.kill(member.identity.pid, signal.SIGKILL)
    while process.members(Path(run)):
        pass
