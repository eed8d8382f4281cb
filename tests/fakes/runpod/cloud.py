"""What there is on the stand-in, and what RunPod does with it."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from . import catalog, endpoints, pods
from .refusal import RefusedError

Thing = dict[str, Any]
# {folder below /v2: key of its list}
LISTS = {
    "serverless": "endpoints",
    "templates": "templates",
    "network-volumes": "networkVolumes",
    "registries": "registries",
    "pods": "pods",
}
_DATA_CENTERS = {"EU-RO-1", "EU-SE-1", "US-KS-2", "US-TX-3"}


@dataclass
class Cloud:
    """One account. All that is public may be looked at and changed by tests: a change behind our back.

    not_found_at_first: so many times, what was just made is not found by its id.
    pod_looks: so many looks at a pod that starts until it is in its next state.
    """

    not_found_at_first: int = 1
    pod_looks: int = 1
    things: dict[str, dict[str, Thing]] = field(default_factory=lambda: {folder: {} for folder in LISTS})
    passwords: dict[str, tuple[str, str]] = field(default_factory=dict)
    gpus: list[Thing] = field(default_factory=catalog.gpus)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _unseen: dict[str, int] = field(default_factory=dict)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    # -- for tests ------------------------------------------------------------------------------------------

    @property
    def endpoints(self) -> dict[str, Thing]:
        return self.things["serverless"]

    @property
    def templates(self) -> dict[str, Thing]:
        return self.things["templates"]

    @property
    def volumes(self) -> dict[str, Thing]:
        return self.things["network-volumes"]

    @property
    def registries(self) -> dict[str, Thing]:
        return self.things["registries"]

    @property
    def pods(self) -> dict[str, Thing]:
        return self.things["pods"]

    def count(self) -> dict[str, int]:
        """How many of each there are."""
        return {folder: len(things) for folder, things in self.things.items() if things}

    def idle_for(self, days: int) -> None:
        """Nobody has asked any endpoint for so many days."""
        with self.lock:
            for endpoint in self.endpoints.values():
                limit = 0 if days >= 7 else 2 if days >= 3 else endpoint["workers"]["max"]
                endpoint["workers"]["max"] = min(endpoint["workers"]["max"], limit)
                endpoint["workers"]["min"] = min(endpoint["workers"]["min"], limit)

    # -- the API --------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, body: Any, *, half: bool = False) -> tuple[int, Any]:
        """Carries a request out, or only a `half` of it: (status, JSON or None). Raises RefusedError."""
        with self.lock:
            folder, _, rest = path.removeprefix("/v2/").partition("/")
            if path == "/v2/catalog/gpus":
                return 200, {"gpus": copy.deepcopy(self.gpus)}
            if folder not in LISTS:
                raise RefusedError(404, "this path is not part of the stand-in")
            if not rest:
                if method == "GET":
                    return 200, {LISTS[folder]: [self._shown(folder, each) for each in self.things[folder].values()]}
                return 201, self._shown(folder, self._create(folder, body, half))
            thing_id, _, action = rest.partition("/")
            thing = self._found(folder, thing_id, method)
            if action == "action":
                pods.act(thing, body["action"])
                return 200, self._shown(folder, thing)
            if method == "GET":
                shown = self._shown(folder, thing)
                if folder == "pods":
                    pods.proceed(thing, self.pod_looks)
                return 200, shown
            if method == "PATCH":
                self._change(folder, thing, body, half)
                return 200, self._shown(folder, thing)
            self._delete(folder, thing, half)
            return 204, None

    def _found(self, folder: str, thing_id: str, method: str) -> Thing:
        thing = self.things[folder].get(thing_id)
        if thing is not None and method in ("GET", "DELETE") and self._unseen.get(thing_id, 0) > 0:
            self._unseen[thing_id] -= 1
            thing = None
        if thing is None:
            raise RefusedError(404, "resource not found")
        return thing

    @staticmethod
    def _shown(folder: str, thing: Thing) -> Thing:
        # What begins with an underscore is RunPod's own.
        shown = {key: copy.deepcopy(value) for key, value in thing.items() if not key.startswith("_")}
        return endpoints.shown(shown) if folder == "serverless" else shown

    def _create(self, folder: str, body: Thing, half: bool) -> Thing:
        makers: dict[str, Callable[[Thing, str], Thing]] = {
            "serverless": lambda asked, new: endpoints.create(asked, new, self.gpus),
            "network-volumes": self._volume,
            "registries": self._registry,
            "pods": lambda asked, new: pods.create(asked, new, self.gpus, self.volumes),
        }
        if folder not in makers:
            raise RefusedError(405, "the stand-in makes none of these")
        self._check_references(body)
        # A half of it: the thing is there, with its name and none of what may be left out.
        needed = {"name", "type", "scaling", "image", "gpu", "size", "dataCenter", "username", "password"}
        asked = {key: value for key, value in body.items() if key in needed} if half else body
        made = makers[folder](asked, f"{folder[:3]}{next(self._ids):05d}")
        if folder in ("serverless", "pods"):
            made["createdAt"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        self.things[folder][made["id"]] = made
        self._unseen[made["id"]] = self.not_found_at_first
        if folder == "serverless":
            template = endpoints.template(made, f"tpl{made['id']}")
            self.templates[template["id"]] = template
            made["_template"] = template["id"]
        return made

    def _check_references(self, body: Thing) -> None:
        registry = body.get("registry")
        if registry is not None and registry not in self.registries:
            raise RefusedError(400, f"registry {registry} does not exist")
        for volume in body.get("networkVolumes", []):
            if volume not in self.volumes:
                raise RefusedError(400, f"network volume {volume} does not exist")
        for place in body.get("dataCenterIds", []):
            if place not in _DATA_CENTERS:
                raise RefusedError(400, f"data center {place} does not exist")

    def _volume(self, body: Thing, new: str) -> Thing:
        if body["dataCenter"] not in _DATA_CENTERS:
            raise RefusedError(400, f"data center {body['dataCenter']} does not exist")
        return {"type": "STANDARD", **body, "id": new}

    def _registry(self, body: Thing, new: str) -> Thing:
        self.passwords[new] = (body["username"], body["password"])
        return {"id": new, "name": body["name"]}

    def _change(self, folder: str, thing: Thing, body: Thing, half: bool) -> None:
        if half:
            body = dict(itertools.islice(body.items(), len(body) // 2))
        self._check_references(body)
        if folder == "serverless":
            endpoints.change(thing, body, self.gpus)
        elif folder == "pods":
            pods.change(thing, body)
        elif folder == "network-volumes":
            if body.get("size", thing["size"]) < thing["size"]:
                raise RefusedError(400, "network volume size cannot be reduced")
            thing.update(body)
        else:
            raise RefusedError(405, "these cannot be changed")

    def _delete(self, folder: str, thing: Thing, half: bool) -> None:
        if folder == "registries":
            if any(pod["registry"] == thing["id"] for pod in self.pods.values()):
                raise RefusedError(400, "registry is in use by a pod")
            for each in (*self.endpoints.values(), *self.templates.values()):
                if each["registry"] == thing["id"]:
                    each["registry"] = None
        if folder == "serverless" and not half:
            self.templates.pop(thing["_template"], None)
        if folder == "pods" and thing["locked"]:
            raise RefusedError(409, "pod is locked")
        del self.things[folder][thing["id"]]
