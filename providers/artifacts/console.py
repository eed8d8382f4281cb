"""What the commands print: results on standard output, progress bars (on a terminal alone) on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from lorafleet.cli import find_root
from lorafleet.declaration import Fleet
from lorafleet.load import load_stack

from .push import Phase
from .store import Progress as Told
from .store import Store, open_store

F = TypeVar("F", bound=Callable[..., Any])


def common_options(command: F) -> F:
    """--stack, --store and --json."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="print JSON"),
        click.option(
            "--store", "store_url", metavar="URL", help="gs://... or file://..., instead of the stack's store"
        ),
        click.option("--stack", default="local", show_default=True, help="the stack whose store it is"),
    ):
        command = option(command)
    return command


def fleet_of(stack: str) -> Fleet:
    return load_stack(find_root(Path.cwd()), stack)


def store_of(stack: str, store_url: str | None) -> Store:
    """The store that was named, or the stack's; nothing is asked of it yet."""
    return open_store(store_url if store_url is not None else fleet_of(stack).store_url)


def print_json(document: object) -> None:
    click.echo(json.dumps(document, ensure_ascii=False, indent=1))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for people on a terminal, lines with tabs for everybody else."""
    rows = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # not as markup: a note may have brackets in it
    # Wider than any terminal: what is folded inside of a digest could not be copied.
    Console(width=1000).print(table, crop=False)


def printable(text: str) -> str:
    """The text on one line, without control characters that a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


class _StoppedError(Exception):
    """Ends a transfer's thread when the command has ended already."""


@contextlib.contextmanager
def progress_bars(quiet: bool) -> Iterator[Phase]:
    """What shows the phases of a command while the block runs."""
    stopped = False
    bars: Any = None
    if not quiet and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description:>10}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        bars = Progress(*columns, console=Console(stderr=True), transient=True)

    def phase(name: str, total: int) -> Told:
        task = bars.add_task(name, total=total or None) if bars is not None else None

        def tell(count: int) -> None:
            if stopped:
                raise _StoppedError
            if bars is not None:
                bars.advance(task, count)

        return tell

    with bars if bars is not None else contextlib.nullcontext():
        try:
            yield phase
        finally:
            stopped = True
