"""Looking prices up: which of a book's prices hold, what they are by the hour, which is the cheapest."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from lorafleet.errors import Problem, listed
from lorafleet.gpus import find, plain

from .book import Book, Item, Market, Price


def usd_per_hour(price: Price) -> float:
    """What an hour costs, in USD, of what is billed by time; a price of a month is spread over its hours.

    Raises:
        Problem: it is not billed by time, or it is a price of a month that says no hours.
    """
    if price.per_hour is not None:
        return price.per_hour
    raise Problem(
        f"the price {price.id} is not one of time",
        found=price.unit,
        allowed="usd_per_hour, usd_per_second, or usd_per_month with hoursPerMonth",
        next_action="Ask for an hour of a GPU, a machine or a core only.",
    )


def current(book: Book) -> tuple[Price, ...]:
    """The prices that hold: not corrected, and none of the same thing on the same terms is newer.

    The same thing is the same machine type, or for GPUs the same GPU whatever the platform calls it (so `H100` of a
    survey gives way to `NVIDIA H100 PCIe` and `NVIDIA H100 80GB HBM3`). A price of one region does not make another
    region's old, but one without a region gives way to any that is newer.
    """
    right = [price for price in book.prices if price.corrected is None]
    newest: dict[tuple[str, ...], date] = {}
    for price in right:
        for key in (_thing(price), (*_thing(price), price.region or "")):
            newest[key] = max(newest.get(key, date.min), book.as_of(price))

    def holds(price: Price) -> bool:
        key = _thing(price) if price.region is None else (*_thing(price), price.region)
        return book.as_of(price) == newest[key]

    return tuple(filter(holds, right))


def matching(
    book: Book,
    *,
    gpu: str | None = None,
    market: Market | None = None,
    region: str | None = None,
    item: Item | None = None,
    gpu_count: int | None = None,
    among: Iterable[Price] | None = None,
) -> tuple[Price, ...]:
    """The prices that fit; what is None does not matter. `gpu` may be any name that `lorafleet.gpus` knows.

    A price without a region fits every region. Without `among`, the prices that hold (`current`) are looked through.

    Raises:
        Problem: there is no such GPU.
    """
    name = None if gpu is None else find(gpu).name
    return tuple(
        price
        for price in (current(book) if among is None else among)
        if (name is None or price.gpu == name)
        and (market is None or price.market == market)
        and (region is None or price.region in (None, region))
        and (item is None or price.item == item)
        and (gpu_count is None or price.gpu_count == gpu_count)
    )


def cheapest(
    book: Book,
    *,
    gpu: str,
    market: Market | None = None,
    region: str | None = None,
    gpu_count: int = 1,
) -> Price:
    """The price at which the platform gives such GPUs for the least money an hour.

    Only what can serve by itself counts: a GPU whose price leaves out the machine that it must be put in does not.
    What a platform bills beside (`Price.beside`, as CPU and memory) is not added.

    Raises:
        Problem: there is no such GPU, or the book has no such price.
    """
    fitting = matching(book, gpu=gpu, market=market, region=region, gpu_count=gpu_count)
    whole = [price for price in fitting if "machine" not in price.beside]
    if not whole:
        offers = _offers(price for price in current(book) if price.gpu is not None and "machine" not in price.beside)
        terms = ", ".join(
            text for text in (f"{gpu_count} x {find(gpu).name}", market, region and f"region {region}") if text
        )
        raise Problem(
            f"the price book of {book.platform} has no such price",
            found=terms,
            allowed=listed(offers),
            next_action="Ask for one of those, or add the price to the book with its source.",
        )
    return min(whole, key=lambda price: (usd_per_hour(price), price.id))


def _thing(price: Price) -> tuple[str, ...]:
    name = price.gpu if price.item == "gpu" and price.gpu is not None else price.name
    return (price.item, plain(name), str(price.gpu), str(price.gpu_count), price.market)


def _offers(prices: Iterable[Price]) -> list[str]:
    return sorted({f"{price.gpu_count} x {price.gpu} {price.market}" for price in prices})
