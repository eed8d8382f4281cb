"""Several transfers at once, which end soon when one of them fails or somebody presses Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_AT_ONCE = 4

T = TypeVar("T")
R = TypeVar("R")


def run_all(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """The results in the order of the items. The first error is raised at once; what has not begun then never does."""
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        found = [future.result() for future in [pool.submit(function, item) for item in items]]
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
    return found
