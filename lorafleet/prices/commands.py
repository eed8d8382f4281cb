"""`lorafleet prices ...`: show, check and refresh the price books."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, get_args

import click

from lorafleet.errors import LorafleetError, Problem

from .book import Book, Market, Price
from .files import load_book, path_of, platforms, write_book
from .lookup import current, matching

_platform = click.option("--platform", "names", multiple=True, help="a platform (default: all); may be repeated")
_as_json = click.option("--json", "as_json", is_flag=True, help="print JSON")


@click.group()
def prices() -> None:
    """Show, check and refresh what GPUs cost: the dated price books, providers/*/prices.json."""


@prices.command()
@_platform
@click.option("--gpu", help="of this GPU only, by any of its names")
@click.option("--market", type=click.Choice(get_args(Market)), help="on these terms only")
@click.option("--region", help="in this region only, and what is the same everywhere")
@click.option("--all", "everything", is_flag=True, help="with figures that newer ones replaced, and wrong ones")
@_as_json
def show(
    names: Sequence[str],
    gpu: str | None,
    market: Market | None,
    region: str | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Print the prices that hold, with their day and source."""
    rows: list[tuple[Book, Price]] = []
    for platform in names or platforms():
        book = load_book(platform)
        try:
            fitting = matching(book, gpu=gpu, market=market, region=region, among=book.prices if everything else None)
        except Problem as problem:
            raise LorafleetError(
                problem.what,
                field="--gpu",
                found=problem.found,
                allowed=problem.allowed,
                next_action=problem.next_action,
            ) from None
        rows += [(book, price) for price in fitting]
    if as_json:
        click.echo(json.dumps([_document(book, price) for book, price in rows], ensure_ascii=False, indent=1))
        return
    columns = (
        "PLATFORM",
        "WHAT",
        "NAME",
        "GPU",
        "MARKET",
        "REGION",
        "USD",
        "UNIT",
        "USD/H",
        "AS OF",
        "SOURCE",
        "REMARK",
    )
    print_table(columns, [_row(book, price) for book, price in rows])


@prices.command()
@_platform
@click.option("--max-age-days", type=click.IntRange(0), help="complain about a book whose newest price is older")
def check(names: Sequence[str], max_age_days: int | None) -> None:
    """Say whether the price books are right, and how old they are."""
    old = []
    for platform in names or platforms():
        book = load_book(platform)
        holding = current(book)
        wrong = sum(price.corrected is not None for price in book.prices)
        days = [book.as_of(price) for price in holding]
        told = f"{platform}: right; {len(book.prices)} prices, {len(holding)} of them hold, {wrong} are marked as wrong"
        if not days:
            click.echo(told)
            continue
        click.echo(f"{told}; those that hold are of {min(days)} to {max(days)}")
        age = (datetime.now(UTC).date() - max(days)).days
        if max_age_days is not None and age > max_age_days:
            old.append(f"{platform} ({age} days)")
    if old:
        raise LorafleetError(
            "price books are older than they may be",
            found=", ".join(old),
            allowed=f"{max_age_days} days",
            next_action="Run `lorafleet prices refresh --write`, or read the platform's pricing page anew.",
        )


@prices.command()
@_platform
@click.option("--write", is_flag=True, help="write the price books; without it, nothing is changed")
@_as_json
def refresh(names: Sequence[str], write: bool, as_json: bool) -> None:
    """Compare the price books with today's prices in gpuhunt's catalog."""
    from .refresh import changes, fetch, refreshed

    books = {platform: load_book(platform) for platform in names or platforms()}
    catalogs = {name: book.refresh.catalog for name, book in books.items() if book.refresh is not None}
    without = [name for name in books if name not in catalogs]
    if names and without:
        raise LorafleetError(
            f"no catalog has the prices of {', '.join(without)}",
            field="--platform",
            allowed="a platform whose price book has `refresh`",
            next_action="Read the platform's pricing page, and add the figures to the book with their day and address.",
        )
    fetched = fetch(dict.fromkeys(catalogs.values()))
    after = {name: refreshed(books[name], fetched[catalog]) for name, catalog in catalogs.items()}
    found = [(name, change) for name in after for change in changes(books[name], after[name])]
    if write:
        for name, book in after.items():
            write_book(book, path_of(name))
    if as_json:
        documents = [
            {
                "platform": name,
                "change": change.kind,
                "was": None if change.was is None else _document(books[name], change.was),
                "now": None if change.now is None else _document(after[name], change.now),
            }
            for name, change in found
        ]
        click.echo(json.dumps(documents, ensure_ascii=False, indent=1))
        return
    rows = []
    for name, change in found:
        price = change.now or change.was
        assert price is not None
        was, now = (None if each is None else each.per_hour for each in (change.was, change.now))
        percent = "" if was is None or now is None else f"{(now / was - 1) * 100:+.1f} %"
        cells = (name, change.kind, price.name, price.gpu or "", price.market, price.region or "")
        rows.append((*cells, _usd(was), _usd(now), percent))
    columns = ("PLATFORM", "CHANGE", "NAME", "GPU", "MARKET", "REGION", "WAS USD/H", "NOW USD/H", "BY")
    print_table(columns, rows)
    for name, book in after.items():
        as_of, what = book.sources["gpuhunt"].as_of, "written" if write else "not written: --write does"
        click.echo(f"{name}: prices of {as_of}, {what}", err=True)
    for name in without:
        click.echo(f"{name}: no catalog has its prices; its pricing page must be read", err=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for people on a terminal, lines with tabs for everybody else."""
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _row(book: Book, price: Price) -> tuple[str, ...]:
    remarks = ["an estimate"] if price.estimate else []
    remarks += [f"{', '.join(price.beside)} billed beside"] if price.beside else []
    remarks += [price.note] if price.note is not None else []
    if price.corrected is not None:
        remarks = [f"wrong: {price.corrected.reason}"]
    source = book.sources[price.source]
    tables = f" {', '.join(price.tables)}" if price.tables else ""
    what = price.item if price.gpu_count < 2 else f"{price.item} ({price.gpu_count} GPUs)"
    return (
        book.platform,
        what,
        price.name,
        price.gpu or "",
        price.market,
        price.region or "",
        f"{price.usd:.10f}".rstrip("0").rstrip("."),
        price.unit.removeprefix("usd_").replace("_", " "),
        _usd(price.per_hour),
        str(source.as_of),
        f"{source.kind}{tables}",
        "; ".join(remarks),
    )


def _usd(amount: float | None) -> str:
    return "" if amount is None else f"{amount:.4f}"


def _document(book: Book, price: Price) -> dict[str, Any]:
    return {
        "platform": book.platform,
        "asOf": str(book.as_of(price)),
        "usdPerHour": price.per_hour,
        **price.model_dump(mode="json", by_alias=True),
    }
