"""Follows the manifest while the server serves: a release is taken over whole or not at all.

Fetch and verify everything new, load it, probe it, while the old versions answer; then switch all names in one step.
docs/architecture.md (Following the manifest) has the rules. The drainer (drain.py) unloads what is not needed any more.
"""

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from handlers.serving import base_check, manifest, probe
from handlers.serving.cache import Cache
from handlers.serving.errors import HEALS, ServingError, StopRequestedError, SupersededError
from handlers.serving.fetch import StoredAdapter, fetch_all
from handlers.serving.fleet import Fleet
from handlers.serving.manifest import Manifest, Version, Weights
from handlers.serving.report import FETCHING, LOADING, PROBING, WAITING, Report
from handlers.serving.watch import ManifestWatch, Reading

FIRST_RETRY_S, LAST_RETRY_S = 1.0, 30.0
IDLE_S = 1.0
UNLOAD_S = 10.0
ENGINE_END_S = 1.0
"""an engine that dies answers no request; its process is seen to have ended a moment later"""


class AdaptersFailedError(Exception):
    """Some versions of a release cannot be served."""

    def __init__(self, errors: Sequence[tuple[Version, ServingError]]) -> None:
        super().__init__(str(errors[0][1]))
        self.errors = errors

    @property
    def heals(self) -> bool:
        """Whether all of it may come right without another manifest."""
        return all(error.reason in HEALS or error.transient for _, error in self.errors)


@dataclass(frozen=True)
class Engine:
    """What the follower needs to know of the engine that serves."""

    base: Weights
    dtype: str
    max_rank: int
    answers: Sequence[probe.Answer]
    """the base model's, from before any adapter was loaded"""
    check_alive: Callable[[], None]
    """raises ServingError when it has ended"""


