"""The router of a stack: where its targets' endpoints become what `handlers/router` is given (docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pulumi

from lorafleet.plan import Plan
from providers.access.resources import ApiKey
from providers.kit.endpoint import Endpoint, Target
from providers.kit.program import Declared, declare

# Where the image `router` may write (docs/images.md).
_RUN = "/run/lorafleet"


class Router(Protocol):
    """A component that stands for the one address. outputs: what the stack says of it, by name; secrets are secret."""

    outputs: Mapping[str, pulumi.Output[Any]]


def client_key(name: str, inside: pulumi.ResourceOptions) -> Declared:
    """What clients present: the stack's secret `apiKey`, or else one that is made once."""
    return declare(ApiKey, f"{name}-key", {"value": pulumi.Config().get_secret("apiKey")}, inside)


def routed(endpoint: Endpoint) -> dict[str, object]:
    """An endpoint as `lorafleet:local:RouterProcess` takes it, its secrets with it."""
    return {
        "name": endpoint.name,
        "kind": endpoint.kind,
        "url": endpoint.url,
        "models": list(endpoint.models),
        "healthPath": endpoint.health_path,
        "statusPath": endpoint.status_path,
        "paths": {"whole": endpoint.paths[0], "stream": endpoint.paths[1]} if endpoint.paths else None,
        "token": endpoint.token,
        "maxInFlight": endpoint.max_in_flight,
        "maxQueue": endpoint.max_queue,
        "key": endpoint.key,
        "headers": dict(endpoint.headers) or None,
    }


class RouterElsewhere(pulumi.ComponentResource):
    """The router as somebody else runs it: the image `router`, with what the stack's outputs hold.

    outputs: `routerFile` for its LORAFLEET_CONFIG, `targetKeys` (secret) for its LORAFLEET_TARGET_KEYS, and `apiKey`
    (secret), which clients present.
    """

    outputs: Mapping[str, pulumi.Output[Any]]

    def __init__(
        self, name: str, fleet: Plan, targets: Sequence[Target], opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("lorafleet:index:Router", name, None, opts)
        key = client_key(name, pulumi.ResourceOptions(parent=self))
        endpoints = [each.endpoint for each in targets]
        keys = {
            each.name: {"key": each.key, "headers": dict(each.headers)}
            for each in endpoints
            if each.key is not None or each.headers
        }
        self.outputs = {
            "routerFile": pulumi.Output.json_dumps(_router_file(fleet, endpoints, key)),
            "targetKeys": pulumi.Output.secret(pulumi.Output.json_dumps(keys)),
            "apiKey": pulumi.Output.secret(key.key),
        }
        self.register_outputs(dict(self.outputs))


def _router_file(fleet: Plan, endpoints: Sequence[Endpoint], key: Declared) -> dict[str, Any]:
    apart = ("key", "headers")  # these go to the keys file
    targets = [{name: value for name, value in routed(each).items() if name not in apart} for each in endpoints]
    return {
        "version": 1,
        "listen": {"host": "0.0.0.0", "port": fleet.router.port},
        "metrics": {"host": "127.0.0.1", "port": fleet.router.metrics_port},
        "clientKeysSha256": [key.sha256],
        "baseModel": fleet.base.name,
        "models": fleet.router_models(),
        "targets": targets,
        "keysFile": f"{_RUN}/keys.json",
        "limits": fleet.router.limits.model_dump(mode="json", by_alias=True),
        "runDir": f"{_RUN}/haproxy",
        "stateFile": f"{_RUN}/router-state.json",
    }
