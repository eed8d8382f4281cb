"""What the server and the router have in common as provider resources: one supervised process each.

Both are converged rather than changed: look at what runs, and do what is missing. So a create that takes over
what a killed run left, an update and a repair are the same few lines.
"""

from __future__ import annotations

import asyncio
import sys
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from providers import kit

from . import ports, process
from .daemon import Daemon, Look, canonical, launch_digest, leftovers, write_private

CODE = Path(__file__).resolve().parents[2]
"""The folder that holds `handlers/`."""

# Requests are still accepted by the kernel when a process hangs; it must answer within this time.
_ANSWER_WITHIN_S = 5.0


class ProcessInputs(kit.Inputs):
    """Inputs of every supervised process.

    state_dir: absolute folder that run folders and logs are kept in.
    host, port: where it listens (loopback).
    """

    name: kit.AutoName
    state_dir: kit.Replaced[str]
    host: str = "127.0.0.1"
    port: int


class ProcessOutputs(kit.Outputs):
    """Outputs of every supervised process.

    pid: of the supervising process; absent while it does not run.
    status: the phase it reports (`ready` when all is well), or `dead`.
    """

    pid: int | None = None
    status: Annotated[str, kit.Expected("ready")]
    log_file: str


I = TypeVar("I", bound=ProcessInputs)  # noqa: E741
O = TypeVar("O", bound=ProcessOutputs)  # noqa: E741


