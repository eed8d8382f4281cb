"""The components that a stack declares: a server, and the router in front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

from lorafleet.plan import Plan
from providers.access.resources import ApiKey
from providers.kit.endpoint import Endpoint, Target
from providers.kit.program import Declared, declare, without_none
from providers.routing import client_key, routed
from providers.stack import target as planned_target

from .resources import ModelServer, RouterProcess
from .spec import DEFAULT_STATE_FOLDER, LocalTarget


class Server(pulumi.ComponentResource):
    """The target called `name` of the fleet: vLLM as a process on this machine.

    manifest: says what it serves; a change of it needs no restart.
    endpoint: what the router needs to send requests to it.
    """

    endpoint: Endpoint

    def __init__(self, name: str, fleet: Plan, manifest: Declared, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("lorafleet:local:Server", name, None, opts)
        planned = planned_target(fleet, name, "local")
        spec = planned.spec
        assert isinstance(spec, LocalTarget)  # its kind is "local"
        inside = pulumi.ResourceOptions(parent=self)
        key = declare(ApiKey, f"{name}-key", {}, inside)
        process = declare(
            ModelServer,
            name,
            {
                "state_dir": str(spec.state_path(fleet.root, fleet.environment)),
                "python": str(spec.python_path(fleet.root)),
                "host": spec.host,
                "port": spec.port,
                "store": fleet.store,
                "environment": fleet.environment,
                "target": name,
                "base_model": without_none(fleet.base_model()),
                "engine": planned.engine.model_dump(mode="json", by_alias=True),
                "api_key_sha256": [key.sha256],
                "start_timeout_s": spec.start_timeout_s,
                "drain_timeout_s": spec.drain_timeout_s,
            },
            pulumi.ResourceOptions(parent=self, depends_on=[manifest]),
        )
        self.endpoint = Endpoint(
            name=name,
            kind=planned.kind,
            url=process.url,
            key=key.key,
            models=planned.models,
            served=manifest.served,
            max_in_flight=spec.max_in_flight,
            max_queue=spec.max_queue,
        )
        self.register_outputs({"url": process.url})


class Router(pulumi.ComponentResource):
    """The one OpenAI-compatible address, as a process on this machine.

    outputs: `endpoint`, its base URL, ending in `/v1`, and `apiKey` (secret), which clients present.
    """

    outputs: Mapping[str, pulumi.Output[Any]]

    def __init__(
        self, name: str, fleet: Plan, targets: Sequence[Target], opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("lorafleet:local:Router", name, None, opts)
        inside = pulumi.ResourceOptions(parent=self)
        key = client_key(name, inside)
        process = declare(
            RouterProcess,
            name,
            {
                "state_dir": str(fleet.root.absolute() / DEFAULT_STATE_FOLDER / fleet.environment),
                "host": fleet.router.host,
                "port": fleet.router.port,
                "metrics_port": fleet.router.metrics_port,
                "client_keys_sha256": [key.sha256],
                "base_model": fleet.base.name,
                "models": fleet.router_models(),
                "targets": [without_none(routed(each.endpoint)) for each in targets],
                "limits": fleet.router.limits.model_dump(mode="json", by_alias=True),
            },
            inside,
        )
        self.outputs = {"endpoint": process.endpoint, "apiKey": pulumi.Output.secret(key.key)}
        self.register_outputs({"endpoint": process.endpoint, "metricsUrl": process.metrics_url})


TARGET = Server
