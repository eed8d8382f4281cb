"""Writes what a server says into its store: its status, and a mark for each version that it serves.

In a thread of its own, so that a slow or dead store never holds up serving. Of the status only the newest is written.
"""

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from handlers.serving.config import LaunchConfig
from handlers.serving.errors import ServingError
from handlers.serving.manifest import Version
from handlers.serving.remote import Remote
from handlers.serving.state import now

TELL_AGAIN_S = 600.0
FIRST_RETRY_S = 1.0


class Publisher(threading.Thread):
    """`beat` is called every `remote.heartbeat_s`; it is to make a new state, which then comes here by `status`."""

    def __init__(
        self, remote: Remote, config: LaunchConfig, beat: Callable[[], None], say: Callable[[str], None]
    ) -> None:
        super().__init__(name="publish", daemon=True)
        self.remote = remote
        self.config = config
        self.beat = beat
        self.say = say
        self.path = f"status/{config.environment}/{config.target}/{config.replica}.json"
        self.news = threading.Condition()
        self.latest: dict[str, Any] | None = None
        self.marks: dict[str, dict[str, Any]] = {}
        self.seen: set[str] = set()
        self.ending: str | None = None
        self.told: dict[str, float] = {}

    def status(self, document: dict[str, Any]) -> None:
        """The newest state, which must not be changed afterwards."""
        with self.news:
            self.latest = document
            self.news.notify()

    def served(self, version: Version) -> None:
        """This version is served, and answered its probe."""
        hexadecimal = version.digest.removeprefix("sha256:")
        path = f"served/{self.config.environment}/{version.name}/sha256-{hexadecimal}.json"
        with self.news:
            if path in self.seen:
                return
            self.seen.add(path)
            self.marks[path] = {
                "version": 1, "name": version.name, "digest": version.digest, "target": self.config.target,
                "replica": self.config.replica, "at": now(),
            }  # fmt: skip
            self.news.notify()

    def close(self, remove: bool, patience_s: float) -> None:
        """Writes the last status or, with `remove`, takes it away. Waits for that no longer than `patience_s`."""
        with self.news:
            self.ending = "remove" if remove else "write"
            self.news.notify()
        if self.is_alive():
            self.join(timeout=patience_s)

    def run(self) -> None:
        due = time.monotonic() + self.remote.heartbeat_s
        retry_at: float | None = None
        pause_s = FIRST_RETRY_S
        while True:
            with self.news:
                until = min(due, retry_at or due)
                ready = self.latest is not None or self.marks
                if not self.ending and not (ready and retry_at is None):
                    self.news.wait(timeout=max(0.0, until - time.monotonic()))
                ending = self.ending
            if ending:
                self.finish(remove=ending == "remove")
                return
            now_s = time.monotonic()
            if now_s >= due:
                due = now_s + self.remote.heartbeat_s
                self.beat()
            if retry_at is None or now_s >= retry_at:
                well = self.write_all()
                retry_at = None if well else time.monotonic() + pause_s
                pause_s = FIRST_RETRY_S if well else min(pause_s * 2, self.remote.heartbeat_s)
                if well and self.remote.write_gap_s:
                    with self.news:  # not more often than the store takes it
                        if not self.ending:
                            self.news.wait_for(lambda: self.ending is not None, timeout=self.remote.write_gap_s)

    def write_all(self) -> bool:
        """Writes what is waiting. False when something is left because of a fault."""
        with self.news:
            document, self.latest = self.latest, None
            marks = dict(self.marks)
        well = True
        for path, mark in marks.items():
            done = self.attempt(path, partial(self.remote.create, path, encoded(mark)))
            well = well and done
            if done:
                with self.news:
                    del self.marks[path]
        if document is not None and not self.attempt(
            self.path, partial(self.remote.write, self.path, encoded(document))
        ):
            well = False
            with self.news:
                self.latest = self.latest or document
        return well

    def attempt(self, path: str, action: Callable[[], None]) -> bool:
        """Tells a fault the first time, and again when it lasts."""
        try:
            action()
        except Exception as error:  # whatever a client library raises: serving must go on
            told = self.told.get(path)
            if told is None or time.monotonic() - told > TELL_AGAIN_S:
                self.told[path] = time.monotonic()
                step = f"; {error.next_step}" if isinstance(error, ServingError) else ""
                self.say(f"{path} is not written: {error if not isinstance(error, ServingError) else error.what}{step}")
            return False
        if self.told.pop(path, None) is not None:
            self.say(f"{path} is written again")
        return True

    def finish(self, remove: bool) -> None:
        if remove:
            with self.news:
                self.latest = None
            self.write_all()  # a mark may be left
            self.attempt(self.path, lambda: self.remote.delete(self.path))
        else:
            self.write_all()


def encoded(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode()
