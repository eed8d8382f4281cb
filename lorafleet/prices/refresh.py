"""Today's prices from gpuhunt's catalog, and how they differ from a book's.

gpuhunt (PyPI, `pip install 'lorafleet[prices]'`) collects prices of clouds; dstack publishes its catalogs anew all the
time. It is imported here alone, and only when prices are refreshed. Its variables work: GPUHUNT_CATALOG_URL (another
place that catalogs are published at) and GPUHUNT_CATALOG_DIR (a folder with `<catalog>.csv`; nothing is fetched then).
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

from lorafleet.errors import LorafleetError, shown
from lorafleet.gpus import GPUS, plain

from .book import Book, Machine, Market, Price, Refresh, Source
from .lookup import current

SOURCE = "gpuhunt"
"""Key of the source of all prices that a refresh wrote; the next one replaces them."""
_ANSWER_S = 60.0
_DEAREST_USD = 100_000.0


@dataclass(frozen=True, slots=True)
class Catalog:
    """What gpuhunt knows of one platform. `items` are its `CatalogItem`s: the offers of NVIDIA GPUs."""

    as_of: date
    version: str
    items: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One price before and after: `was` is what the book held for the same thing, `now` what the catalog has."""

    was: Price | None
    now: Price | None

    @property
    def kind(self) -> Literal["new", "gone", "same", "dearer", "cheaper"]:
        if self.was is None:
            return "new"
        if self.now is None:
            return "gone"
        before, after = self.was.per_hour or 0.0, self.now.per_hour or 0.0
        if abs(after - before) < 1e-6:
            return "same"
        return "dearer" if after > before else "cheaper"


def fetch(names: Iterable[str]) -> dict[str, Catalog]:
    """gpuhunt's catalogs by its own names of platforms, such as `gcp`.

    Raises:
        LorafleetError: gpuhunt is not installed, a catalog can't be fetched, or gpuhunt has none of that name.
    """
    gpuhunt = _gpuhunt()
    catalog = gpuhunt.Catalog(balance_resources=False, auto_reload=False)
    folder = os.environ.get("GPUHUNT_CATALOG_DIR")
    if folder is None:
        with _quiet_and_bounded():
            try:
                catalog.load()
            except gpuhunt.GPUHuntError:
                raise _unreachable("none of its catalogs could be fetched") from None
    return {name: _of_platform(catalog, name, folder) for name in names}


def refreshed(book: Book, catalog: Catalog) -> Book:
    """The book with the catalog's prices in place of those that an earlier refresh wrote. All others stay.

    Raises:
        LorafleetError: the catalog has nothing that the book looks for, or is older than the book's.
    """
    rule = _rule(book)
    before = book.sources.get(SOURCE)
    if before is not None and before.as_of > catalog.as_of:
        raise LorafleetError(
            "the catalog is older than the prices that the book has from it",
            where=f"the price book of {book.platform}",
            found=f"{catalog.as_of}, version {catalog.version}",
            allowed=f"{before.as_of} or later",
            next_action="Refresh from the newest catalog.",
        )
    prices = _prices(book, rule, catalog.items)
    if not prices:
        raise LorafleetError(
            "gpuhunt's catalog has nothing that this price book looks for",
            where=f"the price book of {book.platform}",
            found=f"{len(catalog.items)} offers in `{rule.catalog}`, version {catalog.version}",
            allowed="offers of what `capabilities` lists, in the regions of `refresh`",
            next_action="Look whether gpuhunt has other names or regions now, and correct `capabilities` or `refresh`.",
        )
    source = Source(
        kind="catalog",
        title=f"gpuhunt's catalog `{rule.catalog}`",
        as_of=catalog.as_of,
        url="https://github.com/dstackai/gpuhunt",
        note=f"version {catalog.version}",
    )
    return Book.model_validate(
        {
            **dict(book),
            "sources": {**book.sources, SOURCE: source},
            "prices": (*(price for price in book.prices if price.source != SOURCE), *prices),
        }
    )


def changes(book: Book, after: Book) -> list[Change]:
    """What the refreshed book says otherwise than `book`, and what it says for the first time."""
    held = current(book)
    now = [price for price in after.prices if price.source == SOURCE]
    there = {price.id for price in now}
    gone = [price for price in book.prices if price.source == SOURCE and price.id not in there]
    return [*(Change(_before(price, held), price) for price in now), *(Change(price, None) for price in gone)]


def _gpuhunt() -> Any:
    try:
        return importlib.import_module("gpuhunt")
    except ImportError:
        raise LorafleetError(
            "the package gpuhunt is needed to refresh prices, and is not installed",
            allowed="gpuhunt 0.1.34 or later",
            next_action="Install it: pip install 'lorafleet[prices]', in a checkout pip install -e '.[prices]'.",
        ) from None


def _rule(book: Book) -> Refresh:
    if book.refresh is None:
        raise LorafleetError(
            f"no catalog has the prices of {book.platform}",
            allowed="a platform whose price book has `refresh`",
            next_action="Read the platform's pricing page, and add the figures to the book with their day and address.",
        )
    return book.refresh


@contextlib.contextmanager
def _quiet_and_bounded() -> Iterator[None]:
    """gpuhunt logs what it could not fetch, with tracebacks, and waits for answers for ever: neither here."""
    logger = logging.getLogger("gpuhunt")
    level, timeout = logger.level, socket.getdefaulttimeout()
    logger.setLevel(logging.CRITICAL + 1)
    socket.setdefaulttimeout(_ANSWER_S)
    try:
        yield
    finally:
        logger.setLevel(level)
        socket.setdefaulttimeout(timeout)


