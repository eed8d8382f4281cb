"""Reads JSON objects field by field. Every fault is a ServingError: the field, its value, what is allowed."""

import json
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from handlers.serving.errors import ServingError


class Section:
    """One JSON object of a file, with its place in it for the error texts. `file` names the whole."""

    def __init__(self, value: object, where: str, known: tuple[str, ...], file: str = "the launch file") -> None:
        if not isinstance(value, dict):
            raise ServingError(
                f"{where or file} is {short(value)}, not an object", f"give an object with {', '.join(known)}"
            )
        self.values = cast(dict[str, object], value)
        self.where = where
        for key in self.values:
            if key not in known:
                near = get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                raise ServingError(f"{self.at(shown(key))} is not a known key", hint)

    def at(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def get(self, key: str) -> object:
        if key not in self.values:
            raise ServingError(f"{self.at(key)} is missing", "see the formats in docs/architecture.md")
        return self.values[key]

    def fail(self, key: str, allowed: str) -> ServingError:
        return ServingError(f"{self.at(key)} is {short(self.values.get(key))}", f"give {allowed}")

    def text(self, key: str, pattern: re.Pattern[str] | None = None, allowed: str = "a text") -> str:
        value = self.get(key)
        if not isinstance(value, str) or not value or (pattern and not pattern.fullmatch(value)):
            raise self.fail(key, allowed)
        return value

    def optional_text(self, key: str, pattern: re.Pattern[str], allowed: str) -> str | None:
        return None if self.values.get(key) is None else self.text(key, pattern, allowed + ", or null")

    def whole(self, key: str, low: int, high: int) -> int:
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.fail(key, f"a whole number from {low} to {high}")
        return value

    def number(self, key: str, low: float, high: float) -> float:
        value = self.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise self.fail(key, f"a number from {low:g} to {high:g} (seconds)")
        return float(value)

    def one_of(self, key: str, allowed: tuple[str, ...]) -> str:
        value = self.get(key)
        if not isinstance(value, str) or value not in allowed:
            raise self.fail(key, "one of " + ", ".join(allowed))
        return value

    def items(self, key: str) -> list[object]:
        value = self.get(key)
        if not isinstance(value, list):
            raise self.fail(key, "a list")
        return cast(list[object], value)

    def texts(self, key: str, pattern: re.Pattern[str], allowed: str) -> tuple[str, ...]:
        found = self.items(key)
        for position, value in enumerate(found):
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise ServingError(f"{self.at(key)}[{position}] is {short(value)}", f"give {allowed}")
        return tuple(cast(list[str], found))

    def absolute_path(self, key: str) -> Path:
        path = Path(self.text(key, None, "an absolute path"))
        if not path.is_absolute():
            raise self.fail(key, "an absolute path")
        return path

    def version(self, wanted: int) -> None:
        found = self.get("version")
        if found != wanted or isinstance(found, bool):
            raise ServingError(
                f"{self.at('version')} is {short(found)}",
                f"this launcher reads version {wanted}; use the launcher that fits the file",
            )


def short(value: Any) -> str:
    """The value as JSON, at most 80 characters."""
    return shown(json.dumps(value, ensure_ascii=False, default=str))


def shown(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
