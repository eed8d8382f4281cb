"""Reading the stack's YAML: as Pulumi reads it, with lines, and with one clear error for whatever is no YAML."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lorafleet import stackfile
from lorafleet.errors import LorafleetError
from lorafleet.load import load_stack
from tests.support.fleet_project import Project
from tests.support.malformed_cases import SECRET


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


BROKEN_YAML = {
    "no closing quote": "config:\n  serving:fleet:\n    a: 'x\n",
    "a tab": "config:\n  serving:fleet:\n\t a: 1\n",
    "no colon": "config:\n  serving:fleet:\n    a: 1\n    b\n    c: 2\n",
    "key twice": "config:\n  serving:fleet:\n    router:\n      port: 1\n      port: 2\n",
    "block twice": "config:\n  serving:fleet:\n    router: {}\n    router: {}\n",
    "merge key": "config:\n  serving:fleet:\n    a: &a {}\n    b:\n      <<: *a\n",
    "Python object": "config:\n  serving:fleet: !!python/object/apply:os.system [id]\n",
    "tag": "config:\n  serving:fleet:\n    a: !secret x\n",
    "unknown alias": f"config:\n  serving:fleet: *{SECRET}\n",
    "list as a key": "config:\n  serving:fleet:\n    ? [a]\n    : 1\n",
    "alias to itself": "config:\n  serving:fleet: &a\n    a: *a\n",
    "deep nesting": "config: " + "[" * 3000 + "]" * 3000,
    "control character": "config:\n  serving:fleet:\n    a: \x01\n",
    "two documents": "config: {}\n---\nconfig: {}\n",
    "no config": "encryptionsalt: v1:x\n",
    "config is a list": "config: []\n",
    "misspelt block": "config:\n  serving:flet: {}\n",
    "a text": "hello\n",
    "nothing": "",
    "many aliases": "config:\n  a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"  {n}: &{n} [{', '.join(['*' + m] * 9)}]\n" for m, n in zip("abcdefgh", "bcdefghi", strict=True)),
}


@pytest.mark.parametrize("text", BROKEN_YAML.values(), ids=[name.replace(" ", "-") for name in BROKEN_YAML])
def test_broken_yaml(text: str, project: Project) -> None:
    project.stack_file.write_text(text)
    with pytest.raises(LorafleetError) as caught:
        load_stack(project.root, "local")
    error = caught.value
    assert len(error.errors) == 1
    assert re.fullmatch(r"stacks/Pulumi\.local\.yaml:\d+", error.where), str(error)
    assert error.what and error.allowed and error.next_action, str(error)
    assert SECRET not in str(error) and "python/object" not in str(error)


def test_not_utf8(project: Project) -> None:
    project.stack_file.write_bytes(b"config:\n  serving:fleet:\n    a: \xff\n")
    with pytest.raises(LorafleetError, match=r"(?s)Pulumi\.local\.yaml:3: .*UTF-8"):
        load_stack(project.root, "local")


def test_unknown_stack(project: Project) -> None:
    project.write_stack()
    with pytest.raises(LorafleetError, match=r"(?s)no such stack.*Did you mean local"):
        load_stack(project.root, "locale")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("12:30:45", "12:30:45"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 15),
        ("0b11", 3),
        ("-3", -3),
        ("0", 0),
        ("089", 89.0),
        ("1e3", 1000.0),
        (".inf", float("inf")),
        ("true", True),
        ("~", None),
        ("", None),
        ("'8'", "8"),
        ('"true"', "true"),
        ("!!str 8", "8"),
    ],
)
def test_values_are_read_as_pulumi_reads_them(text: str, value: object, tmp_path: Path) -> None:
    # What gopkg.in/yaml.v3 makes of each (resolve.go); a date stays the text that Pulumi hands on.
    path = tmp_path / "a.yaml"
    path.write_text(f"key: {text}\n")
    found = stackfile.read(path, "a.yaml").value["key"]
    assert (found, type(found)) == (value, type(value))


def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# first\na:\n  b:\n    - x\n    - c: 1\n  d: {e: 2,\n    f: 3}\n")
    file = stackfile.read(path, "a.yaml")
    assert file.line(("a", "b")) == 3
    assert file.line(("a", "b", 1, "c")) == 5
    assert file.line(("a", "d", "f")) == 7
    assert file.line(("a", "b", 1, "missing", "deeper")) == 5
    assert file.line(("none",)) == 2
