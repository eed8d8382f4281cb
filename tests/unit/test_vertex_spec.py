"""What may be declared of a target on Vertex AI, the table of machines, and what is refused with what is nearest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lorafleet.gpus import find
from lorafleet.load import load_stack
from lorafleet.plan import resolve
from lorafleet.targets import Site, spec_of
from providers.vertex import deployed, machine_rules, machines
from providers.vertex import spec as spec_module
from providers.vertex.spec import VertexTarget
from tests.fakes.vertex import discovery
from tests.support.fleet_project import Project
from tests.support.malformed_cases import Case
from tests.unit.test_malformed import check_form, error_of

GB = 10**9
PATH = "targets.vertex"
IMAGE = f"europe-west4-docker.pkg.dev/p/images/vertex@sha256:{'0' * 64}"
TARGET: dict[str, Any] = {
    "image": IMAGE,
    "kind": "vertex",
    "project": "my-project-123",
    "region": "europe-west4",
    "machine": "g2-standard-8",
    "engine": {"maxModelLen": 512, "kvCacheMib": 128},
}


def spec(**fields: Any) -> VertexTarget:
    return VertexTarget.model_validate({**TARGET, **fields})


def problems(declared: VertexTarget, content_bytes: int | None = 5 * GB) -> list[str]:
    found = declared.problems(Site(Path(), "dev", "vertex", content_bytes))
    return [".".join(map(str, path)) for path, _ in found]


def test_it_is_found_by_its_folder() -> None:
    assert spec_of("vertex") is VertexTarget
    assert problems(spec()) == []


def test_a_machine_brings_its_gpu() -> None:
    assert spec().accelerator == "NVIDIA_L4"
    assert spec(machine="n1-standard-8", gpu="T4").accelerator == "NVIDIA_TESLA_T4"
    assert spec(machine="a3-highgpu-1g", gpu="H100").accelerator == "NVIDIA_H100_80GB"


@pytest.mark.parametrize("machine", machines.MACHINES)
def test_each_machine_can_be_declared_and_would_be_taken_by_the_resource(machine: str) -> None:
    """But for those whose GPUs a server would leave idle."""
    declared, counts = spec(machine=machine, region="us-central1"), machines.MACHINES[machine].counts
    assert problems(declared) == ([] if 1 in counts else ["machine"])
    assert list(machine_rules.problems(machine, declared.accelerator, counts[0])) == []


def test_its_names_are_google_s() -> None:
    enum = discovery.document("v1")["schemas"]["GoogleCloudAiplatformV1MachineSpec"]["properties"]["acceleratorType"]
    assert set(machines.ACCELERATORS) <= set(enum["enum"])
    assert all(find(each).servable for each in machines.ACCELERATORS)
    described = {each["location"] for each in discovery.document("v1")["endpoints"]} - {"us", "eu"}
    assert described == machines.REGIONS
    metrics = discovery.document("v1beta1")["schemas"]["GoogleCloudAiplatformV1beta1AutoscalingMetricSpec"]
    text = metrics["properties"]["metricName"]["description"]
    assert all(f"`{name}`" in text for name in deployed.METRICS.values())
    assert set(spec_module.METRICS) == set(deployed.METRICS)


def test_regions_with_a_gpu_are_those_of_compute_engine() -> None:
    import providers.gce

    zones = json.loads((Path(providers.gce.__file__).parent / "zones.json").read_text())["zones"]
    for accelerator, regions in machines.GPU_REGIONS.items():
        assert regions == {zone.rpartition("-")[0] for zone in zones[find(accelerator).name]}
        assert regions <= machines.REGIONS


def wrong(name: str, field: str, *says: str, **fields: Any) -> Case:
    def change(project: Project) -> None:
        target = project.fleet["targets"]["vertex"]
        for key, value in fields.items():
            if value is None:
                target.pop(key)
            elif key == "engine":
                target[key] = {**target[key], **value}
            else:
                target[key] = value

    return Case(name, f"{PATH}.{field}" if field else PATH, change, says)


T4 = {"machine": "n1-standard-8", "gpu": "T4"}
A100 = {"machine": "a2-highgpu-1g", "gpu": "A100-40GB", "region": "us-central1"}
CASES = [
    wrong("T4 in a G2 machine", "gpu", "comes with L4", "Set machine to n1-standard-4", gpu="T4"),
    wrong("L4 in an N1 machine", "gpu", "comes with T4", "g2-standard-4", machine="n1-standard-8", gpu="L4"),
    wrong("L4 in an A2 machine", "gpu", "comes with A100-40GB", "g2-standard-4", machine="a2-highgpu-1g", gpu="L4"),
    wrong("A100 of the other size", "gpu", "a2-ultragpu-1g", machine="a2-highgpu-1g", gpu="A100-80GB"),
    wrong("two L4", "machine", "uses one", "g2-standard-4", "larger replicasMax", machine="g2-standard-24"),
    wrong("two T4 at least", "machine", "2 GPUs or more", "n1-standard-4", machine="n1-standard-32", gpu="T4"),
    wrong("eight H100", "machine", "a3-highgpu-1g", machine="a3-megagpu-8g", region="us-central1"),
    wrong("eight of a GPU that comes in eights alone", "machine", "one GPU", machine="a4-highgpu-8g"),
    wrong("a GPU that comes in eights alone", "gpu", "no machine has one alone", "Take gpu away", gpu="H200"),
    wrong("a number of GPUs", "gpuCount", "no such key", gpuCount=2),
    wrong("a GPU that does not exist", "gpu", 'Did you mean "L4"', gpu="L44"),
    wrong("a GPU that Vertex AI has not", "gpu", "T4", gpu="L40S"),
    wrong("Google's name of a GPU", "gpu", "H100", gpu="NVIDIA_H100_80GB"),
    wrong("a machine that does not exist", "machine", 'Did you mean "g2-standard-8"', machine="g2-standard-80"),
    wrong("a machine without GPUs", "machine", "g2-standard-4", machine="e2-standard-4"),
    wrong("a machine that is too small for a GPU", "machine", machine="n1-standard-1"),
    wrong("bfloat16 on T4", "engine.dtype", "float16", "g2-standard-8", **T4, engine={"dtype": "bfloat16"}),
    wrong("on a CPU", "engine.device", "auto or cuda", engine={"device": "cpu"}),
    wrong("a cache that is too large", "machine", "take a2-highgpu-1g", engine={"kvCacheMib": 24_000}),
    wrong("a region that does not exist", "region", 'Did you mean "europe-west4"', region="europe-west-4"),
    wrong("a zone", "region", 'Did you mean "europe-west4"', region="europe-west4-a"),
    wrong("no L4 there", "region", "The nearest one with it is europe-west1", region="europe-west9"),
    wrong("no L4 on that continent", "region", "nearest", region="africa-south1"),
    wrong("no T4 there", "region", "asia-northeast1", **T4, region="asia-northeast2"),
    wrong("nothing says when it sleeps", "replicasMin", "Set idleS", replicasMin=0),
    wrong("it never sleeps", "idleS", "replicasMin to 0", idleS=600),
    wrong("sleeps too soon", "idleS", "300", replicasMin=0, idleS=60),
    wrong("more at least than at most", "replicasMin", "at most 1", replicasMin=3),
    wrong("no replica at all", "replicasMax", "1 to 100", replicasMax=0),
    wrong("more than a hundred percent", "scaleTarget", "1 to 100", scaleOn="vllm-cache", scaleTarget=150),
    wrong("an unknown metric", "scaleOn", 'Did you mean "vllm-waiting"', scaleOn="vllm_waiting"),
    wrong("too long a request", "requestTimeoutS", "3600", requestTimeoutS=3601),
    wrong("a time for a shared endpoint", "requestTimeoutS", "dedicated", access="shared", requestTimeoutS=30),
    wrong("projects for a public endpoint", "allowedProjects", "private-service-connect", allowedProjects=["p-others"]),
    wrong("a private one without address", "privateUrl", "http://10.0.0.5", access="private-service-connect"),
    wrong("an address for a public one", "privateUrl", "Set both or neither", privateUrl="http://10.0.0.5"),
    wrong("a public one by another name", "access", 'Did you mean "dedicated"', access="dedicate"),
    wrong("too much shared memory", "sharedMemoryMb", "at most 16000", sharedMemoryMb=20_000),
    wrong("a project's name", "project", "gcloud projects list", project="My Project"),
    wrong("no project", "project", project=None),
    wrong("a project's number alone", "serviceAccount", "Set project to its id", project="123456789012"),
    wrong("a person as service account", "serviceAccount", "gserviceaccount.com", serviceAccount="me@example.com"),
    wrong("too long a start", "startTimeoutS", "7200", startTimeoutS=9000),
    wrong("an image with a tag", "image", "sha256", image="a.pkg.dev/b/c:latest"),
    wrong("a canary with everything", "canary.percent", "1 to 99", canary={"image": IMAGE, "percent": 100}),
    wrong("a canary with a tag", "canary.image", "sha256", canary={"image": "a.pkg.dev/b/c:latest", "percent": 5}),
    wrong("spot as a text", "spot", spot="yes"),
    wrong("an unknown field", "machineType", "Did you mean `machine`", machineType="g2-standard-8"),
]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.fleet["targets"]["vertex"] = json.loads(json.dumps(TARGET))
    return made


def test_the_unchanged_project_is_right(project: Project) -> None:
    project.write_stack()
    plan = resolve(load_stack(project.root, "local"))
    assert isinstance(plan.target("vertex").spec, VertexTarget)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_one_clear_error_with_the_nearest_valid_one(case: Case, project: Project) -> None:
    case.change(project)
    error = error_of(project)
    check_form(error, project)
    assert error.field == case.field, str(error)
    for piece in case.says:
        assert piece in str(error), str(error)


RIGHT: list[Callable[[], VertexTarget]] = [
    lambda: spec(**T4),
    lambda: spec(project="123456789012", serviceAccount="lorafleet-vertex@my-project-123.iam.gserviceaccount.com"),
    lambda: spec(replicasMin=0, idleS=300, replicasMax=4, scaleOn="vllm-cache", scaleTarget=80),
    lambda: spec(access="shared"),
    lambda: spec(access="private-service-connect", allowedProjects=["p-others"], privateUrl="http://10.0.0.5"),
    lambda: spec(canary={"image": IMAGE, "percent": 5}),
    lambda: spec(**A100, engine={"dtype": "bfloat16"}),
    lambda: spec(**T4, engine={"dtype": "float16"}),
]


@pytest.mark.parametrize("declared", RIGHT)
def test_what_is_right_is_taken(declared: Callable[[], VertexTarget]) -> None:
    assert problems(declared()) == []


def test_a_request_s_time_is_told_to_dedicated_endpoints_alone() -> None:
    assert (spec().timeout_s, spec(requestTimeoutS=30).timeout_s, spec(access="shared").timeout_s) == (600, 30, 0)


def test_no_value_is_converted() -> None:
    for fields in ({"replicasMax": "1"}, {"replicasMax": 1.0}, {"spot": 1}, {"project": 123456}):
        with pytest.raises(ValidationError):
            spec(**fields)
