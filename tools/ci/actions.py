"""How a step talks to GitHub Actions: outputs, the run's summary, what triggered the run. Standard library alone."""

from __future__ import annotations

import json
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafleet.errors import LorafleetError

ROOT = Path(__file__).resolve().parents[2]

SUMMARY_LIMIT_BYTES = 1_000_000
"""GitHub takes summaries of up to 1 MiB from a step."""


def output(name: str, value: str) -> None:
    """Gives later steps and jobs an output; printed too, for a run by hand. `value` is one line."""
    assert "\n" not in value
    print(f"{name}={value}")
    _append("GITHUB_OUTPUT", f"{name}={value}\n")


def summary(text: str) -> None:
    """Adds Markdown to the summary that the run's page shows."""
    _append("GITHUB_STEP_SUMMARY", text if text.endswith("\n") else f"{text}\n")


def show(text: str) -> None:
    """Prints what others have written. The runner takes lines that begin with `::` for commands: not in here."""
    if not os.environ.get("GITHUB_ACTIONS"):
        print(text, flush=True)
        return
    token = secrets.token_hex(16)
    print(f"::stop-commands::{token}\n{text}\n::{token}::", flush=True)


def notice(text: str) -> None:
    """A note on the run's page; a plain line elsewhere. `text` is this repository's own."""
    head = "::notice::" if os.environ.get("GITHUB_ACTIONS") else "note: "
    print(head + text.replace("\n", " "), flush=True)


@dataclass(frozen=True)
class Run:
    """The run that this is. repository: owner/name; pull_request: its number, None outside of one."""

    repository: str
    api_url: str
    token: str
    url: str | None
    commit: str | None
    pull_request: int | None
    default_branch: str


def this_run() -> Run:
    """The run, from the variables that GitHub sets.

    Raises:
        LorafleetError: one of them is missing.
    """
    event = _event()
    pull = event.get("pull_request") or {}
    # A run that was started by hand, or by the promotion, is told the number.
    number = str(pull.get("number") or os.environ.get("PULL_REQUEST", ""))
    if number and not number.isdecimal():
        raise LorafleetError(
            "this is no number of a pull request", where="PULL_REQUEST", found=repr(number[:20]), allowed="digits"
        )
    repository = need("GITHUB_REPOSITORY")
    server, run_id = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_RUN_ID")
    return Run(
        repository=repository,
        api_url=os.environ.get("GITHUB_API_URL", "https://api.github.com").rstrip("/"),
        token=need("GITHUB_TOKEN"),
        url=f"{server}/{repository}/actions/runs/{run_id}" if server and run_id else None,
        # On a pull request GITHUB_SHA is a merge that nobody has seen.
        commit=(pull.get("head") or {}).get("sha") or os.environ.get("GITHUB_SHA"),
        pull_request=int(number) if number else None,
        default_branch=(event.get("repository") or {}).get("default_branch") or "main",
    )


def need(name: str) -> str:
    """A variable that must be there.

    Raises:
        LorafleetError: it is not.
    """
    value = os.environ.get(name, "")
    if not value:
        raise LorafleetError(
            f"the variable {name} is not set",
            allowed="what GitHub Actions sets; the token is handed to a step by its `env:`",
            next_action="run this step from its workflow, or set the variable",
        )
    return value


def with_tools() -> dict[str, str]:
    """The environment for commands of this checkout: its tools come first on PATH.

    Without the token: what a preview runs is the change's own code, which has no business with it.
    """
    known = {name: value for name, value in os.environ.items() if name != "GITHUB_TOKEN"}
    first = [str(folder) for folder in (ROOT / ".lorafleet/engine/bin", ROOT / ".venv/bin") if folder.is_dir()]
    known["PATH"] = os.pathsep.join([*first, known.get("PATH", os.defpath)])
    return known


def stack_name(name: str) -> str:
    """A stack's name that may stand in a path or an argument.

    Raises:
        LorafleetError: it may not.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        raise LorafleetError(
            "this is no name of a stack",
            found=repr(name[:40]),
            allowed="letters, digits, `.`, `_` and `-`",
            next_action="give a name as in stacks/Pulumi.<name>.yaml",
        )
    return name


def _event() -> dict[str, Any]:
    path = os.environ.get("GITHUB_EVENT_PATH")
    found: dict[str, Any] = json.loads(Path(path).read_text()) if path and Path(path).is_file() else {}
    return found


def _append(variable: str, text: str) -> None:
    path = os.environ.get(variable)
    if path:
        with Path(path).open("a") as file:
            file.write(text)
