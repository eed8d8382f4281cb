"""Why a promotion or a rollback is refused: all reasons at once, and those that a person may override."""

from __future__ import annotations

from typing import Any

from lorafleet.errors import LorafleetError
from lorafleet.origin import Origin
from lorafleet.stackfile import FieldPath, dotted


class RefusedError(LorafleetError):
    """A change of a release that is not made. `errors` has every reason."""

    def __init__(self, what: str, reasons: tuple[LorafleetError, ...]) -> None:
        super().__init__(what)
        self._reasons = reasons

    @property
    def errors(self) -> tuple[LorafleetError, ...]:
        return self._reasons

    def __str__(self) -> str:
        return "\n".join([f"{self.what}:", *(str(reason) for reason in self._reasons)])


class Reasons:
    """Collects reasons. With `force`, those that may be overridden are, and are kept to be shown.

    `can_force` tells whether the command has --force at all.
    """

    def __init__(self, force: str | None = None, *, can_force: bool = True) -> None:
        self._force, self._can_force = force, can_force
        self.found: list[LorafleetError] = []
        self.overridden: list[LorafleetError] = []

    def add(
        self,
        origin: Origin,
        path: FieldPath,
        what: str,
        *,
        found: str = "",
        allowed: str,
        next_action: str,
        may_force: bool = False,
    ) -> None:
        """A reason that is about `path` below serving:fleet of the stack file of `origin`."""
        if may_force and self._can_force and not self._force:
            next_action += ' Or override it: --force "WHY".'
        error = LorafleetError(
            what,
            where=origin.where(path),
            field=dotted(path),
            found=found,
            allowed=allowed,
            next_action=next_action,
        )
        (self.overridden if may_force and self._force else self.found).append(error)

    def add_error(self, error: LorafleetError) -> None:
        """What another check has found; never overridden."""
        self.found.extend(error.errors)

    def __bool__(self) -> bool:
        return bool(self.found)

    def refuse(self, what: str) -> None:
        """Raises RefusedError if there is a reason. `what` begins the message: `the promotion of dev to prod`."""
        if self.found:
            count = f"{len(self.found)} reasons" if len(self.found) > 1 else "this reason"
            raise RefusedError(f"{what} is refused for {count}, nothing was written", tuple(self.found))


def as_dict(error: LorafleetError) -> dict[str, Any]:
    """An error for `--json`."""
    return {
        key: value
        for key, value in (
            ("what", error.what),
            ("where", error.where),
            ("field", error.field),
            ("found", error.found),
            ("allowed", error.allowed),
            ("next", error.next_action),
        )
        if value
    }
