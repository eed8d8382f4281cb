"""A VM of Compute Engine starts: the real cloud-init document, programs and units, with the demo model on this CPU.

No container, no systemd, no GPU: `tests/fakes/gcp/machine` says what stands in their place. The server is the files of
the image `serving`, its store and its base model lie in a bucket (the real fake-gcs-server).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from lorafleet.load import load_fleet
from lorafleet.plan import resolve
from providers.gce import host
from providers.gce.spec import GceTarget
from tests.e2e.gcs_kit import Gcs
from tests.e2e.launcher_kit import (
    BASE,
    DEMO,
    KEY,
    PYTHON,
    START_TIMEOUT_S,
    Store,
    alive,
    base_model,
    children,
    column,
    demo_digest,
    needs_serving,
    questions,
    wait_until,
)
from tests.fakes.gcp.machine import Sandbox, Service, Site
from tests.fakes.gcp.machine.site import TOKEN
from tests.support.ports import free_port
from tools.images import dockerfiles

pytestmark = needs_serving
IMAGE = f"asia-northeast3-docker.pkg.dev/fleet-123/lorafleet/serving@sha256:{'0' * 64}"
SECRET = "projects/123/secrets/lorafleet-test-server/versions/1"
BUCKET = "fleet"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()
HEADERS = {"authorization": f"Bearer {KEY}"}
SPOT_S = 30
"""A Spot VM is cut off so long after it was told."""
DRAINED_S = 25


@dataclass
class Vm:
    """A VM that has booted."""

    sandbox: Sandbox
    site: Site
    service: Service
    user_data: str
    url: str

    def ready(self) -> bool:
        assert self.service.main is not None
        assert self.service.main.poll() is None, self.service.text()[-6000:]
        try:
            return httpx.get(f"{self.url}/ready", timeout=10).status_code == 200
        except httpx.HTTPError:
            return False

    def state(self) -> dict[str, Any]:
        file = self.sandbox.docker_home / "lorafleet-serving" / "state.json"
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    def ask(self, model: str, question: str, **more: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0, **more}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, headers=HEADERS, timeout=120)

    def files(self) -> dict[str, tuple[bytes, int, int]]:
        """{path: (content, mode, when it was written)} of what the start wrote."""
        found = {}
        for part in ("opt", "units", "config"):
            for file in sorted((self.sandbox.folder / part).rglob("*")):
                if file.is_file():
                    told = file.stat()
                    found[str(file)] = (file.read_bytes(), told.st_mode, told.st_mtime_ns)
        return found


def plan_of(port: int) -> Any:
    """The resolved plan of a declared target whose store and base model lie in the bucket."""
    declared = {
        "store": f"gs://{BUCKET}",
        "baseModel": {"name": BASE, "source": f"gs://{BUCKET}/base", "license": "none needed (made for this project)"},
        "adapters": {"easycontract": {"rank": 8}, "checklist": {"rank": 8}},
        "targets": {
            "server": {
                "kind": "gce",
                "machine": "g2-standard-4",
                "gpu": "L4",
                "zones": ["asia-northeast3-a"],
                "spot": 1,
                "port": port,
                "startTimeoutS": START_TIMEOUT_S,
                "engine": {"maxModelLen": 512, "kvCacheMib": 128},
            }
        },
        "router": {"port": 8100, "metricsPort": 8102},
        "release": {
            "image": IMAGE,
            "baseModel": {"digest": base_model()["digest"]},
            "adapters": {name: demo_digest(name) for name in ("easycontract", "checklist")},
        },
    }
    return resolve(load_fleet(declared, environment="test", root=DEMO))


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gcs]:
    made = Gcs(tmp_path_factory.mktemp("bucket"), BUCKET)
    made.start()
    for file in (DEMO / "base").iterdir():
        made.put(f"base/{file.name}", file.read_bytes())
    store = Store(made.root, f"gs://{BUCKET}", made.put)
    base = {**base_model(), "source": f"gs://{BUCKET}/base"}
    store.write({name: store.demo(name) for name in ("easycontract", "checklist")}, base)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("image")
    images = dockerfiles.read_all()
    dockerfiles.mirror(images["serving"], made, images)
    return made


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory, bucket: Gcs, tree: Path) -> Iterator[Vm]:
    port = free_port()
    plan = plan_of(port)
    spec = plan.target("server").spec
    assert isinstance(spec, GceTarget)
    site = Site(
        {"lorafleet-launch": host.launch_file("server", plan, spec), "lorafleet-secret": SECRET},
        {SECRET: json.dumps({"apiKeySha256": [DIGEST], "hfToken": "a-token-of-the-hub"})},
    )
    sandbox = Sandbox(
        tmp_path_factory.mktemp("vm"),
        python=str(PYTHON),
        tree=str(tree),
        images=[IMAGE],
        token=TOKEN,
        variables={"STORAGE_EMULATOR_HOST": bucket.url},
    )
    user_data = sandbox.host(IMAGE, site.url, drain_timeout_s=spec.drain_timeout_s).user_data()
    # The network is not there in a VM's first moments.
    site.failing = 2
    sandbox.cloud_init(user_data)
    assert sandbox.enabled() == list(host.UNITS)
    service = sandbox.service("lorafleet-serving.service")
    service.start()
    made = Vm(sandbox, site, service, user_data, f"http://127.0.0.1:{port}")
    try:
        wait_until(made.ready, START_TIMEOUT_S, service.text, step_s=0.5)
        yield made
    finally:
        if service.main is not None and service.main.poll() is None:
            service.stop()
        site.close()


def test_it_is_ready_with_both_adapters(vm: Vm) -> None:
    question, wanted = next(iter(questions().items()))
    for model in (BASE, "easycontract", "checklist"):
        answer = vm.ask(model, question, max_tokens=96)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] == wanted["base" if model == BASE else column(model)]
    state = vm.state()
    assert [entry["state"] for entry in state["adapters"]] == ["serving", "serving"]
    assert state["target"] == "server" and state["environment"] == "test"


def test_the_key_is_asked_for_and_no_secret_is_left_about(vm: Vm) -> None:
    assert httpx.get(f"{vm.url}/v1/models", timeout=30).status_code == 401
    config = vm.sandbox.folder / "config"
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in config.iterdir()} == {
        "launch.json": "0o440",
        "container.env": "0o400",
    }
    assert (config / "container.env").read_text() == "HF_TOKEN=a-token-of-the-hub\n"
    for secret in (TOKEN, DIGEST, "a-token-of-the-hub"):
        assert secret not in vm.service.text()
        assert secret not in json.dumps(vm.site.metadata)
        for call in vm.sandbox.calls():
            assert secret not in " ".join(call), "what stands in a command line, everybody on the machine can read"
    assert list((vm.sandbox.folder / "tmp").iterdir()) == [], "the login to the registry is gone"


def test_the_journal_has_the_whole_start(vm: Vm) -> None:
    text = vm.service.text()
    order = ["prepare: on ", "GPU 0", "pulling the image", "configure: launch.json", "starting: ", "fetching: ",
             "launching: ", "loading: ", "probing: ", "ready: "]  # fmt: skip
    places = [text.find(part) for part in order]
    assert -1 not in places and places == sorted(places), text[-6000:]
    assert "vllm" in text.lower()
    [run] = [call for call in vm.sandbox.calls() if call[0] == "run"]
    assert "--log-driver" in run and "-d" not in run, "the container's output is the unit's"
    assert run[-1] == IMAGE


def test_run_again_it_changes_nothing(vm: Vm) -> None:
    assert vm.service.main is not None
    before, calls, pid = vm.files(), vm.sandbox.calls(), vm.service.main.pid
    engine = vm.state()["enginePid"]
    vm.service.run("ExecStartPre")
    assert vm.files() == before, "not even written anew"
    assert [call for call in vm.sandbox.calls()[len(calls) :] if call[0] not in ("image",)] == []
    # The whole document once more, as after `cloud-init clean`.
    vm.sandbox.cloud_init(vm.user_data)
    told = {path: content[:2] for path, content in before.items()}
    assert {path: content[:2] for path, content in vm.files().items()} == told
    assert vm.service.main.poll() is None and vm.service.main.pid == pid
    assert vm.state()["enginePid"] == engine
    assert vm.ready()


def test_requests_in_flight_end_before_a_spot_vm_is_cut_off(vm: Vm) -> None:
    """The last test of this server: it is stopped as systemd stops it at a shutdown."""
    answers: list[httpx.Response] = []
    long = {"max_tokens": 128, "min_tokens": 128, "ignore_eos": True}
    asked = [
        threading.Thread(target=lambda model=model: answers.append(vm.ask(model, "보증금은?", **long)))
        for model in (BASE, "easycontract", "checklist") * 2
    ]
    for thread in asked:
        thread.start()
    in_flight = f"{vm.url}/lorafleet/state"
    wait_until(
        lambda: sum(httpx.get(in_flight, headers=HEADERS, timeout=30).json()["inFlight"].values()) == len(asked), 60
    )
    assert vm.service.main is not None
    pids = [vm.service.main.pid, *children(vm.service.main.pid)]
    began = time.monotonic()
    took = vm.service.stop()
    for thread in asked:
        thread.join(timeout=60)
    assert [answer.status_code for answer in answers] == [200] * len(asked)
    assert {answer.json()["usage"]["completion_tokens"] for answer in answers} == {128}
    print(f"\n{len(asked)} requests in flight, all answered; drained and ended within {took:.1f} s")
    assert took < DRAINED_S < SPOT_S, f"{time.monotonic() - began} s"
    assert vm.service.main.returncode == 0, vm.service.text()[-3000:]
    wait_until(lambda: not alive(pids), 10)
    assert float(vm.service.settings["TimeoutStopSec"]) < SPOT_S
    # And with the machine up again, everything is there already.
    calls = vm.sandbox.calls()
    vm.service.run("ExecStartPre")
    assert [call[0] for call in vm.sandbox.calls()[len(calls) :]] == ["image"], "nothing is pulled again"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_takes_the_units(vm: Vm) -> None:
    for unit in host.UNITS:
        file = vm.sandbox.folder / "units" / unit
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr.strip()) == (0, ""), done.stderr
