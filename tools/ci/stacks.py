"""Which stacks the workflows work on. Standard library alone: it runs before anything is installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from lorafleet.errors import LorafleetError
from tools.ci import actions

_BY_HAND = ("local", "shared")
# A value that stands for one of the team's own, such as `store: gs://<bucket of the stack shared>`.
_PLACEHOLDER = re.compile(rb"^[^#\n]*:[^#\n]*<[^<>\n]+>", re.MULTILINE)

_FORK_NOTE = """### Not previewed: this comes from a fork, or from Dependabot

{checked}

A preview needs the cloud account and the stacks' state, which no such code may use.
Who maintains this repository can look at the change, push it to a branch here, and open a pull request from that.
"""


def find(only: str = "") -> list[str]:
    """The stacks, by name: those that `LORAFLEET_STACKS` lists (with spaces between), else all but those by hand.

    The state of `local` and `local-…` lies on the machine that they run on: a workflow has nothing to compare. `shared`
    is brought up by a person. One whose file still has `<...>` for the team's own values is not in use yet.

    Raises:
        LorafleetError: one that is asked for is not there.
    """
    files = {
        file.name.removeprefix("Pulumi.").removesuffix(".yaml"): file for file in Path("stacks").glob("Pulumi.*.yaml")
    }
    default = Path("stacks", "serving.py").is_file()
    there = {name for name in files if default or Path("stacks", f"{name}.py").is_file()}
    asked = [only] if only else os.environ.get("LORAFLEET_STACKS", "").split()
    missing = [name for name in asked if actions.stack_name(name) not in there]
    if missing:
        raise LorafleetError(
            f"there is no stack {', '.join(missing)}",
            where="the workflow's input" if only else "LORAFLEET_STACKS",
            allowed=", ".join(sorted(there)) or "nothing: stacks/ has no stack with both its files",
            next_action="a stack has stacks/Pulumi.<name>.yaml and, unless stacks/serving.py does, stacks/<name>.py",
        )
    in_use = (name for name in there if name.split("-")[0] not in _BY_HAND and is_filled_in(files[name]))
    return asked or sorted(actions.stack_name(name) for name in in_use)


def is_filled_in(file: Path) -> bool:
    """Whether a stack's file has the team's own values. One that can't be read has: whoever works on it will say so."""
    try:
        return _PLACEHOLDER.search(file.read_bytes()) is None
    except OSError:
        return True


def tell(only: str) -> int:
    """Gives the workflow the output `stacks`, a JSON list; an empty one where no backend is set up yet."""
    found = find(only)
    if found and not _has_backend():
        actions.notice(f"nothing is done with {', '.join(found)}: set the two variables of docs/ci.md first")
        found = []
    actions.output("stacks", json.dumps(found))
    return 0


def check() -> int:
    """Checks every declaration of a fleet, as far as it can be done without an account, and says which.

    All of them: also `local`, and those that LORAFLEET_STACKS leaves out of deployments.
    """
    # Here, because `find` and `tell` run before anything is installed.
    from lorafleet.comment.markdown import code, listed
    from lorafleet.release.document import environments

    right: list[str] = []
    wrong: list[str] = []
    for name in environments(Path()):
        if not is_filled_in(Path("stacks", f"Pulumi.{name}.yaml")):
            continue
        asked = ["lorafleet", "check", "--stack", actions.stack_name(name)]
        failed = subprocess.run(asked, env=actions.with_tools(), check=False).returncode
        (wrong if failed else right).append(code(name))
    said = [
        f"{what}: {listed(names)}."
        for what, names in (("Declarations that were checked and are right", right), ("Wrong, the log says why", wrong))
        if names
    ]
    checked = (
        "\n".join(said)
        or "Nothing was checked: no file `stacks/Pulumi.<name>.yaml` declares a fleet (`serving:fleet`)."
    )
    print(checked, flush=True)
    actions.summary(_FORK_NOTE.format(checked=checked))
    return 1 if wrong else 0


def _has_backend() -> bool:
    return any(os.environ.get(name) for name in ("PULUMI_BACKEND_URL", "GCP_WORKLOAD_IDENTITY_PROVIDER"))
