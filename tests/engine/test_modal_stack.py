"""The target `modal` through the real engine and the real SDK, against the stand-in for Modal."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("modal", reason="the package `modal` is not installed")

from tests.engine.test_kills import plugins
from tests.fakes.modal import FakeModal, serving
from tests.support.stack_project import ROOT, StackProject, descendants, kill, wait_for

APP = "lorafleet-spilling-spill"
_PROGRAM = '''
import pulumi
from providers import modal, stack

class Manifest(pulumi.ComponentResource):
    """Stands for the manifest in the store, which this test has none of."""
    def __init__(self):
        super().__init__("test:index:Manifest", "manifest")
        self.served = pulumi.Output.from_input({})

fleet = stack.fleet()
spill = modal.App("spill", fleet, Manifest())
pulumi.export("url", spill.endpoint.url)
pulumi.export("key", spill.endpoint.key)
'''
_FLEET: dict[str, Any] = {
    "store": "gs://a-bucket/fleet",
    "baseModel": {
        "name": "exaone-3.5-2.4b",
        "source": "hf://an-owner/a-model",
        "license": "none needed (made for tests)",
    },
    "adapters": {"easycontract": {"rank": 8}},
    "targets": {"spill": {"kind": "modal", "gpus": ["L4"], "maxContainers": 2}},
    "router": {"port": 8100, "metricsPort": 8102},
    "release": {
        "image": f"registry.example.com/serving@sha256:{'0' * 64}",
        "baseModel": {"revision": "e" * 40},
        "adapters": {"easycontract": f"sha256:{'1' * 64}"},
    },
}


class ModalProject(StackProject):
    """A project with one target, on the stand-in."""

    modal: FakeModal

    def __init__(self, folder: Path, modal: FakeModal) -> None:
        self.modal = modal
        super().__init__(folder, stack="spilling")

    def __post_init__(self) -> None:
        (self.folder / "stacks").mkdir(parents=True)
        (self.folder / "backend").mkdir()
        project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
        project["plugins"]["providers"][0]["path"] = str(ROOT / "providers")
        (self.folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        shutil.copy(ROOT / "stacks" / "__main__.py", self.folder / "stacks")
        (self.folder / "stacks" / "spilling.py").write_text(_PROGRAM)
        self.write_config({"serving:fleet": _FLEET})
        self.run("stack", "init", self.stack).ok()

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | self.modal.environ()

    def target(self, **more: Any) -> None:
        """Changes the target's declaration."""
        self.change(lambda fleet: fleet["targets"]["spill"].update(more))

    def resources(self) -> dict[str, dict[str, Any]]:
        """{type: resource in the state}"""
        deployment = json.loads(self.run("stack", "export").ok().output)["deployment"]
        return {each["type"]: each for each in deployment.get("resources", [])}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[ModalProject]:
    with serving() as modal:
        modal.put_secret("main", "registry", SERVICE_ACCOUNT_JSON="{}")
        yield ModalProject(tmp_path / "project", modal)


def live(project: ModalProject) -> Any:
    app = project.modal.cloud.deployed("main", APP)
    assert app is not None
    return project.modal.cloud.live(app)


def secrets(project: ModalProject) -> list[str]:
    return [name for _, name in project.modal.cloud.secrets if name.startswith("lf-")]


def assert_one_of_each(project: ModalProject) -> None:
    assert len(project.modal.cloud.living()) == 1
    assert len(secrets(project)) == 1
    project.up("--expect-no-changes").ok()
    project.destroy().ok()
    assert project.modal.cloud.living() == []
    assert secrets(project) == []


