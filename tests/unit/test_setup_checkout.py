"""The checkout's own files: the Makefile, .ci/run, and the salt that git must not see."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tools.setup.steps.toolchain import FILTER, FILTER_COMMAND
from tools.stack import salt

REPOSITORY = Path(__file__).resolve().parents[2]
MAKEFILE = (REPOSITORY / "Makefile").read_text()
FIXED_TARGETS = {"setup", "up", "test", "check", "down", "bench-preview"}
CONFIG = "stacks/Pulumi.local.yaml"
SALT = "encryptionsalt: v1:AAAAAAAAAAA=:v1:AAAAAAAAAAAAAAAA:AAAA\n"


def test_the_makefile_has_the_promised_targets_and_all_are_phony_and_explained() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE))
    shown = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert targets >= FIXED_TARGETS
    assert phony == targets
    assert {line.split()[1] for line in shown.splitlines()} >= FIXED_TARGETS


@pytest.mark.parametrize("target", sorted(FIXED_TARGETS))
def test_every_target_can_be_planned(target: str) -> None:
    subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True, check=True)


@pytest.mark.parametrize(("status", "again"), [(0, False), (2, True)])
def test_ci_ends_with_pytests_closing_line(tmp_path: Path, status: int, again: bool) -> None:
    closing = "=================== 3 passed, 1 skipped in 1.23s ==================="
    make = tmp_path / "make"
    make.write_text(f"#!/bin/sh\necho '{closing}'\n[ {status} = 0 ] || echo 'make: *** Error' >&2\nexit {status}\n")
    make.chmod(0o755)
    done = subprocess.run(
        [REPOSITORY / ".ci" / "run"],
        cwd="/",
        env=dict(os.environ, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert done.stdout.splitlines()[-1] == closing
    assert done.stdout.count(closing) == (2 if again else 1)


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=root, capture_output=True, text=True, check=True, env=quiet_git()
    ).stdout


def quiet_git() -> dict[str, str]:
    """Git without the user's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "stacks").mkdir()
    (tmp_path / CONFIG).write_text("config:\n  serving:size: 1\n")
    (tmp_path / ".gitattributes").write_text((REPOSITORY / ".gitattributes").read_text())
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "start")
    git(tmp_path, "config", FILTER, FILTER_COMMAND)
    return tmp_path


def test_git_does_not_see_the_salt(checkout: Path) -> None:
    with (checkout / CONFIG).open("a") as file:
        file.write(SALT)
    assert salt.hide_from_git(checkout, CONFIG)
    assert git(checkout, "status", "--porcelain") == ""
    assert SALT in (checkout / CONFIG).read_text()
    # Pulumi writes the file again at each run.
    (checkout / CONFIG).write_text((checkout / CONFIG).read_text())
    assert git(checkout, "status", "--porcelain") == ""


def test_a_real_change_shows_is_never_staged_and_is_committed_without_the_salt(checkout: Path) -> None:
    (checkout / CONFIG).write_text(f"config:\n  serving:size: 2\n{SALT}")
    assert not salt.hide_from_git(checkout, CONFIG)
    assert git(checkout, "status", "--porcelain") == f" M {CONFIG}\n"
    assert git(checkout, "diff", "--cached") == ""
    git(checkout, "commit", "-qam", "size")
    assert git(checkout, "show", f"HEAD:{CONFIG}") == "config:\n  serving:size: 2\n"
    assert git(checkout, "status", "--porcelain") == ""


def test_outside_git_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "file").touch()
    assert not salt.hide_from_git(tmp_path, "file")
