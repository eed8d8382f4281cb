"""The launcher of handlers/serving with the engine in its own process: same manifest, same checks, same state file."""

import asyncio
import os
import queue
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

from handlers.serving import hardware
from handlers.serving.alias import AliasMiddleware
from handlers.serving.errors import ServingError, StopRequestedError
from handlers.serving.fleet import Fleet
from handlers.serving.launcher import LAST_WORD_S, Launcher
from handlers.serving.routes import ROUTES_VARIABLE, Routes, RoutesFile, new_admin_token
from handlers.vertex import engines
from handlers.vertex.client import LoopClient
from handlers.vertex.front import Front, NotYet
from handlers.vertex.settings import Settings

FLUSH_S = 0.5
"""after the last answer was given to the server, so that it is on its way when the process ends"""


class HandlerLauncher(Launcher):
    """`run` is for a thread of its own; it ends the process. `front` is to be put in front of the server."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.launch)
        self.settings = settings
        base = settings.launch.base
        self.token, token_sha256 = new_admin_token()
        routes = Routes(
            base.name, base.digest or base.revision, settings.launch.api_key_sha256, token_sha256,
            state_file=str(settings.launch.state_file),
        )  # fmt: skip
        self.routes_file = RoutesFile(settings.launch.state_file.with_suffix(".routes.json"), routes)
        self.routes_file.set(routes)
        self.routes = self.routes_file
        os.environ[ROUTES_VARIABLE] = str(self.routes_file.path)
        self.place = NotYet()
        self.alias = AliasMiddleware(self.place)
        self.front = Front(settings, self.alias)
        self.loops: queue.SimpleQueue[asyncio.AbstractEventLoop] = queue.SimpleQueue()
        """gets the server's loop once it runs"""
        self.inner: engines.Engine | None = None
        self.client: LoopClient | None = None

    def run(self) -> int:
        code = 1
        try:
            self.state.update("starting", f"process {os.getpid()}")
            self.publisher.start()
            self.serve()
            code = 0
        except StopRequestedError:
            code = 0
        except ServingError as error:
            self.fail(error)
        except Exception as error:
            traceback.print_exc()  # for the log
            self.fail(ServingError(f"unexpected: {type(error).__name__}: {error}", "report it, with the server's log"))
        self.end_engine()
        self.clean()
        if code == 0:
            self.state.update("stopped", "on request", enginePid=None)
        self.publisher.close(remove=code == 0, patience_s=LAST_WORD_S)
        time.sleep(FLUSH_S)
        sys.stdout.flush()
        os._exit(code)  # the server's own end would wait for connections, and know nothing of a failure

    def serve(self) -> None:
        machine = hardware.detect(self.config.engine.device)
        self.cache.prepare()
        number, wanted = self.read_manifest()
        fetched = self.fetch(wanted)
        assert fetched.base is not None
        loop = self.wait_for_loop()
        self.state.update("launching", f"{self.settings.engine} on {machine.name}", enginePid=os.getpid())
        model, adapters = fetched.base.folder, len(wanted.versions)
        self.inner = self.made(lambda: engines.make(self.settings, machine, model, adapters, loop))
        self.place.app = self.inner.app
        client = self.client = LoopClient(self.alias, loop, self.token)
        self.wait_until_up(client)
        fleet = Fleet(client, self.routes_file, self.inner.max_live)
        answers = self.load(fleet, wanted, fetched, self.inner.dtype)
        self.follow(fleet, wanted, number, answers, self.inner.dtype)
        self.be_ready(client)
        self.drain(client)

    def wait_for_loop(self) -> asyncio.AbstractEventLoop:
        while True:
            self.interrupted()
            try:
                return self.loops.get(timeout=0.1)
            except queue.Empty:
                if time.monotonic() > self.deadline:
                    raise ServingError(
                        "the server that loaded the handler does not start", "see its lines in the log"
                    ) from None

    def made(self, make: Callable[[], engines.Engine]) -> engines.Engine:
        """In a thread, which is left behind when a signal comes or the start's time is over: the process ends then."""
        future = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine").submit(make)
        while not wait([future], timeout=0.1).done:
            self.interrupted()
            if time.monotonic() > self.deadline:
                raise ServingError(
                    f"the engine did not come up within startTimeoutS = {self.config.start_timeout_s:g} s",
                    "see its lines in the server's log; on a slow machine raise startTimeoutS",
                )
        return future.result()

    def check_engine(self) -> None:
        if self.inner is not None:
            self.inner.check_alive()

    def end_engine(self) -> None:
        if self.inner is not None:
            inner, self.inner = self.inner, None
            try:
                inner.stop()
            except Exception:  # it is the end anyway
                traceback.print_exc()