def test_create_change_each_field_drift_and_destroy(project: ModalProject) -> None:
    shown = project.preview().ok().output
    assert project.modal.calls() == [], "a preview needs nothing of Modal"
    assert "lorafleet:modal:App spill create" in shown
    project.up().ok()
    project.up("--expect-no-changes").ok()
    state = project.state_text()
    assert project.output("url").startswith("https://acme--lorafleet-spilling-spill")
    assert project.output("key") not in state
    assert project.modal.token[1] not in state
    [secret] = [each for each in project.modal.cloud.secrets.values() if each.name.startswith("lf-")]
    launch = json.loads(secret.content["LORAFLEET_CONFIG"])
    assert (launch["store"], launch["target"], launch["port"]) == ("gs://a-bucket/fleet", "spill", 8000)
    assert launch["apiKeySha256"][0] not in state

    changes: list[tuple[dict[str, Any], Callable[[Any], object]]] = [
        ({"maxContainers": 4, "minContainers": 1}, lambda it: it.autoscaler_settings.min_containers == 1),
        ({"gpus": ["L4", "A10"]}, lambda it: len(it.ranked_functions) == 2),
        ({"registrySecret": "registry", "regions": ["eu-west"]},
         lambda it: list(it.ranked_functions[0].function.scheduler_placement.regions) == ["eu-west"]),
        ({"cacheVolume": True}, lambda it: it.ranked_functions[0].function.volume_mounts[0].mount_path),
    ]  # fmt: skip
    for version, (more, applied) in enumerate(changes, 2):
        project.target(**more)
        project.up().ok()
        assert applied(live(project))
        assert project.resources()["lorafleet:modal:App"]["outputs"]["version"] == version

    # What the containers are told is another secret, so that they are started anew; the former one goes.
    project.target(engine={"maxModelLen": 1024})
    project.up().ok()
    assert secrets(project) != [secret.name]
    assert_drift_is_mended(project)
    assert_one_of_each(project)
    assert project.modal.cloud.volumes == {}


def assert_drift_is_mended(project: ModalProject) -> None:
    app = project.modal.cloud.deployed("main", APP)
    assert app is not None
    project.modal.cloud.deploy_from_elsewhere(app).autoscaler_settings.max_containers = 50
    assert "by mallory" in project.refresh().output
    project.up().ok()
    assert live(project).autoscaler_settings.max_containers == 4
    project.modal.cloud.stop(app)
    project.refresh().ok()
    project.up().ok()
    assert live(project).autoscaler_settings.max_containers == 4


def test_import(project: ModalProject) -> None:
    project.up().ok()
    app = project.resources()["lorafleet:modal:App"]
    project.run("state", "delete", "--yes", "--force", app["urn"]).ok()
    project.run(
        *("import", "--yes", "--generate-code=false", "--protect=false", "--skip-preview"),
        *("lorafleet:modal:App", "spill", app["id"], "--parent", f"it={_parent(project)}"),
    ).ok()
    project.up("--expect-no-changes").ok()
    assert len(project.modal.cloud.living()) == 1


def _parent(project: ModalProject) -> str:
    return str(project.resources()["lorafleet:modal:Target"]["urn"])


@pytest.mark.parametrize(
    ("who", "rpc"), [("plugin", "SecretGetOrCreate"), ("plugin", "AppPublish"), ("everything", "AppCreate")]
)
def test_kill_after_the_effect(project: ModalProject, rpc: str, who: str) -> None:
    held = project.modal.faults.add(rpc, "hold_after")
    running = project.start("up", "--yes", "--skip-preview")
    wait_for(lambda: held.reached.is_set() or running.poll() is not None, 120, rpc)
    for pid in plugins(running.pid) if who == "plugin" else reversed(descendants(running.pid)):
        kill(pid)
    running.communicate(timeout=120)
    project.modal.faults.clear()
    if who == "everything":
        project.recover()
    project.up().ok()
    assert_one_of_each(project)


def test_ctrl_c_is_no_traceback_and_goes_on(project: ModalProject) -> None:
    held = project.modal.faults.add("FunctionCreate", "hold_before")
    running = project.start("up", "--yes", "--skip-preview")
    wait_for(lambda: held.reached.is_set() or running.poll() is not None, 120, "FunctionCreate")
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=120)
    assert running.returncode != 0
    assert "Traceback" not in output
    project.modal.faults.clear()
    project.up().ok()
    assert_one_of_each(project)


def test_a_store_on_this_machine_is_refused_by_its_line(project: ModalProject) -> None:
    project.change(lambda fleet: fleet.update(store="file://.lorafleet/store"))
    ran = project.preview()
    assert ran.code != 0
    assert project.modal.calls() == []
