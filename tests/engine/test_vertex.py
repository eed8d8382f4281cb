"""Vertex AI's resources through the real engine, against the stand-in for its API."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from providers.vertex import contract, credentials, http
from tests.fakes.vertex import Fake, Fault, running
from tests.fakes.vertex.run import ENDPOINT, IMAGE, MACHINE, MODEL, OTHER_IMAGE
from tests.support.ports import free_port
from tests.support.stack_project import ROOT, StackProject, descendants, kill

TOKEN = "ya29.a-secret-token-of-the-tests"
# {name: (class, wire inputs)}; "@@name" in a text is the id of another resource, "@@name.output" one of its outputs.
Declaration = dict[str, tuple[str, dict[str, Any]]]
PROGRAM = """
import json, pathlib, re, pulumi
from providers.kit import fields
from providers.kit.program import declare
from providers.vertex import resources

made = {}

def filled(value):
    if isinstance(value, dict):
        return {key: filled(each) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each) for each in value]
    if not isinstance(value, str) or "@@" not in value:
        return value
    parts = [getattr(made[part[2:].partition(".")[0]], part.partition(".")[2] or "id") if part[:2] == "@@" else part
             for part in re.split(r"(@@[a-z-]+(?:\\\\.[a-z_]+)?)", value)]
    return pulumi.Output.concat(*parts)

for name, (kind, inputs) in json.loads(pathlib.Path("resources.json").read_text()).items():
    resource = getattr(resources, kind)
    names = {wire: python for wire, (python, _) in fields.by_alias(resource.inputs_model()).items()}
    made[name] = declare(resource, name, {names[wire]: filled(value) for wire, value in inputs.items()})
    pulumi.export(name, made[name].id)
