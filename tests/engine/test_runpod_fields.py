"""Each field of each of RunPod's resources on its own, through the real engine: change, drift, import, end."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from providers.kit import fields
from providers.runpod import resources
from tests.fakes.runpod import Fake, openapi, running
from tests.fakes.runpod.stack import TOKEN, Declaration, RunpodProject
from tests.support.ports import free_port

IMAGE = f"registry.example.com/serving@sha256:{'0' * 64}"
OTHER_IMAGE = f"registry.example.com/serving@sha256:{'1' * 64}"
# What the others refer to. They stay as they are.
GIVEN: Declaration = {
    "robot-a": ("RegistryCredential", {"username": "a", "password": "a-password-0123456789"}),
    "robot-b": ("RegistryCredential", {"username": "b", "password": "b-password-0123456789"}),
    "disk-a": ("NetworkVolume", {"size_gb": 20, "data_center": "EU-RO-1"}),
    "disk-b": ("NetworkVolume", {"size_gb": 20, "data_center": "EU-RO-1"}),
}
CONTAINER: dict[str, Any] = {
    "image": IMAGE,
    "env": {"PORT": "8000"},
    "secret_env": [{"name": "LORAFLEET_CONFIG", "value": "{secret launch file}"}],
    "disk_gb": 30,
    "ports": ["8000/http"],
    "registry": "@robot-a",
}
ENDPOINT: dict[str, Any] = {
    **CONTAINER,
    "type": "LOAD_BALANCER",
    "gpus": ["NVIDIA L4"],
    "workers": {"min": 0, "max": 2, "idleTimeout": 30},
    "scaling": {"type": "REQUEST_COUNT", "requestCount": 4},
}
POD: dict[str, Any] = {**CONTAINER, "gpu": "NVIDIA A40", "network_mount": {"volumeId": "@disk-a", "path": "/data"}}
QUEUE = {**ENDPOINT, "type": "QUEUE", "workers": {"max": 2}, "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4}}


@dataclass(frozen=True)
class Change:
    """One field of one resource gets another value.

    op: what the table in providers/runpod/README.md says. shown: whether RunPod shows it, so that somebody's change of
    it can be seen.
    """

    kind: str
    before: dict[str, Any]
    field: str
    value: Any
    op: Literal["update", "replace"]
    shown: bool = True

    @property
    def wire(self) -> str:
        return fields.alias(getattr(resources, self.kind).inputs_model(), self.field)

    @property
    def after(self) -> dict[str, Any]:
        return {**self.before, self.field: self.value}


OF_A_CONTAINER: list[tuple[str, Any]] = [
    ("image", OTHER_IMAGE),
    ("args", "--verbose"),
    ("env", {"PORT": "9000"}),
    ("secret_env", [{"name": "LORAFLEET_CONFIG", "value": "{another secret file}"}]),
    ("disk_gb", 40),
    ("ports", ["9000/http"]),
    ("registry", "@robot-b"),
]
CHANGES = [
    *(Change("ServerlessEndpoint", ENDPOINT, field, value, "update") for field, value in OF_A_CONTAINER),
    Change("ServerlessEndpoint", {**ENDPOINT, "workers": {"max": 2}}, "type", "QUEUE", "replace"),
    Change("ServerlessEndpoint", ENDPOINT, "gpus", ["NVIDIA A40"], "update"),
    Change("ServerlessEndpoint", ENDPOINT, "gpu_count", 2, "update"),
    Change("ServerlessEndpoint", ENDPOINT, "min_cuda_version", "12.8", "update"),
    Change("ServerlessEndpoint", ENDPOINT, "allowed_cuda_versions", ["12.8"], "update"),
    Change("ServerlessEndpoint", ENDPOINT, "workers", {"min": 1, "max": 3, "idleTimeout": 60}, "update"),
    Change("ServerlessEndpoint", ENDPOINT, "scaling", {"type": "REQUEST_COUNT", "requestCount": 8}, "update"),
    Change("ServerlessEndpoint", QUEUE, "scaling", {"type": "REQUEST_COUNT", "requestCount": 8}, "update"),
    Change("ServerlessEndpoint", ENDPOINT, "timeout_ms", 1000, "update"),
    Change("ServerlessEndpoint", ENDPOINT, "flashboot", "FLASHBOOT", "update"),
    Change("ServerlessEndpoint", ENDPOINT, "data_center_ids", ["EU-RO-1"], "update"),
    Change("ServerlessEndpoint", ENDPOINT, "network_volumes", ["@disk-a"], "update"),
    *(Change("Pod", POD, field, value, "update") for field, value in OF_A_CONTAINER),
    Change("Pod", POD, "gpu", "NVIDIA L40S", "replace"),
    Change("Pod", POD, "gpu_count", 2, "replace"),
    Change("Pod", POD, "min_cuda_version", "12.8", "replace", shown=False),
    Change("Pod", POD, "allowed_cuda_versions", ["12.8"], "replace", shown=False),
    Change("Pod", POD, "cloud", "COMMUNITY", "replace"),
    Change("Pod", POD, "data_center_ids", ["EU-RO-1"], "replace", shown=False),
    Change("Pod", POD, "network_mount", {"volumeId": "@disk-a", "path": "/models"}, "update"),
    Change("Pod", POD, "network_mount", {"volumeId": "@disk-b", "path": "/data"}, "replace"),
    Change("Pod", POD, "running", False, "update"),
    Change("Pod", POD, "schedule", "00:00-24:00 UTC", "update", shown=False),
    Change("Pod", POD, "schedule_days", ["mon"], "update", shown=False),
    Change("Pod", POD, "locked", True, "update"),
    Change("Pod", POD, "global_networking", True, "update"),
    Change("Pod", POD, "start_timeout_s", 500, "update", shown=False),
    Change("NetworkVolume", GIVEN["disk-a"][1], "size_gb", 30, "update"),
    Change("NetworkVolume", GIVEN["disk-a"][1], "data_center", "US-KS-2", "replace"),
    Change("NetworkVolume", GIVEN["disk-a"][1], "type", "STANDARD", "update", shown=False),  # which it is
    Change("RegistryCredential", GIVEN["robot-a"][1], "username", "c", "replace", shown=False),
    Change("RegistryCredential", GIVEN["robot-a"][1], "password", "c-password-0123456789", "replace", shown=False),
]
NAMED = {f"{change.kind.lower()}-{change.field}-{number}".replace("_", "-"): change for number, change in
         enumerate(CHANGES)}  # fmt: skip
FOLDERS = {
    "ServerlessEndpoint": "serverless",
    "Pod": "pods",
    "NetworkVolume": "network-volumes",
    "RegistryCredential": "registries",
}


@pytest.fixture(scope="module")
def fake() -> Iterator[Fake]:
    with pytest.MonkeyPatch.context() as monkeypatch, running(free_port(), TOKEN) as server:
        monkeypatch.setenv("RUNPOD_API_URL", server.url)
        monkeypatch.setenv("RUNPOD_API_KEY", TOKEN)
        server.cloud.not_found_at_first = 0
        yield server
        assert server.violations == []


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, fake: Fake) -> RunpodProject:
    return RunpodProject(tmp_path_factory.mktemp("runpod") / "project")


def test_every_field_of_every_resource_has_a_change() -> None:
    for kind in FOLDERS:
        model = getattr(resources, kind).inputs_model()
        made_by_the_kit = {"name"}
        assert {each.field for each in CHANGES if each.kind == kind} == set(model.model_fields) - made_by_the_kit


def test_each_field_on_its_own(project: RunpodProject, fake: Fake) -> None:
    """Its change is what the documentation says; somebody's change of it is seen, and undone."""
    project.declare({**GIVEN, **{name: (change.kind, change.before) for name, change in NAMED.items()}})
    project.up().ok()
    before, former = project.ids(), copy.deepcopy(fake.cloud.things)
    after = {name: (change.kind, change.after) for name, change in NAMED.items()}
    project.declare({**GIVEN, **after})
    planned = project.planned()
    assert planned == {name: (change.op, {change.wire}) for name, change in NAMED.items()}
    project.up().ok()
    ids = project.ids()
    replaced = {name for name in NAMED if ids[name] != before[name]}
    assert replaced == {name for name, change in NAMED.items() if change.op == "replace"}
    assert fake.cloud.count() == {folder: len(things) for folder, things in former.items() if things}, "one of each"
    project.refresh("--expect-no-changes").ok()
    project.preview("--expect-no-changes").ok()

    shown = {name: change for name, change in NAMED.items() if change.shown}
    with fake.cloud.lock:
        for name, change in shown.items():
            things = fake.cloud.things[FOLDERS[change.kind]]
            assert things[ids[name]] != former[FOLDERS[change.kind]][before[name]], f"{name} did not arrive"
            # Behind the program's back, all is as before, but for its id.
            things[ids[name]] = {**former[FOLDERS[change.kind]][before[name]], "id": ids[name]}
    drift = project.refresh("--diff").ok().output
    assert _fields_changed(drift) == {name: {change.wire} for name, change in shown.items()}, drift
    # A volume only grows, and this one has the size that it had.
    project.up().ok()
    project.refresh("--expect-no-changes").ok()
    ids = project.ids()
    for name, change in NAMED.items():
        assert ids[name] in fake.cloud.things[FOLDERS[change.kind]]


