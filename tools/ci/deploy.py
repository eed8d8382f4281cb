"""Deploying what was looked at: the plan is saved, approved with the environment, and then done, or nothing is."""

from __future__ import annotations

import json
from pathlib import Path

from lorafleet import comment
from lorafleet.errors import LorafleetError
from tools.ci import actions, engine, stacks

PLAN = "plan.json"


def plan(only: str, out: Path) -> int:
    """Previews every stack, saves the plans in `out`; gives the output `changed`, a JSON list of stacks.

    Fails if one preview fails: then nothing is deployed.
    """
    links = comment.Links(run=None, commit=None)
    changed, failed = [], []
    for stack in stacks.find(only):
        folder = out / stack
        account = engine.preview(stack, folder, "--save-plan", str((folder / PLAN).absolute()))
        pages = comment.pages(
            stack,
            account.preview,
            account.events,
            account.status,
            links,
            said=account.said,
            limit_bytes=actions.SUMMARY_LIMIT_BYTES // 10,
        )
        actions.show("\n".join(pages))
        actions.summary("\n".join(pages))
        if account.failed:
            failed.append(stack)
        elif account.changes:
            changed.append(stack)
    actions.output("changed", json.dumps(changed))
    return 1 if failed else 0


def deploy(stack: str, out: Path) -> int:
    """Does what the saved plan says; Pulumi refuses what is not in it. Gives Pulumi's exit status.

    Raises:
        LorafleetError: there is no plan.
    """
    saved = out / actions.stack_name(stack) / PLAN
    if not saved.is_file():
        raise LorafleetError(
            f"there is no plan of the stack {stack}",
            where=str(saved),
            allowed="what `python -m tools.ci plan` saved",
            next_action="run the whole workflow again: plans are kept for a few days only",
        )
    return engine.up(stack, saved)
