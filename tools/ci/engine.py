"""Pulumi's commands as the workflows run them."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafleet import comment
from lorafleet.errors import LorafleetError
from tools.ci import actions


@dataclass(frozen=True)
class Account:
    """What one preview said: the files that `preview` leaves for `comment`."""

    preview: dict[str, Any] | None
    events: list[dict[str, Any]] | None
    status: int
    said: str

    @property
    def failed(self) -> bool:
        """7 means that there are changes where none were expected."""
        return self.status not in (0, 7)

    @property
    def changes(self) -> bool:
        """Whether `pulumi up` would do anything."""
        counts = (self.preview or {}).get("changeSummary") or {}
        of_resources = any(number for op, number in counts.items() if op not in ("same", "read"))
        return of_resources or bool(comment.read_plan(self.preview, self.events).outputs)


def preview(stack: str, folder: Path, *arguments: str) -> Account:
    """Runs `pulumi preview` and keeps what it says in `folder` (preview.json, events.jsonl, status, said.txt)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("preview.json", "events.jsonl", "status", "said.txt"):
        (folder / name).unlink(missing_ok=True)
    with (folder / "preview.json").open("wb") as document, (folder / "said.txt").open("wb") as said:
        done = subprocess.run(
            _command("preview", stack, "--json", "--event-log", str((folder / "events.jsonl").absolute()), *arguments),
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=document,
            stderr=said,
            check=False,
        )
    (folder / "status").write_text(f"{done.returncode}\n")
    return read(folder)


def read(folder: Path) -> Account:
    """What an earlier preview left.

    Raises:
        LorafleetError: there is none.
    """
    status = folder / "status"
    if not status.is_file():
        raise LorafleetError(
            "there is no preview here",
            where=str(folder),
            allowed="the folder that `python -m tools.ci preview --out` was given",
            next_action="run that step first; if it was cut short, read its log",
        )
    return Account(
        preview=_document(folder / "preview.json"),
        events=_events(folder / "events.jsonl"),
        status=int(status.read_text()),
        said=(folder / "said.txt").read_text(errors="replace"),
    )


def up(stack: str, plan: Path) -> int:
    """Runs `pulumi up` within the saved plan; its output flows through. Gives its exit status."""
    arguments = _command("up", stack, "--yes", "--skip-preview", "--plan", str(plan.absolute()))
    return subprocess.run(arguments, env=environment(), stdin=subprocess.DEVNULL, check=False).returncode


def _command(command: str, stack: str, *arguments: str) -> list[str]:
    return ["pulumi", command, "--stack", stack, "--non-interactive", "--color", "never", *arguments]


def environment() -> dict[str, str]:
    """The environment of Pulumi's commands: this checkout's tools first, and the backend.

    The backend is `PULUMI_BACKEND_URL`, else the bucket `gs://<project>-pulumi` of the project `GCP_PROJECT`.

    Raises:
        LorafleetError: none of these is known.
    """
    # A variable of the repository that is not set comes as an empty text.
    known = {name: value for name, value in actions.with_tools().items() if value or not name.startswith("PULUMI_")}
    known["PULUMI_SKIP_UPDATE_CHECK"] = "true"
    known["PULUMI_DEBUG_COMMANDS"] = "true"  # without it, `--event-log` is no option
    known.pop("PYTHONDONTWRITEBYTECODE", None)
    if "PULUMI_BACKEND_URL" not in known:
        project = known.get("GCP_PROJECT", "")
        if not re.fullmatch(r"[a-z][a-z0-9-]{4,28}[a-z0-9]", project):
            raise LorafleetError(
                "it is not known where the stacks' state is kept",
                where="the repository's variables",
                found=f"GCP_PROJECT is {project!r}",
                allowed="PULUMI_BACKEND_URL, or GCP_PROJECT, the id of a Google Cloud project",
                next_action="set them as docs/ci.md says",
            )
        known["PULUMI_BACKEND_URL"] = f"gs://{project}-pulumi"
    return known


def _document(path: Path) -> dict[str, Any] | None:
    # A preview that could not even begin prints no document.
    try:
        found = json.loads(path.read_text(errors="replace"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _events(path: Path) -> list[dict[str, Any]] | None:
    if not path.is_file():
        return None
    events = []
    for line in path.read_text(errors="replace").splitlines():
        # The last line of a run that was killed may be half.
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event.get("diagnosticEvent", {}).get("severity") != "debug":
            events.append(event)
    return events
