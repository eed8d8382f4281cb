"""Modal's cases of `make chaos` (docs/chaos.md)."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from providers.kit.testing import Place
from providers.modal import contract
from tests.support.ports import free_port
from tools.chaos.protocol import MOMENTS, Gate, Moment, Platform, Scenario, Thing
from tools.chaos.scenarios import component, of_contract

from .faults import Fault, Faults, Kind
from .server import FakeModal, serving

# Made by the SDK beside the others, by the clock.
_BY_THE_CLOCK = {"AppHeartbeat"}
# Those with GetOrCreate in their name change something or not, by what they ask for; an environment is only asked for.
_READS = {
    *("ClientHello", "AppGetByDeploymentName", "AppGetLayout", "AppGetTags", "AppList", "ImageJoinStreaming"),
    *("EnvironmentGetOrCreate", "FunctionGet", "FunctionGetSchedulingParams", "SecretList", "VolumeList"),
}
_ID = re.compile(r"\b([a-z]{2})-\d{22}\b")
# The end of a name: the engine's nonce.
_NONCE = re.compile(r"(lf-[0-9a-f]{12}-[a-z0-9-]*?)-?[0-9a-f]{8}\b")
# Of a key that each new target gets.
_KEY = re.compile(r"(apiKeySha256\W+)[0-9a-f]{64}")


# The fault that the stand-in looks for at that moment.
_ASKED_AT: dict[Moment, Kind] = {"before": "reset_before", "after": "reset_after", "answered": "hold_answered"}


class _GatedFaults(Faults):
    """Each call is a moment of the gate's. The stand-in asks for faults at all three."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate
        self._moments: dict[object, Moment] = {}

    def take(self, rpc: str, *kinds: str) -> Fault | None:
        call = asyncio.current_task()
        if "hold_before" in kinds and rpc not in _BY_THE_CLOCK:
            moment = self._gate.reached(rpc, reads=rpc in _READS)
            if moment is not None:
                self._moments[call] = moment
        elif (moment := self._moments.get(call)) is not None and _ASKED_AT[moment] in kinds:
            del self._moments[call]
            self._gate.kill()
            # What breaks the connection; the answer that is out by now is not called back.
            return Fault(rpc, "reset_before")
        return None


@dataclass
class _Platform:
    modal: FakeModal

    @property
    def environment(self) -> Mapping[str, str]:
        return self.modal.environ()

    def things(self) -> Sequence[Thing]:
        cloud = self.modal.cloud
        with cloud.lock:
            apps = [
                Thing(
                    "apps",
                    _comparable(
                        {
                            "name": [each.environment, each.name, each.description, each.state],
                            "tags": each.tags,
                            "servers": {tag: self._live(made) for tag, made in each.function_ids.items()},
                        }
                    ),
                )
                for each in cloud.living()
            ]
            named = [
                Thing(kind, _comparable([*key, each.content]))
                for kind, shelf in (("secrets", cloud.secrets), ("volumes", cloud.volumes))
                for key, each in shelf.items()
                if each.name.startswith("lf-")
            ]
        return apps + named

    def _live(self, function_id: str) -> Any:
        function = self.modal.cloud.functions[function_id]
        overrides = MessageToDict(function.overrides) if function.overrides is not None else None
        return [function.live and MessageToDict(function.live), overrides]

    def complaints(self) -> Sequence[str]:
        return ()

    def save(self) -> Any:
        cloud = self.modal.cloud
        with cloud.lock:
            return copy.deepcopy((cloud.apps, cloud.functions, cloud.secrets, cloud.volumes, cloud.image_ids))

    def restore(self, saved: Any) -> None:
        cloud = self.modal.cloud
        with cloud.lock:
            cloud.apps, cloud.functions, cloud.secrets, cloud.volumes, cloud.image_ids = copy.deepcopy(saved)


def _comparable(thing: Any) -> Any:
    return json.loads(_KEY.sub(r"\1", _NONCE.sub(r"\1", _ID.sub(r"\1", json.dumps(thing)))))


class _Chaos:
    moments = MOMENTS

    def scenarios(self, folder: Path) -> Sequence[Scenario]:
        target = {"kind": "modal", "gpus": ["L4"], "maxContainers": 2, "cacheVolume": True, "proxyAuth": False}
        return [
            *(of_contract(each, Place(folder, free_port)) for each in contract.cases()),
            component("target-modal", target, {"secret": {"engine": {"maxModelLen": 1024}, "maxContainers": 4}}),
        ]

    @contextmanager
    def running(self, folder: Path, gate: Gate) -> Iterator[Platform]:
        # asyncio's warning that who is answered is gone.
        logging.getLogger("asyncio").setLevel(logging.ERROR)
        with serving() as modal:
            modal.cloud.environments.add("other")
            for environment in ("main", "other"):
                for name in ("hub", "more", "registry"):
                    modal.put_secret(environment, name, SERVICE_ACCOUNT_JSON="{}")
                modal.put_secret(environment, "hmac", GOOGLE_ACCESS_KEY_ID="GOOG1E", GOOGLE_ACCESS_KEY_SECRET="secret")
            modal.put_volume("main", "weights")
            modal.faults = _GatedFaults(gate)
            yield _Platform(modal)


CHAOS = _Chaos()
