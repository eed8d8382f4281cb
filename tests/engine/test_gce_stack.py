"""Targets of the kind `gce` through the real engine, on a stand-in for Google's plugin: their life, what is refused."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.test_gce_plans import GROUP, INSTANCE, L4, ONE, PROJECT, SECRET, TEMPLATE, GceProject
from tests.unit.test_gce_declarations import CASES, GOOD, TAKEN_AWAY

_SHARED = f"""
import pulumi
if pulumi.get_stack() == "shared":
    pulumi.export("project", "{PROJECT}")
    for name in ("region", "store", "images", "serviceAccounts", "secrets"):
        pulumi.export(name, {{}})
    raise SystemExit(0)
"""
# Put together here, so that no scanner takes this file for a leak.
HUB_TOKEN = "hf" + "_" + "Qw3rTyUiOpAsDfGhJkLzXcVb"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[GceProject]:
    made = GceProject(tmp_path / "project")
    try:
        yield made
    finally:
        made.kill_everything()


def only(project: GceProject, kind: str) -> dict[str, Any]:
    [found] = project.things(kind).values()
    return found


def calls(project: GceProject) -> list[tuple[str, str]]:
    """(action, the type's last part), in their order"""
    made = json.loads(project.cloud_file.read_text())["calls"]
    return [(action, kind.rpartition(":")[2]) for action, kind, _ in made]


def test_a_group_lives_and_changes_without_a_gap(project: GceProject) -> None:
    project.run("config", "set", "--secret", "hfToken", HUB_TOKEN).ok()
    shown = project.preview("--diff").ok().output
    assert not project.cloud_file.exists(), "a preview makes nothing"
    shown += project.up("--diff").ok().output
    project.up("--expect-no-changes").ok()
    project.refresh("--expect-no-changes").ok()
    assert project.output("urls") == {"primary": "http://10.80.0.7:8000"}

    # The VMs are told the secret's name, the secret has the key's digest, and nobody but the state has the key.
    key = project.output("keys")["primary"]
    secret, template = only(project, SECRET), only(project, TEMPLATE)
    digest = hashlib.sha256(key.encode()).hexdigest()
    assert json.loads(secret["inputs"]["secretData"]) == {"apiKeySha256": [digest], "hfToken": HUB_TOKEN}
    assert template["inputs"]["metadata"]["lorafleet-secret"] == secret["outputs"]["name"]
    text = json.dumps(template) + shown + project.state_text()
    assert key not in text and digest not in text and HUB_TOKEN not in text

    before = len(calls(project))
    project.declare(primary={**L4, "engine": {"maxModelLen": 8192, "kvCacheMib": 2048}})
    project.up().ok()
    changed = [call for call in calls(project)[before:] if call[0] != "read"]
    assert changed == [
        ("create", "InstanceTemplate"),
        ("update", "RegionInstanceGroupManager"),
        ("delete", "InstanceTemplate"),
    ], "the group changes its VMs one by one, and nothing of it goes before"
    group, template = only(project, GROUP), only(project, TEMPLATE)
    assert group["inputs"]["versions"] == [{"instanceTemplate": template["outputs"]["selfLinkUnique"]}]
    assert json.loads(template["inputs"]["metadata"]["lorafleet-launch"])["engine"]["maxModelLen"] == 8192

    # Google gives a group other zones only by a new group; with a name of its own, both can be there at once.
    project.declare(primary={**L4, "zones": ["asia-northeast3-b"], "engine": {"maxModelLen": 8192, "kvCacheMib": 2048}})
    project.up().ok()
    assert only(project, GROUP)["inputs"]["name"] != group["inputs"]["name"]
    assert ("create", "RegionInstanceGroupManager") in calls(project)[before:]

    project.run("config", "rm", "hfToken").ok()
    project.up().ok()
    assert "hfToken" not in only(project, SECRET)["inputs"]["secretData"]
    assert only(project, TEMPLATE)["inputs"]["metadata"]["lorafleet-secret"] == only(project, SECRET)["outputs"]["name"]
    project.destroy().ok()
    left = json.loads(project.cloud_file.read_text())["resources"]
    assert left == {}


def test_one_vm_keeps_its_address_when_it_is_made_anew(project: GceProject) -> None:
    project.declare(primary={**L4, **ONE})
    project.up().ok()
    assert project.output("urls") == {"primary": "http://10.80.0.7:8000"}
    before = len(calls(project))
    project.declare(primary={**L4, **ONE, "drainTimeoutS": 60})
    project.up().ok()
    assert [call for call in calls(project)[before:] if call[0] != "read"] == [
        ("delete", "Instance"),
        ("create", "Instance"),
    ], "the address can be had by one at a time"
    [interface] = only(project, INSTANCE)["inputs"]["networkInterfaces"]
    assert interface["networkIp"] == "10.80.0.7" and "accessConfigs" not in interface


def test_the_project_comes_from_the_stack_shared(project: GceProject) -> None:
    program = project.folder / "stacks" / "__main__.py"
    program.write_text(_SHARED + program.read_text())
    project.declare(primary={key: value for key, value in L4.items() if key != "project"})
    project.run("stack", "init", "shared").ok()
    project.run("up", "--yes", "--skip-preview", "--stack", "shared").ok()
    project.run("stack", "select", project.stack).ok()
    template = next(each for each in project.planned() if each["type"] == TEMPLATE)
    assert template["inputs"]["serviceAccount"]["email"] == f"lorafleet-gce@{PROJECT}.iam.gserviceaccount.com"


def test_a_preview_refuses_where_everything_else_is_unknown(project: GceProject) -> None:
    """Before the first `up`, health checks, networks and templates are unknown, and the plugin's own checks silent.

    All cases of tests/unit/test_gce_declarations.py, each as a target of its own. What must fit together is looked at
    once each value by itself is right, so it takes several previews, of as many targets as a fleet may have.
    """
    left, said = {f"case-{number}": case for number, case in enumerate(CASES)}, ""
    assert len(left) >= 60
    at_once = len(left)
    while left:
        some = dict(list(left.items())[:at_once])
        declared = {name: {**GOOD, "project": PROJECT, **case.change} for name, case in some.items()}
        project.declare(
            **{
                name: {key: value for key, value in target.items() if value is not TAKEN_AWAY}
                for name, target in declared.items()
            }
        )
        refused = project.preview()
        assert refused.code != 0
        errors = re.split(r"\n(?=.*Pulumi\.dev\.yaml:\d+: )|\n\s*\n", refused.output)
        for name, case in some.items():
            found = [each for each in errors if f": targets.{name}.{case.field}: " in each]
            if found:
                assert all(piece in found[0] for piece in case.says), found[0]
                del left[name]
        assert len(some) > 32 or not left.keys() & some.keys(), refused.output[-6000:]
        at_once, said = 32, said + refused.output
    assert "Traceback" not in said and "unhandled" not in said
    assert not project.cloud_file.exists()


def test_what_the_vms_could_not_read_is_refused(project: GceProject) -> None:
    project.change(lambda fleet: fleet.update(store="file://.lorafleet/store"))
    project.change(lambda fleet: fleet["adapters"].update(easycontract={"source": "gs://a-bucket/x", "rank": 8}))
    refused = project.preview()
    assert refused.code != 0
    assert "can't read store" in refused.output and "gs://bucket/folder" in refused.output
    project.declare(primary=L4)
    project.change(lambda fleet: fleet["release"].pop("image"))
    refused = project.preview()
    assert refused.code != 0 and "set serving:fleet.release.image" in refused.output
