"""`lorafleet release …`: look at what environments pin and serve, move a release on, and go back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lorafleet.cli import find_root
from lorafleet.errors import LorafleetError
from lorafleet.load import load_stack
from lorafleet.release import document, pins

from . import release_text as text
from .console import print_json
from .release_promotion import promotion
from .release_proposal import Proposal
from .release_reasons import as_dict
from .release_records import history as read_history
from .release_rollback import rollback as plan_rollback
from .release_view import verify as verify_release
from .release_view import view
from .store import open_store

Command = Callable[..., None]

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_dry_run = click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
_force = click.option(
    "--force",
    metavar="WHY",
    help="Override that a version is held back or was never served; the reason is printed with the result.",
)


def _reported(command: Command) -> Command:
    """With --json, errors are JSON on standard output too."""

    @functools.wraps(command)
    def run(*, as_json: bool, **options: Any) -> None:
        try:
            command(as_json=as_json, **options)
        except LorafleetError as error:
            if not as_json:
                raise
            print_json({"error": error.what, "reasons": [as_dict(each) for each in error.errors]})
            click.get_current_context().exit(1)

    return run


@click.group()
def release() -> None:
    """Show, compare, promote and roll back releases.

    A release is the block `release` of stacks/Pulumi.<ENV>.yaml. These commands change that file and nothing else; the
    `pulumi` command that they print last makes it so.
    """


@release.command()
@click.argument("env")
@_json
@_reported
def show(env: str, as_json: bool) -> None:
    """Print what ENV pins, where it came from, and what its servers serve now."""
    found = view(_root(), env)
    past = read_history(found.store, env)
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo(text.view(found, past), nl=False)


@release.command()
@click.argument("a")
@click.argument("b")
@_json
@_reported
def diff(a: str, b: str, as_json: bool) -> None:
    """Print what A pins otherwise than B."""
    root = _root()
    first, second = pins.of(load_stack(root, a).release), pins.of(load_stack(root, b).release)
    changes = pins.changes(first, second)
    # To bring what A has to B is what people compare them for.
    command = (
        f"lorafleet release promote {a} {b} && pulumi up --stack {b}" if changes else f"pulumi preview --stack {b}"
    )
    if as_json:
        print_json(
            {"a": a, "b": b, "changes": [{"what": c.what, "a": c.old, "b": c.new} for c in changes], "next": command}
        )
    else:
        click.echo(text.difference(a, b, changes, command), nl=False)


@release.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--only", multiple=True, metavar="NAME", help="Promote this adapter alone (may be repeated).")
@_dry_run
@_force
@_json
@_reported
def promote(source: str, target: str, only: tuple[str, ...], dry_run: bool, force: str | None, as_json: bool) -> None:
    """Copy what FROM serves into the release of TO's stack file.

    Refused, with all reasons at once, unless FROM serves it now, healthy and without canaries, and TO can serve it.
    """
    _settle(promotion(_root(), source, target, only=only, force=_reason(force)), dry_run=dry_run, as_json=as_json)


@release.command()
@click.argument("env")
@click.option("--to", metavar="RECORD", help="Record of `release history`, or digest of a release; first digits do.")
@_dry_run
@_force
@_json
@_reported
def rollback(env: str, to: str | None, dry_run: bool, force: str | None, as_json: bool) -> None:
    """Put the former release of ENV back into its stack file, as it stood there."""
    _settle(plan_rollback(_root(), env, to=to, force=_reason(force)), dry_run=dry_run, as_json=as_json)


@release.command()
@click.argument("env")
@_json
@_reported
def history(env: str, as_json: bool) -> None:
    """Print which releases ENV was told to serve, newest first; those that failed are among them."""
    found = document.read(_root(), env)
    past = read_history(open_store(found.fleet_without_release().store_url), env)
    current = pins.digest(found.release)
    command = f"pulumi preview --stack {env}"
    if past.others(current):
        command = f"lorafleet release rollback {env} && pulumi up --stack {env}"
    if as_json:
        records = [record.to_dict() | {"inFile": record.digest == current} for record in past.records]
        print_json(
            {"environment": env, "records": records, "unreadable": list(past.unreadable), "next": command},
        )
    else:
        click.echo(text.history(env, past, current, command), nl=False)


@release.command()
@click.argument("env")
@_json
@_reported
def verify(env: str, as_json: bool) -> None:
    """Check that all of ENV's release is in the store, intact, allowed, and served; if not, the exit code is 1."""
    checked = verify_release(_root(), env)
    if as_json:
        print_json(
            {
                "environment": env,
                "right": checked.right,
                "findings": [finding.to_dict() for finding in checked.findings],
                "next": checked.view.next_command,
            }
        )
    else:
        click.echo(text.checked(checked), nl=False)
    if not checked.right:
        click.get_current_context().exit(1)


def _settle(proposal: Proposal, *, dry_run: bool, as_json: bool) -> None:
    writes = bool(proposal.diff) and not dry_run
    if not as_json and writes:
        # The difference is seen even if writing fails.
        warnings = proposal.apply()
        click.echo(text.proposal(proposal, written=True, dry_run=False, warnings=warnings), nl=False)
        return
    warnings = proposal.apply() if writes else ()
    if as_json:
        print_json(proposal.to_dict(written=writes) | {"warnings": list(warnings)})
    else:
        click.echo(text.proposal(proposal, written=False, dry_run=dry_run), nl=False)


def _reason(force: str | None) -> str | None:
    if force is not None and not force.strip():
        raise click.UsageError("--force needs a reason that others can read later, as in --force 'approved by ...'")
    return force.strip() if force else None


def _root() -> Path:
    return find_root(Path.cwd())
