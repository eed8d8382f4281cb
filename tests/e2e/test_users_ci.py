"""The workflows' own steps, read from their YAML and run here on a scratch local stack, with GitHub on loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorafleet import comment
from tests.e2e.test_users_ci_github import REPOSITORY, TOKEN, FakeGitHub
from tests.support.ports import free_port
from tests.support.stack_project import ROOT, StackProject, wait_for

WORKFLOWS = ROOT / ".github" / "workflows"
HEAD = "0123456789abcdef0123456789abcdef01234567"
# It would make the environments that this test already runs in.
SKIPPED = frozenset({"Set up"})
PULL_REQUEST: dict[str, Any] = {
    "number": 7,
    "title": "`curl evil.example`; $(touch pwned) ${{ github.token }}",
    "head": {"sha": HEAD, "ref": "$(touch pwned)", "repo": {"full_name": REPOSITORY}},
}
_STEP_TIMEOUT_S = 600


class _Text(dict[str, Any]):
    """A context in which what is missing is an empty text, as GitHub has it."""

    def at(self, path: str) -> Any:
        value: Any = self
        for part in path.split("."):
            value = value.get(part, "") if isinstance(value, Mapping) else ""
        return value


def evaluate(expression: str, context: _Text) -> Any:
    """An expression of a workflow (docs.github.com, "Evaluate expressions"): the part of the language that is used."""
    tokens = re.findall(r"'(?:[^']|'')*'|&&|\|\||!=|==|!|[(),]|[A-Za-z_][\w.-]*", expression)
    assert "".join(tokens) == re.sub(r"\s+(?=(?:[^']*'[^']*')*[^']*$)", "", expression), expression
    words = {"&&": "and", "||": "or", "!": "not", "true": "True", "false": "False"}
    python = " ".join(
        words[token]
        if token in words
        else token
        if token in ("(", ")", ",", "==", "!=", "fromJSON", "cancelled")
        else repr(token[1:-1].replace("''", "'"))
        if token.startswith("'")
        else f"at({token!r})"
        for token in tokens
    )
    names = {"at": context.at, "fromJSON": json.loads, "cancelled": lambda: False, "__builtins__": {}}
    return eval(python, names)


def filled(text: Any, context: _Text) -> str:
    """A value of a workflow with its `${{ … }}` filled in."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda found: str(evaluate(found.group(1).strip(), context)), str(text))


def holds(condition: str | None, context: _Text) -> bool:
    """Whether an `if:` holds."""
    return condition is None or bool(evaluate(re.sub(r"^\$\{\{|\}\}$", "", condition).strip(), context))


@dataclass
class Ran:
    """What the jobs of a workflow did. status: {job: exit status of its first step that failed, or 0}."""

    status: dict[str, int] = field(default_factory=dict)
    log: str = ""
    summary: str = ""
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)


