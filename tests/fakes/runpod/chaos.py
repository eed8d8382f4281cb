"""RunPod's cases of `make chaos` (docs/chaos.md)."""

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
from providers.runpod import contract, http
from tests.support.ports import free_port
from tools.chaos.protocol import MOMENTS, Gate, Moment, Platform, Scenario, Thing
from tools.chaos.scenarios import component, of_contract

from .faults import Fault, Faults, Kind
from .server import Fake, running

_TOKEN = "rpa_a-token-for-the-stand-in"
_FAULTS: dict[Moment, Kind] = {"before": "call before", "after": "call after", "answered": "call answered"}
# What RunPod numbers or dates by itself; what begins with an underscore is the stand-in's own.
_OF_A_RUN = {"id", "createdAt", "requestUrls"}
_ID = re.compile(r"(ser|tem|net|reg|pod)\d{5}\b")
# The end of a name: the engine's nonce, then the mark of the resource.
_NONCE = re.compile(r"-[0-9a-f]{8}(?=-lf[0-9a-f]{12})")
# Of a key that each new target gets.
_KEY = re.compile(r"(apiKeySha256\W+)[0-9a-f]{64}")
# RunPod takes either a floor or a set of CUDA versions, and does not stop what is locked; a schedule goes by the clock.
_NOT_WITH_OTHERS = ("allowedCudaVersions", "running", "locked", "schedule", "scheduleDays")
_MORE = {"runpod.Pod": {"stopped": ("running",), "locked": ("locked",)}}


class _GatedFaults(Faults):
    """Each call is a moment of the gate's."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    def next(self, method: str, path: str) -> Fault | None:
        moment = self._gate.reached(f"{method} {_ID.sub('{id}', path)}", reads=method == "GET")
        if moment is None:
            return None

        def hook() -> None:
            self._gate.kill()
            if moment != "answered":
                raise ConnectionAbortedError("who asked was killed")

        return Fault(_FAULTS[moment], method, hook=hook)


@dataclass
class _Platform:
    fake: Fake

    @property
    def environment(self) -> Mapping[str, str]:
        return {http.URL_VARIABLE: self.fake.url, http.TOKEN_VARIABLE: _TOKEN}

    def things(self) -> Sequence[Thing]:
        cloud = self.fake.cloud
        with cloud.lock:
            return [
                Thing(folder, _comparable({**thing, "password": cloud.passwords.get(thing["id"])}))
                for folder, things in cloud.things.items()
                for thing in things.values()
            ]

    def complaints(self) -> Sequence[str]:
        return self.fake.violations

    def save(self) -> Any:
        cloud = self.fake.cloud
        with cloud.lock:
            return copy.deepcopy((cloud.things, cloud.passwords, cloud._unseen))

    def restore(self, saved: Any) -> None:
        cloud = self.fake.cloud
        with cloud.lock:
            cloud.things, cloud.passwords, cloud._unseen = copy.deepcopy(saved)


def _comparable(thing: Mapping[str, Any]) -> Any:
    text = json.dumps({key: value for key, value in thing.items() if key not in _OF_A_RUN and key[0] != "_"})
    return json.loads(_KEY.sub(r"\1", _NONCE.sub("", _ID.sub(r"\1", text))))


class _Chaos:
    moments = MOMENTS

    def scenarios(self, folder: Path) -> Sequence[Scenario]:
        return [
            *(
                of_contract(each, Place(folder, free_port), without=_NOT_WITH_OTHERS, more=_MORE.get(str(each)))
                for each in contract.cases()
            ),
            component(
                "target-runpod",
                {"kind": "runpod", "gpus": ["L4"]},
                {"in-place": {"workersMax": 3}},
                settings={"runpodKey": "rpa_a-key-for-requests"},
            ),
            component(
                "target-runpod-queue",
                {"kind": "runpod-queue", "gpus": ["L4"], "image": f"registry.example.com/worker@sha256:{'2' * 64}"},
                {"in-place": {"requestsPerWorker": 8}},
                settings={"runpodKey": "rpa_a-key-for-requests"},
            ),
            component(
                "target-runpod-pod",
                {"kind": "runpod-pod", "gpu": "L4", "volumeGb": 50, "dataCenters": ["EU-RO-1"]},
            ),
        ]

    @contextmanager
    def running(self, folder: Path, gate: Gate) -> Iterator[Platform]:
        with running(free_port(), _TOKEN) as fake:
            fake.faults = _GatedFaults(gate)
            yield _Platform(fake)


CHAOS = _Chaos()