def test_each_kind_of_resource_is_imported(project: RunpodProject, fake: Fake) -> None:
    """Depends on the test before. What is taken out of the state and imported needs no change but of its secrets."""
    one_of_each = {change.kind: name for name, change in reversed(NAMED.items())}
    urns = {name: found["urn"] for name, found in project.resources().items()}
    ids = project.ids()
    for kind, name in one_of_each.items():
        project.run("state", "delete", "--yes", urns[name]).ok()
        ran = project.run(
            "import", "--yes", "--generate-code=false", "--protect=false", "--skip-preview",
            f"lorafleet:runpod:{kind}", name, ids[name],
        )  # fmt: skip
        if kind == "RegistryCredential":
            assert ran.code != 0 and "a registry credential cannot be imported" in ran.output, ran.output
        else:
            assert ran.code == 0, ran.output
            assert project.resources()[name]["id"] == ids[name]
    project.up().ok()
    project.preview("--expect-no-changes").ok()
    after = project.ids()
    assert {name for name in NAMED if after[name] != ids[name]} == {one_of_each["RegistryCredential"]}
    assert "secret launch file" not in project.state_text()
    assert "password-0123456789" not in project.state_text()


def test_nothing_is_left_after_destroy_and_every_operation_was_seen(project: RunpodProject, fake: Fake) -> None:
    """Depends on the tests before. All requests and answers were valid by RunPod's description (`violations`)."""
    project.destroy().ok()
    assert fake.cloud.count() == {}
    assert fake.violations == []
    seen = {(method, openapi.template(path)) for method, path, _ in fake.requests}
    assert seen >= {
        (method, path)
        for path in ("/v2/serverless/{id}", "/v2/pods/{id}", "/v2/network-volumes/{id}")
        for method in ("GET", "PATCH", "DELETE")
    } | {("POST", f"/v2/{folder}") for folder in FOLDERS.values()} | {("GET", f"/v2/{folder}") for folder in
        FOLDERS.values()} | {("POST", "/v2/pods/{id}/action"), ("GET", "/v2/templates"), ("GET", "/v2/catalog/gpus"),
        ("GET", "/v2/registries/{id}"), ("DELETE", "/v2/registries/{id}")}  # fmt: skip


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
