"""The resolved plan: what follows from a declaration that is right."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest
import yaml

from lorafleet.load import load_fleet, load_stack
from lorafleet.plan import Plan, resolve
from tests.support.fleet_project import Project, model_tensors, safetensors_bytes
from tests.support.stored import store_adapter

GOLDEN = Path(__file__).parent / "golden" / "plan.txt"
ROOT = Path(__file__).parents[2]
COMMIT = "e949c91dec92095908d34e6b560af77dd0c993f8"
SHA = "sha256:" + "1" * 64


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_manifest(project: Project) -> None:
    pins = project.fleet["release"]
    assert project.plan().manifest() == {
        "version": 1,
        "baseModel": {
            "name": "exaone-3.5-2.4b",
            "source": f"file://{project.base}",
            "revision": None,
            "digest": pins["baseModel"]["digest"],
        },
        "adapters": [
            {
                "name": name,
                "source": f"file://{project.adapter(name)}",
                "digest": pins["adapters"][name],
            }
            for name in ("checklist", "easycontract")  # by name, whatever the order in the file
        ],
    }


def test_a_base_in_parts(project: Project) -> None:
    """As the real model comes: two files of weights and an index."""
    tensors = model_tensors()
    names = list(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    (project.base / "model.safetensors").unlink()
    for part, inside in parts.items():
        (project.base / part).write_bytes(safetensors_bytes({name: tensors[name] for name in inside}))
    index = {"weight_map": {name: part for part, inside in parts.items() for name in inside}}
    (project.base / "model.safetensors.index.json").write_text(json.dumps(index))
    project.pin()
    assert project.plan().base.digest == project.digest(project.base, "model")


def test_manifest_digest_is_that_of_canonical_json(project: Project) -> None:
    plan = project.plan()
    text = json.dumps(plan.manifest(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert plan.manifest_digest() == hashlib.sha256(text.encode()).hexdigest()


def test_what_a_target_serves(project: Project) -> None:
    plan = project.plan()
    target = plan.target("server")
    files = [path for path in (project.root / "models").rglob("*") if path.is_file()]
    assert target.models == ("exaone-3.5-2.4b", "checklist", "easycontract")
    assert target.max_loras == 3
    assert target.disk_bytes == sum(path.stat().st_size for path in files)
    assert target.engine.launch() == {
        "device": "cpu",
        "dtype": "auto",
        "maxModelLen": 512,
        "maxNumSeqs": 32,
        "kvCacheMib": 64,
        "maxLoraRank": 16,
        "extraArgs": [],
    }
    digest = project.fleet["release"]["adapters"]["checklist"]
    assert plan.adapters[0].served_name == f"checklist@sha256-{digest[7:23]}"
    assert plan.router_models()[0] == {"name": "exaone-3.5-2.4b"}
    assert plan.router_models()[1] == {"name": "checklist"}
    with pytest.raises(KeyError):
        plan.target("other")


def test_a_plan_can_not_be_changed(project: Project) -> None:
    plan = project.plan()
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.environment = "prod"  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        plan.target("server").engine.max_model_len = 1  # type: ignore[misc]


def test_model_and_adapter_of_the_hub(project: Project) -> None:
    """The real model: nothing of it is on this machine, so only what is declared is known."""
    project.fleet["baseModel"]["source"] = "hf://LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct"
    project.fleet["baseModel"] |= {"licenceAccepted": "exaone-nc", "purpose": "research"}
    project.fleet["release"]["baseModel"] = {"revision": COMMIT}
    project.fleet["adapters"]["easycontract"] = {"source": "hf://team/easycontract", "revision": COMMIT, "rank": 16}
    project.fleet["adapters"]["checklist"] = {"source": "gs://models/checklist", "rank": 8}
    plan = project.plan()
    manifest = plan.manifest()
    assert manifest["baseModel"]["revision"] == COMMIT and manifest["baseModel"]["digest"] is None
    assert manifest["adapters"][1] == {
        "name": "easycontract",
        "source": "hf://team/easycontract",
        "revision": COMMIT,
        "digest": project.fleet["release"]["adapters"]["easycontract"],
    }
    assert [adapter.rank for adapter in plan.adapters] == [8, 16]
    assert manifest["adapters"][0]["source"] == "gs://models/checklist"
    assert plan.target("server").disk_bytes is None
    assert "unknown until it is fetched" in plan.render()


def test_an_adapter_of_the_hub_names_its_base_by_repository(project: Project) -> None:
    project.fleet["baseModel"] = {
        "name": "exaone-3.5-2.4b",
        "source": "hf://LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct",
        "license": "NC",
        "licenceAccepted": "exaone-nc",
        "purpose": "research",
    }
    project.fleet["release"]["baseModel"] = {"revision": COMMIT}
    for name in ("easycontract", "checklist"):
        project.write_adapter(name, config={"base_model_name_or_path": "LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct"})
        project.fleet["release"]["adapters"][name] = project.digest(project.adapter(name), "adapter")
    assert [adapter.rank for adapter in project.plan().adapters] == [8, 8]


def test_values_from_pulumi_and_from_the_file_give_the_same_plan(project: Project) -> None:
    project.write_stack()
    assert resolve(project.load_config()) == resolve(project.load())


def test_the_file_is_not_needed_for_a_right_declaration(project: Project) -> None:
    fleet = load_fleet(project.fleet, environment="local", root=project.root, stack_file=project.root / "none.yaml")
    assert fleet.environment == "local"


def test_json(project: Project) -> None:
    content = json.loads(project.plan().to_json())
    assert content["targets"]["server"]["engine"]["maxModelLen"] == 512
    assert content["targets"]["server"]["maxLoras"] == 3
    assert content["router"]["endpoint"] == "http://127.0.0.1:8100/v1"
    assert content["adapters"][0]["servedName"].startswith("checklist@sha256-")


def test_print_out(project: Project) -> None:
    """The text for people. After a wanted change: LORAFLEET_WRITE_GOLDEN=1 and look at the difference."""
    text = project.plan().render()
    if os.environ.get("LORAFLEET_WRITE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
    assert str(project.root) not in text


def test_the_local_stack_pins_the_demo() -> None:
    """stacks/Pulumi.local.yaml serves exactly what tools/demo made (demo/digests.json) and names what is fixed."""
    declared = yaml.safe_load((ROOT / "stacks" / "Pulumi.local.yaml").read_text())["config"]["serving:fleet"]
    made = json.loads((ROOT / "demo" / "digests.json").read_text())
    assert declared["release"] == {"baseModel": {"digest": made["base"]}, "adapters": made["adapters"]}
    fleet = load_stack(ROOT, "local")
    assert [fleet.base_model.name, *fleet.adapters] == ["exaone-3.5-2.4b", "easycontract", "checklist"]


def test_the_local_stack_resolves(tmp_path: Path) -> None:
    """With every file of the demo looked at; only the interpreter, which `make setup` installs, is another one."""
    declared = yaml.safe_load((ROOT / "stacks" / "Pulumi.local.yaml").read_text())["config"]["serving:fleet"]
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    declared["targets"]["server"] |= {"python": str(python), "stateDir": str(tmp_path / "state")}
    declared["store"] = f"file://{tmp_path / 'store'}"
    for name in declared["adapters"]:
        store_adapter(tmp_path / "store", name, ROOT / "demo" / "adapters" / name)
    plan: Plan = resolve(load_fleet(declared, environment="local", root=ROOT))
    assert [adapter.rank for adapter in plan.adapters] == [8, 8]
    assert plan.base.size_bytes and plan.base.size_bytes < 10 << 20
