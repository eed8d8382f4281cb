"""Saying what the set-up is doing, and running long commands with their output in a log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tools.setup.errors import SetupError

LINE_EVERY_S = 20.0
"""How often a log (not a terminal) gets a new line of progress."""


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, e.g. "3:07"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def about(seconds: float) -> str:
    """An expected duration for people: "about 40 seconds", "about 8 minutes"."""
    if seconds < 90:
        return f"about {int(seconds)} seconds"
    return f"about {round(seconds / 60)} minutes"


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, indented; empty if it can't be read."""
    try:
        with log.open(errors="replace") as text:
            return "".join(f"    {line.rstrip()}\n" for line in deque(text, lines))
    except OSError:
        return ""


class Task:
    """One numbered step: prints its lines, runs its commands.

    Args:
        number, of: the step's place, e.g. 2 of 7.
        title: what the step is about, e.g. "Pulumi engine".
        log: where the output of commands goes.
        held_locks: descriptors of locks that child processes keep held.
    """

    def __init__(self, number: int, of: int, title: str, log: Path, held_locks: Sequence[int] = ()) -> None:
        self.head = f"[{number}/{of}] {title}: "
        self.log = log
        self.held_locks = list(held_locks)
        self._terminal = sys.stdout.isatty()
        self._open_line = False
        self._last_line_s = 0.0

    def say(self, text: str) -> None:
        """Prints one line that stays."""
        if self._open_line:
            sys.stdout.write("\r\033[K")
            self._open_line = False
        print(self.head + text, flush=True)

    def tick(self, text: str, elapsed_s: float) -> None:
        """Prints progress: rewritten in place on a terminal, a line every 20 s elsewhere."""
        if self._terminal:
            width = os.get_terminal_size().columns if sys.stdout.isatty() else 110
            sys.stdout.write("\r\033[K" + (self.head + text)[: max(20, width - 1)])
            sys.stdout.flush()
            self._open_line = True
        elif elapsed_s - self._last_line_s >= LINE_EVERY_S:
            print(self.head + text, flush=True)
            self._last_line_s = elapsed_s

    def run(
        self,
        argv: Sequence[str | Path],
        doing: str,
        *,
        expected_s: float,
        on_failure: str,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        stalled_after_s: float | None = None,
        measure: Callable[[], int] | None = None,
        detail: Callable[[], str] | None = None,
        keep_locks: bool = True,
    ) -> None:
        """Runs a command to its end, its output in the log.

        Args:
            doing: what it does, for the progress lines, e.g. "building from its Go modules".
            expected_s: how long it usually takes, in seconds.
            on_failure: the next step for the user if it fails.
            stalled_after_s: give up when `measure` has not grown for so many seconds.
            measure: a number that grows while the command gets on (bytes on disk).
            detail: a few words on how far it is.
            keep_locks: let the child hold the locks as well; not for commands that leave services running.

        Raises:
            SetupError: it could not be started, failed, or stalled.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        self._last_line_s = 0.0
        self.say(f"{doing} ({about(expected_s)})...")
        with self.log.open("ab") as log:
            log.write(("$ " + " ".join(str(part) for part in argv) + "\n").encode())
            log.flush()
            try:
                child = subprocess.Popen(
                    [str(part) for part in argv],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env=env,
                    start_new_session=True,
                    pass_fds=self.held_locks if keep_locks else (),
                )
            except OSError as problem:
                raise SetupError(f"{argv[0]} can't be started: {problem.strerror}", on_failure) from None
        try:
            grown, grown_at = -1, started
            while True:
                try:
                    code = child.wait(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    now = time.monotonic()
                    more = f"; {detail()}" if detail else ""
                    self.tick(f"{doing} ({about(expected_s)}, {clock(now - started)} so far{more})", now - started)
                    if stalled_after_s is not None and measure is not None:
                        size = measure()
                        if size > grown:
                            grown, grown_at = size, now
                        elif now - grown_at > stalled_after_s:
                            raise SetupError(f"{doing}: no progress for {stalled_after_s:.0f} s", on_failure) from None
        finally:
            end_group(child)
        if code != 0:
            raise SetupError(f"{doing} failed (exit status {code})", on_failure, self.log)


def end_group(child: subprocess.Popen[bytes]) -> None:
    """Ends a child that is still running, and what it started: asks, waits 5 s, kills."""
    if child.poll() is not None:
        return
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(timeout=5)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
