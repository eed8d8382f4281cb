"""The target `modal` through the real engine and the real SDK, against the stand-in for Modal."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("modal", reason="the package `modal` is not installed")

from tests.engine.test_kills import plugins
from tests.fakes.modal import FakeModal, serving
from tests.fakes.modal.project import ModalProject
from tests.support.ports import free_port
from tests.support.stack_project import ROOT, command_line, descendants, kill, wait_for
from tests.support.stored import store_adapter

APP = "lorafleet-spilling-spill"
PROXY_TOKEN = {"modalProxyTokenId": "wk-for-tests-0123", "modalProxyTokenSecret": "ws-for-tests-4567"}
_PROGRAM = '''
import pulumi
from providers import stack

class Manifest(pulumi.ComponentResource):
    """Stands for the manifest in the store, which this test has none of."""
    def __init__(self):
        super().__init__("test:index:Manifest", "manifest")
        self.served = pulumi.Output.from_input({})

fleet = stack.fleet()
[spill] = stack.targets(fleet, Manifest())
pulumi.export("url", spill.endpoint.url)
pulumi.export("key", spill.endpoint.key)
pulumi.export("headers", dict(spill.endpoint.headers))
pulumi.export("asked", [spill.endpoint.health_path, spill.endpoint.status_path])
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


class SpillProject(ModalProject):
    """A project with one target, on the stand-in; `more` in the environment of its commands."""

    more: dict[str, str]

    def __init__(self, folder: Path, modal: FakeModal) -> None:
        self.more = {}
        super().__init__(folder, modal, _PROGRAM)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.write_config({"serving:fleet": _FLEET})

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | self.more

    def have_proxy_token(self) -> None:
        for key, value in PROXY_TOKEN.items():
            self.run("config", "set", "--secret", key, value).ok()

    def target(self, **more: Any) -> None:
        """Changes the target's declaration."""
        self.change(lambda fleet: fleet["targets"]["spill"].update(more))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[SpillProject]:
    with serving() as modal:
        modal.put_secret("main", "hmac", GOOGLE_ACCESS_KEY_ID="GOOG1E", GOOGLE_ACCESS_KEY_SECRET="0123456789")
        yield SpillProject(tmp_path / "project", modal)


def live(project: SpillProject) -> Any:
    app = project.modal.cloud.deployed("main", APP)
    assert app is not None
    return project.modal.cloud.live(app)


def secrets(project: SpillProject) -> list[Any]:
    return [each for each in project.modal.cloud.secrets.values() if each.name.startswith("lf-")]


def launch_file(project: SpillProject) -> dict[str, Any]:
    [secret] = secrets(project)
    found: dict[str, Any] = json.loads(secret.content["LORAFLEET_CONFIG"])
    return found


def assert_one_of_each(project: SpillProject) -> None:
    assert len(project.modal.cloud.living()) == 1
    assert len(secrets(project)) == 1
    project.up("--expect-no-changes").ok()
    assert_nothing_is_left(project)


def assert_nothing_is_left(project: SpillProject) -> None:
    project.destroy().ok()
    assert (project.modal.cloud.living(), secrets(project), project.modal.cloud.volumes) == ([], [], {})


def assert_no_token(project: SpillProject, text: str) -> None:
    for secret in (*project.modal.token, *PROXY_TOKEN.values(), *project.more.values()):
        assert secret not in text


def test_a_target_from_create_to_destroy(project: SpillProject) -> None:
    project.have_proxy_token()
    held = project.modal.faults.add("FunctionCreate", "hold_before")
    running = project.start("up", "--yes", "--skip-preview")
    wait_for(lambda: held.reached.is_set() or running.poll() is not None, 120, "FunctionCreate")
    assert_no_token(project, "\n".join(command_line(pid) for pid in descendants(running.pid)))
    held.release.set()
    output, _ = running.communicate(timeout=300)
    assert running.returncode == 0, output
    assert_no_token(project, output + project.state_text())

    assert project.output("url").startswith(f"https://acme--{APP}")
    assert project.output("headers") == {
        "Modal-Key": PROXY_TOKEN["modalProxyTokenId"],
        "Modal-Secret": PROXY_TOKEN["modalProxyTokenSecret"],
    }
    assert project.output("asked") == [None, None], "asking would start a container"
    assert not live(project).http_config.unauthenticated
    launch = launch_file(project)
    assert (launch["store"], launch["target"], launch["port"]) == ("gs://a-bucket/fleet", "spill", 8000)
    assert project.output("key") not in project.state_text()
    assert launch["apiKeySha256"][0] not in project.state_text()

    # What the containers are told is another secret, so that they are started anew; the former one goes.
    [former] = secrets(project)
    project.target(cacheVolume=True, engine={"maxModelLen": 1024})
    # At this level the engine itself logs the stack's secrets in clear. Modal's token it never gets.
    logged = project.up("--logtostderr", "-v=9").ok().output
    assert all(token not in logged for token in project.modal.token)
    assert_no_token(project, project.state_text())
    assert launch_file(project)["cache"] == "/mnt/lorafleet/cache"
    assert [each.name for each in secrets(project)] != [former.name]
    assert live(project).ranked_functions[0].function.volume_mounts[0].mount_path == "/mnt/lorafleet"
    assert_one_of_each(project)


