"""The images' requirements.lock files: made with uv, and what they must hold to."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.images.places import IMAGES, ROOT, ImagesError, Problem
from tools.setup.errors import SetupError
from tools.setup.steps import uv

SERVING = IMAGES / "serving" / "requirements.lock"
RUNPOD = IMAGES / "runpod" / "requirements.lock"
TESTED = ROOT / "requirements" / "serving.lock"
OLDEST_PYTHON = "3.11"
"""of the vertex image's base; the others have 3.12"""
PYTHONS = ("3.11", "3.12")
PLATFORM = "x86_64-manylinux_2_36"
"""Debian 12's glibc"""
APART = {"apache-tvm-ffi", "torch"}
"""Packages in which the image may differ from .venv-serving: vLLM for CUDA pins them otherwise."""
PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)(?:\s*;\s*([^\\]+?))?\s*\\?$", re.MULTILINE)


def pins(lock: Path) -> dict[str, set[str]]:
    """The versions that a lock pins, by package; more than one where they depend on the platform."""
    found: dict[str, set[str]] = {}
    for name, version, _marker in PIN.findall(lock.read_text()):
        found.setdefault(canonicalize_name(name), set()).add(version)
    return found


def compile_locks(folder: Path) -> dict[Path, Path]:
    """Makes both locks anew into `folder`: {lock in images/: the new one}. What is pinned already stays.

    Raises:
        ImagesError: there is no solution, or no network.
    """
    constraints = folder / "tested.txt"
    tested = [match for match in PIN.findall(TESTED.read_text()) if canonicalize_name(match[0]) not in APART]
    # A resolution for all platforms also looks at those that no image has, where vLLM pins otherwise.
    here = "platform_machine == 'x86_64' and sys_platform == 'linux'"
    constraints.write_text("".join(f"{n}=={v} ; {f'({m}) and ' if m else ''}{here}\n" for n, v, m in tested))
    serving = _compile(SERVING, folder / "serving.lock", ["-c", str(constraints)])
    return {SERVING: serving, RUNPOD: _compile(RUNPOD, folder / "runpod.lock", [])}


def _compile(lock: Path, fresh: Path, options: list[str]) -> Path:
    """uv keeps the versions that stand in the output file before it writes it."""
    if lock.is_file():
        fresh.write_bytes(lock.read_bytes())
    asked = ["pip", "compile", "--universal", "--python-version", OLDEST_PYTHON, "--generate-hashes", "--no-annotate"]
    asked += ["--no-emit-index-url", "--no-header", "--only-binary", ":all:", "--no-emit-options", "--quiet"]
    run_uv([*asked, *options, str(lock.with_suffix(".in")), "-o", str(fresh)])
    return fresh


def run_uv(arguments: list[str]) -> str:
    """Runs uv; gives what it says. Raises ImagesError."""
    try:
        program = uv.require()
    except SetupError as error:
        raise ImagesError(f"{error.what}\n  next: make setup") from None
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ImagesError(f"uv {' '.join(arguments[:2])} failed\n{done.stderr.strip()}\n  next: see the lines above")
    return done.stderr


def try_locks() -> list[str]:
    """Resolves each lock as its image's Python would, without installing; gives a line for each. Raises ImagesError."""
    lines: list[str] = []
    for lock, pythons in ((SERVING, PYTHONS), (RUNPOD, ("3.12",))):
        for python in pythons:
            with tempfile.TemporaryDirectory() as folder:
                asked = ["pip", "install", "--dry-run", "--target", folder, "--no-deps", "--require-hashes"]
                asked += ["--only-binary", ":all:", "--python-platform", PLATFORM, "--python-version", python]
                said = run_uv([*asked, "-r", str(lock)])
            count = re.search(r"Would install (\d+) packages", said)
            lines.append(
                f"{lock.relative_to(ROOT)}: {count[1] if count else '?'} wheels for Python {python}, {PLATFORM}"
            )
    return lines


def problems() -> list[Problem]:
    """What can be told without network: hashes, pins that fit what is asked for, versions that the tests have run."""
    found: list[Problem] = []
    for lock in (SERVING, RUNPOD):
        where = str(lock.relative_to(ROOT))
        if not lock.is_file():
            found.append(Problem(where, "is missing", "python -m tools.images lock"))
            continue
        text = lock.read_text()
        for entry in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]:
            if "--hash=sha256:" not in entry:
                found.append(Problem(where, f"{entry.split()[0]} has no hash", "python -m tools.images lock"))
        if re.search(r"https?://|--index|--extra-index", text):
            found.append(Problem(where, "names a package index", "python -m tools.images lock"))
        have = pins(lock)
        for line in lock.with_suffix(".in").read_text().splitlines():
            asked = Requirement(line) if line and not line.startswith("#") else None
            versions = have.get(canonicalize_name(asked.name), set()) if asked else set()
            if asked and not (versions and all(asked.specifier.contains(version) for version in versions)):
                found.append(
                    Problem(where, f"has {versions or 'no version'} for {asked}", "python -m tools.images lock")
                )
    if found:
        return found
    serving, tested = pins(SERVING), pins(TESTED)
    for name in sorted(serving.keys() & tested.keys() - APART):
        if not serving[name] & tested[name]:
            what = f"{name} is {sorted(serving[name])}, and the tests run {sorted(tested[name])}"
            found.append(Problem(str(SERVING.relative_to(ROOT)), what, "python -m tools.images lock"))
    return found
