"""`make chaos`: kill -9 at every call of every resource of every platform (docs/chaos.md).

A line for each kill, then one for each platform, then one JSON object: kills, and what was wrong after the next run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, get_args

from .killing import Extent, Operation, kills, operations
from .places import platform_of, platforms
from .protocol import Moment

FIGURES = ("kills", "orphans", "duplicates", "unsettled")


def main(arguments: Sequence[str] | None = None) -> int:
    """Gives the exit status: 0 if something was killed and all was right afterwards, 1 if not, 2 for a wrong option."""
    parser = argparse.ArgumentParser(prog="python -m tools.chaos", description="Kills Pulumi at every call.")
    parser.add_argument("--platform", choices=platforms(), action="append", help="this one alone; may be repeated")
    parser.add_argument("--scenario", action="append", help="this resource or target alone; may be repeated")
    parser.add_argument("--operation", action="append", help="such as create or update:in-place; may be repeated")
    parser.add_argument("--call", type=int, help="the number of the one call to kill at; the first is 1")
    parser.add_argument("--moment", choices=get_args(Moment), help="the one moment")
    parser.add_argument(
        "--extent",
        choices=get_args(Extent),
        default="calls",
        help="changes: at calls that change something; calls (default): before those that only read, too; moments: "
        "also after those, where nothing can differ",
    )
    parser.add_argument("--jobs", type=int, default=2, help="operations at the same time (default 2)")
    parser.add_argument("--list", action="store_true", help="only say which operations there are")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error("--jobs must be 1 or more")
    chosen = [
        each
        for each in all_operations(options.platform or platforms())
        if (not options.scenario or each.scenario in options.scenario)
        and (not options.operation or each.name in options.operation)
    ]
    if not chosen:
        parser.error("there is no such operation; --list says which there are")
    if options.list:
        print("\n".join(map(str, chosen)))
        return 0
    begun = time.monotonic()
    figures = _run(chosen, options.jobs, options.call, options.moment, options.extent)
    for platform in sorted(figures):
        print(f"{platform}: {json.dumps(_shown(figures[platform]))}")
    total = sum(figures.values(), Counter[str]())
    print(f"{len(chosen)} operations in {time.monotonic() - begun:.0f} s")
    print(json.dumps(_shown(total)), flush=True)
    return verdict(total)


def verdict(figures: Counter[str]) -> int:
    """The exit status: 1 if something was wrong, or if nothing was killed."""
    return 0 if figures["kills"] and not any(figures[each] for each in FIGURES[1:]) else 1


def all_operations(of: Sequence[str]) -> list[Operation]:
    with tempfile.TemporaryDirectory(prefix="lorafleet-chaos-") as folder:
        return [each for name in of for each in operations(name, platform_of(name).scenarios(Path(folder)))]


def _run(chosen: Sequence[Operation], jobs: int, *which: Any) -> dict[str, Counter[str]]:
    """{platform: figures}"""
    figures: dict[str, Counter[str]] = {each.platform: Counter() for each in chosen}
    # A process each: a stand-in and its gate live in one.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(_killed, each, *which): each for each in chosen}
        for future in as_completed(running):
            figures[running[future].platform] += future.result()
    return figures


def _killed(operation: Operation, call: int | None, moment: Moment | None, extent: Extent) -> Counter[str]:
    """The figures of one operation; each kill is told as it happens."""
    figures: Counter[str] = Counter()
    try:
        for result in kills(
            operation,
            lambda number, when: call in (None, number + 1) and moment in (None, when),
            extent=extent,
        ):
            _say(str(result))
            parent = multiprocessing.parent_process()
            if parent is not None and not parent.is_alive():
                break  # who asked for it was stopped
            figures["kills"] += result.killed
            figures["orphans"] += result.orphans
            figures["duplicates"] += result.duplicates
            figures["unsettled"] += bool(result.unsettled)
    except AssertionError as error:
        _say(f"{operation}: FAULT: it fails when nobody kills it\n{error}")
        figures["unsettled"] += 1
    except subprocess.TimeoutExpired as error:
        _say(f"{operation}: FAULT: `{' '.join(map(str, error.cmd))[:80]}` did not end within {error.timeout:g} s")
        figures["unsettled"] += 1
    if not figures["kills"] and not figures["unsettled"] and call is None and moment is None:
        _say(f"{operation}: FAULT: nothing was killed")
        figures["unsettled"] += 1
    return figures


def _say(text: str) -> None:
    # In one piece: several processes write here.
    os.write(1, f"{text}\n".encode())


def _shown(figures: Counter[str]) -> dict[str, int]:
    return {each: figures[each] for each in FIGURES}
