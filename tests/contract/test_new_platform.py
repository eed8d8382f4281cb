"""`lorafleet new-platform`: what it writes is right from the start, in a copy of the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLATFORM = "my_cloud"
OTHERS = ("a", "abcdefghijklmnopqrstuvwxyz_123")  # lines are longer or shorter with them
COPIED = ("lorafleet", "providers", "handlers", "stacks", "tests/contract", "tests/support")

# The platform's own files must agree with each other, and lie where they are taken from.
SPEC_AND_PRICES = f"""
import pathlib
import lorafleet, providers
from lorafleet.prices import cheapest, load_book
from lorafleet.targets import spec_of
from providers import {PLATFORM}
from providers.{PLATFORM}.spec import GPUS
here = pathlib.Path.cwd()
for package in (lorafleet, providers):
    assert pathlib.Path(package.__file__).is_relative_to(here), package.__file__
assert spec_of("{PLATFORM}").model_validate({{"kind": "{PLATFORM}", "gpu": GPUS[0]}}).replicas == 1
book = load_book("{PLATFORM}")
assert [price.name for price in book.prices] == list(GPUS)
assert [cheapest(book, gpu=price.gpu).name for price in book.prices] == list(GPUS)
assert issubclass({PLATFORM}.Server, __import__("pulumi").ComponentResource)
"""

# A stack with it, on the real engine.
STACK = f"""
import os, pathlib, sys
from providers.{PLATFORM} import api, stand_in
from tests.support.ports import free_port
from tests.support.stack_project import StackProject

def declare(fleet):
    fleet["targets"] = {{"burst": {{"kind": "{PLATFORM}", "gpu": "example-24gb"}}}}
    fleet["release"]["image"] = "registry.example.com/serving@sha256:" + 64 * "0"

project = StackProject(pathlib.Path(sys.argv[1]))
(project.folder / "stacks" / "local.py").write_text('''
import pulumi
from providers import {PLATFORM}, artifacts, stack
fleet = stack.fleet()
burst = {PLATFORM}.Server("burst", fleet, artifacts.manifest("manifest", fleet))
pulumi.export("adapters", burst.endpoint.served)
pulumi.export("url", burst.endpoint.url)
''')
project.change(declare)
refused = project.preview()
assert refused.code != 0 and api.URL_VARIABLE in refused.output and "next:" in refused.output, refused.output
with stand_in.running(free_port(), "a-token") as url:
    os.environ.update({{api.URL_VARIABLE: url, api.TOKEN_VARIABLE: "a-token"}})
    up = project.up().ok().output
    assert "5 created" in up and project.output("url").startswith("https://burst-"), up
    assert project.output("adapters")["easycontract"].startswith("easycontract@sha256-")
    project.preview("--expect-no-changes").ok()
    assert "5 deleted" in project.destroy().ok().output
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code with a new platform in it."""
    copy = tmp_path_factory.mktemp("copy")
    for folder in COPIED:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "Pulumi.yaml", "tests/__init__.py"):
        shutil.copy(ROOT / file, copy / file)
    for linked in (".venv", "demo"):
        (copy / linked).symlink_to(ROOT / linked)
    for name in (PLATFORM, *OTHERS):
        run(copy, "-m", "lorafleet.cli", "new-platform", name)
    for name in OTHERS:
        (copy / "providers" / name).rename(copy / name)
    return copy


def run(copy: Path, *arguments: str) -> str:
    """Runs Python in the copy; its packages come before those that .venv knows by their path."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_its_contract_tests_pass(copy: Path, tmp_path: Path) -> None:
    chosen = f"{PLATFORM}.Deployment or has_a_case or names_every_resource"
    options = ("-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "scratch"))
    output = run(copy, "-m", "pytest", "tests/contract/test_resources.py", *options, "-k", chosen)
    assert " passed" in output and "skipped" not in output and "failed" not in output


def test_its_style_and_types_are_right(copy: Path, tmp_path: Path) -> None:
    folders = (f"providers/{PLATFORM}", *OTHERS)
    run(copy, "-m", "ruff", "check", "--no-cache", *folders)
    run(copy, "-m", "ruff", "format", "--no-cache", "--check", *folders)
    run(copy, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), f"providers/{PLATFORM}")


def test_its_declaration_and_prices_agree(copy: Path) -> None:
    run(copy, "-c", SPEC_AND_PRICES)


def test_a_stack_with_it_goes_up_and_down(copy: Path, tmp_path: Path) -> None:
    run(copy, "-c", STACK, str(tmp_path / "project"))
