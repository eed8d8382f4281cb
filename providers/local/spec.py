"""What may be declared of a target on this machine: one vLLM process, started by `handlers.serving`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from lorafleet import disk
from lorafleet.errors import Problem
from lorafleet.stackfile import FieldPath
from lorafleet.targets import Site, TargetSpec
from lorafleet.values import Choice, Port, Text, Whole

PATH = Text(
    r"(?!~)(?!.*(?:^|/)\.\.(?:/|$))[^\x00-\x1f\x7f\ud800-\udfff]{1,400}",
    "a path from the project's root, or an absolute one, without ~ and ..",
)
DEFAULT_PYTHON = ".venv-serving/bin/python"
DEFAULT_STATE_FOLDER = ".lorafleet"


class LocalTarget(TargetSpec):
    """A vLLM server on this machine that outlives `pulumi up`.

    Fields:
        port: the server's port; only the router talks to it.
        host: address that it listens on. Only this machine's own: the router is what others may reach.
        start_timeout_s: longest time from the start until every adapter answered, in seconds.
        drain_timeout_s: longest wait for requests in flight when it stops, in seconds.
        python: interpreter of the environment that vLLM is installed in (default `.venv-serving/bin/python`).
        state_dir: folder for the state, logs and fetched weights (default `.lorafleet/<stack>`).
    """

    kind: Literal["local"]
    port: Port
    host: Annotated[Literal["127.0.0.1"], Choice(("127.0.0.1",))] = "127.0.0.1"
    start_timeout_s: Annotated[int, Whole(10, 7200, "seconds")] = 900
    drain_timeout_s: Annotated[int, Whole(0, 600, "seconds")] = 30
    python: Annotated[str, PATH] = DEFAULT_PYTHON
    state_dir: Annotated[str, PATH] | None = None

    def ports(self) -> Mapping[str, int]:
        return {"port": self.port}

    @property
    def url(self) -> str:
        """Where the server answers, without a path."""
        return f"http://{self.host}:{self.port}"

    def python_path(self, root: Path) -> Path:
        """The interpreter, absolute. Links are kept: an environment's python is one, its place matters."""
        return root.absolute() / self.python

    def state_path(self, root: Path, environment: str) -> Path:
        """The folder of the whole stack's state, absolute; a target has a folder of its name in it."""
        return root.absolute() / (self.state_dir or f"{DEFAULT_STATE_FOLDER}/{environment}")

    def problems(self, site: Site) -> Iterable[tuple[FieldPath, Problem]]:
        problem = _python_problem(self.python_path(site.root), self.python)
        if problem:
            yield ("python",), problem
        folder = self.state_path(site.root, site.environment)
        problem = _state_problem(folder, site)
        if problem:
            yield ("stateDir",), problem


def _python_problem(path: Path, declared: str) -> Problem | None:
    allowed = "an executable file, the python of the environment that vLLM is installed in"
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return Problem(
            "there is no interpreter to start the server with",
            found=f"no such file: {declared}",
            allowed=allowed,
            next_action="Run `make setup`, which installs it, or mend the path.",
        )
    if not is_file or not os.access(path, os.X_OK):
        return Problem(
            "the interpreter to start the server with can't be run",
            found="a folder" if path.is_dir() else "a file without the right to be executed",
            allowed=allowed,
            next_action="Name the interpreter itself, as in .venv-serving/bin/python.",
        )
    return None


def _state_problem(folder: Path, site: Site) -> Problem | None:
    name = str(folder.relative_to(site.root)) if folder.is_relative_to(site.root) else str(folder)
    allowed = "a folder of its own that this user can write"
    if folder == site.root.absolute() or len(folder.parts) < 3:
        return Problem(
            "this folder holds other things than a stack's state",
            found=name,
            allowed=allowed,
            next_action=f"Name a folder of its own, such as {DEFAULT_STATE_FOLDER}/{site.environment}.",
        )
    for part in (folder, *folder.parents):
        try:
            mode = part.stat().st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            return Problem(
                f"{name} can't be used as a folder",
                found=error.strerror or "an error of the disk",
                allowed=allowed,
                next_action="Mend the path.",
            )
        if not stat.S_ISDIR(mode) or not os.access(part, os.W_OK | os.X_OK):
            return Problem(
                f"{name} can't be used as a folder",
                found="a file" if not stat.S_ISDIR(mode) else "a folder that this user can't write",
                allowed=allowed,
                next_action="Mend the path, or give this user the right to write there.",
            )
        break
    try:
        disk.check_room(folder / site.target, site.content_bytes, name=name)
    except Problem as problem:
        return problem
    return None


SPEC = LocalTarget
