"""`lorafleet new-platform`: which names it refuses, and that it leaves a whole folder or none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lorafleet import scaffold
from lorafleet.cli import main
from lorafleet.errors import LorafleetError

ROOT = Path(__file__).parents[2]
FILES = {
    "README.md",
    "__init__.py",
    "api.py",
    "contract.py",
    "prices.json",
    "resources.py",
    "spec.py",
    "stand_in.py",
    "target.py",
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with what the command looks at: `stacks`, `providers/kit`, a platform."""
    for folder in ("stacks", "providers/kit", "providers/local"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "providers" / "stack.py").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_it_writes_a_folder_and_says_what_comes_next(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-platform", "my_cloud"]) == 0
    folder = root / "providers" / "my_cloud"
    assert names(folder) == FILES
    assert folder.stat().st_mode == folder.parent.stat().st_mode
    output = capsys.readouterr().out
    assert "providers/my_cloud/README.md" in output and "tests/contract -k my_cloud" in output
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    assert not [name for name, text in texts.items() if "%%" in text]
    assert "class MyCloudTarget(TargetSpec)" in texts["spec.py"]
    assert '"MY_CLOUD_API_TOKEN"' in texts["api.py"]
    assert '"lorafleet:my_cloud:Server"' in texts["target.py"]
    assert "REPLACE" in json.loads(texts["prices.json"])["missing"][0]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("", "can't be the name"),
        ("Acme", "can't be the name"),
        ("my-cloud", "can't be the name"),
        ("my__cloud", "can't be the name"),
        ("_cloud", "can't be the name"),
        ("cloud_", "can't be the name"),
        ("3cloud", "can't be the name"),
        ("my cloud", "can't be the name"),
        ("cloud\n", "can't be the name"),
        ("../cloud", "can't be the name"),
        ("cloud/../../x", "can't be the name"),
        ("wölke", "can't be the name"),
        ("구름", "can't be the name"),
        ("a" * (scaffold.MAX_NAME_CHARACTERS + 1), "can't be the name"),
        ("class", "belongs to Python"),
        ("import", "belongs to Python"),
        ("kit", "all platforms share"),
        ("stack", "all platforms share"),
        ("local", "providers/local already"),
        ("dangling", "providers/dangling already"),
        ("module", "providers/module.py already"),
    ],
)
def test_a_name_that_is_refused(root: Path, capsys: pytest.CaptureFixture[str], name: str, what: str) -> None:
    (root / "providers" / "dangling").symlink_to("nowhere")
    (root / "providers" / "module.py").touch()
    before = sorted(root.rglob("*"))
    assert main(["new-platform", "--", name]) == 1
    captured = capsys.readouterr()
    assert what in captured.err and "  allowed: " in captured.err and "  next:    " in captured.err
    assert captured.out == "" and "Traceback" not in captured.err
    assert sorted(root.rglob("*")) == before


def test_a_name_of_the_greatest_length(root: Path) -> None:
    assert scaffold.new_platform(root, "a" * scaffold.MAX_NAME_CHARACTERS).is_dir()


def test_a_project_without_the_kit(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "providers" / "kit").rmdir()
    assert main(["new-platform", "acme"]) == 1
    assert "no folder providers/kit" in capsys.readouterr().err


def test_nothing_is_left_of_a_write_that_fails(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = names(root / "providers")
    monkeypatch.setattr(scaffold, "contents", lambda _: {"spec.py": "", "no-such-folder/api.py": ""})
    with pytest.raises(LorafleetError, match="can't be written"):
        scaffold.new_platform(root, "acme")
    assert names(root / "providers") == before


def test_what_a_killed_run_left_is_removed(root: Path) -> None:
    left = root / "providers" / ".new-platform-killed"
    left.mkdir()
    (left / "spec.py").write_text("half")
    scaffold.new_platform(root, "acme")
    assert names(root / "providers") == {"acme", "kit", "local", "stack.py"}


def test_two_runs_at_once_make_one_whole_folder(root: Path) -> None:
    command = f"import sys; sys.path[0] = {str(ROOT)!r}; from lorafleet.cli import main; sys.exit(main())"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", command, "new-platform", "acme"], cwd=root, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    errors = [child.communicate(timeout=60)[1] for child in started]
    assert sorted(child.returncode for child in started) == [0, 1]
    assert [error for error in errors if error] != [] and "providers/acme already" in "".join(errors)
    assert names(root / "providers" / "acme") == FILES
