"""The launcher: read the manifest, fetch, start vLLM, load, check, be ready and follow the manifest, drain, stop.

The phases are those of docs/architecture.md. This is the main thread; beside it, once the server is ready, run watch.py
(reads the manifest), follow.py (takes it over), drain.py (unloads) and publish.py (tells the store).
"""

import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from types import FrameType

from handlers.serving import base_check, flags, hardware, manifest, probe
from handlers.serving.cache import Cache
from handlers.serving.client import EngineClient
from handlers.serving.config import LaunchConfig
from handlers.serving.drain import Drainer
from handlers.serving.errors import ServingError, StopRequestedError
from handlers.serving.fetch import Fetched, fetch_all
from handlers.serving.fleet import Fleet
from handlers.serving.follow import Engine as ServingEngine
from handlers.serving.follow import Follower, check_same_base
from handlers.serving.manifest import Manifest, Version
from handlers.serving.process import Engine
from handlers.serving.publish import Publisher
from handlers.serving.remote import open_remote
from handlers.serving.report import FETCHING, LOADING, PROBING, WAITING, Report
from handlers.serving.routes import Routes, RoutesFile, new_admin_token
from handlers.serving.state import StateFile
from handlers.serving.watch import ManifestWatch

# After /ready turned to 503, requests are still taken for this long: the router needs a failed check or two to notice.
DRAIN_GRACE_S = 3.0
STOP_PATIENCE_S = 10.0
HEARTBEAT_S = 10.0
RETRY_S = 2.0
REFUSALS = 3
LAST_WORD_S = 5.0
"""how long the store may take for the last status"""