class Checkout:
    """A checkout of this repository around a scratch stack, in which workflows run as on a runner."""

    def __init__(self, project: StackProject, github: FakeGitHub) -> None:
        self.project, self.github = project, github
        for name in ("tools", "lorafleet", "providers", "handlers", ".venv"):
            (project.folder / name).symlink_to(ROOT / name)
        self.scratch = project.folder / "runner"
        self.scratch.mkdir()
        self.variables = {"LORAFLEET_STACKS": "local", "PULUMI_BACKEND_URL": f"file://{project.folder / 'backend'}"}
        self.secrets = {"PULUMI_CONFIG_PASSPHRASE": project.environment["PULUMI_CONFIG_PASSPHRASE"]}

    def run(
        self,
        workflow: str,
        event_name: str,
        event: Mapping[str, Any] | None = None,
        inputs: Mapping[str, str] | None = None,
        before: Mapping[str, Any] | None = None,
    ) -> Ran:
        """Runs a workflow's jobs in their order. `before`: {job: what happens just before it}."""
        jobs: dict[str, Any] = yaml.safe_load((WORKFLOWS / workflow).read_text())["jobs"]
        payload = {"repository": {"default_branch": "main"}, **(event or {})}
        (self.scratch / "event.json").write_text(json.dumps(payload))
        ran = Ran()
        for name, job in jobs.items():
            context = _Text(
                github={
                    "event_name": event_name,
                    "event": payload,
                    "repository": REPOSITORY,
                    "actor": "somebody",
                    "token": TOKEN,
                    "ref_name": "main",
                },
                vars=self.variables,
                secrets=self.secrets,
                inputs=dict(inputs or {}),
                needs={each: {"outputs": outputs} for each, outputs in ran.outputs.items()},
            )
            needed = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
            if any(ran.status.get(each, 1) for each in needed) or not holds(job.get("if"), context):
                continue
            (before or {}).get(name, lambda: None)()
            matrix = job.get("strategy", {}).get("matrix", {})
            for stack in json.loads(filled(matrix["stack"], context).replace("'", '"')) if matrix else [None]:
                context["matrix"] = {"stack": stack}
                self._job(name, job, context, ran)
        return ran

    def _job(self, name: str, job: Mapping[str, Any], context: _Text, ran: Ran) -> None:
        ran.status.setdefault(name, 0)
        steps: dict[str, Any] = {}
        context["steps"] = steps
        for number, step in enumerate(job["steps"]):
            # A step without `if:`, or without a status function in it, runs only while all is well.
            if ran.status[name] and "cancelled()" not in str(step.get("if", "")):
                continue
            if "uses" in step or step["name"] in SKIPPED or not holds(step.get("if"), context):
                continue
            files = {key: self.scratch / f"{name}-{number}-{key}" for key in ("output", "summary", "script")}
            for file in files.values():
                file.write_text("")
            files["script"].write_text(step["run"])
            done = subprocess.run(
                ["bash", "-euo", "pipefail", str(files["script"])],
                cwd=self.project.folder,
                env=self._environment(step, context, files),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=_STEP_TIMEOUT_S,
            )
            ran.log += f"== {name}: {step['name']}\n{done.stdout}"
            ran.summary += files["summary"].read_text()
            ran.status[name] = ran.status[name] or done.returncode
            if "id" in step:
                lines = files["output"].read_text().splitlines()
                steps[step["id"]] = {"outputs": dict(line.split("=", 1) for line in lines)}
        ran.outputs[name] = {key: filled(value, context) for key, value in job.get("outputs", {}).items()}

    def _environment(self, step: Mapping[str, Any], context: _Text, files: Mapping[str, Path]) -> dict[str, str]:
        dropped = re.compile(r"PULUMI_|GITHUB_|GCP_|LORAFLEET_|(?:https?|all)_proxy$", re.IGNORECASE)
        return {
            **{key: value for key, value in os.environ.items() if not dropped.match(key)},
            "PULUMI_HOME": str(self.project.folder / "home"),
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",  # as env.sh has it
            "GITHUB_ACTIONS": "true",
            "GITHUB_API_URL": self.github.url,
            "GITHUB_SERVER_URL": "https://github.example",
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_RUN_ID": "42",
            "GITHUB_SHA": HEAD,
            "GITHUB_EVENT_PATH": str(self.scratch / "event.json"),
            "GITHUB_OUTPUT": str(files["output"]),
            "GITHUB_STEP_SUMMARY": str(files["summary"]),
            **{key: filled(value, context) for key, value in step.get("env", {}).items()},
        }

    def preview(self) -> Ran:
        """What a pull request gets."""
        return self.run("preview.yml", "pull_request", {"pull_request": PULL_REQUEST})

    def the_comment(self) -> str:
        """The one comment of the workflows."""
        (only,) = self.github.by_workflow()
        return str(only["body"])


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    github = FakeGitHub()
    project = StackProject(tmp_path / "project")
    try:
        yield Checkout(project, github)
    finally:
        project.kill_everything()
        github.close()


