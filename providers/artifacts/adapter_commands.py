"""`lorafleet adapter ...`: keep adapters in the store. docs/artifacts.md says how they are meant."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import Any

import click

from lorafleet.cli import find_root
from lorafleet.disk import size_text
from lorafleet.errors import LorafleetError
from lorafleet.manifest import served_name

from . import holds
from .console import common_options, fleet_of, print_json, print_table, printable, progress_bars, store_of
from .fetch import parse_origin
from .prune import Plan, plan_prune
from .prune import prune as prune_now
from .pull import pull as pull_version
from .push import checked_sentence
from .push import push as push_adapter
from .rules import rules_of
from .store import open_store
from .verify import verify as verify_versions
from .versions import Metadata, Version, find, list_metadata


@click.group()
def adapter() -> None:
    """Keep adapters in the store: each version once, under the digest of its content, unchangeable."""


@adapter.command()
@click.argument("source", metavar="SOURCE")
@click.option("--name", required=True, help="the name that clients ask for")
@click.option("--note", help="a line for people, such as what it was trained on")
@common_options
def push(source: str, name: str, note: str | None, stack: str, store_url: str | None, as_json: bool) -> None:
    """Store an adapter: a folder, gs://bucket/folder or hf://owner/repository@COMMIT.

    It is checked against the base and the targets of the stack first. Run again, it goes on where it was ended; what is
    there is left alone.
    """
    fleet = fleet_of(stack)
    store = open_store(store_url if store_url is not None else fleet.store_url)
    with progress_bars(as_json) as phase:
        done = push_adapter(
            store, parse_origin(source, Path.cwd()), name, rules_of(fleet, store), note=note, phase=phase
        )
    if as_json:
        print_json(
            {
                "name": name,
                "digest": done.metadata.digest,
                "servedName": done.served_name,
                "made": done.made,
                "store": store.url,
                "ignored": done.ignored,
                "warnings": done.warnings,
                "metadata": done.metadata.document(),
            }
        )
        return
    for warning in done.warnings:
        click.echo(f"note: {warning}", err=True)
    if done.ignored:
        click.echo(f"not stored, and not read: {', '.join(map(printable, done.ignored[:8]))}", err=True)
    size = size_text(done.metadata.size_bytes)
    click.echo(f"{name}  {done.metadata.digest}  {size}, {'stored' if done.made else 'was there already'}")
    click.echo(f"to serve it: write this digest into `release.adapters` of stacks/Pulumi.{stack}.yaml", err=True)


@adapter.command("list")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@common_options
def list_adapters(names: tuple[str, ...], stack: str, store_url: str | None, as_json: bool) -> None:
    """Show what is stored, the newest of each name last."""
    store = store_of(stack, store_url)
    held = holds.held_digests(store)
    there = list_metadata(store, "adapter", names)
    if as_json:
        print_json([one.document() | {"held": (one.name, one.digest) in held} for one in there])
        return
    rows = [
        [
            one.name,
            one.digest,
            one.created_at,
            size_text(one.size_bytes),
            str(one.rank),
            " ".join(["HELD"] * ((one.name, one.digest) in held) + [one.note or ""]).strip(),
        ]
        for one in sorted(there, key=lambda one: (one.name, one.created_at))
    ]
    print_table(["NAME", "DIGEST", "PUSHED", "SIZE", "RANK", "NOTE"], rows)


@adapter.command()
@click.argument("version", metavar="NAME[@sha256:DIGITS]")
@common_options
def show(version: str, stack: str, store_url: str | None, as_json: bool) -> None:
    """Show all that is known of one version."""
    store = store_of(stack, store_url)
    found, metadata = find(store, "adapter", version)
    hold = holds.held(store, found.name, found.digest)
    if as_json:
        print_json(metadata.document() | {"held": hold.model_dump(by_alias=True) if hold else None})
        return
    for label, text in _lines(found, metadata, store.url):
        click.echo(f"{label:<10}{printable(text)}")
    if hold:
        click.echo(f"{'HELD':<10}{printable(f'{hold.why} ({hold.by}, {hold.at})')}")


def _lines(version: Version, metadata: Metadata, url: str) -> list[tuple[str, str]]:
    base = metadata.base_model
    files = [f"{name} {size_text(file.bytes)} sha256:{file.sha256}" for name, file in sorted(metadata.files.items())]
    return [
        ("name", metadata.name),
        ("digest", metadata.digest),
        ("served as", served_name(metadata.name, metadata.digest)),
        ("base", f"{base.name}{f' at {base.revision}' if base.revision else ''}" if base else "unknown"),
        ("LoRA", f"rank {metadata.rank}, alpha {metadata.alpha:g}, {metadata.dtype}" if metadata.alpha else "unknown"),
        ("modules", ", ".join(metadata.target_modules or ())),
        *(("file", line) for line in files),
        ("from", metadata.source),
        ("pushed", f"{metadata.created_at} by {metadata.created_by}"),
        *([("note", metadata.note)] if metadata.note else []),
        ("place", f"{url}/{version.folder}"),
    ]


@adapter.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@common_options
def verify(names: tuple[str, ...], stack: str, store_url: str | None, as_json: bool) -> int:
    """Read everything back and compare it with its digests. Exit code 1 if anything is wrong."""
    store = store_of(stack, store_url)
    with progress_bars(as_json) as phase:
        found = verify_versions(store, "adapter", names, phase=phase)
    report_verified(found, as_json)
    return 1 if found.faults else 0


def report_verified(found: Any, as_json: bool) -> None:
    """Print what `verify` found, of adapters or of models."""
    if as_json:
        print_json(
            {
                "versions": found.versions,
                "bytes": found.bytes,
                "faults": [{"path": fault.path, "what": fault.what} for fault in found.faults],
                "halfDone": [str(version) for version in found.half_done],
            }
        )
        return
    for fault in found.faults:
        click.echo(f"WRONG  {printable(str(fault))}")
    for version in found.half_done:
        click.echo(f"half-done push, which nobody sees (push again to finish it): {version}", err=True)
    right = "all as their digests say" if not found.faults else f"{len(found.faults)} faults"
    click.echo(f"{len(found.versions)} versions, {size_text(found.bytes)} read: {right}")


@adapter.command()
@click.argument("version", metavar="NAME[@sha256:DIGITS]")
@click.argument("folder", type=click.Path(path_type=Path))
@common_options
def pull(version: str, folder: Path, stack: str, store_url: str | None, as_json: bool) -> None:
    """Copy a version's files into a new folder."""
    store = store_of(stack, store_url)
    found, metadata = find(store, "adapter", version)
    with progress_bars(as_json) as phase:
        place = pull_version(store, found, metadata, folder, phase=phase)
    if as_json:
        print_json({"name": found.name, "digest": found.digest, "folder": str(place)})
    else:
        click.echo(f"{place}: {found}")


