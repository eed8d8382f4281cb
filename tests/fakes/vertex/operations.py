"""Long operations: they take effect when they end, and they end after so many looks at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .refusal import CODES, RefusedError

Thing = dict[str, Any]
_STAGES = ("STARTING_DEPLOYMENT", "ADDING_NODES_TO_CLUSTER", "STARTING_MODEL_SERVER", "FINISHING_UP")
_TYPE = "type.googleapis.com/google.cloud.aiplatform.v1."


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


@dataclass
class _Operation:
    shown: Thing
    effect: Callable[[], Thing]
    looks: int


@dataclass
class Operations:
    """looks: so many looks at an operation until it ends. failing: {kind: error}: the next of a kind ends so.

    begun: kinds and things of all operations so far, which tests count.
    """

    looks: int = 2
    failing: dict[str, RefusedError] = field(default_factory=dict)
    begun: list[tuple[str, str]] = field(default_factory=list)
    _all: dict[str, _Operation] = field(default_factory=dict)
    _number: int = 0

    def begin(self, kind: str, of: str, effect: Callable[[], Thing]) -> Thing:
        """Begins one. effect: makes it so, and is its answer; it may raise RefusedError."""
        self._number += 1
        name = f"{of}/operations/{7000000000000000000 + self._number}"
        metadata: Thing = {"@type": f"{_TYPE}{kind}OperationMetadata", "genericMetadata": {"createTime": now()}}
        shown = {"name": name, "metadata": metadata, "done": False}
        self._all[name] = _Operation(shown, effect, self.looks)
        self.begun.append((kind, of))
        if self.looks == 0:
            self._end(self._all[name])
        return shown

    def listed(self, below: str) -> list[Thing]:
        """Those of a thing, or of everything below a folder. A look at a list is no look at an operation."""
        return [each.shown for name, each in self._all.items() if name.startswith(below)]

    def proceed(self, name: str) -> Thing:
        if name not in self._all:
            raise RefusedError("NOT_FOUND", f"The Operation {name} does not exist.")
        operation = self._all[name]
        if not operation.shown["done"]:
            operation.looks -= 1
            if "Deploy" in operation.shown["metadata"]["@type"]:
                operation.shown["metadata"]["deploymentStage"] = _STAGES[-max(1, min(operation.looks, 3))]
            if operation.looks <= 0:
                self._end(operation)
        return operation.shown

    def under_way(self, of: str) -> bool:
        return any(name.startswith(f"{of}/") and not each.shown["done"] for name, each in self._all.items())

    def refuse_others(self, of: str) -> None:
        """One at a time."""
        if self.under_way(of):
            raise RefusedError("FAILED_PRECONDITION", f"There are other operations running on the resource {of}.")

    def finish(self) -> None:
        """All that is under way ends now."""
        for each in self._all.values():
            if not each.shown["done"]:
                self._end(each)

    def clear(self) -> None:
        self._all.clear()
        self.begun.clear()

    def _end(self, operation: _Operation) -> None:
        kind = operation.shown["metadata"]["@type"].rpartition(".")[2].removesuffix("OperationMetadata")
        operation.shown["done"] = True
        operation.shown["metadata"].pop("deploymentStage", None)
        try:
            failure = self.failing.pop(kind, None)
            if failure is not None:
                raise failure
            answer = operation.effect()
        except RefusedError as refused:
            operation.shown["error"] = {"code": CODES[refused.reason], "message": refused.message}
        else:
            operation.shown["response"] = {"@type": answer.pop("@type", f"{_TYPE}{kind}Response"), **answer}