def test_the_base_model_is_read_from_its_bucket(project: SpillProject) -> None:
    project.target(modelBucketSecret="hmac", proxyAuth=False)
    refused = project.preview()
    assert refused.code != 0
    assert "mounts the base model's bucket, and baseModel.source is hf://an-owner/a-model" in refused.output
    digest = f"sha256:{'2' * 64}"
    project.change(lambda fleet: fleet["baseModel"].update(source="gs://a-bucket/models/a-model"))
    project.change(lambda fleet: fleet["release"].update(baseModel={"digest": digest}))
    project.up().ok()
    [mount] = live(project).ranked_functions[0].function.cloud_bucket_mounts
    assert (mount.mount_path, mount.bucket_name, mount.key_prefix) == ("/mnt/model", "a-bucket", "models/a-model/")
    assert (mount.bucket_endpoint_url, mount.read_only) == ("https://storage.googleapis.com", True)
    assert mount.credentials_secret_id == project.modal.cloud.secrets["main", "hmac"].id
    base = launch_file(project)["baseModel"]
    assert (base["source"], base["digest"]) == ("file:///mnt/model", digest)
    assert_one_of_each(project)


def test_a_preview_needs_neither_a_network_nor_a_token_and_says_what_up_will_need(project: SpillProject) -> None:
    modal = project.modal
    project.more = dict.fromkeys(modal.environ(), "") | {"MODAL_SERVER_URL": f"http://127.0.0.1:{free_port()}"}
    shown = project.preview().ok().output
    assert "lorafleet:modal:App spill create" in " ".join(shown.split())
    assert "the environment variable MODAL_TOKEN_ID holds no token of Modal" in shown
    assert "pulumi config set --secret modalProxyTokenId" in shown
    assert "pulumi config set --secret googleCredentials" in shown
    assert "Traceback" not in shown
    refused = project.up()
    assert refused.code != 0
    assert "the targets need secrets that this stack does not have; nothing was made" in refused.output
    for key in PROXY_TOKEN:
        assert f"pulumi config set --secret {key}" in refused.output
    project.have_proxy_token()
    refused = project.up()
    assert refused.code != 0
    assert "MODAL_TOKEN_ID holds no token of Modal" in refused.output
    assert "Traceback" not in refused.output
    assert modal.arrived == []


def test_a_wrong_token_is_one_line_that_names_the_variables(project: SpillProject) -> None:
    project.target(proxyAuth=False)
    project.more = {"MODAL_TOKEN_SECRET": "as-a-wrong-one-9876"}
    refused = project.up()
    assert refused.code != 0
    # The engine says an error where it happened and once more at the end.
    lines = {line.strip() for line in refused.output.splitlines() if "MODAL_TOKEN" in line and "refused" in line}
    assert lines
    for line in lines:
        assert "Modal refused the token in MODAL_TOKEN_ID and MODAL_TOKEN_SECRET" in line
    assert "Traceback" not in refused.output
    assert_no_token(project, refused.output + project.state_text())
    project.more = {}
    project.up().ok()
    assert_one_of_each(project)


@pytest.mark.parametrize(("who", "rpc"), [("plugin", "AppPublish"), ("everything", "AppCreate")])
def test_kill_after_the_effect(project: SpillProject, rpc: str, who: str) -> None:
    project.target(proxyAuth=False)
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


def test_ctrl_c_is_no_traceback_and_goes_on(project: SpillProject) -> None:
    project.target(proxyAuth=False)
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


def test_a_store_on_this_machine_is_refused_by_its_line(project: SpillProject) -> None:
    digest = store_adapter(project.store, "easycontract", ROOT / "demo" / "adapters" / "easycontract")
    project.change(lambda fleet: fleet.update(store="file://.lorafleet/store"))
    project.change(lambda fleet: fleet["release"].update(adapters={"easycontract": digest}))
    project.change(lambda fleet: fleet["baseModel"].update(trainedAs=["lorafleet-demo"]))
    ran = project.preview()
    assert ran.code != 0
    assert "cannot read store: a folder of this machine" in ran.output
    assert project.modal.arrived == []
