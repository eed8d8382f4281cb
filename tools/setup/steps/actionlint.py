"""actionlint, which checks the workflows of .github/; built from its Go module, as tools/actionlint pins it."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

from tools.setup import golang, locks, paths, stamps, versions
from tools.setup.errors import SetupError
from tools.setup.progress import Task, clock

PACKAGE = "github.com/rhysd/actionlint/cmd/actionlint"
MODULE = paths.ROOT / "tools" / "actionlint"


def place() -> Path:
    """Where the program lies once it is built."""
    recipe = stamps.digest([MODULE / name for name in ("go.mod", "go.sum")])
    return paths.cache_dir() / "actionlint" / f"{recipe[:12]}-{sys.platform}-{platform.machine()}" / "actionlint"


def find() -> Path | None:
    """The program, None where it was not built."""
    return place() if place().is_file() else None


class Actionlint:
    """Builds actionlint where there is Go. It only checks; where there is none, its test is left out."""

    title = "actionlint"

    def present(self) -> str | None:
        """The program, or that there is no Go to build it with."""
        if find() is not None:
            return f"built from its Go module ({versions.show(_pinned())})"
        try:
            golang.find_go(versions.show(_pinned()), MODULE)
        except SetupError:
            return "left out: no Go that can build it; the workflows are not linted here"
        return None

    def needs_gib(self) -> dict[Path, float]:
        """The module, Go's build cache and the program."""
        return {paths.cache_dir(): 0.1, Path.home(): 0.3}

    def install(self, task: Task) -> str:
        """Builds it; half a minute."""
        program = place()
        with locks.held(
            paths.cache_dir() / "actionlint.lock",
            lambda who, s: task.tick(f"waiting for process {who}, which builds it too ({clock(s)} so far)", s),
        ) as lock:
            task.held_locks.append(lock)
            if not program.is_file():
                self._build(task, program)
            task.held_locks.remove(lock)
        return f"built from its Go module ({versions.show(_pinned())})"

    def _build(self, task: Task, program: Path) -> None:
        fresh = program.parent.with_name(f"{program.parent.name}.new")
        for folder in (fresh, program.parent):
            shutil.rmtree(folder, ignore_errors=True)
        fresh.mkdir(parents=True)
        go = golang.find_go(versions.show(_pinned()), MODULE)
        task.run(
            [go, "build", "-mod=readonly", "-buildvcs=false", "-ldflags", "-s -w", "-o", fresh / program.name, PACKAGE],
            "building actionlint from its Go module",
            expected_s=40,
            on_failure=f"see {task.log}; run this again (what was compiled is kept)",
            cwd=MODULE,
            env=golang.environment(),
        )
        fresh.replace(program.parent)


def _pinned() -> versions.Version:
    for line in (MODULE / "go.mod").read_text().splitlines():
        if "github.com/rhysd/actionlint v" in line:
            return versions.parse(line.split(" v", 1)[1]) or ()
    return ()
