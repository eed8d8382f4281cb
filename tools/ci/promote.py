"""Proposing one environment's release to another: `lorafleet release promote`, as a pull request of one file."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lorafleet.comment.markdown import block, code
from lorafleet.errors import LorafleetError
from tools.ci import actions
from tools.ci.github import GitHub


def run(source: str, target: str) -> int:
    """Promotes, and opens a pull request with what changed, or writes the open one anew.

    Gives the output `pull_request`, its number; empty where nothing changed.

    Raises:
        LorafleetError: the names are wrong, or GitHub refuses.
    """
    actions.stack_name(source), actions.stack_name(target)
    file = Path("stacks", f"Pulumi.{target}.yaml")
    if source == target or not file.is_file():
        raise LorafleetError(
            f"{source} cannot be promoted to {target}",
            allowed="two environments, each with its stacks/Pulumi.<name>.yaml",
            next_action="look at the names: they are given as `from` and `to`",
        )
    before = file.read_bytes()
    done = subprocess.run(
        ["lorafleet", "release", "promote", source, target],
        env=actions.with_tools(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    actions.show(done.stdout)
    if done.returncode != 0:
        actions.summary("\n".join([f"### {code(target)} stays as it is", "", *block(done.stdout.splitlines())]))
        return done.returncode
    if file.read_bytes() == before:
        actions.notice(f"{target} has the release of {source} already")
        actions.output("pull_request", "")
        return 0
    this = actions.this_run()
    branch, title = f"promote/{source}-to-{target}", f"Promote {source} to {target}"
    body = "\n".join([f"The release of {code(source)}, for {code(target)}.", "", *block(done.stdout.splitlines())])
    with GitHub(this) as github:
        # The branch is made anew from what this run looked at, so that the proposal is this one file.
        parent = this.commit or github.head(this.default_branch)
        github.put_branch(branch, parent, file.as_posix(), file.read_bytes(), title)
        number = github.put_pull_request(branch, this.default_branch, title, f"{body}\n")
    actions.notice(f"pull request {number}: {title}")
    actions.output("pull_request", str(number))
    return 0
