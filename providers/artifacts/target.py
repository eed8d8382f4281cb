"""What a stack declares of its store: the manifest that its servers follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from providers.kit.program import Declared, declare, without_none

from .resources import Manifest as ManifestResource

if TYPE_CHECKING:
    from lorafleet.plan import Plan


def manifest(name: str, fleet: Plan, opts: pulumi.ResourceOptions | None = None) -> Declared:
    """The release of the fleet: which digest each public name serves.

    Servers that are given it follow it while they run. `pulumi up` writes it and waits until all of them serve it.
    """
    return declare(
        ManifestResource,
        name,
        {
            "store": fleet.store,
            "environment": fleet.environment,
            "base_model": without_none(fleet.base_model()),
            "adapters": {adapter.name: adapter.digest for adapter in fleet.adapters},
            "canaries": {
                adapter.name: {"digest": adapter.canary.digest, "weight": adapter.canary.weight}
                for adapter in fleet.adapters
                if adapter.canary
            },
            "elsewhere": {
                adapter.name: without_none({"source": adapter.source, "revision": adapter.revision})
                for adapter in fleet.adapters
                if not adapter.stored
            },
            "image": fleet.image,
            "licence_accepted": fleet.base.licence_accepted,
            "follow_timeout_s": fleet.rollout.timeout_s,
        },
        opts,
    )
