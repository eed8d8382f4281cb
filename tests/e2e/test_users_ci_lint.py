"""The workflows as files: linted, pinned, with few rights, and with nothing of a stranger in a script."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.setup.steps import actionlint

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
STEPS = {"stacks", "check", "preview", "comment", "plan", "deploy", "drift", "promote", "images"}


def jobs(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text())["jobs"]
    return found


@pytest.fixture(scope="module")
def linter() -> Path:
    found = actionlint.find()
    if found is None:
        pytest.skip("actionlint was not built: no Go here (tools/setup/steps/actionlint.py)")
    return found


def test_there_are_workflows() -> None:
    assert {"preview.yml", "deploy.yml", "drift.yml", "promote.yml"} <= {file.name for file in FILES}


def test_actionlint_finds_nothing(linter: Path) -> None:
    done = subprocess.run([linter, "-color", *map(str, FILES)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint_would_find_something(linter: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(
        (ROOT / ".github/workflows/preview.yml").read_text().replace("steps.stacks.outputs", "steps.stack.outputs")
    )
    done = subprocess.run([linter, str(wrong)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and 'property "stack" is not defined' in done.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_action_is_pinned_by_commit_with_its_version(file: Path) -> None:
    used = re.findall(r"uses: *(.*)", file.read_text())
    assert used and all(re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each) for each in used), used
    written = (ROOT / "docs" / "ci.md").read_text()
    for each in used:
        name, commit, version = re.split(r"@| # ", each)
        assert f"| `{name}` | {version} | `{commit}` |" in written, f"docs/ci.md does not name {each}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_rights_and_times_are_limited(file: Path) -> None:
    whole = yaml.safe_load(file.read_text())
    assert whole["permissions"] == {}, "each job says what it needs"
    assert whole["defaults"]["run"]["shell"] == "bash -euo pipefail {0}"
    # YAML 1.1 reads the key `on` as a truth value.
    assert "pull_request_target" not in whole[True] and "workflow_run" not in whole[True]
    for name, job in whole["jobs"].items():
        assert 0 < job["timeout-minutes"] <= 120, name
        assert job["permissions"]["contents"] == ("write" if file.name == "promote.yml" else "read"), name
        writes = {key for key, value in job["permissions"].items() if value == "write"}
        assert writes <= {"id-token", "pull-requests", "issues", "contents", "actions"}, name
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_scripts_take_nothing_but_variables(file: Path) -> None:
    for name, job in jobs(file).items():
        for step in job["steps"]:
            if "run" not in step:
                continue
            script = step["run"]
            assert "${{" not in script, f"{name}: values come by `env:`, or they would be code"
            assert re.fullmatch(
                r'(python3|\.venv/bin/python) -m tools\.(ci|setup) [a-z-]+( --[a-z]+( "\$[A-Z]+"| plans)?)*', script
            ), script
            if "tools.ci" in script:
                assert script.split("tools.ci ")[1].split()[0] in STEPS


def test_only_runs_of_this_repository_get_credentials() -> None:
    """A job of a pull request that asks for an identity or a secret runs for no fork."""
    whole = jobs(ROOT / ".github" / "workflows" / "preview.yml")
    own = "github.event.pull_request.head.repo.full_name == github.repository"
    assert own in whole["stacks"]["if"] and whole["preview"]["needs"] == "stacks"
    assert own.replace("==", "!=") in whole["check"]["if"]
    assert "secrets." not in yaml.safe_dump(whole["check"]) and set(whole["check"]["permissions"]) == {"contents"}


def test_a_deployment_is_approved_and_never_cut_short() -> None:
    job = jobs(ROOT / ".github" / "workflows" / "deploy.yml")["deploy"]
    assert job["environment"] == "${{ matrix.stack }}"
    assert job["concurrency"] == {"group": "deploy-${{ matrix.stack }}", "cancel-in-progress": False}


def test_the_set_up_knows_the_flags_that_the_workflows_use() -> None:
    said = subprocess.run(
        ["python3", "-m", "tools.setup", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    used = {flag for file in FILES for flag in re.findall(r"tools\.setup (--\w+)", file.read_text())}
    assert used and all(flag in said.stdout for flag in used), used
