"""The one kind of error that the launcher shows: what went wrong and what to do next."""


class ServingError(Exception):
    """A failure that a person can act on.

    `what` names the thing, the place and the value; `next_step` says what to do. Both go into the state file.
    `reason`, where it is known, is one of REASONS. `transient` is True for what may be over in a moment (a network
    fault): a start tries those again.
    """

    def __init__(self, what: str, next_step: str, reason: str | None = None, transient: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.next_step = next_step
        self.reason = reason
        self.transient = transient

    def __str__(self) -> str:
        return f"{self.what}\n  next: {self.next_step}"

    def because(self, reason: str) -> "ServingError":
        """The same error with `reason`, where it has none yet."""
        self.reason = self.reason or reason
        return self


REASONS = (
    "manifest_unreachable", "manifest_invalid", "base_differs", "rank_too_high", "too_many_adapters", "fetch_failed",
    "digest_differs", "adapter_invalid", "load_failed", "probe_failed",
)  # fmt: skip
# What may come right without another manifest: the store can be reached again, files are put there, rights are given.
HEALS = ("manifest_unreachable", "fetch_failed")


class StopRequestedError(Exception):
    """SIGTERM or SIGINT came before the work was done."""


class SupersededError(Exception):
    """Another manifest was written while one was being taken over."""
