"""Where a declaration came from, and the collecting of its mistakes with their places."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorafleet import stackfile
from lorafleet.errors import DeclarationErrors, LorafleetError, Problem, shown, shown_key
from lorafleet.stackfile import FieldPath

PROJECT = "serving"
CONFIG_KEY = "fleet"


@dataclass(frozen=True, slots=True)
class Origin:
    """One environment's declaration: its stack, the project's root, and its file, where there is one."""

    environment: str
    root: Path
    stack_file: Path | None = None

    def where(self, path: FieldPath) -> str:
        """`stacks/Pulumi.local.yaml:12` for a path, or `stack local` when no file is known."""
        if self.stack_file is None:
            return f"stack {self.environment}"
        name = shown_path(self.stack_file, self.root)
        lines = _lines(self.stack_file, name)
        line = lines.line(("config", f"{PROJECT}:{CONFIG_KEY}", *path)) if lines else None
        return f"{name}:{line}" if line else name


def shown_path(path: Path, root: Path) -> str:
    """A path as errors and print-outs name it: from the project's root where it lies inside, else in full."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _lines(path: Path, shown_path: str) -> stackfile.StackFile | None:
    # The lines are a service to the reader of an error; a file that can't be read now must not hide that
    # error.
    try:
        return stackfile.read(path, shown_path)
    except LorafleetError:
        return None


class Report:
    """Collects mistakes, so that one run shows all of them."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self._errors: list[LorafleetError] = []

    def add(
        self,
        path: FieldPath,
        what: str,
        *,
        found: str = "",
        allowed: str,
        next_action: str,
        target: str | None = None,
    ) -> None:
        """Note a mistake at `path`. `found` must be fit to be shown (`lorafleet.errors.shown`)."""
        if target is None and len(path) > 1 and path[0] == "targets":
            target = shown_key(path[1])
        self._errors.append(
            LorafleetError(
                what,
                where=self.origin.where(path),
                target=target,
                field=stackfile.dotted(path),
                found=found,
                allowed=allowed,
                next_action=next_action,
            )
        )

    def value(self, path: FieldPath, what: str, value: object, *, allowed: str, next_action: str) -> None:
        """Note a mistake in the value at `path`; the value is shown unless it may be a secret."""
        key = str(path[-1]) if path else ""
        self.add(path, what, found=shown(value, key=key), allowed=allowed, next_action=next_action)

    def problem(self, path: FieldPath, problem: Problem, *, target: str | None = None) -> None:
        """Note what a reader of files found about the thing that is declared at `path`."""
        self.add(
            path,
            problem.what,
            found=problem.found,
            allowed=problem.allowed,
            next_action=problem.next_action,
            target=target,
        )

    @property
    def empty(self) -> bool:
        return not self._errors

    def finish(self) -> None:
        """Raise what was collected: a `LorafleetError`, or `DeclarationErrors` for more than one."""
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            raise DeclarationErrors(self._errors)
