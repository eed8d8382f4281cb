"""Runs the steps of the set-up, one at a time and only those with something to do."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from tools.setup import disk, locks, paths
from tools.setup.errors import SetupError
from tools.setup.progress import Task, clock, tail
from tools.setup.steps import Step, all_steps, ci_steps, dev_steps, test_steps


def run(arguments: list[str]) -> int:
    """Runs the set-up; gives the exit status: 0 done, 1 something can't be done, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.setup", description="Installs what is missing.")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--dev", action="store_true", help="only what linters need (.venv)")
    only.add_argument("--test", action="store_true", help="what tests and benchmarks need beside all the rest")
    only.add_argument(
        "--ci", action="store_true", help="only what the workflows of .github/ need (.venv, the Pulumi engine)"
    )
    options = parser.parse_args(arguments)
    started = time.monotonic()
    for caught in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(caught, _stop)
    try:
        # Only this user may look in: the local stack's passphrase and logs lie here.
        paths.LOCAL.mkdir(mode=0o700, exist_ok=True)
        paths.LOGS.mkdir(exist_ok=True)
        with locks.held(paths.LOCAL / "setup.lock", _waiting) as lock:
            if options.ci:
                steps = ci_steps()
            elif options.dev:
                steps = dev_steps()
            else:
                steps = test_steps() if options.test else all_steps()
            _run_steps(steps, lock)
    except SetupError as problem:
        print(f"error: {problem.what}.{_next(problem)}", file=sys.stderr)
        return 1
    except OSError as problem:
        print(
            f"error: {problem.filename or 'the set-up'}: {problem.strerror or problem}. Next: put that right "
            "(is the folder yours, the disk full?) and run this again",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; run this again to go on", file=sys.stderr)
        return 130
    print(f"set-up: all there ({clock(time.monotonic() - started)})", flush=True)
    return 0


def _run_steps(steps: list[Step], lock: int) -> None:
    found = [step.present() for step in steps]
    needs: dict[Path, float] = {}
    for step, there in zip(steps, found, strict=True):
        if there is None:
            for place, gib in step.needs_gib().items():
                needs[place] = needs.get(place, 0.0) + gib
    disk.require(needs)
    for number, (step, there) in enumerate(zip(steps, found, strict=True), start=1):
        log = paths.LOGS / f"setup-{number}-{step.title.replace(' ', '-').replace('.', '')}.log"
        task = Task(number, len(steps), step.title, log, [lock])
        if there is not None:
            task.say(there)
            continue
        log.unlink(missing_ok=True)
        began = time.monotonic()
        try:
            task.say(f"{step.install(task)} (took {clock(time.monotonic() - began)})")
        except SetupError as problem:
            raise SetupError(f"{task.head}{problem.what}", problem.next_step, problem.log) from None


def _next(problem: SetupError) -> str:
    """The next step and the log's tail, for the end of an error."""
    shown = f" Next: {problem.next_step}" if problem.next_step else ""
    if problem.log is not None and problem.log.is_file():
        shown += f"\n  the end of {os.path.relpath(problem.log)}:\n{tail(problem.log)}".rstrip()
    return shown


def _waiting(owner: str, waited_s: float) -> None:
    if int(waited_s) % 20 == 0:
        print(
            f"another set-up (process {owner}) is at work here; waiting for it ({clock(waited_s)} so far)",
            flush=True,
        )


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