def test_a_change_from_its_pull_request_to_the_nightly_look(checkout: Checkout) -> None:
    project, github = checkout.project, checkout.github
    for number in range(120):
        github.write(7, f"talk {number}")

    # A pull request with a new stack: one comment that says what will be.
    ran = checkout.preview()
    assert ran.status == {"stacks": 0, "preview": 0}, ran.log
    body = checkout.the_comment()
    assert (
        body.startswith(comment.marker("local")) and "creates" in body and "[secret]" not in body.split("<details>")[0]
    )
    assert f"`{HEAD[:12]}`" in body and "https://github.example/example/fleet/actions/runs/42" in body
    assert body.splitlines()[1] in ran.summary
    assert not (project.folder / "pwned").exists()

    # Merged: planned, and done as planned.
    ran = checkout.run("deploy.yml", "push")
    assert ran.status == {"stacks": 0, "plan": 0, "deploy": 0}, ran.log
    assert project.state()["pid"], ran.log

    # Another pull request's run: the same comment says something else now.
    assert checkout.preview().status["preview"] == 0
    assert "nothing changes" in checkout.the_comment()

    # A release: said as such, in the first lines, and nothing else changes.
    served = project.read_config()["config"]["serving:fleet"]["release"]["adapters"]["easycontract"]
    wanted = project.digests["adapters-v2", "easycontract"]
    project.change(lambda fleet: fleet["release"]["adapters"].update(easycontract=wanted))
    assert checkout.preview().status["preview"] == 0
    headline, first = checkout.the_comment().splitlines()[1:4:2]
    assert "rolls out `easycontract`" in headline and "nothing else changes" in headline, checkout.the_comment()
    assert first == f"- `easycontract: {served[:19]}… -> {wanted[:19]}…`"
    project.change(lambda fleet: fleet["release"]["adapters"].update(easycontract=served))

    # Nothing to deploy: nobody is asked for approval.
    ran = checkout.run("deploy.yml", "push")
    assert ran.outputs["plan"] == {"changed": "[]"} and "deploy" not in ran.status, ran.log

    # What was not in the approved plan is refused.
    project.change(lambda fleet: fleet["router"]["limits"].update(maxTokens=256))
    ran = checkout.run(
        "deploy.yml",
        "push",
        before={"deploy": lambda: project.change(lambda fleet: fleet["router"]["limits"].update(maxTokens=64))},
    )
    assert ran.outputs["plan"] == {"changed": '["local"]'} and ran.status["deploy"] != 0, ran.log
    assert "violates plan" in ran.log or "plan" in ran.log.split("== deploy")[1], ran.log
    project.change(lambda fleet: fleet["router"]["limits"].update(maxTokens=512))

    # The nightly look: a server that died, and what is well again after a deployment.
    for member in project.leaders():
        member.identity.signal(signal.SIGKILL)
    wait_for(lambda: not project.leaders(), 60, "the server to be gone")
    for _ in range(2):
        ran = checkout.run("drift.yml", "schedule")
        assert ran.status == {"stacks": 0, "drift": 0}, ran.log
    (issue,) = github.issues.values()
    assert issue["title"] == "local is not as declared" and issue["state"] == "open" and "`server`" in issue["body"]
    assert checkout.run("deploy.yml", "workflow_dispatch", inputs={"stack": "local"}).status["deploy"] == 0
    ran = checkout.run("drift.yml", "schedule")
    assert ran.status == {"stacks": 0, "drift": 0} and issue["state"] == "closed", ran.log


