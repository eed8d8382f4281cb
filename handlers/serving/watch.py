"""Looks again and again at the manifest in the store, and keeps the newest one that was read."""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from handlers.serving.errors import ServingError
from handlers.serving.remote import Remote

MAX_PAUSE_S = 30.0
TELL_FROM = 2
"""so many attempts in a row must fail before it counts: a single one is every network's right"""


@dataclass(frozen=True)
class Reading:
    number: int
    """1, 2, 3 ...: greater is newer"""
    raw: bytes
    write: object = None


class ManifestWatch(threading.Thread):
    """`reach` is called with the error when the manifest can't be read, and with None when it can be again."""

    def __init__(self, remote: Remote, environment: str, reach: Callable[[ServingError | None], None]) -> None:
        super().__init__(name="watch", daemon=True)
        self.remote = remote
        self.path = f"manifests/{environment}.json"
        self.reach = reach
        self.news = threading.Condition()
        self.newest: Reading | None = None
        self.error: ServingError | None = None
        self.ended = threading.Event()
        self.failures = 0

    def run(self) -> None:
        stamp: object = None
        while not self.ended.is_set():
            stamp = self.look(stamp)
            self.ended.wait(timeout=self.pause_s())

    def look(self, stamp: object) -> object:
        try:
            found = self.remote.read(self.path, stamp)
        except ServingError as error:
            self.failed(error)
            return stamp
        except Exception as error:  # whatever a client library raises
            self.failed(ServingError(f"{self.remote.at(self.path)} cannot be read: {error!r}", "see the server's log"))
            return stamp
        if self.failures >= TELL_FROM:
            self.reach(None)
        with self.news:
            self.failures, self.error = 0, None
            if found is None:
                return stamp
            # Written again as it was: somebody wants it tried again.
            if self.newest is None or (found.content, found.write) != (self.newest.raw, self.newest.write):
                self.newest = Reading(self.newest.number + 1 if self.newest else 1, found.content, found.write)
                self.news.notify_all()
            return found.stamp

    def failed(self, error: ServingError) -> None:
        error.because("manifest_unreachable")
        with self.news:
            self.failures += 1
            self.error = error
        if self.failures == TELL_FROM:
            self.reach(error)

    def pause_s(self) -> float:
        """A folder is looked at steadily; a bucket that fails is given more and more time."""
        if self.remote.poll_s < 1:
            return self.remote.poll_s
        seconds = min(self.remote.poll_s * 2.0 ** max(0, self.failures - 1), MAX_PAUSE_S)
        return seconds * random.uniform(0.8, 1.2)  # many servers must not ask at the same moment

    def newer_than(self, number: int, timeout_s: float) -> Reading | None:
        """A newer reading, waited for."""
        with self.news:
            self.news.wait_for(lambda: self.newest is not None and self.newest.number > number, timeout=timeout_s)
            return self.newest if self.newest is not None and self.newest.number > number else None

    def is_newest(self, number: int) -> bool:
        newest = self.newest
        return newest is None or newest.number <= number

    def stop(self) -> None:
        self.ended.set()
