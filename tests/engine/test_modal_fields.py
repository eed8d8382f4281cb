"""Each field of each resource of Modal, on the real engine: changed, drifted, imported; all resources at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("modal", reason="the package `modal` is not installed")

from providers.kit import fields
from providers.modal.contract import CHANGES, INPUTS
from providers.modal.resources import App, Secret, Volume
from tests.fakes.modal import FakeModal, serving
from tests.fakes.modal.project import ModalProject

APP, SECRET, VOLUME = (f"lorafleet:modal:{each}" for each in ("App", "Secret", "Volume"))
HUB = "hf-secret-0123456789"
_SECRET = {"environment": "main", "name": "lf-a", "values": {"HF_TOKEN": HUB, "OTHER": "other-0123456789"}}
_VOLUME = {"environment": "main", "name": "lf-a"}
_OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    SECRET: (
        _SECRET,
        {"environment": "other", "name": "lf-b", "values": {"HF_TOKEN": "hf-other-0123456789", "OTHER": "o"}},
    ),
    VOLUME: (_VOLUME, {"environment": "other", "name": "lf-b"}),
}
# README.md of providers/modal: everything else changes in place.
REPLACED = {APP: {"environment", "name"}, SECRET: {"environment", "name", "values"}, VOLUME: {"environment", "name"}}

Drift = Callable[[Any], object]


def _first(change: Drift) -> Drift:
    """A change of what runs, not of what is about it."""
    return lambda live: change(live.ranked_functions[0].function)


# What somebody else deploys in place of ours: a change of Modal's definition, by the input that it is seen in.
DRIFTS: dict[str, Drift] = {
    "image": _first(lambda it: setattr(it, "image_id", "im-other")),
    "registrySecret": lambda live: None,  # it stands in the tags, which are not those of ours any more
    "secrets": _first(lambda it: it.secret_ids.append("st-other")),
    "gpus": _first(lambda it: setattr(it.resources.gpu_config, "gpu_type", "H100")),
    "cpu": _first(lambda it: setattr(it.resources, "milli_cpu", 500)),
    "memoryMib": _first(lambda it: setattr(it.resources, "memory_mb", 512)),
    "minContainers": lambda live: setattr(live.autoscaler_settings, "min_containers", 0),
    "maxContainers": lambda live: setattr(live.autoscaler_settings, "max_containers", 50),
    "bufferContainers": lambda live: setattr(live.autoscaler_settings, "buffer_containers", 9),
    "scaledownWindowS": lambda live: setattr(live.autoscaler_settings, "scaledown_window", 9),
    "targetConcurrency": lambda live: setattr(live.autoscaler_settings, "target_concurrency_float", 2.5),
    "maxConcurrency": _first(lambda it: setattr(it, "max_concurrent_inputs", 99)),
    "port": lambda live: setattr(live.http_config, "port", 9),
    "routingRegion": lambda live: live.http_config.proxy_regions.__setitem__(0, "us-west"),
    "computeRegions": _first(lambda it: it.scheduler_placement.regions.append("us-west")),
    "cloud": _first(lambda it: setattr(it, "cloud_provider_str", "aws")),
    "nonpreemptible": _first(lambda it: setattr(it.scheduler_placement, "nonpreemptible", False)),
    "proxyAuth": lambda live: setattr(live.http_config, "unauthenticated", False),
    "startupTimeoutS": lambda live: setattr(live.http_config, "startup_timeout", 30),
    "exitGracePeriodS": lambda live: setattr(live.http_config, "exit_grace_period", 1),
    "gpuSnapshot": _first(lambda it: setattr(it, "checkpointing_enabled", False)),
    "volumes": _first(lambda it: setattr(it.volume_mounts[0], "sub_path", "v9")),
    "buckets": _first(lambda it: setattr(it.cloud_bucket_mounts[0], "key_prefix", "elsewhere/")),
}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[ModalProject]:
    with serving() as modal:
        from providers.modal.contract import furnish

        furnish(modal)
        yield ModalProject(tmp_path / "project", modal)


def resources(changed: bool) -> dict[str, tuple[str, dict[str, Any]]]:
    """One resource for each field, which alone is changed in it: `app-gpus`, `secret-values`, …"""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for field, value in CHANGES.items():
        base = {**INPUTS, "name": f"app-{field}"}
        found[f"app-{field}"] = (APP, {**base, field: value} if changed else base)
    for token, (base, other) in _OTHERS.items():
        kind = token.rsplit(":", 1)[-1].lower()
        for field, value in other.items():
            # Other values need another secret, and that another name: the one that it gets without one.
            own = {**base, "name": "" if field == "values" else f"{base['name']}-{field}"}
            found[f"{kind}-{field}"] = (token, {**own, field: value} if changed else own)
    return found


def field_of(name: str) -> str:
    return name.partition("-")[2]


def test_the_table_has_every_field() -> None:
    for resource, named in ((App, CHANGES), (Secret, _OTHERS[SECRET][1]), (Volume, _OTHERS[VOLUME][1])):
        assert set(fields.by_alias(resource.inputs_model())) == set(named)
    assert set(DRIFTS) | REPLACED[APP] == set(CHANGES)


def drift(modal: FakeModal, declared: dict[str, tuple[str, dict[str, Any]]], state: dict[str, Any]) -> None:
    """Each thing is changed in its one field, or removed where the field is a part of its id."""
    for name, (token, _) in declared.items():
        field, key = field_of(name), tuple(state[name]["id"].split("/"))
        if token == APP:
            app = modal.cloud.deployed(*key)
            assert app is not None
            if field in DRIFTS:
                DRIFTS[field](modal.cloud.deploy_from_elsewhere(app))
            else:
                modal.cloud.stop(app)
        elif field == "values":
            modal.cloud.secrets[key].content.pop("OTHER")
        else:
            (modal.cloud.secrets if token == SECRET else modal.cloud.volumes).pop(key)


def ours(modal: FakeModal) -> list[Any]:
    named = [*modal.cloud.secrets.values(), *modal.cloud.volumes.values()]
    return [*modal.cloud.living(), *(each for each in named if each.name.startswith("lf-"))]


def test_every_field_is_changed_and_its_drift_is_seen_and_mended(project: ModalProject) -> None:
    before, declared, modal = resources(changed=False), resources(changed=True), project.modal
    project.declare(before)
    project.up().ok()
    project.up("--expect-no-changes").ok()
    assert len(ours(modal)) == len(before)

    # Changed: each resource shows its one field, and is updated or replaced as documented.
    project.declare(declared)
    planned = project.planned()
    for name, (token, _) in declared.items():
        step = "replace" if field_of(name) in REPLACED[token] else "update"
        assert planned.pop(name) == (step, {field_of(name)}), name
    assert planned == {}
    project.up().ok()
    assert len(ours(modal)) == len(declared), "what was replaced is still there"
    project.refresh("--expect-no-changes").ok()
    project.up("--expect-no-changes").ok()
    assert HUB not in project.state_text()

    # Drift: a refresh sees each field, the next up mends it.
    state = project.resources()
    drift(modal, declared, state)
    warned = project.refresh().ok().output
    refreshed = project.resources()
    for name, (token, _) in declared.items():
        field = field_of(name)
        gone = field in REPLACED[token] - {"values"}
        assert (name not in refreshed) == gone, name
        if not gone:
            was, now = state[name]["inputs"], refreshed[name]["inputs"]
            assert {key for key in {**was, **now} if was.get(key) != now.get(key)} == {field}, name
            assert field == "values" or f"of the app app-{field} is live, by mallory" in warned
    project.up().ok()
    assert len(ours(modal)) == len(declared)
    project.refresh("--expect-no-changes").ok()
    project.up("--expect-no-changes").ok()

    assert_import(project, declared)
    project.destroy().ok()
    assert ours(modal) == []


def assert_import(project: ModalProject, declared: dict[str, tuple[str, dict[str, Any]]]) -> None:
    """All of it into an empty state, which then is what is declared. Not secrets, whose values Modal does not tell."""
    known, modal = project.resources(), project.modal
    names = [name for name, (token, _) in declared.items() if token != SECRET]
    kept = project.deployment()
    emptied = {**kept, "deployment": {**kept["deployment"], "resources": []}}
    for name, state in (("kept", kept), ("emptied", emptied)):
        (project.folder / f"{name}.json").write_text(json.dumps(state))
    project.run("stack", "import", "--file", "emptied.json").ok()
    secret = project.run(*_IMPORT, SECRET, "secret-values", known["secret-values"]["id"])
    assert secret.code != 0
    assert "can't be imported: Modal does not tell its values" in secret.output
    assert "Traceback" not in secret.output
    wanted = [{"type": declared[name][0], "name": name, "id": known[name]["id"]} for name in names]
    (project.folder / "wanted.json").write_text(json.dumps({"resources": wanted}))
    before = len(modal.cloud.calls)
    project.run(*_IMPORT, "--file", "wanted.json").ok()
    project.declare({name: declared[name] for name in names})
    project.up("--expect-no-changes").ok()
    reading = ("Get", "List", "Hello")
    assert [name for name, _ in modal.cloud.calls[before:] if not any(part in name for part in reading)] == []
    project.run("stack", "import", "--file", "kept.json").ok()
    project.declare(declared)


_IMPORT = ("import", "--yes", "--generate-code=false", "--protect=false", "--skip-preview")