def test_a_promotion_is_a_pull_request_of_one_file_with_its_preview(checkout: Checkout) -> None:
    project, github = checkout.project, checkout.github
    project.up().ok()
    served = project.read_config()["config"]["serving:fleet"]["release"]["adapters"]["easycontract"]
    former = project.digests["adapters-v2", "easycontract"]
    assert served != former
    target = project.folder / "stacks" / "Pulumi.next.yaml"
    ports = {str(port): str(free_port()) for port in project.ports.values()}
    text = re.sub(r"(?m)^encryptionsalt:.*\n", "", project.stack_file.read_text()).replace(served, former)
    for old, new in ports.items():
        text = text.replace(f": {old}\n", f": {new}\n")
    target.write_text(text)
    shutil.copy(project.folder / "stacks" / "local.py", project.folder / "stacks" / "next.py")
    project.run("stack", "init", "next").ok()
    before = target.read_text()
    github.set_main(HEAD, {"stacks/Pulumi.next.yaml": before.encode()})

    # What was never served there is refused, with the reason. A server at work would mark again what it serves.
    for member in project.leaders():
        member.identity.signal(signal.SIGSTOP)
    marks, apart = project.store / "served", project.folder / "served"
    marks.rename(apart)
    ran = checkout.run("promote.yml", "workflow_dispatch", inputs={"from": "local", "to": "next"})
    assert ran.status == {"promote": 1} and not github.pulls and target.read_text() == before, ran.log
    assert "stays as it is" in ran.summary and "never served healthy" in ran.summary

    apart.rename(marks)
    for member in project.leaders():
        member.identity.signal(signal.SIGCONT)
    ran = checkout.run("promote.yml", "workflow_dispatch", inputs={"from": "local", "to": "next"})
    assert ran.status == {"promote": 0}, ran.log
    ((number, pull),) = github.pulls.items()
    assert (pull["head"], pull["base"]) == ("promote/local-to-next", "main") and served[:19] in pull["body"]
    assert github.commits[github.branches["promote/local-to-next"]]["parents"] == [{"sha": HEAD}]
    proposed = before.replace(former, served)
    assert github.files_of("promote/local-to-next") == {"stacks/Pulumi.next.yaml": proposed.encode()}
    (only,) = github.by_workflow()
    assert only["issue"] == number and only["body"].startswith(comment.marker("next"))

    # Again: there is nothing to promote any more in this checkout.
    ran = checkout.run("promote.yml", "workflow_dispatch", inputs={"from": "local", "to": "next"})
    assert ran.status == {"promote": 0} and len(github.pulls) == 1 and "== promote: Preview" not in ran.log, ran.log


def test_a_preview_that_fails_says_why_and_fails_the_job(checkout: Checkout) -> None:
    checkout.project.change(lambda fleet: fleet["router"].update(prot=1))
    ran = checkout.preview()
    assert ran.status["preview"] != 0
    body = checkout.the_comment()
    assert "**failed**" in body and "there is no such key here" in body and "next:" in body
    assert checkout.run("deploy.yml", "push").status["plan"] != 0

    # A token that may not write comments: told, and the summary has it all the same.
    checkout.github.permissions = set()
    checkout.project.change(lambda fleet: fleet["router"].pop("prot"))
    ran = checkout.preview()
    assert ran.status["preview"] == 1 and "pull-requests=write" in ran.log and "creates" in ran.summary
    assert TOKEN not in ran.log + ran.summary


def test_a_fork_gets_no_preview_but_a_check(checkout: Checkout) -> None:
    head = {**PULL_REQUEST["head"], "repo": {"full_name": "stranger/fleet"}}
    ran = checkout.run("preview.yml", "pull_request", {"pull_request": {**PULL_REQUEST, "head": head}})
    assert ran.status == {"check": 0}, ran.log
    assert "comes from a fork" in ran.summary and "are right: `local`." in ran.summary and not checkout.github.calls
    checkout.project.change(lambda fleet: fleet["router"].update(prot=1))
    ran = checkout.run("preview.yml", "pull_request", {"pull_request": {**PULL_REQUEST, "head": head}})
    assert ran.status == {"check": 1} and "there is no such key here" in ran.log
    assert "Wrong, the log says why: `local`." in ran.summary and "are right" not in ran.summary


def test_without_the_variables_nothing_runs_and_nothing_fails(checkout: Checkout) -> None:
    checkout.variables = {"LORAFLEET_STACKS": "local"}
    for workflow, event in (("preview.yml", "pull_request"), ("deploy.yml", "push"), ("drift.yml", "schedule")):
        ran = checkout.run(workflow, event, {"pull_request": PULL_REQUEST})
        assert ran.status == {"stacks": 0} and "set the two variables" in ran.log, ran.log


def test_a_stack_that_is_not_there_is_named(checkout: Checkout) -> None:
    ran = checkout.run("deploy.yml", "workflow_dispatch", inputs={"stack": "prdo"})
    assert ran.status == {"stacks": 1} and "no stack prdo" in ran.log and "local" in ran.log
    ran = checkout.run("deploy.yml", "workflow_dispatch", inputs={"stack": "$(touch pwned)"})
    assert ran.status == {"stacks": 1} and not (checkout.project.folder / "pwned").exists()
