"""`stacks/serving.py` as it is shipped for dev, staging and prod: real engine, stand-ins for the platforms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import modal as fake_modal
from tests.fakes import runpod as fake_runpod
from tests.fakes.runpod.stack import TOKEN
from tests.support.artifacts_kit import emulator_environment, fake_gcs
from tests.support.ports import free_port
from tests.support.serving_project import BUCKET, DIGESTS, ServingProject

SECRETS = {
    "runpodKey": "rpa_key-that-may-only-ask",
    "modalProxyTokenId": "wk-an-id-of-a-proxy-token",
    "modalProxyTokenSecret": "ws-a-secret-of-a-proxy-token",
    "googleCredentials": '{"private_key": "a-key-of-google"}',
}
# Says at its end what the program had loaded.
_WATCHED = """
import atexit, pathlib, sys
atexit.register(lambda: pathlib.Path(__file__).with_name("loaded.txt").write_text("\\n".join(sys.modules)))
import serving
"""


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A bucket that has the adapters of the declaration; gives the variables that lead to it."""
    with fake_gcs(tmp_path_factory.mktemp("gcs"), BUCKET) as url:
        for name, digest in DIGESTS.items():
            path = f"adapters/{name}/{digest.replace(':', '-')}/lorafleet.json"
            httpx.post(
                f"{url}/upload/storage/v1/b/{BUCKET}/o",
                params={"uploadType": "media", "name": path},
                content=json.dumps({"version": 1, "name": name, "digest": digest}),
            ).raise_for_status()
        yield {"STORAGE_EMULATOR_HOST": emulator_environment(url)["STORAGE_EMULATOR_HOST"]}


@pytest.fixture
def runpod() -> Iterator[fake_runpod.Fake]:
    with fake_runpod.running(free_port(), TOKEN) as made:
        yield made
        assert made.violations == []


@pytest.fixture
def modal() -> Iterator[fake_modal.FakeModal]:
    with fake_modal.serving() as made:
        yield made


@pytest.fixture
def project(
    tmp_path: Path, gcs: dict[str, str], runpod: fake_runpod.Fake, modal: fake_modal.FakeModal
) -> Iterator[ServingProject]:
    variables = gcs | modal.environ() | {"RUNPOD_API_URL": runpod.url, "RUNPOD_API_KEY": TOKEN}
    made = ServingProject(tmp_path / "project", stack="dev", variables=variables)
    made.change(lambda fleet: fleet["router"].update(port=free_port(), metricsPort=free_port()))
    made.secret(**SECRETS)
    yield made
    made.kill_everything()


def loaded(project: ServingProject) -> set[str]:
    return set((project.folder / "stacks" / "loaded.txt").read_text().split())


PREVIEWED = {
    "dev": ["lorafleet:runpod:ServerlessEndpoint burst create", "lorafleet:modal:App spill create"],
    "staging": ["gcp:compute:RegionInstanceGroupManager", "lorafleet:runpod:ServerlessEndpoint burst create"],
    "prod": [
        "gcp:compute:RegionInstanceGroupManager",
        "lorafleet:vertex:Model review create",
        "lorafleet:vertex:Endpoint review create",
        "lorafleet:vertex:Deployment review create",
        "lorafleet:vertex:Traffic review create",
        "lorafleet:runpod:ServerlessEndpoint burst create",
        "lorafleet:modal:App spill create",
    ],
}


@pytest.mark.parametrize("environment", PREVIEWED)
def test_preview_without_network_and_without_any_token(tmp_path: Path, environment: str) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    variables = {"RUNPOD_API_URL": nowhere, "MODAL_SERVER_URL": nowhere, "STORAGE_EMULATOR_HOST": nowhere}
    project = ServingProject(tmp_path / "project", stack=environment, variables=variables)
    shown = project.preview().ok().output
    for line in PREVIEWED[environment]:
        assert line in shown, shown
    # What it will need is said, each once, with what to do.
    for wanted in ("RUNPOD_API_KEY", "MODAL_TOKEN_ID", "runpodKey", "modalProxyTokenId"):
        assert wanted in shown, shown


def test_life_of_an_environment_and_a_target_left_out(
    project: ServingProject, runpod: fake_runpod.Fake, modal: fake_modal.FakeModal
) -> None:
    (project.folder / "stacks" / "dev.py").write_text(_WATCHED)
    project.up().ok()
    assert len(runpod.cloud.endpoints) == 1 and len(modal.cloud.living()) == 1
    project.up("--expect-no-changes").ok()
    targets: dict[str, Any] = project.output("targets")
    assert set(targets) == {"burst", "spill"}
    assert targets["burst"]["url"].startswith("https://") and targets["spill"]["url"].startswith("https://")
    assert {"providers.runpod.target", "providers.modal.target"} <= loaded(project)
    # The router runs here and lists the models; both targets sleep behind it.
    answer = httpx.get(f"{project.output('endpoint')}/models", headers=bearer(project.output("apiKey")))
    assert [each["id"] for each in answer.json()["data"]] == ["exaone-3.5-2.4b", "checklist", "easycontract"]
    state = project.state_text()
    for secret in (TOKEN, *SECRETS.values(), "a-key-of-google"):
        assert secret not in state

    project.targets(spill=None)
    shown = project.preview().ok().output
    assert "lorafleet:modal:App spill delete" in shown
    project.up().ok()
    assert len(runpod.cloud.endpoints) == 1 and modal.cloud.living() == []
    names = loaded(project)
    assert not any(name.startswith(("providers.modal", "modal")) for name in names)
    project.destroy().ok()
    assert runpod.cloud.count() == {}


def test_a_router_elsewhere_is_given_its_file_and_keys(project: ServingProject, tmp_path: Path) -> None:
    project.change(lambda fleet: fleet["router"].update(runs="elsewhere"))
    project.up().ok()
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    router = json.loads(project.output("routerFile"))
    keys = json.loads(project.output("targetKeys"))
    assert keys["burst"]["key"] == SECRETS["runpodKey"]
    assert keys["spill"]["headers"]["Modal-Key"] == SECRETS["modalProxyTokenId"]
    assert SECRETS["runpodKey"] not in project.run("stack", "output", "--json").ok().output
    assert all(each["healthPath"] is None for each in router["targets"])
    # As the image starts: the configuration is taken, with its keys in a file of their own.
    from handlers.router import config
    from images import start

    file = start.prepare(
        "router",
        {
            "LORAFLEET_RUN_DIR": str(run_dir),
            "LORAFLEET_CONFIG": json.dumps(router),
            "LORAFLEET_TARGET_KEYS": json.dumps(keys),
        },
    )
    taken = config.load(file)
    assert config.load_access(taken)["burst"].key == SECRETS["runpodKey"]
    project.destroy().ok()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}