def _unreachable(what: str) -> LorafleetError:
    return LorafleetError(
        "gpuhunt's prices could not be fetched",
        found=what,
        allowed="a network in which dstack's published catalogs can be reached, or GPUHUNT_CATALOG_URL or _DIR",
        next_action="Try again later or from another network; the price books are as they were.",
    )


def _of_platform(catalog: Any, name: str, folder: str | None) -> Catalog:
    if folder is not None:
        file = Path(folder) / f"{name}.csv"
        if not file.is_file():
            raise _unreachable(f"GPUHUNT_CATALOG_DIR has no file {name}.csv")
        as_of, version = datetime.fromtimestamp(file.stat().st_mtime, UTC).date(), "of a local file"
    else:
        if name not in catalog.catalog:
            raise _unreachable(f"its catalog `{name}` could not be fetched")
        version = catalog.catalog[name].version
        as_of = _day(version)
    try:
        # No flag is allowed: flagged offers are other products (clusters, calendar mode) beside the plain ones.
        items = catalog.query(provider=name, gpu_vendor="nvidia", min_gpu_count=1, allowed_flags=())
    except ValueError:
        raise _unreachable(f"gpuhunt knows no catalog `{name}`, or can't read it") from None
    return Catalog(as_of, version, items)


def _day(version: str) -> date:
    """The day in a catalog's version, as in 20260818-42."""
    try:
        return datetime.strptime(version[:8], "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise LorafleetError(
            "gpuhunt's catalog does not say of which day it is",
            found=shown(version),
            allowed="a version that begins with the day, as in 20260818-42",
            next_action="Take a newer gpuhunt; the price books are as they were.",
        ) from None


def _prices(book: Book, rule: Refresh, items: Iterable[Any]) -> list[Price]:
    """The catalog's offers as prices, sorted by id; of several zones' prices the lowest of each region."""
    lowest: dict[tuple[str, str, Market], dict[str, float]] = {}
    for item in items:
        gpu = _wanted(book, rule, item)
        region = _region(rule, item.location)
        if gpu is None or region is None or not 0 < item.price < _DEAREST_USD:
            continue
        regions = lowest.setdefault((item.instance_name, gpu, _market(rule, item)), {})
        regions[region] = min(item.price, regions.get(region, item.price))
    prices = []
    for (name, gpu, market), regions in lowest.items():
        alike = not rule.regions and len(set(regions.values())) == 1
        for region, usd in {None: next(iter(regions.values()))}.items() if alike else regions.items():
            prices.append(_price(rule, name, gpu, market, region, usd))
    return sorted(prices, key=lambda price: price.id)


def _wanted(book: Book, rule: Refresh, item: Any) -> str | None:
    """The name of the offer's GPU if the book looks for such an offer."""
    if rule.item == "gpu":
        names = {name: offered.gpu for offered in book.capabilities.gpus for name in offered.names}
        return names.get(item.instance_name) if item.gpu_count == 1 else None
    return next((machine.gpu for machine in book.capabilities.machines if _is(machine, item)), None)


def _is(machine: Machine, item: Any) -> bool:
    # gpuhunt calls an A100 of 40 and one of 80 GB `A100` and tells them apart by their memory.
    return (
        machine.name == item.instance_name
        and machine.gpu_count == item.gpu_count
        and plain(machine.gpu).startswith(plain(item.gpu_name or "?"))
        and GPUS[machine.gpu].vram_gib == item.gpu_memory
    )


def _region(rule: Refresh, location: str) -> str | None:
    """The region of a location; None if the book does not keep it."""
    match = None if rule.region_of is None else re.fullmatch(rule.region_of, location)
    region = location if match is None else str(match[1])
    return region if not rule.regions or region in rule.regions else None


def _market(rule: Refresh, item: Any) -> Market:
    if item.spot:
        return "spot"
    return next((each.market for each in rule.markets if re.fullmatch(each.locations, item.location)), "on-demand")


def _price(rule: Refresh, name: str, gpu: str, market: Market, region: str | None, usd: float) -> Price:
    parts = (SOURCE, name, *(() if rule.item == "gpu" else (gpu,)), market, *(() if region is None else (region,)))
    return Price(
        id="-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts),
        item=rule.item,
        name=name,
        gpu=gpu,
        gpu_count=1,
        usd=round(usd, 6),
        unit="usd_per_hour",
        market=market,
        region=region,
        beside=rule.beside,
        billing=rule.billing,
        source=SOURCE,
    )


def _before(price: Price, held: Iterable[Price]) -> Price | None:
    """What the book held for the same thing: of the same name, or else the only one of the same GPU."""
    like = [
        each
        for each in held
        if (each.item, each.gpu, each.gpu_count, each.market) == (price.item, price.gpu, price.gpu_count, price.market)
        and each.region in (None, price.region)
        and each.per_hour is not None
    ]
    same = [each for each in like if _bare(each.name) == _bare(price.name)]
    if same:
        return max(same, key=lambda each: each.region is not None)
    return like[0] if price.item == "gpu" and len(like) == 1 else None


def _bare(name: str) -> str:
    return plain(name).removeprefix("nvidia")
