"""RunPod's resources through the real engine, against the stand-in for its API."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.runpod import Fake, Fault, running
from tests.fakes.runpod.faults import Kind
from tests.fakes.runpod.stack import TOKEN, RunpodProject
from tests.support.ports import free_port
from tests.support.stack_project import StackProject, command_line, descendants, kill

IMAGE = f"registry.example.com/serving@sha256:{'0' * 64}"
ENDPOINT: dict[str, Any] = {
    "type": "LOAD_BALANCER",
    "image": IMAGE,
    "env": {"PORT": "8000"},
    "secret_env": [{"name": "LORAFLEET_CONFIG", "value": "{secret launch file}"}],
    "disk_gb": 30,
    "ports": ["8000/http"],
    "registry": "@images",
    "gpus": ["NVIDIA L4"],
    "min_cuda_version": "13.0",
    "workers": {"min": 0, "max": 2, "idleTimeout": 30},
    "scaling": {"type": "REQUEST_COUNT", "requestCount": 4},
}
ALL: dict[str, tuple[str, dict[str, Any]]] = {
    "images": ("RegistryCredential", {"username": "robot", "password": "a-secret-password"}),
    "weights": ("NetworkVolume", {"size_gb": 50, "data_center": "EU-RO-1"}),
    "burst": ("ServerlessEndpoint", ENDPOINT),
    "always": ("Pod", {"image": IMAGE, "gpu": "NVIDIA A40", "ports": ["8000/http"]}),
}
ONE = {"burst": ("ServerlessEndpoint", {key: value for key, value in ENDPOINT.items() if key != "registry"})}


def processes() -> str:
    """What anybody on the machine may see of this test's processes."""
    return "\n".join(command_line(pid) for pid in descendants(os.getpid()))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with running(free_port(), TOKEN) as server:
        monkeypatch.setenv("RUNPOD_API_URL", server.url)
        monkeypatch.setenv("RUNPOD_API_KEY", TOKEN)
        yield server
        assert server.violations == []


@pytest.fixture
def project(tmp_path: Path, fake: Fake) -> RunpodProject:
    return RunpodProject(tmp_path / "project")


def test_all_four_live_and_no_secret_is_shown(project: RunpodProject, fake: Fake) -> None:
    project.declare(ALL)
    shown = project.preview("--diff").ok().output
    assert fake.changes() == [], "a preview makes nothing"
    lists: list[str] = []
    fault = fake.faults.add(Fault("call before", "POST", times=4, hook=lambda: lists.append(processes())))
    # The most that Pulumi's own log says, with what the plugin writes to it.
    shown += project.up("--diff", "--logtostderr", "--verbose=3").ok().output
    assert fault.happened == 4
    assert all("providers" in each for each in lists), "the plugin is among them"
    shown += "".join(lists)
    assert fake.cloud.count() == {"serverless": 1, "templates": 1, "network-volumes": 1, "registries": 1, "pods": 1}
    [endpoint] = fake.cloud.endpoints.values()
    assert endpoint["registry"] == next(iter(fake.cloud.registries))
    project.preview("--expect-no-changes").ok()
    project.up("--expect-no-changes").ok()
    project.refresh("--expect-no-changes").ok()
    changed = {**ALL, "burst": ("ServerlessEndpoint", {**ENDPOINT, "disk_gb": 40, "secret_env": []})}
    project.declare(changed)
    shown += project.up("--diff").ok().output
    shown += project.run("stack", "export").ok().output + project.state_text()
    for secret in (TOKEN, "a-secret-password", "secret launch file"):
        assert secret not in shown
    project.destroy().ok()
    assert fake.cloud.count() == {}


def test_workers_that_runpod_takes_away_show_as_drift(project: RunpodProject, fake: Fake) -> None:
    project.declare(ONE)
    project.up().ok()
    fake.cloud.idle_for(7)
    output = project.refresh().ok().output
    assert "workers.max is 0 and not 2: RunPod lowers it by itself" in output
    project.up().ok()
    [endpoint] = fake.cloud.endpoints.values()
    assert endpoint["workers"]["max"] == 2
    fake.cloud.endpoints.clear()
    project.refresh().ok()
    assert "+ 1 created" in project.up().ok().output
    assert len(fake.cloud.endpoints) == 1


