"""Fetches a base model and versions of adapters side by side, and checks the adapters."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handlers.serving import sources
from handlers.serving.cache import Cache, Content
from handlers.serving.check import check_adapter
from handlers.serving.errors import ServingError
from handlers.serving.manifest import Version, Weights

PARALLEL = 4
LOOK_S = 0.02


@dataclass(frozen=True)
class StoredAdapter:
    """A version whose content is here, checked against its digest."""

    version: Version
    rank: int
    folder: Path
    """must stay until the adapter is unloaded: vLLM may read it again, and dies when it cannot"""

    @property
    def served_name(self) -> str:
        return self.version.served_name


@dataclass
class Fetched:
    base: Content | None = None
    adapters: list[StoredAdapter] = field(default_factory=list)
    """in the order of the versions asked for, without those that failed"""
    base_error: ServingError | None = None
    errors: list[tuple[Version, ServingError]] = field(default_factory=list)

    def first_error(self) -> ServingError | None:
        return self.base_error or next((error for _, error in self.errors), None)


def fetch_all(
    base: Weights | None, versions: Sequence[Version], cache: Cache, max_rank: int, interrupted: Callable[[], None]
) -> Fetched:
    """All of it, with the error of each that could not be had; an error without a better reason is `fetch_failed`.

    `interrupted` is called now and then and may raise, to end the waiting. Threads may then still be at work; what
    they fetch goes into the cache.
    """
    pool = ThreadPoolExecutor(max_workers=PARALLEL, thread_name_prefix="fetch")
    try:
        first = pool.submit(cache.get, base, sources.MODEL) if base is not None else None
        rest = [(version, pool.submit(fetch_adapter, version, cache, max_rank)) for version in versions]
        waiting: set[Future[Any]] = {future for _, future in rest} | ({first} if first else set())
        interrupted()
        while waiting:
            waiting = wait(waiting, timeout=LOOK_S).not_done
            interrupted()
        found = Fetched()
        if first is not None:
            try:
                found.base = first.result()
            except ServingError as error:
                found.base_error = error
        for version, future in rest:
            try:
                found.adapters.append(future.result())
            except ServingError as error:
                found.errors.append((version, error.because("fetch_failed")))
        return found
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def fetch_adapter(version: Version, cache: Cache, max_rank: int) -> StoredAdapter:
    content = cache.get(version, sources.ADAPTER)
    return StoredAdapter(version, check_adapter(version.name, content.folder, max_rank), content.folder)
