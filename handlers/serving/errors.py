"""The one kind of error that the launcher shows: what went wrong and what to do next."""


class ServingError(Exception):
    """A failure that a person can act on.

    `what` names the thing, the place and the value; `next_step` says what to do. Both go into the state file.
    """

    def __init__(self, what: str, next_step: str) -> None:
        super().__init__(what)
        self.what = what
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.what}\n  next: {self.next_step}"


class StopRequestedError(Exception):
    """SIGTERM or SIGINT came before the server was ready."""
