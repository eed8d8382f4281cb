"""`lorafleet:runpod:NetworkVolume`: a disk in one data centre that workers and pods mount."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from pydantic import Field

from providers import kit

from . import api, container, marks, steps
from .answers import Volume, VolumeType


class VolumeInputs(kit.Inputs):
    """size_gb: 10 to 4096, and never less than before; data_center: as in `EU-RO-1`, for good.

    type: STANDARD or HIGH_PERFORMANCE, for good; the data centre's own choice without it. Another one is refused and no
    replacement, so that a volume is not lost with its data because its type was left out.
    """

    name: kit.AutoName
    size_gb: Annotated[int, Field(ge=10, le=4096)]
    data_center: kit.Replaced[Annotated[str, Field(min_length=1)]]
    type: VolumeType | None = None


class VolumeOutputs(kit.Outputs):
    """actual_type: the storage tier that it got."""

    actual_type: str


class NetworkVolume(kit.Resource[VolumeInputs, VolumeOutputs]):
    """A network volume. It costs money until it is deleted, and its content is deleted with it."""

    async def problems(
        self, ctx: kit.Context, inputs: VolumeInputs, old: VolumeInputs | None
    ) -> AsyncIterator[kit.Problem]:
        await container.warn_without_token(ctx)
        if old is None or inputs.data_center != old.data_center:
            return
        if inputs.size_gb < old.size_gb:
            yield kit.Problem(
                ("sizeGb",),
                f"a volume cannot be made smaller: it has {old.size_gb} GB",
                f"{old.size_gb} or more",
                "raise it, or declare a new volume and copy what is needed",
            )

        if old.type is not None and inputs.type is not None and inputs.type != old.type:
            what, allowed = f"a volume keeps its type: it is {old.type}", old.type
            yield kit.Problem(("type",), what, allowed, "declare a new volume and copy what is needed")

    async def find(self, ctx: kit.Context, inputs: VolumeInputs) -> Sequence[kit.Leftover]:
        """Leftovers of the right place and kind. RunPod tells no times; ids sort them in a fixed order."""
        found = await api.connect().list_volumes()
        return [
            kit.Leftover(each.id, float(place))
            for place, each in enumerate(sorted(found, key=lambda each: each.id))
            if marks.is_marked(each.name, ctx.urn) and _fits(each, inputs)
        ]

    async def create(self, ctx: kit.Context, inputs: VolumeInputs) -> tuple[str, VolumeOutputs]:
        client = api.connect()
        body: dict[str, Any] = {
            "name": marks.name(inputs.name, ctx.urn),
            "size": inputs.size_gb,
            "dataCenter": inputs.data_center,
        }
        if inputs.type is not None:
            body["type"] = inputs.type
        for each in await client.list_volumes():
            # It may hold data, so it is not deleted, as other leftovers are.
            if marks.is_marked(each.name, ctx.urn) and each.id not in ctx.owned:
                await ctx.warn(
                    f"the volume {each.id} ({each.size} GB in {each.data_center}) is left over from an earlier run and "
                    "cannot become what is declared; it costs until it is deleted in RunPod's console"
                )
        made = await steps.create_once(lambda: client.create_volume(body), client.list_volumes, inputs.name, ctx.urn)
        ctx.exists(made.id, VolumeOutputs(actual_type=made.type))
        await steps.shown(ctx, client.get_volume, made.id)
        return made.id, await self._brought_to(ctx, made.id, inputs)

    async def read(
        self, ctx: kit.Context, resource_id: str, inputs: VolumeInputs | None, outputs: VolumeOutputs | None
    ) -> kit.Reading[VolumeInputs, VolumeOutputs] | None:
        client = api.connect()
        found = await steps.looked_up(client.get_volume, client.list_volumes, resource_id)
        if found is None:
            return None
        truth = VolumeInputs(
            name=marks.plain(found.name),
            size_gb=found.size,
            data_center=found.data_center,
            type=found.type if inputs is not None and inputs.type is not None else None,
        )
        return kit.Reading(truth, VolumeOutputs(actual_type=found.type))

    async def update(
        self, ctx: kit.Context, resource_id: str, old: VolumeInputs | None, inputs: VolumeInputs
    ) -> VolumeOutputs:
        return await self._brought_to(ctx, resource_id, inputs)

    async def _brought_to(self, ctx: kit.Context, volume_id: str, inputs: VolumeInputs) -> VolumeOutputs:
        client = api.connect()
        wanted = {"name": marks.name(inputs.name, ctx.urn), "size": inputs.size_gb}

        async def look() -> Volume:
            found = await steps.looked_up(client.get_volume, client.list_volumes, volume_id)
            if found is None:
                raise steps.gone(volume_id)
            if found.size > inputs.size_gb:
                raise kit.ResourceError(
                    f"{volume_id} has {found.size} GB and cannot be made smaller",
                    field="sizeGb",
                    next_action=f"declare {found.size}, or a new volume",
                )
            if inputs.type not in (None, found.type):
                raise kit.ResourceError(
                    f"{volume_id} is of type {found.type} for good",
                    field="type",
                    next_action=f"declare {found.type}, or a new volume",
                )
            return found

        def differing(found: Volume) -> dict[str, Any]:
            return {key: value for key, value in wanted.items() if getattr(found, key) != value}

        found = await steps.brought_to(look, differing, lambda body: client.change_volume(volume_id, body))
        return VolumeOutputs(actual_type=found.type)

    async def delete(self, ctx: kit.Context, resource_id: str, inputs: VolumeInputs | None) -> None:
        client = api.connect()
        await steps.deleted(client.delete_volume, client.list_volumes, resource_id)


def _fits(found: Volume, inputs: VolumeInputs) -> bool:
    """Whether a leftover can become what is wanted; another one may hold data and is left alone."""
    return (
        found.data_center == inputs.data_center and inputs.type in (None, found.type) and found.size <= inputs.size_gb
    )
