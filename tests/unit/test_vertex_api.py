"""Vertex AI's client against the stand-in: what is repeated, what is not, credentials, and what it says of errors."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from providers import kit
from providers.vertex import answers, api, container, credentials, http, machines, marks
from providers.vertex.http import OutcomeUnknownError
from providers.vertex.resources import Deployment, Endpoint, Model, Traffic
from tests.fakes.runpod.faults import Kind
from tests.fakes.vertex import Fake, Fault, discovery
from tests.fakes.vertex.run import IMAGE, MACHINE, MODEL, PARENT, TOKEN, Run, furnished, started
from tests.support.ports import free_port

UPLOAD: dict[str, Any] = {"modelId": "lf-a", "model": {"displayName": "a", "containerSpec": {"imageUri": IMAGE}}}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with started(monkeypatch) as server:
        yield server


@pytest.mark.parametrize("kind", ["error before", "error after", "reset before", "reset after", "half done"])
async def test_a_post_without_an_answer_is_never_repeated(fake: Fake, kind: Kind) -> None:
    fake.faults.add(Fault(kind, "POST"))
    with pytest.raises(OutcomeUnknownError, match="not known whether Vertex AI carried out POST"):
        await api.connect(PARENT).upload_model(PARENT, UPLOAD)
    assert len(fake.changes()) == 1


async def test_a_refused_post_is_repeated_after_the_time_that_was_told(fake: Fake) -> None:
    fake.faults.add(Fault("rate limit", "POST", seconds=1))
    begun = time.monotonic()
    await api.connect(PARENT).upload_model(PARENT, UPLOAD)
    assert time.monotonic() - begun >= 1
    assert len(fake.cloud.operations.begun) == 1


@pytest.mark.parametrize("kind", ["error before", "error after", "reset before", "reset after", "rate limit", "delay"])
async def test_what_changes_nothing_twice_is_repeated(fake: Fake, kind: Kind) -> None:
    endpoint, _ = await furnished(fake)
    for method in ("GET", "PATCH"):
        fake.faults.add(Fault(kind, method, times=2, seconds=0.1))
    await api.connect(PARENT).change_endpoint(endpoint, {"displayName": "other"})
    found = await api.connect(PARENT).get_endpoint(endpoint)
    assert found is not None and found.display_name == "other"


async def test_it_gives_up_with_one_clear_error(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_ATTEMPTS", 2)
    fake.faults.add(Fault("error before", "GET", times=100, status=503))
    with pytest.raises(kit.ResourceError, match=r"gave no answer to GET .*503") as error:
        await api.connect(PARENT).list_models(PARENT)
    assert not isinstance(error.value, OutcomeUnknownError)
    fake.faults.clear()
    fake.faults.add(Fault("rate limit", "POST", times=100, seconds=0))
    with pytest.raises(kit.ResourceError, match="429 RESOURCE_EXHAUSTED") as error:
        await api.connect(PARENT).upload_model(PARENT, UPLOAD)
    assert "ask for more quota" in error.value.next_action


async def test_nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_ATTEMPTS", 2)
    monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setenv(http.URL_VARIABLE, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv(credentials.TOKEN_VARIABLE, TOKEN)
    with pytest.raises(kit.ResourceError, match="cannot be reached") as error:
        await api.connect(PARENT).upload_model(PARENT, UPLOAD)
    assert not isinstance(error.value, OutcomeUnknownError), "it was never sent"


async def test_a_refusal_says_what_google_says_and_not_the_token(fake: Fake) -> None:
    body = {**UPLOAD, "model": {**UPLOAD["model"], "containerSpec": {"imageUri": f"docker.io/x:{TOKEN}"}}}
    fake.cloud.models[f"{PARENT}/models/taken"] = {}
    with pytest.raises(kit.ResourceError, match=r"\(400 INVALID_ARGUMENT\): image_uri must be in Artifact Registry"):
        await api.connect(PARENT).upload_model(PARENT, body)
    with pytest.raises(kit.ResourceError, match=r"\(409 ALREADY_EXISTS\): The Model .* already exists"):
        await api.connect(PARENT).upload_model(PARENT, {**UPLOAD, "modelId": "taken"})
    with pytest.raises(kit.ResourceError, match="403 PERMISSION_DENIED") as error:
        await api.connect(PARENT).upload_model("projects/p-others/locations/europe-west4", UPLOAD)
    assert "roles/aiplatform.user" in error.value.next_action
    assert http._said(http._Answer(400, "", f"no {TOKEN} here".encode()))[1] == ": no [secret] here"


async def test_a_wrong_token_is_not_shown(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(credentials.TOKEN_VARIABLE, "ya29.a-wrong-token")
    with pytest.raises(kit.ResourceError, match="401 UNAUTHENTICATED") as error:
        await api.connect(PARENT).list_models(PARENT)
    assert "gcloud auth application-default login" in error.value.next_action
    assert "wrong-token" not in str(error.value) + repr(http.connect("europe-west4"))


@pytest.mark.parametrize("token", ["  ", "ya29.x\n", "ya29 x\ty", "ya29.ö"])
def test_what_is_no_token(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv(credentials.TOKEN_VARIABLE, token)
    with pytest.raises(kit.ResourceError, match="GOOGLE_OAUTH_ACCESS_TOKEN holds no token") as error:
        credentials.headers()
    assert not token.strip() or token.strip() not in str(error.value)


@pytest.fixture
def without_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine on which nothing of Google's is."""
    monkeypatch.delenv(credentials.TOKEN_VARIABLE, raising=False)
    monkeypatch.delenv(credentials.FILE_VARIABLE, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    # Google's library asks whether this is a machine of Google's.
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    credentials._application_default.cache_clear()
    yield tmp_path
    credentials._application_default.cache_clear()


async def test_without_credentials_one_line_names_what_is_missing(without_credentials: Path) -> None:
    with pytest.raises(kit.ResourceError, match="there are no Google credentials") as error:
        credentials.headers()
    assert "gcloud auth application-default login" in error.value.next_action
    run = Run(Endpoint)
    await credentials.warn_without(run.context())
    assert len(run.said) == 1 and "`pulumi up` needs them" in run.said[0]


def test_a_file_that_holds_no_credentials_is_not_quoted(
    without_credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = without_credentials / "key.json"
    file.write_text('{"type": "service_account", "private_key": "a-secret-key", "client_email": "x"}')
    monkeypatch.setenv(credentials.FILE_VARIABLE, str(file))
    with pytest.raises(kit.ResourceError) as error:
        credentials.headers()
    assert "a-secret-key" not in str(error.value)
    assert error.value.__suppress_context__


@pytest.mark.parametrize("url", ["http://example.com", "https://", "ftp://127.0.0.1", "nonsense"])
def test_the_token_goes_nowhere_unprotected(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(http.URL_VARIABLE, url)
    with pytest.raises(kit.ResourceError, match="holds no https:// address"):
        http.connect("europe-west4")


def test_each_region_has_its_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(http.URL_VARIABLE, raising=False)
    described = {each["location"]: each["endpointUrl"] for each in discovery.document("v1")["endpoints"]}
    for region in machines.REGIONS:
        assert f"{http.connect(region).url}/" == described[region]


def test_an_answer_that_is_not_understood_names_the_field() -> None:
    with pytest.raises(kit.ResourceError, match="not understood: the model: name: Field required"):
        answers.parse(answers.Model, {"displayName": "a-secret"}, "the model")
    with pytest.raises(kit.ResourceError, match="a duration that is not a number"):
        answers.seconds("soon")
    assert [answers.seconds(each) for each in ("", "30s", "1800.5s")] == [0, 30, 1800]


def test_ids_are_such_as_google_takes() -> None:
    urn = "urn:pulumi:test::serving::lorafleet:vertex:Model::thing"
    made = marks.new_id("thing-12345678", urn)
    assert len(made) <= 63 and made[0].isalpha() and made[-1].isalnum() and made.islower()
    assert marks.is_marked(f"{PARENT}/models/{made}", urn) and not marks.is_marked(made, f"{urn}2")
    assert made != marks.new_id("thing-87654321", urn)
    deployed = marks.deployed_id("thing-12345678", urn)
    assert len(deployed) == 10 and deployed.isdigit() and deployed[0] != "0"
    shown = marks.deployed_name("thing-12345678", urn)
    assert marks.plain(shown) == "thing-12345678" and marks.is_ours(shown) and not marks.is_ours("by hand")
    assert marks.plain("모델 1") == "r-1"


def test_google_s_client_is_not_loaded() -> None:
    """Why this folder speaks REST: google-cloud-aiplatform takes seconds to load, and lacks fields of v1beta1."""
    program = "import sys, providers.vertex.resources; print([n for n in sys.modules if n.startswith('google')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout.replace("'", '"')) == [], "what only a request needs is loaded by all"


async def problems(resource: type[kit.Resource[Any, Any]], inputs: dict[str, Any]) -> dict[str, str]:
    """{wire path: what, allowed and next of the problem}"""
    run = Run(resource)
    found = [each async for each in run.type().problems(run.context(), run.load(inputs), None)]
    return {".".join(map(str, each.path)): each.text() for each in found}


DEPLOYMENT = {"name": "a", "endpoint": f"{PARENT}/endpoints/e", "model": f"{PARENT}/models/m@v", **MACHINE}
PROBE = {"path": "/health"}
ADDRESS = {"name": "a", "project": "p-tests", "location": "europe-west4"}
WRONG: list[tuple[type[kit.Resource[Any, Any]], dict[str, Any], str, str]] = [
    (Model, {**MODEL, "image": "docker.io/vllm/vllm:1"}, "image", "Artifact Registry"),
    (Model, {**MODEL, "invoke": True}, "predictRoute", "set one of the two"),
    (Model, {**MODEL, "predictRoute": ""}, "predictRoute", "there is no way in"),
    (Model, {**MODEL, "startupProbe": {}}, "startupProbe", "path or command"),
    (Model, {**MODEL, "healthProbe": {**PROBE, "timeoutS": 20}}, "healthProbe.timeoutS", "at most 10"),
    (Model, {**MODEL, "startupProbe": {**PROBE, "failures": 999}}, "startupProbe.failures", "raise deploymentTimeoutS"),
    (Model, {**MODEL, "env": {"AIP_HTTP_PORT": "1"}}, "env.AIP_HTTP_PORT", "rename"),
    (Model, {**MODEL, "env": {"LORAFLEET_CONFIG": "x"}}, "secretEnv.0.name", "given twice"),
    (Model, {**MODEL, "env": {"BIG": "x" * (128 << 10)}}, "env.BIG", "128 KiB"),
    (Model, {**MODEL, "env": {f"V{n}": "" for n in range(200)}}, "env", "at most 200"),
    (Endpoint, {**ADDRESS, "network": "projects/1/global/networks/n"}, "network", "exposure peering"),
    (Endpoint, {**ADDRESS, "exposure": "peering"}, "network", "is required for peering"),
    (Endpoint, {**ADDRESS, "exposure": "shared", "requestTimeoutS": 90}, "requestTimeoutS", "dedicated"),
    (Endpoint, {**ADDRESS, "allowedProjects": ["p-others"]}, "allowedProjects", "private-service-connect"),
    (Deployment, {**DEPLOYMENT, "machineType": "n1-standard-8"}, "machineType", "NVIDIA_L4 in g2-standard-4"),
    (Deployment, {**DEPLOYMENT, "machineType": "g2-standard-9"}, "machineType", "did you mean 'g2-standard-"),
    (Deployment, {**DEPLOYMENT, "acceleratorCount": 2}, "acceleratorCount", "take g2-standard-24 for 2"),
    (Deployment, {**DEPLOYMENT, "acceleratorCount": 0}, "acceleratorCount", "both or neither"),
    (Deployment, {**DEPLOYMENT, "acceleratorType": "NVIDIA_L4S"}, "acceleratorType", "did you mean 'NVIDIA_L4'"),
    (Deployment, {**DEPLOYMENT, "minReplicas": 3}, "minReplicas", "at most 2"),
    (Deployment, {**DEPLOYMENT, "minReplicas": 0}, "scaleToZero", "is required with minReplicas 0"),
    (Deployment, {**DEPLOYMENT, "scaleToZero": {}}, "scaleToZero", "goes with minReplicas 0 alone"),
    (Deployment, {**DEPLOYMENT, "metrics": [{"name": "vllm", "target": 1}]}, "metrics.0.name", "vllm-waiting"),
    (Deployment, {**DEPLOYMENT, "model": "projects/p/locations/us-central1/models/m@1"}, "model", "europe-west4"),
    (Traffic, {"endpoint": DEPLOYMENT["endpoint"], "split": [{"deployedModelId": "1", "percent": 90}]}, "split", "100"),
    (
        Traffic,
        {"endpoint": DEPLOYMENT["endpoint"], "split": 2 * [{"deployedModelId": "1", "percent": 50}]},
        "split.1.deployedModelId",
        "each once",
    ),
]


@pytest.mark.parametrize(
    ("resource", "inputs", "path", "says"), WRONG, ids=[f"{each[2]}-{n}" for n, each in enumerate(WRONG)]
)
async def test_what_vertex_ai_would_refuse_is_refused_at_preview(
    resource: type[kit.Resource[Any, Any]], inputs: dict[str, Any], path: str, says: str
) -> None:
    found = await problems(resource, inputs)
    assert set(found) == {path}
    assert says in found[path] and "next: " in found[path], found[path]


async def test_what_is_right_has_no_problem() -> None:
    assert (
        await problems(Model, MODEL)
        == await problems(Endpoint, ADDRESS)
        == await problems(Deployment, DEPLOYMENT)
        == {}
    )
    no_gpu = {"machineType": "n1-standard-4", "acceleratorType": "", "acceleratorCount": 0, "metrics": []}
    assert await problems(Deployment, {**DEPLOYMENT, **no_gpu}) == {}


def test_a_version_s_name_depends_on_the_container_alone() -> None:
    load = Run(Model).load
    same = [MODEL, {**MODEL, "labels": {}, "name": "other-1"}, {**MODEL, "env": {}, "secretEnv": [
        {"name": "HF_TASK", "value": "custom"}, {"name": "LORAFLEET_CONFIG", "value": "{secret launch file}"},
    ]}]  # fmt: skip
    assert len({container.alias(load(each)) for each in same}) == 1
    other = [{**MODEL, "port": 9000}, {**MODEL, "args": ["x"]}, {**MODEL, "artifactUri": "gs://bucket/x"}]
    assert len({container.alias(load(each)) for each in [MODEL, *other]}) == 4


async def test_requests_reach_the_container_as_they_are(fake: Fake) -> None:
    """The raw route, with which an OpenAI client's body needs no translation."""
    endpoint, inputs = await furnished(fake)
    client = http.connect("europe-west4")
    with pytest.raises(kit.ResourceError, match="no deployed model with traffic"):
        await client.post(f"/v1/{endpoint}:rawPredict", {})
    name = await Run(Deployment).create(inputs)
    split = [{"deployedModelId": marks.last(name), "percent": 100}]
    await Run(Traffic).create({"endpoint": endpoint, "split": split})
    body = {"model": "easycontract", "messages": [{"role": "user", "content": "묵시적 갱신은?"}]}
    reading = await Run(Endpoint).read(endpoint)
    assert reading is not None and reading.outputs.url.endswith(".prediction.vertexai.goog")
    answer = await client.post(reading.outputs.raw_predict_path, body)
    assert answer == {"route": "/predict", "body": body}
