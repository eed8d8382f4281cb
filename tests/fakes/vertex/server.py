"""The stand-in as an HTTP server of this machine."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.fakes.runpod.faults import Fault, Faults

from . import discovery
from .cloud import Cloud
from .refusal import RefusedError


class _BrokenError(Exception):
    """The connection is to be cut."""


@dataclass
class Fake:
    """A running stand-in.

    requests: (method, path, body) of all requests so far; violations: where a request or an answer was not as the
    discovery document says, which a test must find empty.
    """

    url: str
    token: str
    cloud: Cloud = field(default_factory=Cloud)
    faults: Faults = field(default_factory=Faults)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def changes(self) -> list[tuple[str, str]]:
        """(method, path) of all requests that change something."""
        return [(method, path) for method, path, _ in self.requests if method != "GET"]

    def handle(self, method: str, target: str, token: str, raw: bytes) -> tuple[int, dict[str, str], Any, Fault | None]:
        """(status, headers, JSON, the fault if the request has one)"""
        parts = urlsplit(target)
        path, query = unquote(parts.path), dict(parse_qsl(parts.query))
        headers: dict[str, str] = {}
        described = discovery.find(method, path)
        fault = None
        try:
            if token != f"Bearer {self.token}":
                raise RefusedError("UNAUTHENTICATED", "Request had invalid authentication credentials.")
            body = json.loads(raw) if raw else None
            with self.lock:
                self.requests.append((method, path, body))
            if described is None:
                self.violations.append(f"{method} {path}: there is no such method")
                raise RefusedError("NOT_FOUND", "no such method")
            faults = discovery.request_faults(described, query, body, has_body=bool(raw))
            if faults:
                self.violations += [f"{method} {path}: {each}" for each in faults]
                raise RefusedError("INVALID_ARGUMENT", "Invalid JSON payload received.", violations=faults)
            fault = self.faults.next(method, path)
            status, answer = self._carried_out(fault, method, path, query, raw, headers)
            if described.response is not None and status < 300:
                found = discovery.body_faults(described.version, described.response, answer)
                self.violations += [f"{method} {path} answers: {each}" for each in found]
        except RefusedError as refused:
            status, answer = refused.status, refused.document()
        return status, headers, answer, fault

    def _carried_out(
        self, fault: Fault | None, method: str, path: str, query: dict[str, str], raw: bytes, headers: dict[str, str]
    ) -> tuple[int, Any]:
        kind = fault.kind if fault else ""
        if fault and kind == "delay":
            time.sleep(fault.seconds)
        if fault and kind == "error before":
            raise RefusedError("UNAVAILABLE", "told to fail before the effect", status=fault.status)
        if kind == "reset before":
            raise _BrokenError
        if fault and kind == "rate limit":
            headers["Retry-After"] = f"{fault.seconds:.0f}"
            raise RefusedError("RESOURCE_EXHAUSTED", "Quota exceeded for quota metric: told to be over the limit")
        if fault and kind == "call before":
            fault.hook()
        done = self.cloud.answer(method, path, query, raw, half="half" in kind)
        if kind == "reset after":
            raise _BrokenError
        if fault and kind in ("error after", "half done"):
            raise RefusedError("UNAVAILABLE", "told to fail after the effect", status=fault.status)
        if fault and kind == "call after":
            fault.hook()
        return done


@contextmanager
def running(port: int, token: str) -> Iterator[Fake]:
    """Serves a new, empty project on 127.0.0.1 while the context lasts."""
    fake = Fake(f"http://127.0.0.1:{port}", token)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return None

        def _handle(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            try:
                status, headers, answer, fault = fake.handle(
                    self.command, self.path, self.headers.get("authorization", ""), raw
                )
                text = json.dumps(answer, ensure_ascii=False).encode()
                self.send_response(status)
                full = {**headers, "content-type": "application/json; charset=UTF-8", "content-length": str(len(text))}
                for key, value in full.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(text)
                self.wfile.flush()
                if fault and fault.kind == "call answered":
                    fault.hook()
            except _BrokenError:
                # A reset, not an orderly end.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                self.connection.close()
            except OSError:
                self.close_connection = True  # who asked is gone

        do_GET = do_POST = do_PATCH = do_DELETE = _handle  # noqa: N815 - the base class asks for these names

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    # The end of a test waits for the loop's next look.
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
