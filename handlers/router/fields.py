"""Strict reading of a JSON object: every failure names the field, what was found and what is allowed."""

from __future__ import annotations

import difflib
import json
import re
from typing import Any

from handlers.router.errors import RouterError


def shown(value: object) -> str:
    """A value as it stands in JSON, cut to 80 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def nearest(name: str, allowed: list[str]) -> str:
    """` (did you mean "x"?)`, or nothing when no allowed name is near."""
    near = difflib.get_close_matches(name, allowed, n=1)
    return f' (did you mean "{near[0]}"?)' if near else ""


class Fields:
    """One JSON object on its way to a dataclass. `source` names the file, `path` the object's place in it."""

    def __init__(self, value: object, source: str, path: str, allowed: list[str]) -> None:
        self.source = source
        self.path = path
        self._next = f"correct {source} and try again"
        if not isinstance(value, dict):
            raise RouterError(f"{source}: {path or 'the file'} is {shown(value)}, not a JSON object", self._next)
        self._value: dict[str, Any] = value
        for key in value:
            if key not in allowed:
                hint = nearest(key, allowed)
                raise RouterError(
                    f"{source}: {self.at(key)} is not a known field{hint}; allowed: {', '.join(allowed)}",
                    self._next,
                )

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def fail(self, key: str, problem: str) -> RouterError:
        """The error for one field; the caller raises it."""
        return RouterError(f"{self.source}: {self.at(key)} {problem}", self._next)

    def raw(self, key: str) -> Any:
        if key not in self._value:
            raise self.fail(key, "is missing")
        return self._value[key]

    def if_any(self, key: str) -> Any:
        """The value of a key that need not be there; None without it."""
        return self._value.get(key)

    def text(self, key: str, pattern: str, allowed: str) -> str:
        """A string that matches `pattern` as a whole; `allowed` says the same in words."""
        value = self.raw(key)
        if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
            raise self.fail(key, f"is {shown(value)}; allowed: {allowed}")
        return value

    def text_or_none(self, key: str, pattern: str, allowed: str) -> str | None:
        return None if self.raw(key) is None else self.text(key, pattern, f"{allowed}, or null")

    def text_if_any(self, key: str, pattern: str, allowed: str) -> str | None:
        """As `text_or_none`, for a key that need not be there."""
        return self.text_or_none(key, pattern, allowed) if key in self._value else None

    def integer(self, key: str, low: int, high: int) -> int:
        value = self.raw(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fail(key, f"is {shown(value)}; allowed: a whole number from {low} to {high}")
        return value

    def items(self, key: str) -> list[Any]:
        """A list with at least one item."""
        value = self.raw(key)
        if not isinstance(value, list) or not value:
            raise self.fail(key, f"is {shown(value)}; allowed: a list with at least one item")
        return value

    def texts(self, key: str, pattern: str, allowed: str) -> tuple[str, ...]:
        """A list of different strings, each matching `pattern`."""
        values = self.items(key)
        for index, value in enumerate(values):
            if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
                raise self.fail(f"{key}[{index}]", f"is {shown(value)}; allowed: {allowed}")
            if value in values[:index]:
                raise self.fail(f"{key}[{index}]", f"is {shown(value)}, which the list already holds")
        return tuple(values)
