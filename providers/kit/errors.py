"""Errors that a resource raises. Each says what went wrong, at which field, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass


class ResourceError(Exception):
    """Something on the platform went wrong.

    what: one sentence: what was tried and what the platform said.
    field: wire name of the input it is about ("" when it is about none).
    next_action: what the reader should do.
    log: where to read more (a path or URL), if there is such a place.
    """

    def __init__(self, what: str, *, field: str = "", next_action: str, log: str = "") -> None:
        super().__init__(what)
        self.what, self.field, self.next_action, self.log = what, field, next_action, log

    def __str__(self) -> str:
        lines = [f"{self.field}: {self.what}" if self.field else self.what]
        if self.log:
            lines.append(f"  log: {self.log}")
        lines.append(f"  next: {self.next_action}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the inputs of a resource, found before anything is made.

    path: wire path of the field, such as ("adapters", 0, "digest").
    """

    path: tuple[str | int, ...]
    what: str
    allowed: str = ""
    next_action: str = ""

    def text(self) -> str:
        parts = [self.what]
        if self.allowed:
            parts.append(f"allowed: {self.allowed}")
        if self.next_action:
            parts.append(f"next: {self.next_action}")
        return "; ".join(parts)


class NotKnownYetError(Exception):
    """Something was asked for that follows from an input which is unknown at preview."""