class Follower(threading.Thread):
    """`served` is called with each version once it is served; `broken` when the server must not serve any longer."""

    def __init__(
        self,
        fleet: Fleet,
        cache: Cache,
        report: Report,
        watch: ManifestWatch,
        engine: Engine,
        current: Manifest,
        handled: int,
        *,
        say: Callable[[str], None],
        served: Callable[[Version], None],
        broken: Callable[[ServingError], None],
    ) -> None:
        super().__init__(name="follow", daemon=True)
        self.fleet = fleet
        self.cache = cache
        self.report = report
        self.watch = watch
        self.engine = engine
        self.current = current
        self.previous: Manifest | None = None
        self.pending: Manifest | None = None
        self.handled = handled
        """number of the reading that was last taken up"""
        self.say = say
        self.served = served
        self.broken = broken
        self.ended = threading.Event()

    def stop(self) -> None:
        self.ended.set()

    def run(self) -> None:
        while not self.ended.is_set():
            reading = self.watch.newer_than(self.handled, IDLE_S)
            if reading is None:
                continue
            try:
                self.take_up(reading)
            except StopRequestedError:
                return
            except Exception as error:  # a fault of this program: what is served goes on
                traceback.print_exc()
                what = f"unexpected: {type(error).__name__}: {error}"
                self.refuse(None, ServingError(what, "report it, with the server's log", "load_failed"))

    def take_up(self, reading: Reading, patient: bool = True) -> None:
        """Takes this manifest over, or says why not. What may heal is tried again until a newer manifest is there; not
        `patient`: it is tried once here, and again when it is taken up the next time."""
        self.handled = reading.number
        try:
            wanted = manifest.read(reading.raw)
        except ServingError as error:
            self.refuse(None, error)
            return
        if wanted.digest == self.current.digest:
            self.fleet.claim(wanted.versions)
            self.report.now_serving(wanted)
            return
        pause_s = FIRST_RETRY_S
        while True:
            try:
                self.take_over(wanted)
                return
            except SupersededError:
                return
            except ServingError as error:
                self.refuse(wanted.digest, error)
                return
            except AdaptersFailedError as error:
                self.report_failed(wanted.digest, error)
                if error.heals and not patient:
                    self.handled -= 1
                if not error.heals or not patient or not self.watch.is_newest(self.handled):
                    return
            finally:
                self.pending = None
            self.wait_to_retry(pause_s)
            if not self.watch.is_newest(self.handled):
                return
            pause_s = min(pause_s * 2, LAST_RETRY_S)

    def take_over(self, wanted: Manifest) -> None:
        self.pending = wanted
        self.report.follow(wanted)
        check_same_base(self.engine.base, wanted.base)
        check_room(self.current, wanted, self.fleet.max_live)
        times = [time.monotonic()]
        try:
            new = self.fleet.claim(wanted.versions)
            names = list(dict.fromkeys(version.name for version in new))
            self.report.step(names, FETCHING)
            fetched = fetch_all(None, new, self.cache, self.engine.max_rank, self.interrupted)
            if fetched.errors:
                raise AdaptersFailedError(fetched.errors)
            times.append(time.monotonic())
            self.load(fetched.adapters, names)
            times.append(time.monotonic())
            self.probe(fetched.adapters, names)
            times.append(time.monotonic())
            self.interrupted()
            self.switch(wanted)
        except BaseException as error:
            # what was claimed or loaded for it and is not served goes again
            keep = {version.served_name for version in self.current.versions}
            retired = [name for name in list(self.fleet.loaded) if name not in keep]
            self.fleet.retire(retired)
            if retired and isinstance(error, AdaptersFailedError):
                self.unload(retired)
                self.check_base()  # that they did no harm which stays
            raise
        self.previous, self.current = self.current, wanted
        self.report.now_serving(wanted)
        fetch_s, load_s, probe_s = (after - before for before, after in pairwise(times))
        self.say(
            f"serving the manifest {wanted.digest[:12]}: {', '.join(told(version) for version in wanted.versions)} "
            f"(fetched in {fetch_s:.2f} s, loaded in {load_s:.2f} s, probed in {probe_s:.2f} s)"
        )
        self.check_base()
        for version in wanted.versions:
            self.served(version)

    def unload(self, retired: Collection[str]) -> None:
        """Waits until these are out of the engine, but not for ever."""
        end = time.monotonic() + UNLOAD_S
        with contextlib.suppress(ServingError):  # the drainer tries again
            while time.monotonic() < end:
                self.fleet.unload_idle()
                if not any(name in self.fleet.loaded for name in retired):
                    return
                self.pause(0.1)

    def switch(self, wanted: Manifest) -> None:
        try:
            self.fleet.switch(wanted.adapters)
        except ServingError as error:  # the routes file cannot be written
            raise error.because("load_failed") from None

    def load(self, adapters: Sequence[StoredAdapter], names: Collection[str]) -> None:
        self.report.step(names, LOADING)
        errors: list[tuple[Version, ServingError]] = []
        for adapter in adapters:
            self.interrupted()
            while not self.fleet.has_room():  # until versions that are draining have gone
                self.pause(0.1)
                self.interrupted()
            try:
                self.fleet.load(adapter)
            except ServingError as error:
                self.stop_if_engine_ended()
                errors.append((adapter.version, error))
        if errors:
            raise AdaptersFailedError(errors)

    def probe(self, adapters: Sequence[StoredAdapter], names: Collection[str]) -> None:
        """The new versions must answer sensibly and, asked at the same time, the base model as before."""
        if not adapters:
            return
        self.report.step(names, PROBING)
        asked = {adapter.served_name: adapter.version.name for adapter in adapters}
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="base")
        try:
            base = pool.submit(self.ask_base)
            faults = probe.probe(self.fleet.client, asked, self.engine.answers, self.interrupted)
            while not base.done():
                self.interrupted()
                wait([base], timeout=probe.LOOK_S)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        if faults:
            self.stop_if_engine_ended()
            raise AdaptersFailedError(
                [(each.version, faults[each.served_name]) for each in adapters if each.served_name in faults]
            )
        error = base.exception()
        if isinstance(error, ServingError):
            self.stop_if_engine_ended()
            raise AdaptersFailedError([(each.version, error.because("probe_failed")) for each in adapters])
        if error is not None:
            raise error
        self.report.step(names, WAITING)

    def ask_base(self) -> None:
        base_check.check_again(self.fleet.client, self.engine.base.name, self.engine.answers, self.engine.dtype)

    def check_base(self) -> None:
        """The base model must answer as before; wrong answers are worse than none. A newer manifest goes first, and has
        its own check afterwards."""
        for last in (False, True):
            if self.ended.is_set() or not self.watch.is_newest(self.handled):
                return
            try:
                self.ask_base()
                return
            except ServingError as error:
                self.stop_if_engine_ended()
                self.say(error.what)
                if last:
                    self.broken(error)

    def refuse(self, digest: str | None, error: ServingError) -> None:
        self.say(f"the manifest is not taken over: {error.what}")
        self.say(f"next: {error.next_step}")
        self.report.failed(digest, error, retrying=False)

    def report_failed(self, digest: str, failure: AdaptersFailedError) -> None:
        by_name: dict[str, tuple[Version, ServingError]] = {}
        for version, error in failure.errors:
            by_name.setdefault(version.name, (version, error))
            self.say(f"the manifest {digest[:12]} is not taken over: {error.what}")
        first = failure.errors[0][1]
        self.report.failed(digest, first, retrying=failure.heals, adapters=by_name)

    def interrupted(self) -> None:
        """Raises when this takeover should not go on."""
        if self.ended.is_set():
            raise StopRequestedError
        if not self.watch.is_newest(self.handled):
            raise SupersededError

    def pause(self, seconds: float) -> None:
        if self.ended.wait(timeout=seconds):
            raise StopRequestedError

    def wait_to_retry(self, seconds: float) -> None:
        """Waits, but not when a newer manifest comes."""
        self.watch.newer_than(self.handled, seconds)
        if self.ended.is_set():
            raise StopRequestedError

    def stop_if_engine_ended(self) -> None:
        """A dead engine is the launcher's to report, and no fault of an adapter."""
        for _ in range(2):
            try:
                self.engine.check_alive()
            except ServingError:
                raise StopRequestedError from None
            self.pause(ENGINE_END_S / 2)

    def needed(self) -> set[Path]:
        """The folders in the cache that must stay."""
        kept = [each for each in (self.previous, self.current, self.pending) if each is not None]
        folders = {self.cache.folder(version) for each in kept for version in each.versions}
        return folders | {adapter.folder for adapter in list(self.fleet.loaded.values())}


