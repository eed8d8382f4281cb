"""Malformed declarations: each ends in exactly one clear error that names the place, and in no secret shown."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from lorafleet.errors import DeclarationErrors, LorafleetError
from lorafleet.load import load_fleet, load_stack
from lorafleet.plan import resolve
from tests.support.fleet_project import (
    MODEL_CONFIG,
    Project,
    Tensors,
    adapter_tensors,
    model_tensors,
    safetensors_bytes,
)
from tests.support.malformed_cases import CASES, ENGINE, PASSWORD, SECRET, SECRETS, Case, SecretCase


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def error_of(project: Project) -> LorafleetError:
    """The single error that the project's declaration or its files end in."""
    project.write_stack()
    with pytest.raises(LorafleetError) as caught:
        resolve(load_stack(project.root, "local"))
    assert len(caught.value.errors) == 1, str(caught.value)
    return caught.value.errors[0]


def check_form(error: LorafleetError, project: Project) -> None:
    text = str(error)
    assert error.what and error.allowed and error.next_action, text
    assert "Traceback" not in text and "pydantic" not in text and "Error(" not in text, text
    assert len(text.splitlines()) <= 4 and all(len(line) < 400 for line in text.splitlines()), text
    place = re.fullmatch(r"stacks/Pulumi\.local\.yaml:(\d+)", error.where)
    assert place, f"no file and line: {text}"
    if error.field and "not shown" not in error.field:
        line = project.stack_file.read_text().splitlines()[int(place[1]) - 1]
        key = line.strip().removeprefix("- ").split(":")[0].strip("'\"")
        # The line of the last part of the path that stands in the file: a missing key or a default has none.
        assert key in (*re.split(r"[.\[\]]", error.field), "serving", "7"), f"line {place[1]} is {line!r}: {text}"


def test_the_unchanged_project_is_right(project: Project) -> None:
    plan = project.plan()
    assert [adapter.name for adapter in plan.adapters] == ["checklist", "easycontract"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_one_clear_error(case: Case, project: Project) -> None:
    case.change(project)
    error = error_of(project)
    check_form(error, project)
    assert error.field == case.field, str(error)
    for piece in case.says:
        assert piece in str(error), str(error)


@pytest.mark.parametrize("case", SECRETS, ids=lambda case: case.name.replace(" ", "-"))
def test_no_secret_is_shown(case: SecretCase, project: Project) -> None:
    case.change(project)
    error = error_of(project)
    check_form(error, project)
    shown = "\n".join([str(error), repr(error), error.what, error.found, error.allowed, error.next_action])
    assert SECRET not in shown and SECRET[3:15] not in shown and PASSWORD not in shown, shown


def test_there_are_enough_cases() -> None:
    assert len(CASES) + len(SECRETS) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_pipe_in_place_of_a_file_does_not_hang(project: Project) -> None:
    config = project.adapter("easycontract") / "adapter_config.json"
    config.unlink()
    os.mkfifo(config)
    assert "not a regular file" in str(error_of(project))


def test_no_disk_space(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    # A full disk can't be had in a test without mounting one; the question to the system is answered here instead.
    usage = shutil.disk_usage(project.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    error = error_of(project)
    check_form(error, project)
    assert error.field == "targets.server.stateDir" and error.target == "server"
    assert "not enough room" in str(error) and "1.0 MiB free" in str(error)


def test_a_disk_that_fails(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shutil, "disk_usage", fail)
    assert "Input/output error" in str(error_of(project))


def test_kv_cache_too_small(project: Project) -> None:
    # 2 * layers * heads * head_dim * 4 bytes = 128 KiB a token with these sizes
    config = {**MODEL_CONFIG, "num_key_value_heads": 4, "head_dim": 2048, "num_layers": 2}
    shapes = {"q_proj": (8192, 16), "k_proj": (8192, 16), "v_proj": (8192, 16), "out_proj": (16, 8192)}
    tensors: Tensors = {
        name: ("F32", shapes.get(name.split(".")[-2], shape)) for name, (_, shape) in model_tensors().items()
    }
    (project.base / "config.json").write_text(json.dumps(config))
    (project.base / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    for name in ("easycontract", "checklist"):
        only_mlp = {key: value for key, value in adapter_tensors().items() if ".mlp." in key}
        project.write_adapter(name, tensors=only_mlp)
    project.pin()
    project.fleet["targets"]["server"]["engine"]["kvCacheMib"] = 63
    error = error_of(project)
    assert error.field == f"{ENGINE}.kvCacheMib" and "at least 64 MiB" in error.allowed, str(error)
    project.fleet["targets"]["server"]["engine"]["kvCacheMib"] = 64
    project.plan()


def test_several_mistakes_are_all_shown(project: Project) -> None:
    project.fleet["router"]["port"] = "8100"
    project.fleet["targets"]["server"]["kind"] = "cloud"
    project.fleet["hfToken"] = SECRET
    project.write_stack()
    with pytest.raises(DeclarationErrors) as caught:
        load_stack(project.root, "local")
    assert {error.field for error in caught.value.errors} == {"router.port", "targets.server.kind", "hfToken"}
    assert "3 mistakes" in str(caught.value) and SECRET not in str(caught.value)


def test_without_a_file_the_stack_is_named(project: Project) -> None:
    project.fleet["router"]["port"] = 1
    with pytest.raises(LorafleetError) as caught:
        load_fleet(project.fleet, environment="local", root=project.root)
    assert caught.value.where == "stack local"