def test_a_wrong_token_is_one_line(project: RunpodProject, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_wrong-0123456789")
    project.declare(ONE)
    output = project.up().output
    assert "RunPod does not accept the token in RUNPOD_API_KEY (401)" in output
    assert "rpa_wrong" not in output + project.state_text()
    assert "Traceback" not in output
    monkeypatch.delenv("RUNPOD_API_KEY")
    monkeypatch.setenv("RUNPOD_API_URL", f"http://127.0.0.1:{free_port()}")
    preview = project.preview().ok().output
    assert "1 to create" in preview and "RUNPOD_API_KEY holds no token" in preview


def victims(pid: int, who: str) -> list[int]:
    """The plugin alone, or the engine with all that it started."""
    found = descendants(pid)
    if who == "up":
        return list(reversed(found))
    return [each for each in found if "providers" in command_line(each) and "python" in command_line(each)]


def killed_at(project: RunpodProject, fake: Fake, moment: Kind, method: str, who: str) -> None:
    """Runs `up`; at a moment of the first request of this kind, kill -9."""
    pids: list[int] = []

    def strike() -> None:
        for pid in victims(pids[0], who):
            kill(pid)

    fault = fake.faults.add(Fault(moment, method, r"/v2/(serverless|pods).*", hook=strike))
    up = project.start("up", "--yes", "--skip-preview")
    pids.append(up.pid)
    up.communicate(timeout=120)
    assert fault.happened == 1, "the moment never came"
    fake.faults.clear()
    if who == "up":
        project.recover()


# Each call of each operation: tests/unit/test_runpod_kills.py; with the real engine: `make chaos`.
@pytest.mark.parametrize(("moment", "who"), [("call after", "up"), ("call answered", "plugin")])
def test_kill_during_a_create_ends_with_one_of_each(project: RunpodProject, fake: Fake, moment: Kind, who: str) -> None:
    project.declare(ONE)
    killed_at(project, fake, moment, "POST", who)
    project.up().ok()
    assert fake.cloud.count() == {"serverless": 1, "templates": 1}
    assert project.resources()["burst"]["id"] == next(iter(fake.cloud.endpoints))
    project.refresh("--expect-no-changes").ok()


def test_kill_during_an_update(project: RunpodProject, fake: Fake) -> None:
    project.declare(ONE)
    project.up().ok()
    project.declare({"burst": ("ServerlessEndpoint", {**ONE["burst"][1], "disk_gb": 55})})
    killed_at(project, fake, "call after", "PATCH", "up")
    project.up().ok()
    [endpoint] = fake.cloud.endpoints.values()
    assert endpoint["disk"] == 55
    assert fake.cloud.count() == {"serverless": 1, "templates": 1}
    project.refresh("--expect-no-changes").ok()


# The components in a stack: the manifest is not RunPod's part, so it is a stand-in with what they read of it.
STACK = """
import sys
import pulumi
from providers import stack

class Manifest(pulumi.ComponentResource):
    def __init__(self):
        super().__init__("test:index:Manifest", "manifest")
        self.served = pulumi.Output.from_input({"easycontract": "easycontract@sha256-0"})

fleet = stack.fleet()
for target in stack.targets(fleet, Manifest()):
    told = target.endpoint
    pulumi.export(told.name, {
        "url": told.url, "key": told.key, "health": told.health_path, "status": told.status_path, "kind": told.kind
    })
pulumi.export("loaded", sorted(name for name in sys.modules if name.startswith("providers.runpod.target")))
"""
ENGINE = {"maxModelLen": 512, "maxLoraRank": 16}
PRIVATE = {"registryUsername": "_json_key_base64", "dataCenters": ["EU-RO-1"], "volumeGb": 40}
BURST = {"kind": "runpod", "gpus": ["L4"], "engine": ENGINE, **PRIVATE}
LATER = {
    "kind": "runpod-queue",
    "gpus": ["L4", "RTX 4090"],
    "image": IMAGE.replace("0", "1"),
    "requestsPerWorker": 8,
    "engine": ENGINE,
}
ALWAYS = {"kind": "runpod-pod", "gpu": "A40", "engine": ENGINE, **PRIVATE}


def declare(project: StackProject, targets: dict[str, Any], image: str | None = IMAGE, scheme: str = "gs") -> None:
    def edit(fleet: dict[str, Any]) -> None:
        fleet["targets"] = targets
        fleet["release"]["image"] = image
        for name in fleet["release"]["adapters"]:
            fleet["adapters"][name] |= {"rank": 8}
        if scheme == "gs":
            fleet["store"] = "gs://bucket"
            fleet["baseModel"]["source"] = "gs://bucket/models/base"

    project.change(edit)


def test_the_components_make_what_the_stack_file_declares(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = StackProject(tmp_path / "project")
    (project.folder / "stacks" / "local.py").write_text(STACK)
    declare(project, {"burst": BURST}, scheme="file")
    refused = project.preview()
    assert refused.code != 0 and "cannot read store" in refused.output, refused.output
    shutil.rmtree(project.store)
    declare(project, {"burst": BURST}, image=None)
    assert "set serving:fleet.release.image" in project.preview().output

    declare(project, {"burst": BURST, "later": LATER, "always": ALWAYS})
    with monkeypatch.context() as nothing:
        nothing.delenv("RUNPOD_API_KEY")
        nothing.setenv("RUNPOD_API_URL", f"http://127.0.0.1:{free_port()}")
        preview = project.preview().ok().output
    for missing in ("registryPassword: the password of _json_key_base64", "runpodKey: a RunPod API key", "for burst"):
        assert missing in preview
    assert "config set --secret registryPassword" in preview and "RUNPOD_API_KEY holds no token" in preview
    assert "Traceback" not in preview
    secrets = {"registryPassword": "a-secret-password", "googleCredentials": '{"a": "service account"}'}
    for name, value in secrets.items():
        project.run("config", "set", "--secret", name, value).ok()
    refused = project.up()
    assert refused.code != 0 and "config set --secret runpodKey" in refused.output
    assert "Traceback" not in refused.output
    project.run("config", "set", "--secret", "runpodKey", "rpa_key-of-the-router-0123456789").ok()
    project.up().ok()
    assert fake.cloud.count() == {"serverless": 2, "templates": 2, "network-volumes": 2, "registries": 2, "pods": 1}
    told = {name: project.output(name) for name in ("burst", "later", "always")}
    by_type = {each["type"]: each for each in fake.cloud.endpoints.values()}
    balanced, queue, [pod] = by_type["LOAD_BALANCER"], by_type["QUEUE"], fake.cloud.pods.values()
    runpod_key = {"key": "rpa_key-of-the-router-0123456789", "health": None, "status": None}
    own_key = told["always"]["key"]
    assert told == {
        "burst": {**runpod_key, "kind": "runpod", "url": f"https://{balanced['id']}.api.runpod.ai"},
        "later": {**runpod_key, "kind": "runpod-queue", "url": f"https://api.runpod.ai/v2/{queue['id']}/openai"},
        "always": {
            "key": own_key,
            "kind": "runpod-pod",
            "url": f"https://{pod['id']}-8000.proxy.runpod.net",
            "health": "/ready",
            "status": "/lorafleet/state",
        },
    }
    assert len(own_key) > 20
    for made in (balanced, queue, pod):
        assert json.loads(made["env"]["LORAFLEET_GOOGLE_CREDENTIALS"]) == {"a": "service account"}
    assert balanced["env"]["PORT"] == balanced["env"]["PORT_HEALTH"] == "8000"
    assert (queue["image"], queue["scaling"]) == (LATER["image"], {"type": "REQUEST_COUNT", "requestCount": 8})
    assert {balanced["networkVolumes"][0], pod["mounts"]["network"][0]["volumeId"]} == set(fake.cloud.volumes)
    assert {balanced["registry"], pod["registry"]} == set(fake.cloud.registries)
    checked = {name: _launch(made, tmp_path) for name, made in (("b", balanced), ("q", queue), ("p", pod))}
    assert [launch.target for launch in checked.values()] == ["burst", "later", "always"]
    assert checked["b"].api_key_sha256 == (hashlib.sha256(b"rpa_key-of-the-router-0123456789").hexdigest(),)
    assert checked["p"].api_key_sha256 == (hashlib.sha256(own_key.encode()).hexdigest(),)
    assert (checked["q"].api_key_sha256, checked["q"].host) == ((), "127.0.0.1")
    assert checked["b"].cache == checked["p"].cache == Path("/runpod-volume/lorafleet")
    project.up("--expect-no-changes").ok()
    project.refresh("--expect-no-changes").ok()
    shown = project.state_text()
    for secret in (*secrets.values(), own_key, "rpa_key-of-the-router", TOKEN):
        assert secret not in shown

    # Nothing of a kind that is not declared any more is there, nor even imported.
    declare(project, {"burst": BURST})
    project.up().ok()
    assert fake.cloud.count() == {"serverless": 1, "templates": 1, "network-volumes": 1, "registries": 1}
    assert project.output("loaded") == ["providers.runpod.target"]
    project.destroy().ok()
    assert fake.cloud.count() == {}


def _launch(made: dict[str, Any], folder: Path) -> Any:
    """The launch file of a container, as the server's own reader takes it."""
    from handlers.serving.config import load

    file = folder / "launch.json"
    file.write_text(made["env"]["LORAFLEET_CONFIG"])
    return load(file)


def hours_from_now(begin: int, end: int) -> str:
    """Hours of the day that begin and end so many hours from now."""
    now = datetime.now(UTC)
    first, last = (f"{(now.hour + each) % 24:02d}:{now.minute:02d}" for each in (begin, end))
    return f"{first}-{last} UTC"


def test_a_pod_by_the_clock(project: RunpodProject, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hours say needs no change of the program: `up` sees it. Outside of them, a refresh sees no drift."""
    pod: dict[str, Any] = {"image": IMAGE, "gpu": "NVIDIA A40", "schedule": hours_from_now(3, 6)}
    project.declare({"by-hours": ("Pod", pod)})
    project.up().ok()
    [made] = fake.cloud.pods
    assert fake.cloud.pods[made]["status"] == "EXITED"
    project.refresh("--expect-no-changes").ok()
    project.preview("--expect-no-changes").ok()
    with monkeypatch.context() as nothing:
        nothing.delenv("RUNPOD_API_KEY")
        nothing.setenv("RUNPOD_API_URL", f"http://127.0.0.1:{free_port()}")
        assert "RUNPOD_API_KEY holds no token" in project.preview("--expect-no-changes").ok().output
    fake.cloud.pods[made] |= {"status": "RUNNING", "actions": ["stop", "terminate"]}
    assert "runs, against its schedule" in project.preview().ok().output
    assert "~ 1 updated" in project.up().ok().output
    assert fake.cloud.pods[made]["status"] == "EXITED"
    project.declare({"by-hours": ("Pod", {**pod, "schedule": hours_from_now(-3, 3)})})
    project.up().ok()
    assert fake.cloud.pods[made]["status"] == "RUNNING"
    project.up("--expect-no-changes").ok()
    fake.cloud.pods[made] |= {"status": "EXITED", "actions": ["start", "terminate"]}
    assert "does not run, against its schedule" in project.refresh().ok().output
    assert "~ 1 updated" in project.up().ok().output
    assert list(fake.cloud.pods) == [made] and fake.cloud.pods[made]["status"] == "RUNNING"
