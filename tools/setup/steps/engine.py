"""The Pulumi CLI with its Python host: of the PATH, else the official one, else built from Go modules."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

from tools.setup import golang, locks, official, paths, stamps, versions
from tools.setup.errors import SetupError
from tools.setup.progress import Task, clock, tail

BINARIES = ("pulumi", "pulumi-language-python")
MODULES = paths.ROOT / "tools" / "engine"
LANGHOST_MODULES = paths.ROOT / "tools" / "langhost"


def wanted_version() -> str:
    """The version of the CLI that goes with the SDK in requirements.lock."""
    return paths.pinned("pulumi", paths.ROOT / "requirements.lock")


def path_without_ours() -> str:
    """PATH without this checkout's own links: a shell in which env.sh was sourced has them."""
    parts = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(part for part in parts if part != str(paths.ENGINE_LINKS))


def usable(folder: Path, wanted: versions.Version) -> bool:
    """Whether a folder holds a CLI of the wanted major version, not older, and its language host."""
    if not all(os.access(folder / name, os.X_OK) for name in BINARIES):
        return False
    env = dict(os.environ, PULUMI_SKIP_UPDATE_CHECK="true")
    found = versions.of_command([folder / "pulumi", "version"], env=env)
    return versions.at_least(found, wanted) and found is not None and found[0] == wanted[0]


def on_path(wanted: versions.Version) -> Path | None:
    """The folder of a CLI on PATH that can be used as it is; None if there is none."""
    found = shutil.which("pulumi", path=path_without_ours())
    if found is None:
        return None
    # Package managers link the CLI into a folder of links; its language host may lie next to either.
    for folder in (Path(found).parent, Path(found).resolve().parent):
        if usable(folder, wanted):
            return Path(found).parent
    return None


class Engine:
    """Leaves a usable CLI on the PATH that env.sh makes."""

    title = "Pulumi engine"

    def __init__(self) -> None:
        self.version = wanted_version()
        self.wanted = versions.parse(self.version) or ()
        machine = f"{sys.platform}-{platform.machine()}"
        self.official_place = paths.cache_dir() / "pulumi" / f"{self.version}-{machine}"
        recipe = stamps.digest(
            [folder / name for folder in (MODULES, LANGHOST_MODULES) for name in ("go.mod", "go.sum")],
            {"recipe": golang.RECIPE},
        )
        self.built_place = paths.cache_dir() / "engine" / f"{self.version}-{recipe[:12]}-{machine}"

    def present(self) -> str | None:
        """A CLI on PATH, or the links to one that an earlier run got (already tried out then)."""
        folder = on_path(self.wanted)
        if folder:
            shutil.rmtree(paths.ENGINE_LINKS, ignore_errors=True)
            return f"Pulumi {self.version} or newer on PATH ({folder})"
        target = paths.ENGINE_LINKS / "pulumi"
        for place, source in (
            (self.official_place, "official"),
            (self.built_place, "built from its Go modules"),
        ):
            if target.exists() and target.resolve().is_relative_to(place.resolve()):
                return f"Pulumi {self.version}, {source}"
        return None

    def needs_gib(self) -> dict[Path, float]:
        """The Go modules, Go's build cache and the programs, unless a former run has left them."""
        have = (self.official_place / "bin" / "pulumi").exists() or (self.built_place / "bin" / "pulumi").exists()
        return {} if have else {paths.cache_dir(): 0.5, Path.home(): 4.0}

    def install(self, task: Task) -> str:
        """Tries the official installer for a short while, then builds; at last links the programs."""
        with locks.held(
            paths.cache_dir() / "engine.lock",
            lambda who, s: task.tick(f"waiting for process {who}, which gets it too ({clock(s)} so far)", s),
        ) as lock:
            task.held_locks.append(lock)
            place, source = self._get(task)
            task.held_locks.remove(lock)
        self._link(place / "bin")
        return f"Pulumi {self.version}, {source}"

    def _get(self, task: Task) -> tuple[Path, str]:
        for place, source in (
            (self.official_place, "official"),
            (self.built_place, "built from its Go modules"),
        ):
            if usable(place / "bin", self.wanted):
                return place, source
        try:
            official.install(task, self.official_place, self.version)
        except SetupError as problem:
            reason = problem.what
            if problem.log is not None:
                reason = tail(problem.log, lines=1).strip() or reason
            task.say(f"the official installer did not work here ({reason}); building it instead")
        else:
            if usable(self.official_place / "bin", self.wanted):
                return self.official_place, "official"
        golang.build(task, self.built_place, self.version, MODULES, LANGHOST_MODULES)
        if not usable(self.built_place / "bin", self.wanted):
            raise SetupError(
                f"the Pulumi CLI that was built does not run: {self.built_place / 'bin' / 'pulumi'}",
                f"remove {self.built_place} and run this again; or install Pulumi {self.version} on PATH",
                task.log,
            )
        return self.built_place, "built from its Go modules"

    def _link(self, binaries: Path) -> None:
        """Links the programs into a folder of this checkout, swapped in whole."""
        fresh = paths.ENGINE_LINKS.with_name("bin.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for program in sorted(binaries.glob("pulumi*")):
            (fresh / program.name).symlink_to(program)
        shutil.rmtree(paths.ENGINE_LINKS, ignore_errors=True)
        fresh.replace(paths.ENGINE_LINKS)
