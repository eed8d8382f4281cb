"""Stands in for the resource `lorafleet:artifacts:Manifest`: the same inputs for adapters, without a store.

It is copied into a scratch `providers/artifacts/`.
"""

from __future__ import annotations

import hashlib
import json

from providers import kit


class Canary(kit.Model):
    """Another digest for a part of the requests; `weight` in percent."""

    digest: str
    weight: int


class ManifestInputs(kit.Inputs):
    """adapters: {name: digest}; canaries: {name: canary}."""

    store: kit.Replaced[str]
    adapters: dict[str, str]
    canaries: dict[str, Canary] | None = None


class ManifestOutputs(kit.Outputs):
    """digest: of the manifest."""

    manifest_digest: str


class Manifest(kit.Resource[ManifestInputs, ManifestOutputs]):
    """Which digest each adapter's name serves."""

    async def create(self, ctx: kit.Context, inputs: ManifestInputs) -> tuple[str, ManifestOutputs]:
        return "manifest", _outputs(inputs)

    async def read(
        self, ctx: kit.Context, resource_id: str, inputs: ManifestInputs | None, outputs: ManifestOutputs | None
    ) -> kit.Reading[ManifestInputs, ManifestOutputs] | None:
        return kit.Reading(inputs, outputs) if inputs and outputs else None

    async def update(
        self, ctx: kit.Context, resource_id: str, old: ManifestInputs | None, inputs: ManifestInputs
    ) -> ManifestOutputs:
        return _outputs(inputs)

    async def delete(self, ctx: kit.Context, resource_id: str, inputs: ManifestInputs | None) -> None:
        return None


def _outputs(inputs: ManifestInputs) -> ManifestOutputs:
    content = json.dumps(inputs.model_dump(by_alias=True), sort_keys=True)
    return ManifestOutputs(manifest_digest=hashlib.sha256(content.encode()).hexdigest())
