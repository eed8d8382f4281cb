"""`lorafleet runpod ...`: what RunPod's platform itself does not do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from lorafleet.cli import find_root
from lorafleet.errors import LorafleetError
from lorafleet.load import load_stack
from providers import kit

from . import api, clock, hours


@click.group()
def runpod() -> None:
    """Start and stop pods by the clock."""


@runpod.command("clock")
@click.option("--stack", required=True, help="name of the stack whose pods are meant")
@click.option("--dry-run", is_flag=True, help="only say what would be done")
def turn(stack: str, dry_run: bool) -> int:
    """Start or stop the stack's pods as their `hours` say now, and touch nothing else.

    To be run every few minutes, by cron or a scheduled workflow, with RUNPOD_API_KEY. It needs the stack file, but
    neither Pulumi nor its state.
    """
    targets = clock.scheduled(load_stack(find_root(Path.cwd()), stack))
    if not targets:
        click.echo(f"stack {stack}: no target of the kind runpod-pod has hours")
        return 0
    try:
        done, failed = asyncio.run(clock.turn(api.connect(), stack, targets, hours.now(), act=not dry_run))
    except kit.ResourceError as error:
        raise LorafleetError(error.what, next_action=error.next_action) from None
    for each in done:
        did = f"would be {each.did}" if dry_run and each.did != "left" else each.did
        click.echo(f"{each.target}: pod {each.pod} {did}: {each.why}")
    for failure in failed:
        click.echo(str(failure), err=True)
    return 1 if failed else 0
