"""What the workflows' steps refuse and how they find things, where no engine is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lorafleet.errors import LorafleetError
from tools.ci import __main__ as command
from tools.ci import actions, deploy, engine, images, stacks
from tools.ci.recording import record


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_ACTIONS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_EVENT_PATH", "LORAFLEET_STACKS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("PULUMI_BACKEND_URL", "GCP_PROJECT", "GCP_WORKLOAD_IDENTITY_PROVIDER", "GITHUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def make_stacks(*names: str) -> None:
    Path("stacks").mkdir()
    for name in names:
        Path("stacks", f"Pulumi.{name}.yaml").touch()
        Path("stacks", f"{name}.py").touch()


def test_stacks_are_found_by_both_their_files() -> None:
    make_stacks("local", "local-two", "shared", "prod", "dev")
    Path("stacks", "Pulumi.half.yaml").touch()
    assert stacks.find() == ["dev", "prod"]
    assert stacks.find("local") == ["local"], "by name, any of them"


def test_stacks_can_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    make_stacks("local", "prod", "dev")
    monkeypatch.setenv("LORAFLEET_STACKS", "prod  local")
    assert stacks.find() == ["prod", "local"]
    monkeypatch.setenv("LORAFLEET_STACKS", "prdo")
    with pytest.raises(LorafleetError, match="no stack prdo") as caught:
        stacks.find()
    assert "LORAFLEET_STACKS" in str(caught.value) and "dev, local, prod" in str(caught.value)


@pytest.mark.parametrize("name", ["../x", "a b", "-x", "", "$(x)", "a;b", "é"])
def test_what_is_no_stack_name_is_refused(name: str) -> None:
    with pytest.raises(LorafleetError, match="no name of a stack"):
        actions.stack_name(name)


def test_without_a_backend_there_is_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_stacks("prod")
    assert stacks.tell("") == 0 and "stacks=[]" in capsys.readouterr().out
    monkeypatch.setenv("GCP_WORKLOAD_IDENTITY_PROVIDER", "projects/1/x")
    assert stacks.tell("") == 0 and 'stacks=["prod"]' in capsys.readouterr().out


def test_the_state_lies_in_the_projects_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "")  # how an unset variable of the repository comes
    monkeypatch.setenv("GITHUB_TOKEN", "ghs_x")
    with pytest.raises(LorafleetError, match="where the stacks' state is kept"):
        engine.environment()
    monkeypatch.setenv("GCP_PROJECT", "my-project")
    assert engine.environment()["PULUMI_BACKEND_URL"] == "gs://my-project-pulumi"
    assert "GITHUB_TOKEN" not in engine.environment(), "the program that is previewed has no business with it"
    monkeypatch.setenv("PULUMI_BACKEND_URL", "gs://other")
    assert engine.environment()["PULUMI_BACKEND_URL"] == "gs://other"


def test_what_others_wrote_is_printed_without_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    actions.show("::add-mask::x\n::set-output name=y::z")
    lines = capsys.readouterr().out.splitlines()
    stopped = re.fullmatch(r"::stop-commands::([0-9a-f]{32})", lines[0])
    assert stopped and lines[-1] == f"::{stopped.group(1)}::"


def test_a_run_is_known_from_its_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"pull_request": {"number": 7, "head": {"sha": "a" * 40}}}))
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(event))
    monkeypatch.setenv("GITHUB_SHA", "b" * 40)
    monkeypatch.setenv("GITHUB_REPOSITORY", "o/r")
    with pytest.raises(LorafleetError, match="GITHUB_TOKEN is not set"):
        actions.this_run()
    monkeypatch.setenv("GITHUB_TOKEN", "x")
    run = actions.this_run()
    assert (run.pull_request, run.commit) == (7, "a" * 40), "the pull request's own commit, not GitHub's merge of it"
    event.write_text("{}")
    monkeypatch.setenv("PULL_REQUEST", "7; x")
    with pytest.raises(LorafleetError, match="no number of a pull request"):
        actions.this_run()


def test_an_account_of_a_killed_preview_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    with pytest.raises(LorafleetError, match="there is no preview here"):
        engine.read(tmp_path)
    (tmp_path / "status").write_text("137\n")
    (tmp_path / "said.txt").write_text("killed")
    (tmp_path / "preview.json").write_text("")
    (tmp_path / "events.jsonl").write_text(
        '{"diagnosticEvent": {"severity": "debug"}}\n{"summaryEvent": {}}\n{"resourcePr'
    )
    account = engine.read(tmp_path)
    assert account.failed and account.preview is None and account.events == [{"summaryEvent": {}}]


@pytest.mark.parametrize(("case", "changes"), [("outputs", True), ("update", True), ("nothing", False)])
def test_a_stack_is_deployed_if_anything_changes(case: str, changes: bool, tmp_path: Path) -> None:
    """Also where only an output of the stack does, which the engine does not count."""
    recorded = record.GOLDEN / case
    for name, copy in (("preview.json", "preview.json"), ("events.jsonl", "events.jsonl"), ("status.txt", "status")):
        shutil.copy(recorded / name, tmp_path / copy)
    (tmp_path / "said.txt").touch()
    assert engine.read(tmp_path).changes is changes


def test_the_stacks_are_told_by_a_bare_python() -> None:
    """The first job of each workflow installs nothing."""
    make_stacks("prod")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(actions.ROOT), "PULUMI_BACKEND_URL": "gs://x"}
    done = subprocess.run(
        [sys.executable, "-S", "-m", "tools.ci", "stacks"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == 'stacks=["prod"]\n', done.stderr


def test_without_a_plan_nothing_is_deployed(tmp_path: Path) -> None:
    with pytest.raises(LorafleetError, match="no plan of the stack prod"):
        deploy.deploy("prod", tmp_path)


def test_every_declaration_of_this_repository_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(actions.ROOT)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    monkeypatch.setenv("LORAFLEET_STACKS", "prdo")  # what is deployed is another matter
    assert stacks.check() == 0
    said = (tmp_path / "summary").read_text()
    assert "`local`" in said and "`shared`" not in said and "Nothing was checked" not in said


def test_nothing_to_check_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_stacks("shared", "prod")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    assert stacks.check() == 0
    said = (tmp_path / "summary").read_text()
    assert "Nothing was checked" in said and "right" not in said


def test_two_builds_of_one_commit_have_two_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(actions.ROOT)
    tags = set()
    for run, attempt in (("7", "1"), ("7", "2"), ("8", "1"), ("", "")):
        monkeypatch.setenv("GITHUB_RUN_NUMBER", run)
        monkeypatch.setenv("GITHUB_RUN_ATTEMPT", attempt)
        tags.add(images._labels()["VERSION"])
    assert len(tags) == 4 and all(re.fullmatch(r"git-[0-9a-f]{12}-[0-9A-Z.]+", tag) for tag in tags), tags


def test_errors_are_one_message_and_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["deploy", "--stack", "../prod"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: this is no name of a stack") and "Traceback" not in said


def test_images_are_told_by_digest() -> None:
    name, digest = "europe-docker.pkg.dev/p/r/serving", "sha256:" + 64 * "a"
    metadata = {
        "buildx.build.ref": "builder/x",
        "serving": {"image.name": f"{name}:git-1", "containerimage.digest": digest},
    }
    assert f"- serving: `{name}@{digest}`" in images.told(metadata)
    with pytest.raises(LorafleetError, match="image serving has no digest"):
        images.told({"serving": {"image.name": f"{name}:git-1"}})