class Launcher:
    """Runs one server from start to end, in the main thread."""

    def __init__(self, config: LaunchConfig) -> None:
        self.config = config
        remote = open_remote(config.store)
        self.state = StateFile(config, remote.heartbeat_s)
        self.report = Report(self.state)
        self.publisher = Publisher(remote, config, self.state.set, self.state.say)
        self.state.publish = self.publisher.status
        self.watch = ManifestWatch(remote, config.environment, self.report.reach)
        self.deadline = time.monotonic() + config.start_timeout_s
        self.stop = threading.Event()
        self.hurry = threading.Event()
        """a second signal: no more waiting for requests in flight"""
        self.wake = threading.Event()
        self.broken: ServingError | None = None
        """why the server must not serve any longer"""
        self.cache = Cache(config.cache, self.state.say)
        self.engine: Engine | None = None
        self.routes: RoutesFile | None = None
        self.followers: list[Follower | Drainer] = []

    def run(self) -> int:
        """Returns the exit code: 0 when stopped on request, 1 when failed."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.on_signal)
        code = 1
        try:
            self.state.update("starting", f"process {os.getpid()}")
            self.publisher.start()
            self.serve()
            code = 0
        except StopRequestedError:
            code = 0
        except ServingError as error:
            self.end_engine()
            self.fail(error)
        except Exception as error:
            self.end_engine()
            traceback.print_exc()  # for the log
            self.fail(ServingError(f"unexpected: {type(error).__name__}: {error}", "report it, with the server's log"))
        finally:
            self.end_engine()
            self.clean()
        if code == 0:
            self.state.update("stopped", "on request", enginePid=None)
        self.publisher.close(remove=code == 0, patience_s=LAST_WORD_S)
        sys.stdout.flush()
        os._exit(code)  # not sys.exit: a download in a thread would hold the process

    def serve(self) -> None:
        settings = self.config.engine
        machine = hardware.detect(settings.device)
        flags.dtype_for(settings, machine)  # an impossible wish is refused before anything is fetched
        check_port(self.config.host, self.config.port)
        self.cache.prepare()
        number, wanted = self.read_manifest()
        fetched = self.fetch(wanted)
        assert fetched.base is not None
        token, token_sha256 = new_admin_token()
        base = self.config.base
        routes = Routes(
            base.name, base.digest or base.revision, self.config.api_key_sha256, token_sha256,
            state_file=str(self.config.state_file),
        )  # fmt: skip
        self.routes = RoutesFile(self.config.state_file.with_suffix(".routes.json"), routes)
        self.routes.set(routes)
        command = flags.engine_command(
            settings, machine, model=fetched.base.folder, base_name=base.name, adapters=len(wanted.versions),
            host=self.config.host, port=self.config.port,
        )  # fmt: skip
        self.start_engine(command, machine)
        client = EngineClient(self.config.host, self.config.port, token)
        self.wait_until_up(client)
        fleet = Fleet(client, self.routes, command.max_live)
        answers = self.load(fleet, wanted, fetched, command.dtype)
        self.follow(fleet, wanted, number, answers, command.dtype)
        self.be_ready(client)
        self.drain(client)

    def read_manifest(self) -> tuple[int, Manifest]:
        """The manifest and its number in the watch. Keeps trying until the start's time is over; one that is there but
        wrong ends the start."""
        self.state.update("starting", f"reading the manifest {self.watch.remote.at(self.watch.path)}")
        self.watch.start()
        told: str | None = None
        while True:
            reading = self.watch.newer_than(0, 0.1)
            if reading is not None:
                break
            self.pause(0)
            error = self.watch.error
            if error is not None and time.monotonic() > self.deadline:
                raise error
            if error is not None and error.what != told:
                told = error.what
                self.state.update("starting", f"{error.what}; trying again")
        try:
            wanted = manifest.read(reading.raw)
        except ServingError as error:
            self.report.failed(None, error, retrying=False)
            raise
        try:
            check_same_base(self.config.base, wanted.base)
        except ServingError as error:
            self.report.failed(wanted.digest, error, retrying=False)
            raise
        self.report.follow(wanted)
        return reading.number, wanted

    def fetch(self, wanted: Manifest) -> Fetched:
        """Everything, tried again after faults of a moment until the start's time is over."""
        count = len(wanted.versions)
        self.state.update("fetching", f"{wanted.base.name} and {count} adapters")
        names = [adapter.name for adapter in wanted.adapters]
        while True:
            self.report.step(names, FETCHING)
            fetched = fetch_all(
                self.config.base, wanted.versions, self.cache, self.config.engine.max_lora_rank, self.interrupted
            )
            error = fetched.first_error()
            if error is None:
                self.report.step(names, WAITING)
                return fetched
            again = all(each.transient for each in (fetched.base_error, *(e for _, e in fetched.errors)) if each)
            again = again and time.monotonic() + RETRY_S < self.deadline
            self.tell_failed(wanted, fetched.errors, error, again)
            if not again:
                raise error
            self.state.update("fetching", f"{error.what}; trying again")
            self.pause(RETRY_S)

    def tell_failed(
        self, wanted: Manifest, errors: Sequence[tuple[Version, ServingError]], first: ServingError, again: bool
    ) -> None:
        self.report.failed(wanted.digest, first, again, {version.name: (version, error) for version, error in errors})

    def start_engine(self, command: flags.EngineCommand, machine: hardware.Hardware) -> None:
        assert self.routes is not None
        if self.stop.is_set():
            raise StopRequestedError
        self.state.say("vllm " + " ".join(command.arguments))
        self.engine = Engine(command, str(self.routes.path), self.wake.set)
        detail = f"vLLM on {machine.name}, {command.dtype} (process {self.engine.pid})"
        self.state.update("launching", detail, enginePid=self.engine.pid)

    def wait_until_up(self, client: EngineClient) -> None:
        told = begun = time.monotonic()
        while not client.healthy():
            self.pause(0.25)
            now = time.monotonic()
            if now > self.deadline:
                raise ServingError(
                    f"vLLM did not come up within startTimeoutS = {self.config.start_timeout_s:g} s",
                    "see the lines of vLLM in the server's log; on a slow machine raise startTimeoutS",
                )
            if now - told >= HEARTBEAT_S:
                told = now
                self.state.say(f"launching: vLLM is starting, {now - begun:.0f} s of at most "
                               f"{self.config.start_timeout_s:g} s")  # fmt: skip

    def load(self, fleet: Fleet, wanted: Manifest, fetched: Fetched, dtype: str) -> list[probe.Answer]:
        """The base answers first, then the adapters are loaded and probed, then the base again; only then public names.
        Returns the base's answers."""
        base = self.config.base.name
        count = len(fetched.adapters)
        names = [adapter.name for adapter in wanted.adapters]
        self.state.update("loading", "asking the base model before any adapter is there")
        try:
            before = base_check.ask_all(fleet.client, base)
            self.report.step(names, LOADING)
            for number, adapter in enumerate(fetched.adapters, 1):
                self.pause(0)
                self.state.update("loading", f"loading {adapter.version.name} ({number} of {count})")
                try:
                    fleet.load(adapter)
                except ServingError as error:
                    self.pause(0.5)  # an engine that died says more than a request that it did not answer
                    self.tell_failed(wanted, [(adapter.version, error)], error, again=False)
                    raise
            self.report.step(names, PROBING)
            self.state.update("probing", f"probing {count} adapters")
            asked = {adapter.served_name: adapter.version.name for adapter in fetched.adapters}
            faults = probe.probe(fleet.client, asked, before, self.interrupted)
            if faults:
                self.pause(0.5)
                failed = [(a.version, faults[a.served_name]) for a in fetched.adapters if a.served_name in faults]
                self.tell_failed(wanted, failed, failed[0][1], again=False)
                raise failed[0][1]
            self.report.step(names, WAITING)
            self.state.update("probing", "asking the base model again")
            self.state.say(base_check.timed_check(fleet.client, base, before, list(asked), dtype))
        except ServingError:
            self.pause(0.5)
            raise
        fleet.switch(wanted.adapters)
        self.report.now_serving(wanted)
        return before

    def follow(self, fleet: Fleet, current: Manifest, number: int, answers: Sequence[probe.Answer], dtype: str) -> None:
        """Starts to follow the manifest. One that came during the start is tried once before the server is ready."""
        config = self.config
        engine = ServingEngine(config.base, dtype, config.engine.max_lora_rank, answers, self.check_engine)
        follower = Follower(
            fleet, self.cache, self.report, self.watch, engine, current, number, say=self.state.say,
            served=self.publisher.served, broken=self.on_broken,
        )  # fmt: skip
        self.followers = [follower, Drainer(fleet, self.report, self.cache, follower.needed, self.state.say)]
        for version in current.versions:
            self.publisher.served(version)
        newer = self.watch.newer_than(number, 0)
        if newer is not None:
            try:
                follower.take_up(newer, patient=False)
            except StopRequestedError:
                self.pause(0)  # it saw that the engine has ended
                raise
        for thread in self.followers:
            thread.start()

    def be_ready(self, client: EngineClient) -> None:
        """Serves until SIGTERM. Raises ServingError when the engine ends, or answers wrongly."""
        assert self.routes is not None
        self.routes.change(ready=True, accepting=True)
        address = f"http://{self.config.host}:{self.config.port}"
        self.state.update("ready", f"serving at {address}")
        refusals = 0
        while not self.stop.is_set():
            self.wake.wait(timeout=1.0)
            self.check_engine()
            if self.broken is not None:
                raise self.broken
            # When vLLM's core dies while an adapter is being loaded, its API server waits for that load for ever.
            refusals = refusals + 1 if client.refuses() else 0
            if refusals >= REFUSALS and self.engine is not None:
                raise self.engine.core_death()

    def on_broken(self, error: ServingError) -> None:
        self.broken = error
        self.wake.set()

    def interrupted(self) -> None:
        self.pause(0)

    def drain(self, client: EngineClient) -> None:
        """Stops being ready, waits for the requests in flight, at most drainTimeoutS."""
        assert self.routes is not None
        end = time.monotonic() + self.config.drain_timeout_s
        self.watch.stop()
        for thread in self.followers:  # a takeover in the middle ends at its next step; what is served stays
            thread.stop()
        self.routes.change(ready=False)
        self.state.update("draining", "not ready any more; the router may still send requests for a moment")
        self.hurry.wait(timeout=min(DRAIN_GRACE_S, self.config.drain_timeout_s))
        self.routes.change(accepting=False)
        while not self.hurry.is_set():
            self.check_engine()
            left = sum(client.in_flight().values())
            if left == 0:
                return
            if time.monotonic() >= end:
                self.state.say(f"draining: {left} requests are cut off after {self.config.drain_timeout_s:g} s")
                return
            self.hurry.wait(timeout=0.1)

    def pause(self, seconds: float) -> None:
        """Waits; raises StopRequestedError when a signal came, ServingError when the engine has ended."""
        if self.stop.wait(timeout=seconds):
            raise StopRequestedError
        self.check_engine()

    def check_engine(self) -> None:
        if self.engine is not None:
            self.engine.check_alive()

    def end_engine(self) -> None:
        if self.engine is not None:
            self.engine.stop(STOP_PATIENCE_S)
            self.engine = None

    def clean(self) -> None:
        if self.routes is not None:
            self.routes.remove()
        for partial in self.config.cache.glob(f".*.{os.getpid()}.partial"):
            shutil.rmtree(partial, ignore_errors=True)

    def fail(self, error: ServingError) -> None:
        try:
            self.state.fail(error)
        except ServingError as second:  # the state file itself cannot be written: the log must do
            sys.stderr.write(f"error: {error}\nerror: {second}\n")

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.stop.is_set():
            self.hurry.set()
        self.stop.set()
        self.wake.set()


def check_port(host: str, port: int) -> None:
    """Raises ServingError when the address is taken, or is not this machine's."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe_socket:
            probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe_socket.bind((host, port))
    except OSError as error:
        raise ServingError(
            f"the port {port} on {host} cannot be used: {error.strerror or error}",
            f"see who has it with: ss -ltnp 'sport = :{port}', end it, or give this server another port",
        ) from None
