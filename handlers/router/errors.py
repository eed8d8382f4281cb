"""The one error type of the router: what is wrong, and what to do next."""

from __future__ import annotations


class RouterError(Exception):
    """Something that the user has to mend.

    `what` says what was found, where, and what is allowed; `next_step` says what to do. Neither holds a key.
    """

    def __init__(self, what: str, next_step: str) -> None:
        super().__init__(f"{what}\nNext: {next_step}")
        self.what = what
        self.next_step = next_step
