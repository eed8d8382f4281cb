"""`make up`, `make preview`, `make down`: Pulumi's own commands on the stack `local`.

What a killed run left behind is put right first. Pulumi's output flows through as it is.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from pathlib import Path
from types import FrameType
from typing import Any

from tools.stack import recovery, salt
from tools.stack.recovery import Verdict

ROOT = Path(__file__).resolve().parents[2]
BACKEND = ROOT / ".lorafleet" / "backend"
PROJECT = "serving"
STACK = "local"
CONFIG = f"stacks/Pulumi.{STACK}.yaml"
ENDING_PATIENCE_S = 3.0
"""A run that was interrupted a moment ago may still be ending."""


class StackError(Exception):
    """One line for the user: what is wrong and what to do next."""


def up() -> int:
    """Brings the stack up and says how to talk to it."""
    _prepare()
    status = _pulumi("up", "--yes", "--stack", STACK)
    if status == 0:
        print(_how_to_talk(_outputs()), flush=True)
    return status


def preview() -> int:
    """Shows what `up` would change; changes nothing, so it neither clears locks nor pending operations."""
    select()
    return _pulumi("preview", "--stack", STACK)


def down() -> int:
    """Destroys everything of the stack; the stack itself stays, empty."""
    _prepare()
    return _pulumi("destroy", "--yes", "--stack", STACK)


def _prepare() -> None:
    """Selects the stack and puts right what a killed run left behind."""
    select()
    _clear_dead_locks()
    pending = recovery.pending_operations(_read("stack", "export", "--stack", STACK))
    if pending:
        print(f"an earlier run was killed in the middle of: {', '.join(pending)}", flush=True)
        print("asking for the truth first: pulumi refresh --yes --clear-pending-creates", flush=True)
        status = _pulumi("refresh", "--yes", "--skip-preview", "--clear-pending-creates", "--stack", STACK)
        if status != 0:
            raise StackError(
                f"`pulumi refresh` failed (exit status {status}). Next: put right what it says above, "
                "then run this again"
            )


def select() -> None:
    """Makes the stack if it is not there yet, and makes it the current one."""
    if not (BACKEND / ".pulumi" / "stacks" / PROJECT / f"{STACK}.json").exists():
        print(f"making the stack {STACK}", flush=True)
    _read("stack", "select", "--create", STACK)
    salt.hide_from_git(ROOT, CONFIG)


def _clear_dead_locks() -> None:
    """Removes the locks of runs that are over.

    Raises:
        StackError: a run is still at work, or it can't be known whether it is.
    """
    locks = recovery.locks_of(BACKEND, PROJECT, STACK)
    if any(verdict is Verdict.ALIVE for _, _, verdict in locks):
        recovery.wait_until_over(BACKEND, PROJECT, STACK, ENDING_PATIENCE_S)
        locks = recovery.locks_of(BACKEND, PROJECT, STACK)
    for file, lock, verdict in locks:
        if verdict is Verdict.ALIVE:
            raise StackError(
                f"the stack {STACK} is in use by another Pulumi run ({lock}). Next: wait until it has ended, or "
                "stop it with Ctrl-C there, then run this again"
            )
        if verdict is Verdict.UNKNOWN:
            raise StackError(
                f"the stack {STACK} is locked by {lock or file}, and from here it can't be known whether that run "
                f"is still at work. Next: if it is over, type `. ./env.sh && pulumi cancel --yes {STACK}`, then "
                "run this again"
            )
    if locks:
        dead = ", ".join(str(lock) for _, lock, _ in locks)
        print(f"the stack was left locked by a run that is over ({dead}): pulumi cancel --yes", flush=True)
        _read("cancel", "--yes", STACK)


def _outputs() -> dict[str, Any]:
    outputs: dict[str, Any] = json.loads(_read("stack", "output", "--json", "--stack", STACK))
    return outputs


def _how_to_talk(outputs: dict[str, Any]) -> str:
    """The address, how to get the key, and a request to paste into any shell. The key itself is not in it.

    The key goes to curl by its standard input, not as an argument, which every user of the machine can read.
    """
    endpoint = outputs.get("endpoint")
    if not isinstance(endpoint, str):
        return f"the stack {STACK} is up; it has no output `endpoint`"
    models = [name for name in outputs.get("models") or [] if isinstance(name, str)]
    adapters = [name for name in models if not name.startswith("exaone-")]
    question = {
        "model": (adapters or models or ["easycontract"])[0],
        "messages": [{"role": "user", "content": "보증금은 언제 돌려받나요?"}],
    }
    root = shlex.quote(str(ROOT))
    key = f"cd {root} && . ./env.sh && pulumi stack output apiKey --show-secrets --stack {STACK}"
    url = shlex.quote(f"{endpoint}/chat/completions")
    body = shlex.quote(json.dumps(question, ensure_ascii=False))
    return "\n".join(
        [
            "",
            f"endpoint  {endpoint}",
            f"models    {', '.join(models)}",
            f"the key   {key}",
            "",
            "Try it, from any folder and shell:",
            "",
            f'echo "Authorization: Bearer $({key})" |',
            f"  curl -sS -H @- -H 'Content-Type: application/json' {url} \\",
            f"    -d {body}",
            "",
            "`make down` takes it away again.",
        ]
    )


def _pulumi(*arguments: str) -> int:
    """Runs Pulumi with its output shown as it comes; gives its exit status.

    At Ctrl-C the terminal interrupts Pulumi too, which then finishes the operation in flight, saves its state and
    ends: this process must wait for that. A SIGTERM is passed on as an interrupt for the same reason.
    """
    child: subprocess.Popen[bytes] | None = None

    def pass_on(_signal: int, _frame: FrameType | None) -> None:
        if child is not None:
            child.send_signal(signal.SIGINT)

    former = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda _signal, _frame: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, pass_on),
    }
    try:
        child = subprocess.Popen(["pulumi", *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, env=_environment())
        status = child.wait()
        # As shells do it, for a Pulumi that a signal ended.
        return status if status >= 0 else 128 - status
    except FileNotFoundError:
        raise StackError("pulumi is not on PATH. Next: type `make setup`, then run this again") from None
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        # If the salt was taken out of the file, Pulumi has put it back just now.
        salt.hide_from_git(ROOT, CONFIG)


def _read(*arguments: str) -> str:
    """Runs Pulumi and gives what it prints.

    Raises:
        StackError: it failed; carries its own words.
    """
    try:
        done = subprocess.run(
            ["pulumi", *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=_environment(),
            check=False,
        )
    except FileNotFoundError:
        raise StackError("pulumi is not on PATH. Next: type `make setup`, then run this again") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split()).removeprefix("error: ")
        raise StackError(f"`pulumi {' '.join(arguments)}` failed: {said}. Next: put that right, then run this again")
    return done.stdout


def _environment() -> dict[str, str]:
    return dict(os.environ, PULUMI_SKIP_CONFIRMATIONS="true")
