"""Vertex AI's cases of `make chaos` (docs/chaos.md)."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from providers.kit.testing import Place
from providers.vertex import contract, credentials, http
from tests.fakes.runpod.faults import Fault, Faults, Kind
from tests.support.ports import free_port
from tools.chaos.protocol import MOMENTS, Gate, Moment, Platform, Scenario, Thing
from tools.chaos.scenarios import component, of_contract

from .server import Fake, running

_TOKEN = "ya29.a-token-for-the-stand-in"
_FAULTS: dict[Moment, Kind] = {"before": "call before", "after": "call after", "answered": "call answered"}
# What Vertex AI dates, or numbers by what there was before.
_OF_A_RUN = {"createTime", "versionCreateTime", "dedicatedEndpointDns"}
_NUMBER = re.compile(r"operations/\d+")
# The nonce of an id, and the engine's in a name, before the mark of the resource or at the end.
_NONCE = re.compile(r"(?<=lf[0-9a-f]{12})-[0-9a-f]{8}|-[0-9a-f]{8}(?=-lf[0-9a-f]{12}|\")")
_IMAGES = "europe-west4-docker.pkg.dev/p-tests/images/vertex@sha256"
_RELEASE = {
    "image": f"{_IMAGES}:{'0' * 64}",
    "baseModel": {"revision": "e" * 40},
    "adapters": {"easycontract": f"sha256:{'1' * 64}"},
}
_TARGET = {
    "kind": "vertex",
    "image": f"{_IMAGES}:{'0' * 64}",
    "project": "p-tests",
    "region": "europe-west4",
    "machine": "g2-standard-8",
}


class _GatedFaults(Faults):
    """Each call is a moment of the gate's."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    def next(self, method: str, path: str) -> Fault | None:
        name = _NONCE.sub("", f'{method} {_NUMBER.sub("operations/{id}", path)}"').rstrip('"')
        moment = self._gate.reached(name, reads=method == "GET")
        if moment is None:
            return None

        def hook() -> None:
            self._gate.kill()
            if moment != "answered":
                raise ConnectionAbortedError("who asked was killed")

        return Fault(_FAULTS[moment], method, hook=hook)


@dataclass
class _Platform:
    """given: names of what was there before."""

    fake: Fake
    given: frozenset[str]

    @property
    def environment(self) -> Mapping[str, str]:
        return {http.URL_VARIABLE: self.fake.url, credentials.TOKEN_VARIABLE: _TOKEN}

    def things(self) -> Sequence[Thing]:
        cloud = self.fake.cloud
        with cloud.lock:
            cloud.operations.finish()
            names = {each["id"]: each["displayName"] for each in cloud.deployed()}
            found = [Thing("models", _comparable(each)) for each in self._models()]
            for name, endpoint in cloud.endpoints.items():
                apart = {key: value for key, value in endpoint.items() if key not in ("deployedModels", "trafficSplit")}
                if name not in self.given:
                    found.append(Thing("endpoints", _comparable(apart)))
                split = {names[each]: share for each, share in endpoint["trafficSplit"].items()}
                if split:
                    found.append(Thing("traffic", _comparable({"of": name, "split": split})))
                found += [
                    Thing("deployed", _comparable({"on": name, **each, "id": ""}))
                    for each in endpoint["deployedModels"]
                    if each["displayName"] != "given"
                ]
            return found

    def _models(self) -> list[dict[str, Any]]:
        """Models with the version that counts: a former one is kept for a way back."""
        models = [versions for name, versions in self.fake.cloud.models.items() if name not in self.given]
        return [each for versions in models for each in versions.values() if "default" in each["versionAliases"]]

    def complaints(self) -> Sequence[str]:
        return self.fake.violations

    def save(self) -> Any:
        cloud = self.fake.cloud
        with cloud.lock:
            cloud.operations.finish()
            return copy.deepcopy((cloud.models, cloud.endpoints))

    def restore(self, saved: Any) -> None:
        cloud = self.fake.cloud
        with cloud.lock:
            cloud.reset()
            models, endpoints = copy.deepcopy(saved)
            cloud.models.update(models)
            cloud.endpoints.update(endpoints)


def _comparable(thing: Mapping[str, Any]) -> Any:
    """Without times and nonces."""
    kept = {key: value for key, value in thing.items() if key not in _OF_A_RUN}
    if "versionAliases" in kept:
        kept["versionAliases"] = sorted(kept["versionAliases"])
    return json.loads(_NONCE.sub("", json.dumps(kept, sort_keys=True)))


class _Chaos:
    moments = MOMENTS

    def scenarios(self, folder: Path) -> Sequence[Scenario]:
        changes: dict[str, dict[str, Any]] = {
            "in-place": {"replicasMax": 3},
            "canary": {"canary": {"image": f"{_IMAGES}:{'1' * 64}", "percent": 10}},
            "replaced": {"machine": "g2-standard-4"},
        }
        return [
            *(of_contract(each, Place(folder, free_port)) for each in contract.cases()),
            component("target-vertex", _TARGET, changes, release=_RELEASE),
        ]

    @contextmanager
    def running(self, folder: Path, gate: Gate) -> Iterator[Platform]:
        with running(free_port(), _TOKEN) as fake:
            contract.furnish(fake)
            fake.faults = _GatedFaults(gate)
            yield _Platform(fake, frozenset([*fake.cloud.models, *fake.cloud.endpoints]))


CHAOS = _Chaos()
