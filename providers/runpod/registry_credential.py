"""`lorafleet:runpod:RegistryCredential`: what RunPod presents to a private registry when it fetches an image."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from pydantic import Field

from providers import kit

from . import api, container, marks, steps


class RegistryInputs(kit.Inputs):
    """username, password: of the registry. For Google's Artifact Registry `_json_key_base64` and a key in base64."""

    name: kit.AutoName
    username: kit.Replaced[Annotated[str, Field(min_length=1)]]
    password: kit.Replaced[kit.Secret[Annotated[str, Field(min_length=1)]]]


class RegistryOutputs(kit.Outputs):
    """RunPod shows nothing of a credential but its name."""


class RegistryCredential(kit.Resource[RegistryInputs, RegistryOutputs]):
    """A registry credential. RunPod cannot change one and never shows it: a new password is a new credential."""

    async def problems(
        self, ctx: kit.Context, inputs: RegistryInputs, old: RegistryInputs | None
    ) -> AsyncIterator[kit.Problem]:
        await container.warn_without_token(ctx)
        return
        yield  # makes this method a generator

    async def create(self, ctx: kit.Context, inputs: RegistryInputs) -> tuple[str, RegistryOutputs]:
        client = api.connect()
        await self._remove_leftovers(ctx, client)
        body = {
            "name": marks.name(inputs.name, ctx.urn),
            "username": inputs.username,
            "password": inputs.password,
        }
        made = await steps.create_once(
            lambda: client.create_registry(body), client.list_registries, inputs.name, ctx.urn
        )
        ctx.exists(made.id, RegistryOutputs())
        await steps.shown(ctx, client.get_registry, made.id)
        return made.id, RegistryOutputs()

    async def _remove_leftovers(self, ctx: kit.Context, client: api.Api) -> None:
        """What a killed run left cannot be taken over: nobody can see whether its password is the right one."""
        marked = [each for each in await client.list_registries() if marks.is_marked(each.name, ctx.urn)]
        await steps.remove_leftovers(ctx, marked, lambda each: self.delete(ctx, each, None))

    async def read(
        self, ctx: kit.Context, resource_id: str, inputs: RegistryInputs | None, outputs: RegistryOutputs | None
    ) -> kit.Reading[RegistryInputs, RegistryOutputs] | None:
        if inputs is None:
            raise kit.ResourceError(
                "a registry credential cannot be imported: RunPod never shows what it holds",
                next_action="declare it anew, with its username and its password as a Pulumi secret",
            )
        client = api.connect()
        found = await steps.looked_up(client.get_registry, client.list_registries, resource_id)
        return None if found is None else kit.Reading(inputs, RegistryOutputs())

    async def delete(self, ctx: kit.Context, resource_id: str, inputs: RegistryInputs | None) -> None:
        client = api.connect()
        await steps.deleted(client.delete_registry, client.list_registries, resource_id)
