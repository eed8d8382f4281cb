"""Serves the fleet's metrics on a unix socket in runDir, for HAProxy, which has the address for all metrics."""

from __future__ import annotations

import http.server
import os
import socketserver
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from handlers.router.errors import RouterError
from handlers.router.metrics import CONTENT_TYPE
from handlers.router.render import FLEET_SOCKET

_READ_TIMEOUT_S = 5


class Endpoint(socketserver.ThreadingUnixStreamServer):
    """Answers each GET with what `text` gives. Listens from the start; `start` begins to answer."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, run_dir: Path, text: Callable[[], str]) -> None:
        """Raises RouterError when runDir cannot hold the socket."""
        self.text = text
        folder = os.open(run_dir, os.O_PATH)
        try:
            # By the folder's descriptor: a socket's path may have about 100 characters, runDir's may have more.
            path = f"/proc/self/fd/{folder}/{FLEET_SOCKET}"
            super().__init__(path, _Handler)
            Path(path).chmod(0o600)
        except OSError as error:
            raise RouterError(
                f"{run_dir / FLEET_SOCKET} cannot be made: {error.strerror}", "mend runDir's rights or free space"
            ) from None
        finally:
            os.close(folder)

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, name="metrics", daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A reader that hung up is no matter; anything else is, but ends no more than that one answer."""
        error = sys.exception()
        if not isinstance(error, OSError):
            print(f"The fleet's metrics could not be told: {error!r}", file=sys.stderr, flush=True)  # noqa: T201


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = _READ_TIMEOUT_S
    server: Endpoint

    def do_GET(self) -> None:
        # "replace": nothing that a target says may make the whole text impossible to send.
        body = self.server.text().encode(errors="replace")
        self.send_response_only(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Readers come every few seconds; that is nothing for a log."""
