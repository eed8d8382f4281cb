"""The `lorafleet` command: what it prints, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lorafleet.cli import main
from tests.support.fleet_project import Project

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = Project(tmp_path)
    project.write_stack()
    monkeypatch.chdir(tmp_path)
    return project


def test_plan(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan"]) == 0
    assert capsys.readouterr().out == project.plan().render()


def test_plan_as_json_from_a_folder_below(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.base)
    assert main(["plan", "--stack", "local", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == project.plan().to_dict()


def test_check(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert "2 adapters" in capsys.readouterr().out
    project.fleet["router"]["port"] = 1
    project.write_stack()
    assert main(["check"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("stacks/Pulumi.local.yaml:26: router.port: ")


def test_digest(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digest", "models/checklist"]) == 0
    assert main(["digest", "models/base"]) == 0
    assert main(["digest", "models/base", "--kind", "model"]) == 0
    base = project.fleet["release"]["baseModel"]["digest"]
    assert capsys.readouterr().out.split() == [project.fleet["release"]["adapters"]["checklist"], base, base]
    assert main(["digest", "models/none"]) == 1
    assert capsys.readouterr().err.startswith("models/none: the folder does not exist")


def test_outside_of_a_project(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert main(["plan"]) == 1
    assert "not a folder of a lorafleet project" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["plann"], ["digest"], ["digest", "x", "--kind", "image"]])
def test_a_wrong_command_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Usage: lorafleet" in capsys.readouterr().err


def test_a_reader_that_leaves_early_sees_no_traceback(project: Project) -> None:
    command = f"PYTHONPATH='{ROOT}' '{sys.executable}' -m lorafleet.cli plan --json | head -c 1"
    done = subprocess.run(["sh", "-c", command], cwd=project.root, capture_output=True, text=True, timeout=60)
    assert done.stdout == "{" and "Traceback" not in done.stderr