def check_same_base(own: Weights, wanted: Weights) -> None:
    """Raises ServingError (base_differs). A digest pins the content, wherever it lies."""

    def pinned(base: Weights) -> tuple[str | None, ...]:
        return (base.name, base.revision, base.digest, None if base.digest else base.source)

    if pinned(own) != pinned(wanted):
        raise ServingError(
            f"the manifest's baseModel is {described(wanted)}, but this server has {described(own)}",
            "restart the server with that base model (`pulumi up` does), or correct the manifest",
            "base_differs",
        )


def described(base: Weights) -> str:
    return f"{base.name} {base.digest or base.revision}"


def check_room(current: Manifest, wanted: Manifest, max_live: int) -> None:
    """Raises ServingError (too_many_adapters) when old and new versions together have no room in the engine."""
    needed = {version.served_name for version in (*current.versions, *wanted.versions)}
    if len(needed) > max_live:
        raise ServingError(
            f"the manifest needs {len(needed)} versions of adapters side by side while it is taken over, and this "
            f"server was started with room for {max_live}",
            "change fewer adapters at a time; or restart the server, which then makes room for what the manifest holds "
            "(`pulumi up --replace URN` of the server)",
            "too_many_adapters",
        )


def told(version: Version) -> str:
    return f"{version.name} {version.digest[:19]}"
