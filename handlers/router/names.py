"""Names of models and targets as names of HAProxy sections, sockets and metric labels, and back.

HAProxy allows `[A-Za-z0-9_.:-]` in the name of a section. Letters, digits, `.` and `-` stand for themselves;
every other byte of the UTF-8 name becomes `_` and two hex digits (so `_` itself is `_5f`): `exaone-3.5-2.4b`
stays readable, and two names never become one.
"""

from __future__ import annotations

import re
import string

_PLAIN = frozenset(string.ascii_letters + string.digits + ".-")
_ESCAPE = re.compile(r"_([0-9a-f]{2})")

MODEL_PREFIX = "model_"
TARGET_PREFIX = "target_"


def encode(name: str) -> str:
    """`owner/my_model` -> `owner_2fmy_5fmodel`."""
    return "".join(char if char in _PLAIN else "".join(f"_{byte:02x}" for byte in char.encode()) for char in name)


def decode(encoded: str) -> str:
    """The reverse of `encode`. Raises ValueError for text that `encode` never makes."""
    parts = bytearray()
    position = 0
    while position < len(encoded):
        char = encoded[position]
        if char in _PLAIN:
            parts += char.encode()
            position += 1
            continue
        match = _ESCAPE.match(encoded, position)
        if match is None:
            raise ValueError(f"{encoded!r} is not an encoded name (at character {position})")
        parts.append(int(match.group(1), 16))
        position = match.end()
    return parts.decode()


def model_backend(model: str) -> str:
    """The backend that counts one model's requests: label `proxy` in the metrics."""
    return MODEL_PREFIX + encode(model)


def target_backend(target: str) -> str:
    """The backend that holds one target's health check, capacity and queue."""
    return TARGET_PREFIX + encode(target)


def target_socket(target: str) -> str:
    """The unix socket, in runDir, over which model backends reach a target's backend."""
    return f"{target_backend(target)}.sock"
