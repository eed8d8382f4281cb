"""The language's own rules: imports, how platforms are found, names in files and in Python, sources, errors."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from lorafleet.declaration import Declaration
from lorafleet.disk import MARGIN_BYTES, check_room, size_text, used_bytes
from lorafleet.engine import EngineSettings
from lorafleet.errors import DeclarationErrors, LorafleetError, Problem, listed, nearest, shown
from lorafleet.limits import RouterLimits
from lorafleet.safetensors import read_header
from lorafleet.sources import Source
from lorafleet.targets import TargetSpec, kinds, spec_of
from lorafleet.values import Model
from tests.support.fleet_project import safetensors_bytes

ROOT = Path(__file__).parents[2]
# What only commands load: a library for command lines, one for tables, one for today's prices.
COMMANDS = {("cli.py", "click"), ("commands.py", "click"), ("commands.py", "rich"), ("refresh.py", "gpuhunt")}
HEAVY = ("pulumi", "grpc", "yaml", "torch", "httpx", "handlers", "providers.kit")


def test_nothing_slow_is_imported() -> None:
    program = (
        "import sys, lorafleet.load, lorafleet.plan\n"
        "from lorafleet.targets import kinds, spec_of\n"
        "for kind in kinds(): spec_of(kind)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_the_language_may_import() -> None:
    allowed = {"lorafleet", "pydantic", "pydantic_core", "yaml", *sys.stdlib_module_names}
    for path in (ROOT / "lorafleet").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [] if node.level else [node.module or ""]
            for name in names:
                if (path.name, name.split(".")[0]) in COMMANDS:
                    continue
                assert name.split(".")[0] in allowed, f"{path.name} imports {name}"


def test_a_platform_is_found_by_its_folder(tmp_path: Path) -> None:
    """A new folder is a new kind, without a change anywhere else."""
    for folder in ("lorafleet", "providers"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    cloud = tmp_path / "providers" / "cloud"
    cloud.mkdir()
    (cloud / "spec.py").write_text(
        "from typing import Literal\n"
        "from lorafleet.targets import TargetSpec\n"
        "class Cloud(TargetSpec):\n    kind: Literal['cloud']\n    zone: str\n"
        "SPEC = Cloud\n"
    )
    (tmp_path / "providers" / "half").mkdir()
    program = (
        "from lorafleet.targets import kinds, spec_of\n"
        "print(kinds(), spec_of('cloud').model_validate({'kind': 'cloud', 'zone': 'a'}).max_queue)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "'cloud'" in done.stdout and "'local'" in done.stdout and "half" not in done.stdout and "64" in done.stdout


def test_every_platform_keeps_to_the_rules() -> None:
    assert "local" in kinds()
    for kind in kinds():
        spec = spec_of(kind)
        assert issubclass(spec, TargetSpec) and spec.__doc__
        for name, field in spec.model_fields.items():
            assert field.alias and "_" not in field.alias, name
    with pytest.raises(KeyError):
        spec_of("kit")


def models(model: type[Model]) -> set[type[Model]]:
    found = {model}
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Model):
            found |= models(field.annotation)
    return found


def test_every_model_refuses_unknown_keys_and_changes() -> None:
    found = models(Declaration) | {spec_of(kind) for kind in kinds()}
    assert len(found) >= 7
    for model in found:
        assert model.model_config["extra"] == "forbid" and model.model_config["frozen"]


def test_names_in_files_and_in_python() -> None:
    assert RouterLimits(max_tokens=5).model_dump(by_alias=True)["maxTokens"] == 5
    assert EngineSettings.model_validate({"maxModelLen": 128}, by_name=False).max_model_len == 128
    with pytest.raises(ValidationError):
        EngineSettings.model_validate({"max_model_len": 128}, by_alias=True, by_name=False)


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("file://demo/base", "/project/demo/base"),
        ("file:///data/base", "/data/base"),
        ("file://../shared/./base/", "/shared/base"),
        ("file://한글/모델", "/project/한글/모델"),
    ],
)
def test_folders(text: str, folder: str) -> None:
    assert str(Source.parse(text).folder(Path("/project"))) == folder
    assert Source.parse(text).absolute(Path("/project")) == f"file://{folder}"


def test_sources_elsewhere() -> None:
    source = Source.parse("gs://bucket/a/b")
    assert source.absolute(Path("/project")) == str(source) == "gs://bucket/a/b"
    with pytest.raises(ValueError, match="not a file"):
        source.folder(Path("/project"))


@pytest.mark.parametrize(
    ("name", "valid", "near"),
    [
        ("max_model_len", ["maxModelLen", "maxNumSeqs"], "maxModelLen"),
        ("MaxModelLen", ["maxModelLen"], "maxModelLen"),
        ("adaptors", ["baseModel", "adapters"], "adapters"),
        ("zzz", ["baseModel", "adapters"], None),
        ("x", [], None),
    ],
)
def test_nearest(name: str, valid: list[str], near: str | None) -> None:
    assert nearest(name, valid) == near


def test_listed() -> None:
    assert (listed([]), listed(["a"]), listed(["a", "b"]), listed("abc", "and")) == (
        "nothing",
        "a",
        "a or b",
        "a, b and c",
    )


@pytest.mark.parametrize(
    "secret",
    [
        "sk" + "-abcdef",
        "AK" + "IAABCDEFGHIJKLMNOP",
        "rpa" + "_ABCDEFG",
        "q1w2e3r4t5y6u7i8o9p0zz",
        "https://user:word@example.org",
        "gs://b/x?token=abc",
        "0f8fad5b-d9cb-469f-a165-70867728950e",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_secrets_are_not_shown(secret: str) -> None:
    assert secret not in shown(secret)


@pytest.mark.parametrize(
    "text",
    [
        "EXAONE-3.5-2.4B-Instruct-easycontract-v2",
        "sha256:" + "ab12" * 16,
        "e949c91dec92095908d34e6b560af77dd0c993f8",
        "file://demo/adapters/easycontract",
        "base_model.model.transformer.h.0.attn.attention.q_proj",
        "ExaoneForCausalLM",
    ],
)
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert text in shown(text)


def test_values_are_shown_short_and_on_one_line() -> None:
    assert len(shown("ab " * 1000)) < 100 and "\n" not in shown("a\nb")
    assert shown(10**5000).endswith("digits") and shown({"password": "x"}) == "a mapping"
    assert "hidden" not in shown("hidden", key="adminPassword")


def test_the_message_of_an_error() -> None:
    error = LorafleetError(
        "it is taken", where="a.yaml:3", target="server", field="router.port", found="1", allowed="2", next_action="Do."
    )
    assert str(error) == (
        "a.yaml:3: router.port: it is taken (target server)\n  found:   1\n  allowed: 2\n  next:    Do."
    )
    both = DeclarationErrors([error, LorafleetError("it is gone")])
    assert both.errors == (error, both.errors[1]) and str(both).startswith("2 mistakes in the declaration:\na.yaml:3")


def test_room_on_a_disk(tmp_path: Path) -> None:
    state = tmp_path / "state"
    check_room(state, 100, name="state", free=lambda _: MARGIN_BYTES + 100)
    with pytest.raises(Problem, match="not enough room"):
        check_room(state, 101, name="state", free=lambda _: MARGIN_BYTES + 100)
    state.mkdir()
    (state / "kept").write_bytes(b"x" * 50)
    assert used_bytes(state) == 50
    check_room(state, 150, name="state", free=lambda _: MARGIN_BYTES + 100)
    check_room(state, None, name="state")


def test_sizes() -> None:
    assert [size_text(size) for size in (0, 220_866, 3_409_663, 4 << 30)] == [
        "0.0 KiB",
        "215.7 KiB",
        "3.3 MiB",
        "4.0 GiB",
    ]


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 40, -1])
def test_a_cut_off_header(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors_bytes({"a": ("F32", (2, 2))})[:cut])
    with pytest.raises(Problem):
        read_header(path, "a.safetensors")


@pytest.mark.parametrize(
    "header",
    [
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}',
        b'{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
        b'{"a": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}}',
        b'{"a": 1}',
        b'{"a": null, "a": null}',
        b"[]",
        b'{"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}',
        b"[" * 5000,
    ],
)
def test_a_damaged_header(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(Problem):
        read_header(path, "a.safetensors")
