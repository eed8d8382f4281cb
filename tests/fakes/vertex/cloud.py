"""What there is on the stand-in, and how requests find their way to it."""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import endpoints, models
from .operations import Operations
from .refusal import RefusedError

Thing = dict[str, Any]
PROJECT, NUMBER = "p-tests", "123456789012"
LOCATIONS = {"europe-west4", "us-central1"}
_EMPTY: tuple[Any, ...] = (None, "", 0, False, [], {})
_KEY = re.compile(r"/(v1|v1beta1)/(projects/[^/]+/locations/[^/:]+)(?:/([^:]+?))?(?::(\w+))?$")


def _no_container(route: str, body: bytes) -> tuple[int, Any]:
    return 200, {"route": route, "body": json.loads(body or b"null")}


@dataclass
class Cloud:
    """One project. All that is public may be looked at and changed by tests: a change behind our back.

    models: {name: {version number: version}}; endpoints: {name: endpoint}. Names have the project's id.
    not_found_at_first: so many times, what was just made is not found.
    lists_operations: whether operations are listed; the API's description leaves that open.
    quota: so many replicas may run; container: what a deployed container answers to (route, body).
    """

    not_found_at_first: int = 1
    lists_operations: bool = True
    quota: int = 100
    container: Callable[[str, bytes], tuple[int, Any]] = _no_container
    models: dict[str, dict[str, Thing]] = field(default_factory=dict)
    endpoints: dict[str, Thing] = field(default_factory=dict)
    operations: Operations = field(default_factory=Operations)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _unseen: dict[str, int] = field(default_factory=dict)

    # -- for tests ------------------------------------------------------------------------------------------

    def count(self) -> dict[str, int]:
        """How many of each there are, once what is under way has ended."""
        with self.lock:
            self.operations.finish()
            deployed = [each for endpoint in self.endpoints.values() for each in endpoint["deployedModels"]]
            found = {"models": len(self.models), "endpoints": len(self.endpoints), "deployed": len(deployed)}
            return {key: value for key, value in found.items() if value}

    def deployed(self) -> list[Thing]:
        return [each for endpoint in self.endpoints.values() for each in endpoint["deployedModels"]]

    def reset(self) -> None:
        """An empty project again."""
        with self.lock:
            self.models.clear()
            self.endpoints.clear()
            self.operations.clear()
            self._unseen.clear()

    # -- the API --------------------------------------------------------------------------------------------

    def answer(
        self, method: str, path: str, query: dict[str, str], raw: bytes, *, half: bool = False
    ) -> tuple[int, Any]:
        """Carries a request out, or only a `half` of it: (status, JSON). Raises RefusedError."""
        match = _KEY.fullmatch(path)
        if match is None:
            raise RefusedError("NOT_FOUND", "this path is not part of the stand-in")
        version, parent, rest, verb = match[1], self._own(match[2]), match[3] or "", match[4] or ""
        with self.lock:
            if verb in ("predict", "rawPredict", "streamRawPredict") or "/invoke/" in rest:
                route = self._route(f"{parent}/{rest}", verb)
                reply = None
            else:
                body = json.loads(raw) if raw else None
                reply = self._managed(version, method, parent, rest, verb, query, body, half)
        # A container takes its time, and others may go on meanwhile.
        return self.container(route, raw) if reply is None else (200, reply)

    def _own(self, parent: str) -> str:
        _, project, _, location = parent.split("/")
        if project not in (PROJECT, NUMBER):
            raise RefusedError("PERMISSION_DENIED", f"Permission denied on project {project} (or it may not exist)")
        if location not in LOCATIONS:
            raise RefusedError("INVALID_ARGUMENT", f"List of found errors: location {location} is not served here")
        return f"projects/{PROJECT}/locations/{location}"

    def _managed(
        self, version: str, method: str, parent: str, rest: str, verb: str, query: dict[str, str], body: Any, half: bool
    ) -> Any:
        if rest == "operations" or rest.endswith("/operations"):
            if not self.lists_operations:
                raise RefusedError("UNIMPLEMENTED", "Operation is not implemented, or supported, or enabled.")
            below = f"{parent}/{rest.removesuffix('operations')}"
            return _page("operations", self.operations.listed(below), query, self._shown)
        if "operations/" in rest:
            return self._shown(self.operations.proceed(f"{parent}/{rest}"))
        folder, _, thing = rest.partition("/")
        name = f"{parent}/{rest}"
        if folder == "models":
            return self._models(method, parent, name, thing, verb, query, body, half)
        if folder == "endpoints":
            return self._endpoints(version, method, parent, name, thing, verb, query, body, half)
        raise RefusedError("NOT_FOUND", "this path is not part of the stand-in")

    def _models(
        self, method: str, parent: str, name: str, thing: str, verb: str, query: dict[str, str], body: Any, half: bool
    ) -> Any:
        if verb == "upload":
            return self._shown(models.upload(self, parent, body, half))
        if not thing:
            each = [models.default_version(versions) for key, versions in self.models.items() if key.startswith(parent)]
            return _page("models", each, query, self._shown)
        if verb == "listVersions":
            self._seen(name)
            return _page("models", list(self._versions(name).values()), query, self._shown)
        if verb == "mergeVersionAliases":
            return self._shown(models.merge_aliases(self, name, body["versionAliases"]))
        if method == "GET":
            self._seen(name.partition("@")[0])
            return self._shown(models.version(self, name))
        if method == "PATCH":
            return self._shown(models.change(self, name, body, _mask(query), half))
        return self._shown(models.delete(self, name))

    def _endpoints(
        self,
        version: str,
        method: str,
        parent: str,
        name: str,
        thing: str,
        verb: str,
        query: dict[str, str],
        body: Any,
        half: bool,
    ) -> Any:
        if not thing and method == "POST":
            return self._shown(endpoints.create(self, parent, query.get("endpointId", ""), body, half))
        if not thing:
            each = [endpoint for key, endpoint in self.endpoints.items() if key.startswith(parent)]
            return _page("endpoints", each, query, lambda endpoint: self._shown(endpoints.shown(endpoint, version)))
        if name not in self.endpoints:
            raise RefusedError("NOT_FOUND", f"The Endpoint {name} does not exist.")
        endpoint = self.endpoints[name]
        if method == "GET":
            self._seen(name)
            return self._shown(endpoints.shown(endpoint, version))
        if method == "PATCH":
            return self._shown(endpoints.shown(endpoints.change(endpoint, body, _mask(query), half), version))
        if method == "DELETE":
            return self._shown(endpoints.delete(self, endpoint))
        verbs: dict[str, Callable[[], Thing]] = {
            "update": lambda: endpoints.change_connection(self, endpoint, body["endpoint"]),
            "deployModel": lambda: endpoints.deploy(self, endpoint, body, version),
            "undeployModel": lambda: endpoints.undeploy(self, endpoint, body),
            "mutateDeployedModel": lambda: endpoints.mutate(self, endpoint, body, version),
        }
        if verb not in verbs:
            raise RefusedError("NOT_FOUND", "this path is not part of the stand-in")
        return self._shown(verbs[verb]())

    def made(self, name: str) -> None:
        """From now on it is there, though not seen at once."""
        self._unseen[name] = self.not_found_at_first

    def _seen(self, name: str) -> None:
        if self._unseen.get(name, 0) > 0:
            self._unseen[name] -= 1
            raise RefusedError("NOT_FOUND", f"{name} is not found.")

    def _versions(self, name: str) -> dict[str, Thing]:
        if name not in self.models:
            raise RefusedError("NOT_FOUND", f"The Model {name} does not exist.")
        return self.models[name]

    def _route(self, name: str, verb: str) -> str:
        """The container's path that a request for an answer goes to."""
        name, _, asked = name.partition("/invoke/")
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            raise RefusedError("NOT_FOUND", f"The Endpoint {name} does not exist.")
        serving = [each for each in endpoint["deployedModels"] if endpoint["trafficSplit"].get(each["id"])]
        if not serving:
            raise RefusedError("FAILED_PRECONDITION", "The endpoint has no deployed model with traffic.")
        spec = models.version(self, f"{serving[0]['model']}@{serving[0]['modelVersionId']}")["containerSpec"]
        if bool(spec.get("invokeRoutePrefix")) != (verb == ""):
            raise RefusedError("INVALID_ARGUMENT", "The model is not served by this route.")
        return f"/{asked}" if asked else str(spec["predictRoute"])

    def _shown(self, thing: Thing) -> Thing:
        """As proto3 answers: without what is empty, and with the project's number."""
        text = json.dumps(_without_empty(copy.deepcopy(thing)))
        shown: Thing = json.loads(text.replace(f"projects/{PROJECT}/", f"projects/{NUMBER}/"))
        return shown


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: _without_empty(item) for key, item in value.items()}
        # An operation's answer may be empty, and that it is there says something.
        return {
            key: item for key, item in kept.items() if key == "response" or item not in (None, "", 0, False, [], {})
        }
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    return value


def _page(key: str, found: list[Thing], query: dict[str, str], shown: Callable[[Thing], Thing]) -> Thing:
    begin, size = int(query.get("pageToken") or 0), int(query.get("pageSize") or 100)
    page: Thing = {key: [shown(each) for each in found[begin : begin + size]]}
    if begin + size < len(found):
        page["nextPageToken"] = str(begin + size)
    return page


def _mask(query: dict[str, str]) -> list[str]:
    mask = query.get("updateMask", "")
    if not mask:
        raise RefusedError("INVALID_ARGUMENT", "update_mask is required")
    return mask.split(",")