@adapter.command()
@click.option("--dry-run", is_flag=True, help="only show what would go")
@click.option("--yes", is_flag=True, help="do not ask")
@click.option(
    "--older-than",
    type=click.FloatRange(0, 36500),
    default=7.0,
    show_default=True,
    metavar="DAYS",
    help="keep what was pushed later than this ago",
)
@common_options
def prune(dry_run: bool, yes: bool, older_than: float, stack: str, store_url: str | None, as_json: bool) -> None:
    """Remove adapters that nothing refers to.

    Kept is what any stack's file, any manifest or server, or the last two served releases of any environment (and those
    told since) name, and whatever was pushed lately.
    """
    root, store = find_root(Path.cwd()), store_of(stack, store_url)
    plan = plan_prune(store, root, older_than=datetime.timedelta(days=older_than))
    if as_json and not yes:
        print_json(_plan_json(plan))
        return
    if not as_json:
        _print_plan(plan)
    if dry_run or (not plan.remove and not as_json):
        return
    if not yes:
        if not sys.stdin.isatty():
            raise LorafleetError(
                "nothing was removed: nobody is there to be asked",
                found="no terminal",
                allowed="--yes, or a terminal to answer on",
                next_action="Look at the list above, then run the command with --yes.",
            )
        click.confirm(f"Remove these {len(plan.remove)} versions for good?", abort=True, err=True)
    done = prune_now(store, root, plan)
    if as_json:
        print_json(_plan_json(plan) | {"removed": done.removed, "freedBytes": done.freed_bytes, "spared": done.spared})
        return
    for version, why in done.spared.items():
        click.echo(f"spared {version}: {why}")
    click.echo(f"removed {len(done.removed)} versions, {size_text(done.freed_bytes)} are free")


def _plan_json(plan: Plan) -> dict[str, Any]:
    return {
        "remove": [
            {
                "name": version.name,
                "digest": version.digest,
                "bytes": version.size_bytes,
                "halfDone": version.metadata_entry is None,
            }
            for version in plan.remove
        ],
        "bytes": plan.size_bytes,
        "kept": plan.keep,
        "young": [str(version) for version in plan.young],
    }


def _print_plan(plan: Plan) -> None:
    if plan.remove:
        print_table(
            ["NAME", "DIGEST", "LAST PUSHED", "SIZE", ""],
            [
                [
                    version.name,
                    version.digest,
                    f"{version.updated:%Y-%m-%d}",
                    size_text(version.size_bytes),
                    "" if version.metadata_entry else "half-done",
                ]
                for version in plan.remove
            ],
        )
    click.echo(
        f"would free {size_text(plan.size_bytes)} in {len(plan.remove)} versions; "
        f"{len(plan.keep)} are in use and {len(plan.young)} too young"
    )


@adapter.command()
@click.argument("version", metavar="NAME@sha256:DIGITS")
@click.option("--why", required=True, help="one line for those who wonder")
@common_options
def hold(version: str, why: str, stack: str, store_url: str | None, as_json: bool) -> None:
    """Hold a version back: it can't be promoted while it is held. What serves it goes on."""
    checked_sentence(why, "--why")
    store = store_of(stack, store_url)
    found, _ = find(store, "adapter", version)
    note, made = holds.hold(store, found.name, found.digest, why)
    if as_json:
        print_json(note.model_dump(by_alias=True) | {"made": made})
    elif made:
        click.echo(f"{found} is held back")
    else:
        click.echo(f"{found} was held back already: {printable(f'{note.why} ({note.by}, {note.at})')}")


@adapter.command()
@click.argument("version", metavar="NAME@sha256:DIGITS")
@common_options
def unhold(version: str, stack: str, store_url: str | None, as_json: bool) -> None:
    """Let a version be promoted again."""
    store = store_of(stack, store_url)
    found, _ = find(store, "adapter", version)
    was_held = holds.unhold(store, found.name, found.digest)
    if as_json:
        print_json({"name": found.name, "digest": found.digest, "wasHeld": was_held})
    else:
        click.echo(f"{found} is {'not held back any more' if was_held else 'not held back'}")