""".replace("\\\\", "\\")


def declared(inputs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**inputs, **changes}.items() if key != "name"}


DEPLOYMENT: dict[str, Any] = {"endpoint": "@@address", "model": "@@handler@@@handler.version_alias", **MACHINE}
ALL: Declaration = {
    "address": ("Endpoint", declared(ENDPOINT)),
    "handler": ("Model", declared(MODEL)),
    "main": ("Deployment", DEPLOYMENT),
    "traffic": (
        "Traffic",
        {"endpoint": "@@address", "split": [{"deployedModelId": "@@main.deployed_model_id", "percent": 100}]},
    ),
}


@dataclass
class VertexProject(StackProject):
    """A project with Vertex AI's resources alone, which are declared as data."""

    def __post_init__(self) -> None:
        project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
        project["plugins"]["providers"][0]["path"] = str(ROOT / "providers")
        (self.folder / "stacks").mkdir(parents=True)
        (self.folder / "backend").mkdir()
        (self.folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        (self.folder / "stacks" / "__main__.py").write_text(PROGRAM)
        self.stack_file.write_text("config: {}\n")
        self.run("stack", "init", self.stack).ok()

    def declare(self, resources: Declaration) -> None:
        (self.folder / "stacks" / "resources.json").write_text(json.dumps(resources))

    def resource(self, name: str) -> dict[str, Any]:
        deployment = json.loads(self.run("stack", "export").ok().output)["deployment"]
        [found] = [each for each in deployment["resources"] if each["urn"].endswith(f"::{name}")]
        return dict(found)

    def planned(self) -> dict[str, tuple[str, set[str]]]:
        """What `pulumi preview` would do: {name: (`update`, `replace` …, wire names of the fields that differ)}."""
        shown = json.loads(self.run("preview", "--json").ok().output)
        found: dict[str, tuple[str, set[str]]] = {}
        for step in shown["steps"]:
            if step["op"] in ("update", "replace", "create", "delete"):
                fields = {re.split(r"[.\[]", path)[0] for path in step.get("detailedDiff") or {}}
                found[step["urn"].rsplit("::", 1)[-1]] = (step["op"], fields)
        return found


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with running(free_port(), TOKEN) as server:
        monkeypatch.setenv(http.URL_VARIABLE, server.url)
        monkeypatch.setenv(credentials.TOKEN_VARIABLE, TOKEN)
        yield server
        assert server.violations == []


@pytest.fixture
def project(tmp_path: Path, fake: Fake) -> VertexProject:
    return VertexProject(tmp_path / "project")


def test_all_four_live_a_new_image_takes_over_and_no_secret_is_shown(project: VertexProject, fake: Fake) -> None:
    project.declare(ALL)
    shown = project.up("--diff").ok().output
    assert fake.cloud.count() == {"models": 1, "endpoints": 1, "deployed": 1}
    [endpoint] = fake.cloud.endpoints.values()
    [first] = endpoint["deployedModels"]
    assert endpoint["trafficSplit"] == {first["id"]: 100}
    project.refresh("--expect-no-changes").ok()

    project.declare({**ALL, "handler": ("Model", declared(MODEL, labels={"team": "theirs"}))})
    assert project.planned() == {"handler": ("update", {"labels"})}, "a label of the model touches no deployment"

    project.declare({**ALL, "handler": ("Model", declared(MODEL, image=OTHER_IMAGE, secretEnv=[]))})
    planned = project.planned()
    assert planned["handler"] == ("update", {"image", "secretEnv"})
    assert planned["main"][1] == {"model"} and planned["traffic"] == ("update", {"split"})
    fake.requests.clear()
    shown += project.up("--diff").ok().output
    [second] = endpoint["deployedModels"]
    assert second["id"] != first["id"] and endpoint["trafficSplit"] == {second["id"]: 100}
    steps = [(method, re.split("[:?]", path)[-1]) for method, path in fake.changes() if "/endpoints/" in path]
    assert [verb for method, verb in steps if method == "POST"] == ["deployModel", "undeployModel"]
    assert [method for method, _ in steps] == ["POST", "PATCH", "POST"], "requests must move while both are up"

    project.declare(ALL)
    project.up().ok()
    [model] = fake.cloud.models.values()
    assert len(model) == 2 and "default" in model["1"]["versionAliases"], "the way back uploaded something"
    shown += project.state_text()
    for secret in (TOKEN, "secret launch file"):
        assert secret not in shown
    project.destroy().ok()
    assert fake.cloud.count() == {}


# Of contract.py, so each field that can be changed: in place, or with a new thing.
KINDS = {"Model": contract._model, "Endpoint": contract._endpoint, "Deployment": contract._deployment}


def test_each_field_is_planned_as_it_is_marked_and_its_drift_is_seen(project: VertexProject, fake: Fake) -> None:
    """A resource for each field: the program changes it, then somebody changes it back behind the program's back."""
    from providers.kit import fields
    from providers.kit.testing import Place
    from providers.vertex import resources
    from tools.chaos.scenarios import plain

    contract.furnish(fake)
    place = Place(project.folder, free_port)
    before: Declaration = {}
    after: Declaration = {}
    expected: dict[str, tuple[str, set[str]]] = {}
    for case in contract.cases():
        kind = case.resource.__name__
        if kind not in KINDS or case.name != f"vertex.{kind}":
            continue
        for wire, value in case.changes(place).items():
            name = f"{kind}-{wire}".lower()
            inputs = plain(case.inputs(place))
            before[name] = (kind, inputs)
            after[name] = (kind, {**inputs, wire: plain(value)})
            info = fields.by_alias(getattr(resources, kind).inputs_model())[wire][1]
            expected[name] = ("replace" if fields.has(info, fields.replaces) else "update", {wire})
    project.declare(before)
    project.up("--parallel", "16").ok()
    ids: dict[str, str] = json.loads(project.run("stack", "output", "--json").ok().output)
    former = copy.deepcopy((fake.cloud.models, fake.cloud.endpoints))
    project.declare(after)
    planned = project.planned()
    assert {name: planned.get(name) for name in expected} == expected
    in_place = {name: (op, which) for name, (op, which) in expected.items() if op == "update"}
    project.declare({name: after[name] if name in in_place else before[name] for name in before})
    output = project.up("--diff", "--parallel", "16").ok().output
    assert f"~ {len(in_place)} updated" in output, output
    for name in in_place:
        thing = ids[name].partition("/deployedModels/")[0]
        now, then = ({**models, **endpoints}[thing] for models, endpoints in (
            (fake.cloud.models, fake.cloud.endpoints), former,
        ))  # fmt: skip
        assert now != then, f"{name} did not arrive"
    with fake.cloud.lock:
        fake.cloud.models.update(former[0])
        fake.cloud.endpoints.update(former[1])
    drift = json.loads(project.run("refresh", "--preview-only", "--json").ok().output)
    seen = {step["urn"].rsplit("::", 1)[-1] for step in drift["steps"] if step.get("detailedDiff")}
    assert set(in_place) <= seen, set(in_place) - seen
    project.refresh().ok()
    assert f"~ {len(in_place)} updated" in project.up("--parallel", "16").ok().output
    project.refresh("--expect-no-changes").ok()


def test_import_and_what_is_gone(project: VertexProject, fake: Fake) -> None:
    project.declare(ALL)
    project.up().ok()
    before = project.run("stack", "output", "--json").ok().output
    for name in ("address", "handler"):
        project.run("state", "delete", "--yes", "--target-dependents", project.resource(name)["urn"]).ok()
    for name, (kind, _) in ALL.items():
        project.run(
            "import", "--yes", "--generate-code=false", "--protect=false", "--skip-preview",
            f"lorafleet:vertex:{kind}", name, json.loads(before)[name],
        ).ok()  # fmt: skip
    assert "secret launch file" not in project.state_text()
    project.up().ok()
    assert project.run("stack", "output", "--json").ok().output == before
    fake.cloud.endpoints.clear()
    project.refresh().ok()
    project.up().ok()
    assert fake.cloud.count() == {"models": 1, "endpoints": 1, "deployed": 1}


def test_a_kill_while_it_is_deployed_ends_with_one_deployment(project: VertexProject, fake: Fake) -> None:
    """All kills at all calls: `make chaos`."""
    project.declare(ALL)
    pids: list[int] = []

    def strike() -> None:
        for pid in reversed(descendants(pids[0])):
            kill(pid)

    fault = fake.faults.add(Fault("call after", "POST", r".*:deployModel", hook=strike))
    up = project.start("up", "--yes", "--skip-preview")
    pids.append(up.pid)
    up.communicate(timeout=300)
    assert fault.happened == 1, "the moment never came"
    project.recover()
    project.up().ok()
    assert fake.cloud.count() == {"models": 1, "endpoints": 1, "deployed": 1}
    assert [kind for kind, _ in fake.cloud.operations.begun].count("DeployModel") == 1, "it was deployed twice"
    project.refresh("--expect-no-changes").ok()


def test_without_credentials_a_preview_works_and_an_up_is_one_line(
    project: VertexProject, fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project.declare(ALL)
    monkeypatch.delenv(credentials.TOKEN_VARIABLE)
    monkeypatch.delenv(credentials.FILE_VARIABLE, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    preview = project.preview().ok().output
    assert "5 to create" in preview and "no Google credentials on this machine" in preview
    output = project.up().output
    assert "there are no Google credentials" in output and "Traceback" not in output
    assert fake.requests == []


# The component in a stack: the manifest is not Vertex AI's part, so it is a stand-in with what the component reads.
STACK = """
import pulumi
from providers import stack, vertex

class Manifest(pulumi.ComponentResource):
    def __init__(self):
        super().__init__("test:index:Manifest", "manifest")
        self.served = pulumi.Output.from_input({"easycontract": "easycontract@sha256-0"})

fleet = stack.fleet()
[target] = stack.targets(fleet, Manifest())
assert isinstance(target, vertex.HandlerEndpoint)
pulumi.export("url", target.endpoint.url)
pulumi.export("path", target.endpoint.paths[0])
pulumi.export("token", target.endpoint.token)
"""


def test_the_component_makes_a_working_endpoint_with_a_canary(tmp_path: Path, fake: Fake) -> None:
    from handlers.serving.config import parse

    project = StackProject(tmp_path / "project")
    (project.folder / "stacks" / "local.py").write_text(STACK)
    target: dict[str, Any] = {
        "kind": "vertex", "image": IMAGE,
        "project": "p-tests", "region": "europe-west4", "machine": "g2-standard-8", "replicasMax": 2,
        "engine": {"maxModelLen": 512, "maxLoraRank": 16},
    }  # fmt: skip

    def declare(fleet: dict[str, Any]) -> None:
        fleet["targets"] = {"governed": target}
        for name in fleet["release"]["adapters"]:
            fleet["adapters"][name] |= {"rank": 8}

    project.change(declare)
    refused = project.preview()
    assert refused.code != 0 and "cannot read store" in refused.output, refused.output
    shutil.rmtree(project.store)

    def on_google(fleet: dict[str, Any]) -> None:
        fleet["store"] = "gs://bucket"
        fleet["baseModel"]["source"] = "gs://bucket/models/base"

    project.change(on_google)
    project.up().ok()
    [endpoint] = fake.cloud.endpoints.values()
    assert project.output("url") == f"https://{endpoint['dedicatedEndpointDns']}"
    assert project.output("path").endswith(":rawPredict")
    assert project.output("token") == "google"
    assert endpoint["clientConnectionConfig"] == {"inferenceTimeout": "600s"}
    [model] = fake.cloud.models.values()
    spec = model["1"]["containerSpec"]
    [command] = spec["command"]
    assert (ROOT / "images" / "vertex" / Path(command).name).is_file(), "the image has no such command"
    env = {each["name"]: each["value"] for each in spec["env"]}
    [deployed] = endpoint["deployedModels"]
    assert deployed["serviceAccount"] == "lorafleet-vertex@p-tests.iam.gserviceaccount.com"
    launch = parse(json.loads(env["LORAFLEET_CONFIG"]))
    assert launch.target == "governed" and not launch.api_key_sha256

    project.change(lambda fleet: fleet["targets"]["governed"].update({"canary": {"image": OTHER_IMAGE, "percent": 10}}))
    project.up().ok()
    split, ids = endpoint["trafficSplit"], {each["displayName"]: each["id"] for each in endpoint["deployedModels"]}
    shares = {name.startswith("governed-canary-"): split[made] for name, made in ids.items()}
    assert shares == {True: 10, False: 90} and len(fake.cloud.models) == 2
    project.change(lambda fleet: fleet["targets"]["governed"].pop("canary"))
    project.up().ok()
    project.up("--expect-no-changes").ok()
    assert list(endpoint["trafficSplit"].values()) == [100]
    assert fake.cloud.count() == {"models": 1, "endpoints": 1, "deployed": 1}
    project.destroy().ok()
    assert fake.cloud.count() == {}
