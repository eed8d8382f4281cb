"""Keeps HAProxy running as the router file says, and tells in the state file how that goes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import resource
import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from handlers.router import config, files, haproxy, metrics, names, render, rules
from handlers.router.config import Access, Address, RouterFile, Target
from handlers.router.endpoint import Endpoint
from handlers.router.errors import RouterError
from handlers.router.tokens import Tokens
from handlers.router.watch import Watch

_START_TIMEOUT_S = 10.0
_FIRST_CHECKS_TIMEOUT_S = 3.0
_STOP_TIMEOUT_S = 5.0
_POLL_S = 0.05
_MAX_CONNECTIONS = 4000


async def run(router_file: Path) -> int:
    """Runs the router until SIGTERM or SIGINT. Returns the exit status: 0 stopped as asked, 1 failed."""
    state: files.State | None = None
    try:
        content = config.read_bytes(router_file, "the router file")
        state_path = config.state_file_of(content)
        if state_path is not None:
            state = files.State(state_path)
        router = config.parse(content, str(router_file))
        state = files.State(router.state_file)
        return await _Supervisor(router_file, router, state).run()
    except RouterError as error:
        _say(str(error))
        if state is not None:
            if state.is_of_another_router():
                _say(f"{state.path} is kept by a router that runs; it was left as it is.")
            else:
                _tell(state, "failed", "did not start" if state.phase == "starting" else "stopped", error)
        return 1


def _say(text: str) -> None:
    # Nobody may read standard error any more; that must not end the router.
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def _same_place(old: Target, new: Target) -> bool:
    return (old.name, old.host, old.port) == (new.name, new.host, new.port)


def _tell(state: files.State, phase: str, detail: str, error: RouterError | None = None) -> None:
    """Into the state file; when that fails (no space), requests are still served and the log says it."""
    try:
        state.set(phase, detail, error)
    except RouterError as failed:
        _say(str(failed))


class _Supervisor:
    def __init__(self, router_file: Path, router: RouterFile, state: files.State) -> None:
        self._router_file = router_file
        self._router = router
        self._state = state
        self._run_dir = router.run_dir
        self._admin = haproxy.Admin(router.run_dir)
        self._program = ""
        self._watch = Watch(_say)
        self._tokens = Tokens(self._on_token, _say)
        self._generation = 0
        self._process: asyncio.subprocess.Process | None = None
        self._last_words: deque[str] = deque(maxlen=40)
        self._reload_asked = asyncio.Event()
        self._stop_asked = asyncio.Event()
        self._stop_now = asyncio.Event()

    async def run(self) -> int:
        lock = self._lock()
        try:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, self._reload_asked.set)
            for signal_number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(signal_number, self._on_stop)
            self._state.set("starting", "starting HAProxy")
            await self._start()
            return await self._serve()
        finally:
            self._watch.stop()
            self._tokens.stop()
            await self._kill()
            os.close(lock)

    def _on_stop(self) -> None:
        """The first time: drain. The second: at once."""
        if self._stop_asked.is_set():
            self._stop_now.set()
        self._stop_asked.set()

    def _lock(self) -> int:
        """One router in one runDir; the lock goes with this process, however it ends."""
        files.prepare_run_dir(self._run_dir)
        path = self._run_dir / "lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise RouterError(f"{path} cannot be written: {error.strerror}", "make runDir writable") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip()
            os.close(lock)
            raise RouterError(
                f"runDir {self._run_dir} is in use by another router (pid {holder})",
                "stop that router or name another runDir",
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return lock

    async def _start(self) -> None:
        self._program = haproxy.find()
        files.clear_run_dir(self._run_dir)
        files.write_private(self._run_dir / render.SERVER_STATES, "1\n")
        for field, address in (("listen", self._router.listen), ("metrics", self._router.metrics)):
            _must_be_free(field, address)
        access = await self._access(self._router)
        folder = await self._write_checked(self._router, access)
        files.point_current_at(self._run_dir, folder)
        endpoint = Endpoint(self._run_dir, lambda: metrics.text(self._watch.seen()))
        config_path = f"{files.CURRENT}/{render.CONFIG_FILE}"
        self._process = await haproxy.start(self._program, self._run_dir, config_path)
        self._relay = asyncio.create_task(self._relay_errors(self._process))
        self._state.haproxy_pid = self._process.pid
        # Threads begin behind the fork that starts HAProxy: what one of them locks would stay locked in the child.
        endpoint.start()
        self._watch.follow(self._router.targets, access)
        if await self._new_worker(None, _START_TIMEOUT_S) is None:
            await self._kill()
            raise RouterError(
                f"HAProxy did not start: {haproxy.problems(self._words())}",
                "if it names a port, free it or change that port in the router file",
            )
        asked = [names.target_backend(target.name) for target in self._router.targets if target.health_path]
        deadline = asyncio.get_running_loop().time() + _FIRST_CHECKS_TIMEOUT_S
        # Until its first check HAProxy takes a target for up; who waits for "ready" shall not meet that.
        while asyncio.get_running_loop().time() < deadline and not self._stop_asked.is_set():
            if haproxy.first_checks_done(await self._admin.stats(), asked):
                break
            await asyncio.sleep(_POLL_S)
        self._ready(None)

    def _ready(self, error: RouterError | None) -> None:
        router = self._router
        if error is None:
            self._state.config_digest = router.digest
        detail = f"serving {len(router.models)} models from {len(router.targets)} targets on {router.listen}"
        if error is not None:
            detail += "; the last reload was refused"
        _tell(self._state, "ready", detail, error)

    async def _serve(self) -> int:
        assert self._process is not None
        ended = asyncio.create_task(self._process.wait())
        while True:
            reload_asked = asyncio.create_task(self._reload_asked.wait())
            stop_asked = asyncio.create_task(self._stop_asked.wait())
            await asyncio.wait((ended, reload_asked, stop_asked), return_when=asyncio.FIRST_COMPLETED)
            reload_asked.cancel()
            stop_asked.cancel()
            if ended.done() and not self._stop_asked.is_set():
                await self._relay
                self._state.haproxy_pid = None
                raise RouterError(
                    f"HAProxy ended by itself (exit status {ended.result()}): {haproxy.problems(self._words())}",
                    "see the router's log, then start the router again",
                )
            if self._stop_asked.is_set():
                await self._drain(ended)
                return 0
            self._reload_asked.clear()
            await self._reload()

    async def _reload(self) -> None:
        """The file as it is now, if it is good; else the former configuration goes on serving."""
        _tell(self._state, "reloading", "reading the router file again")
        former_folder = self._run_dir / (self._run_dir / files.CURRENT).readlink()
        asked: str | None = None
        try:
            content = config.read_bytes(self._router_file, "the router file")
            asked = hashlib.sha256(content).hexdigest()
            router = config.parse(content, str(self._router_file))
            self._must_stay(router)
            access = await self._access(router)
            folder = await self._write_checked(router, access)
            await self._switch(router, folder, former_folder)
        except RouterError as error:
            _say(f"The router file was refused; the former one goes on serving.\n{error}")
            self._state.refused_digest = asked
            self._ready(error)
            return
        self._state.refused_digest = None
        self._router = router
        self._watch.follow(router.targets, access)
        files.remove_generations_but(self._run_dir, folder)
        self._ready(None)

    def _must_stay(self, router: RouterFile) -> None:
        for field, before, now in (
            ("runDir", self._router.run_dir, router.run_dir),
            ("stateFile", self._router.state_file, router.state_file),
        ):
            if before != now:
                raise RouterError(
                    f"{self._router_file}: {field} changed from {before} to {now}, which a reload cannot do",
                    "restart the router, or put the former value back",
                )
        ours = {str(self._router.listen), str(self._router.metrics)}
        for field, address in (("listen", router.listen), ("metrics", router.metrics)):
            if str(address) not in ours:
                _must_be_free(field, address)

    async def _switch(self, router: RouterFile, folder: Path, former: Path) -> None:
        """HAProxy's own hitless reload: the new worker takes the sockets, the old one ends with its requests."""
        assert self._process is not None
        worker = await self._admin.worker_pid()
        states = await self._admin.ask("show servers state")
        if states:
            moved = {
                new.name for new in router.targets if not any(_same_place(old, new) for old in self._router.targets)
            }
            files.write_private(self._run_dir / render.SERVER_STATES, haproxy.without_targets(states, moved))
        files.point_current_at(self._run_dir, folder)
        self._last_words.clear()
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGUSR2)
        if await self._new_worker(worker, _START_TIMEOUT_S) is None:
            files.point_current_at(self._run_dir, former)
            files.remove_generations_but(self._run_dir, former)
            raise RouterError(
                f"HAProxy did not take the new configuration: {haproxy.problems(self._words())}",
                "correct what it names and send SIGHUP again",
            )

    async def _access(self, router: RouterFile) -> Mapping[str, Access]:
        """What targets ask for, tokens included. Raises RouterError."""
        access = dict(config.load_access(router))
        wanted = [target.name for target in router.targets if target.token is not None]
        if wanted:
            await self._tokens.begin()
        for name in wanted:
            headers = access.get(name, Access()).headers
            access[name] = Access(self._tokens.text or rules.NO_TOKEN, headers)
        return access

    async def _on_token(self, token: str | None) -> None:
        """A new token goes to the running worker as it is; a reload is not needed for it."""
        for target in self._router.targets:
            if target.token is not None:
                await self._admin.set_in_map(rules.TARGET_KEYS, target.name, token or rules.NO_TOKEN)

    async def _write_checked(self, router: RouterFile, access: Mapping[str, Access]) -> Path:
        self._generation += 1
        texts = render.render(router, access, _max_connections())
        folder = files.write_generation(self._run_dir, self._generation, texts)
        try:
            await haproxy.check(self._program, self._run_dir, folder / render.CONFIG_FILE)
        except RouterError:
            files.remove(folder)
            raise
        return folder

    async def _new_worker(self, former: int | None, timeout_s: float) -> int | None:
        """The pid of a worker other than `former` that answers on the admin socket, or None."""
        assert self._process is not None
        deadline = asyncio.get_running_loop().time() + timeout_s
        while asyncio.get_running_loop().time() < deadline and self._process.returncode is None:
            worker = await self._admin.worker_pid()
            if worker is not None and worker != former:
                return worker
            if "Loading failure" in self._words():
                return None
            await asyncio.sleep(_POLL_S)
        return None

    async def _drain(self, ended: asyncio.Task[int]) -> None:
        """No new connections; requests in flight go on, for as long as one may take; then HAProxy stops."""
        assert self._process is not None
        limits = self._router.limits
        _tell(self._state, "draining", "waiting for the requests in flight")
        deadline = asyncio.get_running_loop().time() + limits.response_timeout_s + limits.queue_timeout_s
        worker = await self._admin.worker_pid()
        talk = await self._admin.talk()
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGUSR1)
        idle_polls = 0
        # HAProxy would also wait for clients' idle connections; two looks without a request are enough.
        while idle_polls < 2 and not ended.done() and not self._stop_now.is_set():
            if asyncio.get_running_loop().time() > deadline:
                break
            # Workers of former configurations end by themselves, at the latest when idle clients are let go.
            former = [pid for pid in _children(self._process.pid) if pid != worker]
            busy = bool(former) or (talk is not None and await talk.in_flight() > 0)
            idle_polls = 0 if busy else idle_polls + 1
            await asyncio.wait((ended,), timeout=0.1)
        if talk is not None:
            talk.close()
        await self._kill()
        self._state.haproxy_pid = None
        _tell(self._state, "stopped", "stopped as asked")

    async def _kill(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        workers = _children(process.pid)
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
        except TimeoutError:
            for pid in (process.pid, *workers):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            await process.wait()

    def _words(self) -> str:
        return "\n".join(self._last_words)

    async def _relay_errors(self, process: asyncio.subprocess.Process) -> None:
        """HAProxy's notices go on to standard error; the last ones are kept for error messages."""
        assert process.stderr is not None
        async for line in process.stderr:
            text = line.decode(errors="replace").rstrip()
            self._last_words.append(text)
            _say(text)


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def _must_be_free(field: str, address: Address) -> None:
    """Raises RouterError when the port cannot be had. HAProxy would say so too, but less clearly."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise RouterError(
                    f"{field}.port {address.port} is taken: another process listens on {address}",
                    f"stop that process (ss -ltnp 'sport = :{address.port}' shows it) or choose another port",
                ) from None
            raise RouterError(
                f"{field} {address} cannot be listened on: {error.strerror}",
                "choose an address of this machine and a port that this user may use (from 1024, without root)",
            ) from None


def _max_connections() -> int:
    """Each connection takes two descriptors; HAProxy raises its soft limit to the hard one by itself."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return _MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else max(64, min(_MAX_CONNECTIONS, (hard - 200) // 2))
