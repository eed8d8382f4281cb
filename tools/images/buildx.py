"""docker buildx, which reads the bake file: the one at hand, or one built from its Go modules (tools/images/buildx).

Printing a bake file needs no Docker engine.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.images.places import BAKE, BASES, ROOT, ImagesError
from tools.setup import golang, locks, paths, stamps, versions
from tools.setup.errors import SetupError
from tools.setup.progress import Task, clock

MODULE = Path(__file__).resolve().parent / "buildx"
PACKAGE = "github.com/docker/buildx/cmd/buildx"
OLDEST: versions.Version = (0, 35)
"""The oldest that the bake file was tried with."""


def own() -> Path:
    """Where the set-up's own buildx lies, whether it is there or not."""
    recipe = stamps.digest([MODULE / "go.mod", MODULE / "go.sum"], {"recipe": 1})
    return paths.cache_dir() / "buildx" / f"{recipe[:12]}-{sys.platform}-{platform.machine()}" / "buildx"


def command() -> list[str] | None:
    """The buildx to use: the set-up's own, else Docker's plugin or a program on PATH; None if there is none."""
    if own().is_file():
        return [str(own())]
    for candidate in (["docker", "buildx"], ["buildx"]):
        if shutil.which(candidate[0]) and versions.at_least(versions.of_command([*candidate, "version"]), OLDEST):
            return candidate
    return None


def bake(
    targets: list[str], variables: dict[str, str] | None = None, options: list[str] | None = None
) -> dict[str, Any]:
    """What `bake --print` makes of the bake file for some targets or groups; builds nothing. Raises ImagesError."""
    program = command()
    if program is None:
        raise ImagesError("docker buildx is not installed\n  next: python -m tools.images setup")
    asked = [
        *program,
        "bake",
        "-f",
        str(BAKE),
        "-f",
        str(BASES),
        "--print",
        "--progress=quiet",
        *(options or []),
        *targets,
    ]
    # Variables of the caller's own would be taken for those of the bake file.
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "DOCKER_CONFIG", "TMPDIR")}
    done = subprocess.run(asked, cwd=ROOT, env=kept | (variables or {}), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ImagesError(f"docker buildx bake: {done.stderr.strip()}\n  next: correct {BAKE.name} or {BASES.name}")
    return dict(json.loads(done.stdout))


def get(task: Task) -> str:
    """Builds buildx where there is none; gives what is there, in a few words.

    Go keeps what it has compiled: an interrupted build goes on where it was.

    Raises:
        SetupError: there is no buildx, and no Go to build it with; or the build failed.
    """
    if command() is None:
        with locks.held(
            paths.cache_dir() / "buildx.lock",
            lambda who, s: task.tick(f"waiting for process {who}, which gets it too ({clock(s)} so far)", s),
        ) as lock:
            task.held_locks.append(lock)
            if not own().is_file():
                _build(task)
            task.held_locks.remove(lock)
    return "built from its Go modules" if own().is_file() else " ".join(command() or [])


def _build(task: Task) -> None:
    wanted = versions.show(golang.required_go(MODULE))
    by_hand = f"install Docker's buildx plugin {versions.show(OLDEST)} or newer, or Go {wanted} (https://go.dev/dl/)"
    try:
        go = golang.find_go("", MODULE)
    except SetupError:
        raise SetupError(f"it is not there, nor a Go {wanted} or newer to build it with", by_hand) from None
    fresh = own().with_name("buildx.new")
    fresh.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w"]
    task.run(
        [go, "build", *flags, "-o", fresh, PACKAGE],
        "building it from its Go modules",
        expected_s=150,
        on_failure=f"see {task.log}; run this again, or {by_hand}",
        cwd=MODULE,
        env=golang.environment(),
    )
    fresh.replace(own())
