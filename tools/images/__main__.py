"""`python -m tools.images setup|check|lock|pin`: what can be done for images/ without a Docker engine."""

from __future__ import annotations

import argparse
import filecmp
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.images import bases, buildx, checks, locks
from tools.images.places import BASES, ROOT, ImagesError
from tools.setup import paths
from tools.setup.errors import SetupError
from tools.setup.progress import Task


def main(arguments: Sequence[str] | None = None) -> int:
    """0: done, nothing wrong; 1: something is wrong, told line by line; 2: the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.images", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="gets docker buildx where there is none, built from its Go modules")
    commands.add_parser("check", help="bake file, Dockerfiles, locks; needs no network")
    lock = commands.add_parser("lock", help="makes the requirements.lock files anew; needs PyPI")
    lock.add_argument("--check", action="store_true", help="changes nothing: says whether they would come out the same")
    pin = commands.add_parser("pin", help="asks registries for digests and writes bases.json; needs the registries")
    pin.add_argument("names", nargs="*", metavar="NAME", help="the bases to pin; none: those that have an image")
    pin.add_argument("--image", help="another image for the one NAME: REGISTRY/REPOSITORY:TAG")
    pin.add_argument("--verify", action="store_true", help="keeps the digests, and asks whether the registry has them")
    pin.add_argument("--snapshot", metavar="TIME", help="the state of Debian's archive to build with: 20261121T060000Z")
    options = parser.parse_args(arguments)
    try:
        if options.command == "setup":
            return _setup()
        if options.command == "check":
            return _check()
        if options.command == "lock":
            return _lock(options.check)
        return _pin(options)
    except ImagesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _setup() -> int:
    """Not being able to is no failure: then the checks that need buildx are left out, as is said here."""
    task = Task(1, 1, "docker buildx", paths.LOGS / "setup-images.log")
    try:
        task.say(buildx.get(task))
    except SetupError as problem:
        task.say(f"{problem.what}; the checks of the bake file are left out. To have them: {problem.next_step}")
    return 0


def _check() -> int:
    found = checks.problems()
    for problem in found:
        print(problem, file=sys.stderr)
    unverified = [name for name, entry in bases.load()["bases"].items() if not entry["verified"]]
    if unverified:
        print(f"note: not verified against a registry: {', '.join(unverified)} (python -m tools.images pin --verify)")
    print(f"images: {len(found)} problems" if found else "images: all well")
    return 1 if found else 0


def _lock(only_check: bool) -> int:
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        for lock, fresh in locks.compile_locks(Path(folder)).items():
            name = lock.relative_to(ROOT)
            if lock.is_file() and filecmp.cmp(lock, fresh, shallow=False):
                print(f"{name}: as it would be made now")
            elif only_check:
                print(f"{name}: would come out otherwise\n  next: python -m tools.images lock", file=sys.stderr)
                code = 1
            else:
                lock.write_bytes(fresh.read_bytes())
                print(f"{name}: written")
    print("\n".join(locks.try_locks()))
    return code


def _pin(options: argparse.Namespace) -> int:
    document = bases.load()
    if options.image and len(options.names) != 1:
        raise ImagesError("--image goes with one NAME\n  next: python -m tools.images pin NAME --image REF")
    if options.snapshot:
        if bases.SNAPSHOT.fullmatch(options.snapshot) is None:
            raise ImagesError(f"--snapshot {options.snapshot} is not a time\n  next: give one such as 20261121T060000Z")
        document["debian_snapshot"] = options.snapshot
        print("debian: the versions in the Dockerfiles must be those of that time")
    names = options.names or ([] if options.snapshot else [n for n, e in document["bases"].items() if e["image"]])
    for name in names:
        digest = bases.verify(document, name) if options.verify else bases.pin(document, name, options.image)
        print(f"{name}: {digest}")
    bases.save(document)
    print(f"{BASES.relative_to(ROOT)}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
