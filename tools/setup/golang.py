"""The Pulumi engine and its Python language host, built from their published Go modules.

Two small modules, tools/engine and tools/langhost, name what to build and pin every dependency (go.mod,
go.sum). The language host is of sdk v3.79.0, the last version in which it was part of a module that can be
had; the script that it runs programs with comes from the engine's own sdk. What this host lacks beside the
official one: it does not know the option `virtualenv` (so the environment's bin folder must be first on PATH:
env.sh), and runs no plugins or policy packs with `runtime: python`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tools.setup import versions
from tools.setup.errors import SetupError
from tools.setup.progress import Task

RECIPE = 1
"""Counted up when the way of building changes, so that what was built the old way is built again."""

CLI = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
SDK = "github.com/pulumi/pulumi/sdk/v3"
LANGUAGE_HOST = f"{SDK}/python/cmd/pulumi-language-python"
EXEC_SCRIPT = Path("python/cmd/pulumi-language-python-exec")
PACKAGES = 2600
"""About how many packages are compiled, to say how far it is."""


def required_go(module: Path) -> versions.Version:
    """The oldest Go that a go.mod allows."""
    for line in (module / "go.mod").read_text().splitlines():
        if line.startswith("go "):
            return versions.parse(line) or ()
    return ()


def environment() -> dict[str, str]:
    """The caller's environment, without flags and workspaces of the user's own Go projects."""
    env = {k: v for k, v in os.environ.items() if k not in ("GOFLAGS", "GOOS", "GOARCH", "GOWORK")}
    env["GOWORK"] = "off"
    # Without a home folder Go does not know where to put its caches.
    env.setdefault("HOME", str(Path.home()))
    return env


def find_go(version: str, module: Path) -> Path:
    """A Go that can build the engine.

    Raises:
        SetupError: there is none, or it is too old and may not fetch a newer one by itself.
    """
    wanted = required_go(module)
    places = [
        os.environ.get("PATH", os.defpath),
        "/usr/local/go/bin",
        "/usr/lib/go/bin",
        str(Path.home() / "go/bin"),
        str(Path.home() / ".local/go/bin"),
    ]
    next_step = (
        f"install Go {versions.show(wanted)} or newer from https://go.dev/dl/, or the Pulumi CLI {version} "
        "or newer from https://www.pulumi.com/docs/install/ so that it is on PATH; then run this again"
    )
    found = shutil.which("go", path=os.pathsep.join(places))
    if found is None:
        raise SetupError("Go is not installed, and the engine must be built with it", next_step)
    own = versions.of_command([found, "version"], env=dict(environment(), GOTOOLCHAIN="local"))
    if versions.at_least(own, wanted):
        return Path(found)
    # Since 1.21 Go fetches the toolchain that go.mod asks for, unless it was told not to.
    fetches = subprocess.run(
        [found, "env", "GOTOOLCHAIN"], capture_output=True, text=True, check=False, env=environment()
    )
    if versions.at_least(own, (1, 21)) and fetches.stdout.strip() in ("", "auto"):
        return Path(found)
    raise SetupError(
        f"{found} is Go {versions.show(own)}, and the engine needs {versions.show(wanted)} or newer",
        next_step,
    )


def build(task: Task, place: Path, version: str, engine: Path, langhost: Path) -> None:
    """Builds both programs and lays them, with the script, into `place`/bin.

    Go keeps what it has compiled: an interrupted build goes on where it was.

    Raises:
        SetupError: no Go, or the build failed.
    """
    go = find_go(version, engine)
    fresh = place.with_name(place.name + ".new")
    for folder in (fresh, place):
        shutil.rmtree(folder, ignore_errors=True)
    (fresh / "bin").mkdir(parents=True)
    flags = f"-s -w -X {SDK}/go/common/version.Version={version}"
    again = f"see {task.log}; run this again (what was compiled is kept), or install Pulumi {version} on PATH"
    try:
        _go_build(task, go, engine, CLI, fresh / "bin" / "pulumi", flags, again, expected_s=540)
        host = fresh / "bin" / "pulumi-language-python"
        _go_build(task, go, langhost, LANGUAGE_HOST, host, "-s -w", again, expected_s=60)
        script = Path(_module_folder(go, engine, SDK, again)) / EXEC_SCRIPT
        installed = shutil.copyfile(script, fresh / "bin" / EXEC_SCRIPT.name)
        installed.chmod(0o755)
        fresh.replace(place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _go_build(
    task: Task,
    go: Path,
    module: Path,
    package: str,
    output: Path,
    flags: str,
    again: str,
    *,
    expected_s: float,
) -> None:
    task.run(
        [go, "build", "-v", "-mod=readonly", "-buildvcs=false", "-ldflags", flags, "-o", output, package],
        f"building {output.name} from its Go modules",
        expected_s=expected_s,
        on_failure=again,
        cwd=module,
        env=environment(),
        detail=lambda: _how_far(task.log),
    )


def _how_far(log: Path) -> str:
    """What the log says: how many modules were fetched or packages compiled since the last command began."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return ""
    lines = text[text.rfind("\n$ ") + 1 :].splitlines()[1:]
    fetched = sum(line.startswith("go: downloading") for line in lines)
    compiled = len(lines) - fetched
    return f"{compiled} packages compiled" if compiled else f"{fetched} modules fetched"


def _module_folder(go: Path, module: Path, name: str, again: str) -> str:
    done = subprocess.run(
        [go, "list", "-m", "-f", "{{.Dir}}", name],
        cwd=module,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 or not done.stdout.strip():
        raise SetupError(f"Go does not find the module {name}: {done.stderr.strip()}", again)
    return done.stdout.strip()
