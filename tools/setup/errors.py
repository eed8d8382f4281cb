"""The one error of the set-up."""

from __future__ import annotations

from pathlib import Path


class SetupError(Exception):
    """Something that the set-up can't put right by itself.

    Attributes:
        what: what is wrong, with what was found and what is needed.
        next_step: what the user is to do.
        log: the log of the command that failed, whose tail is shown; None if there is none.
    """

    def __init__(self, what: str, next_step: str, log: Path | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.next_step = next_step
        self.log = log
