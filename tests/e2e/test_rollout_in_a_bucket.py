"""Releases of the local stack with its store in a bucket (the real fake-gcs-server): real engine, vLLM and HAProxy.

Whatever is wrong with a release, the old one goes on answering, and the reason stands in three places: what the server
says of itself, the router's metrics, and what `pulumi up` ends with.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from providers.artifacts import layout
from providers.artifacts.store import Store, open_store
from tests.e2e.gcs_kit import Gcs
from tests.e2e.launcher_kit import needs_serving
from tests.support.stack_project import ROOT, StackProject, wait_for
from tests.support.stored import store_adapter

pytestmark = needs_serving
NAMES = ("easycontract", "checklist")
BUCKET = "releases"
QUESTION = "보증금은 언제 돌려받나요?"
ANSWERS: dict[str, str] = json.loads((ROOT / "demo" / "questions.json").read_text())["questions"][QUESTION]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gcs]:
    made = Gcs(tmp_path_factory.mktemp("bucket"), BUCKET)
    made.start()
    former = os.environ.get("STORAGE_EMULATOR_HOST")
    os.environ["STORAGE_EMULATOR_HOST"] = made.url
    try:
        yield made
    finally:
        os.environ.pop("STORAGE_EMULATOR_HOST")
        if former is not None:
            os.environ["STORAGE_EMULATOR_HOST"] = former
        made.stop()


@pytest.fixture(scope="module")
def store(bucket: Gcs) -> Store:
    return open_store(f"gs://{BUCKET}")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, bucket: Gcs, store: Store) -> Iterator[StackProject]:
    made = StackProject(tmp_path_factory.mktemp("stack") / "project", real=True)
    for (_, name), digest in made.digests.items():
        put(store, name, digest, made.store / layout.adapter(name, digest))
    made.change(lambda fleet: fleet.update(store=f"gs://{BUCKET}", rollout={"timeoutS": 60}))
    try:
        made.up().ok()
        yield made
    finally:
        made.kill_everything()


@pytest.fixture
def key(project: StackProject) -> str:
    return str(project.output("apiKey"))


def put(store: Store, name: str, digest: str, folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        store.write(f"{layout.adapter(name, digest)}/{file.name}", file.read_bytes())


def release(project: StackProject, **pins: str) -> None:
    project.change(lambda fleet: fleet["release"]["adapters"].update(pins))


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


def ask(project: StackProject, key: str, model: str) -> tuple[str, str]:
    """(text, digest in the header)"""
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 128}
    request = urllib.request.Request(
        f"http://127.0.0.1:{project.ports['router']}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = json.loads(answer.read())["choices"][0]["message"]["content"]
        return text, answer.headers["x-lorafleet-adapter"].partition("@")[2]


def assert_serves(project: StackProject, key: str, version: str) -> None:
    suffix = "-v2" if version == "adapters-v2" else ""
    for name in NAMES:
        assert ask(project, key, name) == (ANSWERS[f"{name}{suffix}"], project.digests[version, name])


def own_status(project: StackProject) -> dict[str, Any]:
    """What the server says of itself."""
    [file] = (project.state_dir / "run").glob("server-*/state.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def metrics(project: StackProject) -> str:
    return get(f"http://127.0.0.1:{project.ports['metrics']}/metrics/fleet")


def garbage(project: StackProject, store: Store, folder: Path) -> str:
    """Weights of noise: the files and their digest are in order, it loads, and says nothing that makes sense."""
    import numpy

    source = ROOT / "demo" / "adapters" / "easycontract"
    folder.mkdir()
    raw = bytearray((source / "adapter_model.safetensors").read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    weights = numpy.random.default_rng(7).normal(0, 1, (len(raw) - start) // 4)
    (folder / "adapter_model.safetensors").write_bytes(bytes(raw[:start]) + weights.astype("<f4").tobytes())
    (folder / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    digest = store_adapter(folder.parent / "side", "easycontract", folder)
    put(store, "easycontract", digest, folder.parent / "side" / layout.adapter("easycontract", digest))
    return digest


def truncated(project: StackProject, store: Store, folder: Path) -> str:
    """The object was cut off after its push."""
    digest = f"sha256:{'a' * 64}"
    put(
        store,
        "easycontract",
        digest,
        project.store / layout.adapter("easycontract", project.digests["adapters", "easycontract"]),
    )
    path = f"{layout.adapter('easycontract', digest)}/adapter_model.safetensors"
    blob = store.read(path)
    assert blob is not None
    store.write(path, blob.data[:1000])
    return digest


def another_content(project: StackProject, store: Store, folder: Path) -> str:
    """A good adapter under a digest that is not its own."""
    digest = f"sha256:{'b' * 64}"
    put(
        store,
        "easycontract",
        digest,
        project.store / layout.adapter("easycontract", project.digests["adapters", "easycontract"]),
    )
    return digest


def test_a_release_from_a_bucket(project: StackProject, key: str) -> None:
    assert_serves(project, key, "adapters")
    release(project, **{name: project.digests["adapters-v2", name] for name in NAMES})
    project.up().ok()
    assert_serves(project, key, "adapters-v2")
    project.up("--expect-no-changes").ok()
    project.refresh("--expect-no-changes").ok()


@pytest.mark.parametrize(
    ("bad", "reason", "words"),
    [
        (garbage, "probe_failed", "easycontract"),
        (truncated, "digest_differs", "easycontract"),
        (another_content, "digest_differs", "easycontract"),
    ],
)
def test_a_bad_adapter_does_not_replace_a_good_one(
    project: StackProject,
    store: Store,
    key: str,
    tmp_path: Path,
    bad: Callable[[StackProject, Store, Path], str],
    reason: str,
    words: str,
) -> None:
    digest = bad(project, store, tmp_path / "bad")
    version = "adapters-v2" if ask(project, key, "checklist")[0] == ANSWERS["checklist-v2"] else "adapters"
    other = "adapters" if version == "adapters-v2" else "adapters-v2"
    # The good half of a release waits for the bad one: a release is served whole or not at all.
    release(project, easycontract=digest, checklist=project.digests[other, "checklist"])
    ended = project.up()
    assert ended.code != 0
    assert_serves(project, key, version)

    said = own_status(project)
    [adapter] = [each for each in said["adapters"] if each["name"] == "easycontract"]
    assert adapter["state"] == "failed"
    assert adapter["error"]["reason"] == reason
    assert adapter["wanted"] == digest
    assert adapter["digest"] == project.digests[version, "easycontract"]
    assert words in adapter["error"]["what"]
    assert " ".join(adapter["error"]["what"].split())[:100] in " ".join(ended.output.split())
    assert "server/0" in ended.output

    wait_for(lambda: f'reason="{reason}"' in metrics(project), 30, "the router's metrics")
    assert 'lorafleet_adapter_healthy{adapter="easycontract",target="server"} 0' in metrics(project).replace(
        '{target="server",adapter="easycontract"}', '{adapter="easycontract",target="server"}'
    )

    release(project, **{name: project.digests[version, name] for name in NAMES})
    project.up().ok()
    assert_serves(project, key, version)
    assert all(each["error"] is None for each in own_status(project)["adapters"])


def test_what_was_put_right_is_served_by_the_next_up(project: StackProject, store: Store, key: str) -> None:
    version = "adapters-v2" if ask(project, key, "checklist")[0] == ANSWERS["checklist-v2"] else "adapters"
    other = "adapters" if version == "adapters-v2" else "adapters-v2"
    path = f"{layout.adapter('checklist', project.digests[other, 'checklist'])}/adapter_model.safetensors"
    blob = store.read(path)
    assert blob is not None
    # The server has a copy of this version since an earlier release: it is looked for in the store again.
    for copy in (project.state_dir / "run").glob(f"server-*/cache/*{project.digests[other, 'checklist'][7:]}*"):
        shutil.rmtree(copy)
    store.write(path, blob.data[:2000])
    release(project, **{name: project.digests[other, name] for name in NAMES})
    assert project.up().code != 0
    assert_serves(project, key, version)
    store.write(path, blob.data)
    project.up().ok()
    assert_serves(project, key, other)


def test_a_manifest_that_is_none(project: StackProject, store: Store, key: str) -> None:
    version = "adapters-v2" if ask(project, key, "checklist")[0] == ANSWERS["checklist-v2"] else "adapters"
    store.write("manifests/local.json", b'{"version": 1, "adapters": "what"}')
    wait_for(lambda: own_status(project)["manifest"]["state"] == "refused", 60, "the server to look")
    assert own_status(project)["manifest"]["error"]["reason"] == "manifest_invalid"
    assert_serves(project, key, version)
    wait_for(lambda: 'reason="manifest_invalid"' in metrics(project), 30, "the router's metrics")
    assert "is not a manifest any more" in project.refresh().ok().output
    project.up().ok()
    assert own_status(project)["manifest"]["state"] == "serving"
    assert_serves(project, key, version)


def test_a_bucket_that_is_away_for_a_while(project: StackProject, bucket: Gcs, key: str) -> None:
    version = "adapters-v2" if ask(project, key, "checklist")[0] == ANSWERS["checklist-v2"] else "adapters"
    other = "adapters" if version == "adapters-v2" else "adapters-v2"
    bucket.stop()
    try:
        wait_for(lambda: own_status(project)["manifest"]["state"] == "unreachable", 120, "the server to notice")
        assert own_status(project)["manifest"]["error"]["reason"] == "manifest_unreachable"
        assert_serves(project, key, version)
        wait_for(lambda: 'reason="manifest_unreachable"' in metrics(project), 30, "the router's metrics")
        release(project, **{name: project.digests[other, name] for name in NAMES})
        began = time.monotonic()
        ended = project.up()
        assert ended.code != 0
        assert f"gs://{BUCKET}" in ended.output
        assert "Traceback" not in ended.output
        assert time.monotonic() - began < 250
        assert_serves(project, key, version)
    finally:
        bucket.start()
    project.up().ok()
    assert_serves(project, key, other)
    assert own_status(project)["manifest"]["state"] == "serving"