class Supervised(kit.Resource[I, O]):
    """Base of resources that are one process on this machine."""

    # A look at /proc costs milliseconds, and a process can die at any time.
    reads_at_diff: ClassVar[bool] = True
    # The new one needs the port of the old one.
    delete_before_replace: ClassVar[bool] = True
    what: ClassVar[str]
    passed_on: ClassVar[tuple[str, ...]] = ()
    """Variables of the environment that the process needs besides the usual ones."""

    # -- what differs ---------------------------------------------------------------------------------------

    @abstractmethod
    def command(self, daemon: Daemon, inputs: I) -> Sequence[str]:
        """How the process is started."""

    @abstractmethod
    def document(self, daemon: Daemon, inputs: I) -> dict[str, Any]:
        """The configuration that it reads."""

    @abstractmethod
    def inputs_from(self, daemon: Daemon, document: dict[str, Any]) -> dict[str, Any]:
        """The inputs (wire names, without name and stateDir) that `document` was made from."""

    @abstractmethod
    def outputs(self, daemon: Daemon, inputs: I, look: Look, status: str) -> O:
        """Its outputs."""

    @abstractmethod
    def drain_s(self, document: dict[str, Any]) -> float:
        """How long requests in flight may take at the end, in seconds."""

    def prepare(self, daemon: Daemon, inputs: I) -> None:
        """Writes further files that the configuration names."""

    async def reload(self, ctx: kit.Context, daemon: Daemon, inputs: I, content: bytes) -> bool:
        """Takes over a changed configuration (`content`) without a restart; False if it can't."""
        return False

    async def answers(self, inputs: I) -> str:
        """Why it does not answer, one sentence; "" if it does."""
        return await self._http_answers(inputs, "/ready")

    # -- what is shared -------------------------------------------------------------------------------------

    async def problems(self, ctx: kit.Context, inputs: I, old: I | None) -> AsyncIterator[kit.Problem]:
        if not Path(inputs.state_dir).is_absolute():
            yield kit.Problem(("stateDir",), "is not an absolute path", "an absolute path", "correct it")
        for field, port in self.listens(inputs).items():
            if not ports.is_free(inputs.host, port) and not self._holds(ctx, field, port, old):
                yield kit.Problem(
                    (field,),
                    f"port {port} of {inputs.host} is in use by {ports.describe_holder(port)}",
                    "a free port",
                    "choose another port in the stack file, or end that process",
                )

    def listens(self, inputs: I) -> dict[str, int]:
        """{wire name of the field: port}"""
        return {"port": inputs.port}

    def _holds(self, ctx: kit.Context, field: str, port: int, old: I | None) -> bool:
        """Whether the port is held by a process of this resource: of this run, or left over from a killed one.

        Told by the holder's own marks. A resource that was renamed or moved in the stack has another URN now; it is
        known by what the state names.
        """
        own = Daemon.at(old.state_dir, old.name) if old else None
        if old and own and self.listens(old)[field] == port and own.leader() is not None:
            return True  # as it was: no need to search all processes for who holds it
        pid = ports.holder(port)
        mark = process.run_of(pid) if pid is not None else None
        if mark is None:
            return False
        run, urn = mark
        known = {*ctx.owned, *([str(own.run)] if own else [])}
        return urn == ctx.urn or Daemon(run).owner() == ctx.urn or str(run) in known

    async def find(self, ctx: kit.Context, inputs: I) -> Sequence[kit.Leftover]:
        return leftovers(inputs.state_dir, ctx.urn)

    async def create(self, ctx: kit.Context, inputs: I) -> tuple[str, O]:
        daemon = Daemon.at(inputs.state_dir, inputs.name)
        daemon.claim(ctx.urn, self.command(daemon, inputs))
        ctx.exists(str(daemon.run), self.outputs(daemon, inputs, Look(None, {}), "starting"))
        return str(daemon.run), await self.converge(ctx, daemon, inputs)

    async def update(self, ctx: kit.Context, resource_id: str, old: I | None, inputs: I) -> O:
        return await self.converge(ctx, Daemon(Path(resource_id)), inputs)

    async def converge(self, ctx: kit.Context, daemon: Daemon, inputs: I) -> O:
        """Makes the process run with these inputs; leaves one alone that does."""
        command, content = self.command(daemon, inputs), canonical(self.document(daemon, inputs))
        if not await self._runs_with(ctx, daemon, inputs, command, content):
            await daemon.stop(ctx, drain_s=self.drain_s(daemon.config()))
            daemon.claim(ctx.urn, command)
            self.prepare(daemon, inputs)
            daemon.start(command, content, path=CODE, passed_on=self.passed_on)
        else:
            daemon.claim(ctx.urn, command)
        return self.outputs(daemon, inputs, await daemon.wait_ready(ctx, self.what), "ready")

    async def _runs_with(
        self, ctx: kit.Context, daemon: Daemon, inputs: I, command: Sequence[str], content: bytes
    ) -> bool:
        """Whether a process runs, is not known to be broken, and has or can take over this configuration."""
        look = daemon.look()
        leader, phase = look.leader, look.state.get("phase")
        if leader is None or phase in ("failed", "draining", "stopped") or not daemon.config_file.is_file():
            return False
        if leader.launch != launch_digest(command, content):
            return await self.reload(ctx, daemon, inputs, content)
        write_private(daemon.config_file, content)  # somebody may have changed it since
        return phase != "ready" or not await self.answers(inputs)

    async def read(
        self, ctx: kit.Context, resource_id: str, inputs: I | None, outputs: O | None
    ) -> kit.Reading[I, O] | None:
        daemon = Daemon(Path(resource_id))
        look = daemon.look()
        if not daemon.run.is_dir() and look.leader is None:
            return None
        found = self._configured(daemon)
        legible = found is not None
        found = found or inputs
        if found is None:
            return None
        status = str(look.state.get("phase", "starting")) if look.leader or look.state else "dead"
        if look.leader is not None and status == "ready" and not (legible and self.runs_what_is_written(daemon, look)):
            status = "altered"
        unhealthy = await self._unhealthy(daemon, found, look, status)
        return kit.Reading(found, self.outputs(daemon, found, look, status), tuple(unhealthy))

    def _configured(self, daemon: Daemon) -> I | None:
        """The inputs that the configuration in the folder was made from; None if that cannot be told."""
        own = {"name": daemon.run.name, "stateDir": str(daemon.run.parent.parent)}
        try:
            read: I = self.inputs_model().model_validate({**own, **self.inputs_from(daemon, daemon.config())})
        except (KeyError, TypeError, ValueError, AttributeError):
            # Lost, damaged, or written by another release. An update writes it again.
            return None
        return read

    def runs_what_is_written(self, daemon: Daemon, look: Look) -> bool:
        """Whether the process works with the configuration that is in the folder."""
        return look.leader is not None and look.leader.launch == daemon.launch_digest()

    async def _unhealthy(self, daemon: Daemon, inputs: I, look: Look, status: str) -> list[str]:
        error = look.state.get("error") or {}
        if status == "failed":
            return [f"{self.what} failed: {error.get('what')} (log: {daemon.log_file}); {error.get('next')}"]
        if status == "dead":
            return [
                f"{self.what} is not running: it died or was killed (log: {daemon.log_file}); `pulumi up` starts it"
            ]
        if status == "altered":
            return [f"{self.what} does not run with the configuration in {daemon.run}; `pulumi up` mends it"]
        if status != "ready":
            detail = look.state.get("detail") or status
            return [f"{self.what} is not ready: {detail}; `pulumi up` mends it"]
        silence = await self.answers(inputs)
        return [f"{self.what} {silence}; `pulumi up` restarts it"] if silence else []

    async def delete(self, ctx: kit.Context, resource_id: str, inputs: I | None) -> None:
        daemon = Daemon(Path(resource_id))
        await daemon.remove(ctx, drain_s=self.drain_s(daemon.config()))

    async def _http_answers(self, inputs: I, path: str) -> str:
        place = f"{inputs.host}:{inputs.port}"
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                reader, writer = await asyncio.open_connection(inputs.host, inputs.port)
                try:
                    writer.write(f"GET {path} HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\r\n".encode())
                    status = (await reader.readline()).decode(errors="replace").split(" ")
                finally:
                    writer.close()
        except TimeoutError:
            return f"does not answer on {place} within {_ANSWER_WITHIN_S:g} s"
        except OSError as error:
            return f"does not answer on {place}: {error.strerror or error}"
        return "" if len(status) > 1 and status[1] == "200" else f"answers {' '.join(status).strip()} on {place}{path}"


def own_python() -> str:
    """The interpreter that runs the plugin: for processes that need the standard library alone."""
    return sys.executable
