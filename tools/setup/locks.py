"""One set-up at a time: a lock that the kernel frees when the last process that holds it ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(path: Path, waiting: Callable[[str, float], None]) -> Iterator[int]:
    """Holds the lock file `path`, waiting for whoever has it; gives its file descriptor.

    Pass the descriptor on to child processes: then the lock stays held until they have ended too, even if
    this process is killed. `waiting` is called about once a second with (who holds it, seconds waited).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        started = time.monotonic()
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                waiting(owner, time.monotonic() - started)
                time.sleep(1)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)
