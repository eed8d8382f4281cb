"""`make bench-preview`: how long `pulumi preview` of the stack `local` takes, against an empty Python program.

Both run on the same engine and in the same Python environment, in turns, so that whatever else the machine is doing
falls on both alike. The empty program has a project and a backend of its own in a temporary folder.
The last line is one JSON object: {"preview_s": .., "empty_s": .., "ratio": ..}, medians in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools.stack import salt
from tools.stack.commands import CONFIG, ROOT, STACK, StackError, select

RUNS = 5
EMPTY_PROJECT = "name: empty\nruntime: python\n"


class BenchError(Exception):
    """One line for the user: what is wrong and what to do next."""


def main() -> int:
    """Runs the benchmark; gives the exit status: 0 done, 1 a preview failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_preview", description="Times `pulumi preview`.")
    parser.add_argument("--runs", type=int, default=RUNS, help="measured runs of each (default 5), after one more")
    runs = parser.parse_args().runs
    try:
        with tempfile.TemporaryDirectory(prefix="lorafleet-bench-") as folder:
            return measure(Path(folder), runs)
    except (BenchError, StackError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1


def measure(folder: Path, runs: int) -> int:
    """Runs both previews in turns and prints the medians."""
    empty = make_empty_project(folder)
    ours = dict(os.environ)
    select()
    taken: dict[str, list[float]] = {STACK: [], "empty": []}
    for number in range(runs + 1):
        for name, where, env in (("empty", folder, empty), (STACK, ROOT, ours)):
            stack = "bench" if name == "empty" else STACK
            seconds = pulumi(["preview", "--stack", stack], where, env)
            what = "warm-up" if number == 0 else f"{number} of {runs}"
            print(f"preview of {name:<6} {what}: {seconds:.2f} s", flush=True)
            if number > 0:
                taken[name].append(seconds)
    preview_s = statistics.median(taken[STACK])
    empty_s = statistics.median(taken["empty"])
    salt.hide_from_git(ROOT, CONFIG)
    figures = {
        "preview_s": round(preview_s, 3),
        "empty_s": round(empty_s, 3),
        "ratio": round(preview_s / empty_s, 3),
    }
    print(json.dumps(figures), flush=True)
    return 0


def make_empty_project(folder: Path) -> dict[str, str]:
    """Makes a project with an empty program and a stack; gives the environment that its commands run in."""
    (folder / "Pulumi.yaml").write_text(EMPTY_PROJECT)
    (folder / "__main__.py").write_text("")
    (folder / "backend").mkdir()
    env = dict(os.environ, PULUMI_BACKEND_URL=f"file://{folder / 'backend'}")
    pulumi(["stack", "init", "bench"], folder, env)
    return env


def pulumi(arguments: list[str], where: Path, env: dict[str, str]) -> float:
    """Runs Pulumi; gives how long it took, in seconds.

    Raises:
        BenchError: Pulumi failed, with what it said.
    """
    began = time.perf_counter()
    try:
        done = subprocess.run(
            ["pulumi", *arguments],
            cwd=where,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise BenchError("pulumi is not on PATH. Next: type `make bench-preview`, which sets it up") from None
    taken_s = time.perf_counter() - began
    if done.returncode != 0:
        raise BenchError(
            f"`pulumi {' '.join(arguments)}` in {where} failed (exit status {done.returncode}). Next: put right what "
            f"it says, then run this again\n{done.stdout}"
        )
    return taken_s


if __name__ == "__main__":
    sys.exit(main())
