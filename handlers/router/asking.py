"""One question to a target: `GET statusPath` with its key, within a time and a size."""

from __future__ import annotations

import functools
import http.client
import io
import socket
import ssl
import time

from handlers.router import status
from handlers.router.config import Access, Target

TIMEOUT_S = 3.0
MOST_BYTES = 1024**2
_SHORTEST_KEY_TO_HIDE = 8  # a shorter one would stand in a document by chance


class NoAnswerError(Exception):
    """The target did not say what it serves. The text says why and holds nothing secret."""


@functools.cache
def _tls() -> ssl.SSLContext:
    # Reading the system's certificates takes tens of milliseconds.
    return ssl.create_default_context()


class _Until(io.RawIOBase):
    """Reads a socket until a moment: a socket's own time-out would begin anew with every byte that drips in."""

    def __init__(self, sock: socket.socket, moment: float) -> None:
        self._socket = sock
        self._moment = moment

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        left_s = self._moment - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._socket.settimeout(left_s)
        return self._socket.recv_into(buffer)


class _Response(http.client.HTTPResponse):
    """The standard library's response, read from a socket until a moment."""

    def __init__(self, sock: socket.socket, moment: float) -> None:
        super().__init__(sock, method="GET")
        self.fp.close()
        self.fp = io.BufferedReader(_Until(sock, moment))


def ask(target: Target, path: str, access: Access, timeout_s: float = TIMEOUT_S) -> status.Status:
    """What the target says at `path`. Certificates are checked as HAProxy does. Raises NoAnswerError."""
    try:
        content = _get(target, path, access, time.monotonic() + timeout_s)
    except TimeoutError:
        raise NoAnswerError(f"no answer within {timeout_s:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise NoAnswerError(f"its certificate is refused: {error.verify_message}") from None
    except (http.client.HTTPException, ValueError) as error:
        raise NoAnswerError(f"its answer is no valid HTTP: {type(error).__name__}") from None
    except OSError as error:
        raise NoAnswerError(f"it cannot be reached: {error.strerror or type(error).__name__}") from None
    for secret in access.secrets():
        if len(secret) >= _SHORTEST_KEY_TO_HIDE:
            content = content.replace(secret.encode(), b"[key]")
    try:
        return status.read(content)
    except ValueError as error:
        raise NoAnswerError(f"its answer cannot be read: {error}") from None


def _get(target: Target, path: str, access: Access, moment: float) -> bytes:
    def left_s() -> float:
        return max(0.01, moment - time.monotonic())

    # The head is made by hand, as `http.client` would open the connection itself; all of it was checked before.
    lines = [
        f"GET {target.prefix}{path} HTTP/1.1",
        f"Host: {target.authority}",
        "Accept: application/json",
        "Connection: close",
    ]
    lines += ["Accept-Encoding: identity", "User-Agent: lorafleet-router"]
    if access.key is not None:
        lines.append(f"Authorization: Bearer {access.key}")
    lines += [f"{name}: {value}" for name, value in access.headers.items()]
    sock = socket.create_connection((target.host, target.port), left_s())
    try:
        if target.tls:
            sock.settimeout(left_s())
            sock = _tls().wrap_socket(sock, server_hostname=target.host)
        sock.settimeout(left_s())
        sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        response = _Response(sock, moment)
        response.begin()
        if response.status in (401, 403):
            raise NoAnswerError(f"it refuses the key that keysFile has for it (HTTP {response.status})")
        if response.status != 200:
            raise NoAnswerError(f"it answers with HTTP {response.status}")
        content = response.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise NoAnswerError(f"its answer is over {MOST_BYTES // 1024} KiB")
        return content
    finally:
        sock.close()
