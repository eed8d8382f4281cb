"""The launcher: fetch, start vLLM, load, check, be ready, drain, stop. The phases are those of docs/architecture.md."""

import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from types import FrameType

from handlers.serving import flags, hardware, probe
from handlers.serving.client import EngineClient
from handlers.serving.config import LaunchConfig
from handlers.serving.errors import ServingError, StopRequestedError
from handlers.serving.fetch import Fetched, fetch_all
from handlers.serving.fleet import Fleet
from handlers.serving.process import Engine
from handlers.serving.routes import Routes, RoutesFile, new_admin_token
from handlers.serving.state import StateFile
from handlers.serving.store import Store

# After /ready turned to 503, requests are still taken for this long: the router needs a failed check or two to notice.
DRAIN_GRACE_S = 3.0
STOP_PATIENCE_S = 10.0
HEARTBEAT_S = 10.0


class Launcher:
    """Runs one server from start to end, in the main thread."""

    def __init__(self, config: LaunchConfig) -> None:
        self.config = config
        self.state = StateFile(config)
        self.deadline = time.monotonic() + config.start_timeout_s
        self.stop = threading.Event()
        self.hurry = threading.Event()
        """a second signal: no more waiting for requests in flight"""
        self.wake = threading.Event()
        self.store = Store(config.store, self.state.say)
        self.engine: Engine | None = None
        self.routes: RoutesFile | None = None

    def run(self) -> int:
        """Returns the exit code: 0 when stopped on request, 1 when failed."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.on_signal)
        code = 1
        try:
            self.state.update("starting", f"process {os.getpid()}")
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
        sys.stdout.flush()
        os._exit(code)  # not sys.exit: a download in a thread would hold the process

    def serve(self) -> None:
        settings, manifest = self.config.engine, self.config.manifest
        machine = hardware.detect(settings.device)
        flags.dtype_for(settings, machine)  # an impossible wish is refused before anything is fetched
        check_port(self.config.host, self.config.port)
        count = len(manifest.adapters)
        self.state.update("fetching", f"{manifest.base.name} and {count} adapters")
        fetched = fetch_all(manifest, self.store, self.stop)
        token, token_sha256 = new_admin_token()
        routes = Routes(manifest.base.name, fetched.base.digest, self.config.api_key_sha256, token_sha256)
        self.routes = RoutesFile(self.config.state_file.with_suffix(".routes.json"), routes)
        self.routes.set(routes)
        command = flags.engine_command(
            settings, machine, model=fetched.base.folder, base_name=manifest.base.name, adapters=count,
            host=self.config.host, port=self.config.port,
        )  # fmt: skip
        self.start_engine(command, machine)
        client = EngineClient(self.config.host, self.config.port, token)
        self.wait_until_up(client)
        self.load(Fleet(client, self.routes), fetched, command.dtype)
        self.be_ready()
        self.drain(client)

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

    def load(self, fleet: Fleet, fetched: Fetched, dtype: str) -> None:
        """Base answers first, then the adapters one by one, then the base again; only then public names."""
        base = self.config.manifest.base.name
        count = len(fetched.adapters)
        self.state.update("loading", "asking the base model before any adapter is there")
        try:
            before = probe.ask_all(fleet.client, base)
            for number, adapter in enumerate(fetched.adapters, 1):
                self.pause(0)
                self.state.update("loading", f"loading {adapter.name} ({number} of {count})")
                fleet.load(adapter)
            for number, adapter in enumerate(fetched.adapters, 1):
                self.pause(0)
                self.state.update("probing", f"probing {adapter.name} ({number} of {count})")
                fleet.probe(adapter)
            self.state.update("probing", "asking the base model again")
            names = [adapter.served_name for adapter in fetched.adapters]
            self.state.say(probe.timed_check(fleet.client, base, before, names, dtype))
        except ServingError:
            self.pause(0.5)  # an engine that died says more than a request that it did not answer
            raise
        for adapter in fetched.adapters:
            fleet.switch(adapter)

    def be_ready(self) -> None:
        """Serves until SIGTERM. Raises ServingError when the engine ends."""
        assert self.routes is not None
        self.routes.change(ready=True, accepting=True)
        adapters = [
            {"name": name, "servedName": served.served_name, "digest": served.digest}
            for name, served in self.routes.routes.adapters
        ]
        address = f"http://{self.config.host}:{self.config.port}"
        self.state.update("ready", f"{address} serves the base and {len(adapters)} adapters", adapters=adapters)
        while not self.stop.is_set():
            self.wake.wait(timeout=1.0)
            self.check_engine()

    def drain(self, client: EngineClient) -> None:
        """Stops being ready, waits for the requests in flight, at most drainTimeoutS."""
        assert self.routes is not None
        end = time.monotonic() + self.config.drain_timeout_s
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
        for partial in self.config.store.glob(f".*.{os.getpid()}.partial"):
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
