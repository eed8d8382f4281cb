"""RunPod's resources through the real engine, against the stand-in for its API."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.runpod import Fake, Fault, running
from tests.fakes.runpod.faults import Kind
from tests.support.ports import free_port
from tests.support.stack_project import ROOT, StackProject, command_line, descendants, kill

TOKEN = "rpa_secret-token-of-the-tests"
IMAGE = f"registry.example.com/serving@sha256:{'0' * 64}"
PROGRAM = """
import json, pathlib, pulumi
from providers.kit.program import declare
from providers.runpod import resources

made = {}
for name, (kind, inputs) in json.loads(pathlib.Path("resources.json").read_text()).items():
    inputs = {key: made[value[1:]].id if str(value)[:1] == "@" else value for key, value in inputs.items()}
    made[name] = declare(getattr(resources, kind), name, inputs)
    pulumi.export(name, made[name].id)
"""
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


@dataclass
class RunpodProject(StackProject):
    """A project with RunPod's resources alone, which are declared as data."""

    def __post_init__(self) -> None:
        project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
        project["plugins"]["providers"][0]["path"] = str(ROOT / "providers")
        (self.folder / "stacks").mkdir(parents=True)
        (self.folder / "backend").mkdir()
        (self.folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        (self.folder / "stacks" / "__main__.py").write_text(PROGRAM)
        self.stack_file.write_text("config: {}\n")
        self.run("stack", "init", self.stack).ok()

    def declare(self, resources: dict[str, tuple[str, dict[str, Any]]]) -> None:
        (self.folder / "stacks" / "resources.json").write_text(json.dumps(resources))

    def resource(self, name: str) -> dict[str, Any]:
        deployment = json.loads(self.run("stack", "export").ok().output)["deployment"]
        [found] = [each for each in deployment["resources"] if each["urn"].endswith(f"::{name}")]
        return dict(found)


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
    shown += project.up("--diff").ok().output
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


# Each field of an endpoint on its own: (Python name, another value, wire name)
CHANGES: list[tuple[str, Any, str]] = [
    ("image", f"registry.example.com/serving@sha256:{'1' * 64}", "image"),
    ("args", "--verbose", "args"),
    ("env", {"PORT": "9000"}, "env"),
    ("secret_env", [{"name": "LORAFLEET_CONFIG", "value": "{another launch file}"}], "secretEnv"),
    ("disk_gb", 40, "diskGb"),
    ("ports", ["9000/http"], "ports"),
    ("gpus", ["NVIDIA A40"], "gpus"),
    ("gpu_count", 2, "gpuCount"),
    ("min_cuda_version", "12.8", "minCudaVersion"),
    ("workers", {"min": 1, "max": 3, "idleTimeout": 60}, "workers"),
    ("scaling", {"type": "REQUEST_COUNT", "requestCount": 8}, "scaling"),
    ("timeout_ms", 1000, "timeoutMs"),
    ("flashboot", "FLASHBOOT", "flashboot"),
    ("data_center_ids", ["EU-RO-1"], "dataCenterIds"),
]


def test_each_field_changes_in_place_and_its_drift_is_seen(project: RunpodProject, fake: Fake) -> None:
    """One endpoint for each field: the program changes it, then somebody changes it back behind the program's back."""
    before = {wire: ("ServerlessEndpoint", ONE["burst"][1]) for _, _, wire in CHANGES}
    after = {wire: ("ServerlessEndpoint", {**ONE["burst"][1], name: value}) for name, value, wire in CHANGES}
    project.declare(before)
    project.up().ok()
    ids: dict[str, str] = json.loads(project.run("stack", "output", "--json").ok().output)
    with fake.cloud.lock:
        former = json.loads(json.dumps(fake.cloud.endpoints))
    project.declare(after)
    output = project.up("--diff").ok().output
    assert f"~ {len(CHANGES)} updated" in output, output
    assert set(fake.cloud.endpoints) == set(former), "a field made a new endpoint"
    with fake.cloud.lock:
        for wire, made in ids.items():
            assert fake.cloud.endpoints[made] != former[made], f"{wire} did not arrive"
        fake.cloud.endpoints.update(former)
    drift = project.refresh("--diff").ok().output
    changes = _fields_changed(drift)
    assert changes == {wire: {wire} for wire in ids}, drift
    assert f"~ {len(CHANGES)} updated" in project.up().ok().output
    project.refresh("--expect-no-changes").ok()


def _fields_changed(output: str) -> dict[str, set[str]]:
    """{resource: fields that `--diff` shows as changed}"""
    found: dict[str, set[str]] = {}
    resource, place = "", -1
    for line in output.splitlines():
        indent = len(line) - len(line.lstrip())
        if "[urn=" in line:
            resource, place = line.rsplit("::", 1)[-1].rstrip("]"), indent - 2
        changed = re.match(r"\s*[~+-] (\w+)\s*:", line)
        if changed and indent == place:
            found.setdefault(resource, set()).add(changed[1])
    return found


def test_another_type_is_a_new_endpoint_and_the_old_one_goes(project: RunpodProject, fake: Fake) -> None:
    project.declare(ONE)
    project.up().ok()
    [first] = fake.cloud.endpoints
    queue = {**ONE["burst"][1], "type": "QUEUE", "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4}}
    project.declare({"burst": ("ServerlessEndpoint", queue)})
    project.up().ok()
    [second] = fake.cloud.endpoints
    assert second != first
    assert len(fake.cloud.templates) == 1
    project.up("--expect-no-changes").ok()


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


def test_import(project: RunpodProject, fake: Fake) -> None:
    project.declare(ONE)
    project.up().ok()
    [made] = fake.cloud.endpoints
    urn = project.resource("burst")["urn"]
    project.run("state", "delete", "--yes", urn).ok()
    project.run(
        "import", "--yes", "--generate-code=false", "--protect=false", "--skip-preview",
        "lorafleet:runpod:ServerlessEndpoint", "burst", made,
    ).ok()  # fmt: skip
    assert project.resource("burst")["id"] == made
    assert "{secret launch file}" not in project.state_text()
    project.up().ok()
    project.up("--expect-no-changes").ok()
    assert list(fake.cloud.endpoints) == [made]
    project.destroy().ok()
    assert fake.cloud.count() == {}


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


@pytest.mark.parametrize(
    ("moment", "who"),
    [
        ("call before", "up"),
        ("call after", "up"),
        ("call answered", "up"),
        ("call after", "plugin"),
        ("call answered", "plugin"),
    ],
)
def test_kill_during_a_create_ends_with_one_of_each(project: RunpodProject, fake: Fake, moment: Kind, who: str) -> None:
    project.declare(ONE)
    killed_at(project, fake, moment, "POST", who)
    project.up().ok()
    assert fake.cloud.count() == {"serverless": 1, "templates": 1}
    assert project.resource("burst")["id"] == next(iter(fake.cloud.endpoints))
    project.refresh("--expect-no-changes").ok()


@pytest.mark.parametrize(("moment", "who"), [("call before", "plugin"), ("call after", "up")])
def test_kill_during_an_update(project: RunpodProject, fake: Fake, moment: Kind, who: str) -> None:
    project.declare(ONE)
    project.up().ok()
    project.declare({"burst": ("ServerlessEndpoint", {**ONE["burst"][1], "disk_gb": 55})})
    killed_at(project, fake, moment, "PATCH", who)
    project.up().ok()
    [endpoint] = fake.cloud.endpoints.values()
    assert endpoint["disk"] == 55
    assert fake.cloud.count() == {"serverless": 1, "templates": 1}
    project.refresh("--expect-no-changes").ok()


# The component in a stack: the manifest is not RunPod's part, so it is a stand-in with what the component reads of it.
STACK = """
import pulumi
from providers import runpod, stack

class Manifest(pulumi.ComponentResource):
    def __init__(self):
        super().__init__("test:index:Manifest", "manifest")
        self.served = pulumi.Output.from_input({"easycontract": "easycontract@sha256-0"})

fleet = stack.fleet()
burst = runpod.ServerlessEndpoint("burst", fleet, Manifest())
pulumi.export("url", burst.endpoint.url)
pulumi.export("key", burst.endpoint.key)
"""


def test_the_component_makes_a_working_endpoint(tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    project = StackProject(tmp_path / "project")
    (project.folder / "stacks" / "local.py").write_text(STACK)

    def declare(fleet: dict[str, Any]) -> None:
        fleet["targets"] = {
            "burst": {"kind": "runpod", "gpus": ["L4"], "dataCenters": ["EU-RO-1"], "volumeGb": 40,
                      "registryUsername": "_json_key_base64", "engine": {"maxModelLen": 512, "maxLoraRank": 16}},
        }  # fmt: skip
        fleet["release"]["image"] = IMAGE
        for name, digest in fleet["release"]["adapters"].items():
            fleet["adapters"][name] |= {"rank": 8}
            assert digest

    project.change(declare)
    refused = project.preview()
    assert refused.code != 0 and "cannot read store" in refused.output, refused.output
    shutil.rmtree(project.store)

    def on_google(fleet: dict[str, Any]) -> None:
        fleet["store"] = "gs://bucket"
        fleet["baseModel"]["source"] = "gs://bucket/models/base"

    project.change(on_google)
    assert "config set --secret registryPassword" in project.preview().output
    project.run("config", "set", "--secret", "registryPassword", "a-secret-password").ok()
    with monkeypatch.context() as nothing:
        nothing.delenv("RUNPOD_API_KEY")
        nothing.setenv("RUNPOD_API_URL", f"http://127.0.0.1:{free_port()}")
        preview = project.preview().ok().output
        assert "config set --secret runpodKey" in preview and "RUNPOD_API_KEY" in preview
    refused = project.up()
    assert refused.code != 0 and "config set --secret runpodKey" in refused.output
    project.run("config", "set", "--secret", "runpodKey", "rpa_key-of-the-router-0123456789").ok()
    project.up().ok()
    [endpoint] = fake.cloud.endpoints.values()
    assert project.output("url") == f"https://{endpoint['id']}.api.runpod.ai"
    assert project.output("key") == "rpa_key-of-the-router-0123456789"
    assert endpoint["env"]["PORT"] == endpoint["env"]["PORT_HEALTH"] == "8000"
    assert endpoint["networkVolumes"] == list(fake.cloud.volumes)
    assert endpoint["registry"] == next(iter(fake.cloud.registries))
    _check_launch_file(endpoint["env"]["LORAFLEET_CONFIG"], tmp_path)
    project.up("--expect-no-changes").ok()
    assert "rpa_key-of-the-router" not in project.state_text()
    project.destroy().ok()
    assert fake.cloud.count() == {}


def _check_launch_file(text: str, folder: Path) -> None:
    """The server's own reader takes it."""
    from handlers.serving.config import load

    file = folder / "launch.json"
    file.write_text(text)
    launch = load(file)
    assert launch.target == "burst"
    assert launch.cache == Path("/runpod-volume/lorafleet")
    assert len(launch.api_key_sha256) == 1
    assert os.fspath(launch.state_file) == "/run/lorafleet/state.json"
