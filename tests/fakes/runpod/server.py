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
from urllib.parse import unquote, urlsplit

from . import openapi
from .cloud import Cloud
from .faults import Fault, Faults
from .refusal import RefusedError


class _BrokenError(Exception):
    """The connection is to be cut."""


@dataclass
class Window:
    """A quota of requests within a time, as RunPod's RateLimit headers tell it."""

    requests: int = 100_000
    seconds: int = 60
    _begun: float = field(default_factory=time.monotonic)
    _used: int = 0

    def use(self) -> tuple[int, int, bool]:
        """(requests left, seconds until it begins anew, whether this one is still allowed)"""
        now = time.monotonic()
        if now - self._begun >= self.seconds:
            self._begun, self._used = now, 0
        allowed = self._used < self.requests
        self._used += allowed
        # Rounded up: who waits that long finds a new window.
        return self.requests - self._used, int(self._begun + self.seconds - now) + 1, allowed


@dataclass
class Fake:
    """A running stand-in.

    requests: (method, path, body) of all requests so far; violations: where a request or an answer was not as the
    OpenAPI description says, which a test must find empty.
    """

    url: str
    token: str
    cloud: Cloud = field(default_factory=Cloud)
    faults: Faults = field(default_factory=Faults)
    window: Window = field(default_factory=Window)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    over_quota: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def changes(self) -> list[tuple[str, str]]:
        """(method, path) of all requests that change something."""
        return [(method, path) for method, path, _ in self.requests if method != "GET"]

    def handle(self, method: str, path: str, token: str, raw: bytes) -> tuple[int, dict[str, str], Any, Fault | None]:
        """(status, headers, JSON or None, the fault if the request has one)"""
        headers: dict[str, str] = {}
        body = json.loads(raw) if raw else None
        described = openapi.operation(method, path)
        fault = None
        try:
            if token != f"Bearer {self.token}":
                raise RefusedError(401, "invalid bearer token" if token else "missing bearer token")
            with self.lock:
                left, reset, allowed = self.window.use()
                self.over_quota += not allowed
                self.requests.append((method, path, body))
            headers["RateLimit"] = f'"minute";r={left};t={reset}'
            headers["RateLimit-Policy"] = f'"minute";q={self.window.requests};w={self.window.seconds}'
            if not allowed:
                headers["Retry-After"] = str(reset)
                raise RefusedError(429, "rate limit exceeded for the minute window")
            if described is None:
                self.violations.append(f"{method} {path}: there is no such operation")
                raise RefusedError(404, "no such path")
            faults = openapi.request_faults(described, body, has_body=bool(raw))
            if faults:
                self.violations += [f"{method} {path}: {each}" for each in faults]
                raise RefusedError(422, "Request validation failed.", faults)
            fault = self.faults.next(method, path)
            status, answer = self._carried_out(fault, method, path, body, headers)
        except RefusedError as refused:
            status, answer = refused.status, refused.document()
        if described is not None and status < 500:
            media_type = "application/json" if status < 300 else "application/problem+json"
            found = openapi.answer_faults(described, status, media_type, answer)
            self.violations += [f"{method} {path} answers {status}: {each}" for each in found]
        return status, headers, answer, fault

    def _carried_out(
        self, fault: Fault | None, method: str, path: str, body: Any, headers: dict[str, str]
    ) -> tuple[int, Any]:
        kind = fault.kind if fault else ""
        if fault and kind == "delay":
            time.sleep(fault.seconds)
        if fault and kind == "error before":
            raise RefusedError(fault.status, "told to fail before the effect")
        if kind == "reset before":
            raise _BrokenError
        if fault and kind == "rate limit":
            headers["Retry-After"] = f"{fault.seconds:.0f}"
            raise RefusedError(429, "told to be over the limit")
        if fault and kind == "call before":
            fault.hook()
        done = self.cloud.answer(method, path, body, half="half" in kind)
        if kind == "reset after":
            raise _BrokenError
        if fault and kind in ("error after", "half done"):
            raise RefusedError(fault.status, "told to fail after the effect")
        if fault and kind == "call after":
            fault.hook()
        return done


@contextmanager
def running(port: int, token: str) -> Iterator[Fake]:
    """Serves a new, empty account on 127.0.0.1 while the context lasts."""
    fake = Fake(f"http://127.0.0.1:{port}", token)

    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True  # or each answer, written in two parts, takes 40 ms

        def log_message(self, *_: object) -> None:
            return None

        def _handle(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            path = unquote(urlsplit(self.path).path)
            try:
                status, headers, answer, fault = fake.handle(
                    self.command, path, self.headers.get("authorization", ""), raw
                )
                text = b"" if answer is None else json.dumps(answer).encode()
                self.send_response(status)
                media_type = "application/json" if status < 300 else "application/problem+json"
                for key, value in {**headers, "content-type": media_type, "content-length": str(len(text))}.items():
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

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _handle  # noqa: N815 - the base class asks for these names

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
