"""Unloads versions that no name needs any more, each when its last request has ended, and then lets their files go."""

import threading
from collections.abc import Callable, Collection
from pathlib import Path

from handlers.serving.cache import Cache
from handlers.serving.errors import ServingError
from handlers.serving.fleet import Fleet
from handlers.serving.report import Report

LOOK_S = 0.1
LOOK_LATER_S = 1.0
PATIENCE = 50
"""after so many looks it looks less often: there is no time limit for a request in flight"""


class Drainer(threading.Thread):
    def __init__(
        self,
        fleet: Fleet,
        report: Report,
        cache: Cache,
        needed: Callable[[], Collection[Path]],
        say: Callable[[str], None],
    ) -> None:
        super().__init__(name="drain", daemon=True)
        self.fleet = fleet
        self.report = report
        self.cache = cache
        self.needed = needed
        self.say = say
        self.ended = threading.Event()

    def run(self) -> None:
        looks = 0
        told: str | None = None
        while not self.ended.is_set():
            with self.fleet.changed:
                idle = not self.fleet.leaving
                if idle:
                    looks = 0
                    self.fleet.changed.wait(timeout=LOOK_LATER_S)
            if idle:
                self.report.draining({})  # what was leaving may have been wanted again
                continue
            try:
                left, gone = self.fleet.unload_idle()
            except Exception as error:  # an engine that is busy, or gone: the launcher's main thread sees to that
                what = error.what if isinstance(error, ServingError) else repr(error)
                if what != told:
                    self.say(what)
                told = what
                self.ended.wait(timeout=LOOK_LATER_S)
                continue
            self.report.draining(left)
            if gone:
                self.say(f"unloaded {', '.join(gone)}")
            if not left:
                self.sweep()
            looks = 0 if gone else looks + 1
            self.ended.wait(timeout=LOOK_S if looks < PATIENCE else LOOK_LATER_S)

    def sweep(self) -> None:
        try:
            swept = self.cache.sweep(self.needed)
        except OSError as error:
            self.say(f"the cache is not tidied up: {error}")
            return
        if swept:
            self.say(f"taken out of the cache: {', '.join(name[:12] for name in swept)}")

    def stop(self) -> None:
        self.ended.set()
