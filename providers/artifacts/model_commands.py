"""`lorafleet model ...`: keep base models in the store."""

from __future__ import annotations

from pathlib import Path

import click

from lorafleet.disk import size_text
from lorafleet.errors import LorafleetError, shown

from . import layout
from .adapter_commands import report_verified
from .console import common_options, print_json, print_table, progress_bars, store_of
from .fetch import parse_origin
from .mirror import mirror as mirror_model
from .verify import verify as verify_versions
from .versions import list_metadata


@click.group()
def model() -> None:
    """Keep base models in the store: each revision once, under the digest of its content, unchangeable."""


@model.command()
@click.argument("source", metavar="SOURCE")
@click.option("--revision", help="the commit, 40 hexadecimal digits (for hf://)")
@click.option("--name", required=True, help="the model's name in the store")
@click.option("--licence-accepted", metavar="ID", help="the licence that you have read and accept")
@click.option("--purpose", metavar="TEXT", help="what the model is used for, in one line")
@common_options
def mirror(
    source: str,
    revision: str | None,
    name: str,
    licence_accepted: str | None,
    purpose: str | None,
    stack: str,
    store_url: str | None,
    as_json: bool,
) -> None:
    """Copy a base model into the store: hf://owner/repository with --revision, or a folder."""
    if revision is not None and not source.startswith("hf://"):
        raise LorafleetError(
            "only hf:// has revisions",
            field="--revision",
            found=shown(revision),
            allowed="no --revision for a folder",
            next_action="Leave it out.",
        )
    origin = parse_origin(f"{source}@{revision}" if revision is not None else source, Path.cwd())
    store = store_of(stack, store_url)
    with progress_bars(as_json) as phase:
        done = mirror_model(store, origin, name, accepted=licence_accepted, purpose=purpose, phase=phase)
    if as_json:
        print_json({"made": done.made, "store": store.url, "metadata": done.metadata.document()})
        return
    size = size_text(done.metadata.size_bytes)
    click.echo(f"{name}  {done.metadata.digest}  {size}, {'stored' if done.made else 'was there already'}")
    place = f"{store.url}/{layout.model(name, done.metadata.digest)}"
    click.echo(f"to serve it: `baseModel.source: {place}`, and this digest in `release.baseModel`", err=True)


@model.command("list")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@common_options
def list_models(names: tuple[str, ...], stack: str, store_url: str | None, as_json: bool) -> None:
    """Show what is stored."""
    store = store_of(stack, store_url)
    there = list_metadata(store, "model", names)
    if as_json:
        print_json([one.document() for one in there])
        return
    rows = [
        [one.name, one.digest, one.created_at, size_text(one.size_bytes), one.licence or "", one.source]
        for one in there
    ]
    print_table(["NAME", "DIGEST", "MIRRORED", "SIZE", "LICENCE", "FROM"], rows)


@model.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@common_options
def verify(names: tuple[str, ...], stack: str, store_url: str | None, as_json: bool) -> int:
    """Read everything back and compare it with its digests. Exit code 1 if anything is wrong."""
    store = store_of(stack, store_url)
    with progress_bars(as_json) as phase:
        found = verify_versions(store, "model", names, phase=phase)
    report_verified(found, as_json)
    return 1 if found.faults else 0
