"""Keeps what a request held secret out of what RunPod says of it: a refusal may quote the request, whole or cut."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

# A run of so many characters is taken for a part of a secret: quotes may be escaped, cut or broken anew.
_RUN = 8
_SHORTEST = 4  # what is shorter is no secret and would be found everywhere


def without_echoes(text: str, body: object) -> str:
    """The text with `[secret]` in place of every part of a variable's value or of a password of the request."""
    covered = bytearray(len(text))
    for secret in _secrets(body):
        size = min(_RUN, len(secret))
        runs = {secret[at : at + size] for at in range(len(secret) - size + 1)}
        for at in range(len(text) - size + 1):
            if text[at : at + size] in runs:
                covered[at : at + size] = b"\1" * size
    parts = groupby(zip(text, covered, strict=True), key=lambda each: each[1])
    return "".join("[secret]" if hidden else "".join(each[0] for each in part) for hidden, part in parts)


def _secrets(body: object) -> Iterator[str]:
    if not isinstance(body, dict):
        return
    env: Any = body.get("env")
    values = [*(env.values() if isinstance(env, dict) else ()), body.get("password")]
    yield from (each for each in values if isinstance(each, str) and len(each) >= _SHORTEST)
