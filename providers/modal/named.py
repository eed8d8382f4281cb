"""`lorafleet:modal:Secret` and `lorafleet:modal:Volume`: what an app refers to by name.

Their ids are `environment/name`; the name begins with what stands for the resource's URN, so that what a killed run
left is found again, and ends with a nonce, so that a replacement never is what it replaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from providers import kit

from . import api, marks
from .fields import Name

_NOT_TOLD = "(Modal does not tell the values of a secret)"
Variable = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]


class SecretInputs(kit.Inputs):
    """environment: Modal's own. values: {VARIABLE: value}, which the containers of an app get.

    A changed value makes a new secret: containers read theirs once, so an app must be deployed with another name to
    get it.
    """

    name: kit.AutoName
    environment: kit.Replaced[Name]
    values: kit.Replaced[kit.Secret[dict[Variable, str]]]


class SecretOutputs(kit.Outputs):
    """full_name: what it is called on Modal. keys: the variables that it has, sorted."""

    full_name: str
    keys: list[str]


class Secret(kit.Resource[SecretInputs, SecretOutputs]):
    """A named secret of a Modal environment. Its values are in the state, encrypted; Modal never tells them."""

    def __init__(self) -> None:
        # What a killed run left is about to be given its values; anything else without a state is an import.
        self._left: set[str] = set()

    async def find(self, ctx: kit.Context, inputs: SecretInputs) -> Sequence[kit.Leftover]:
        async with api.connect() as modal:
            left = _leftovers(ctx.urn, inputs.environment, await modal.secrets(inputs.environment))
        self._left.update(each.id for each in left)
        return left

    async def create(self, ctx: kit.Context, inputs: SecretInputs) -> tuple[str, SecretOutputs]:
        resource_id = f"{inputs.environment}/{marks.full_name(ctx.urn, inputs.name)}"
        if resource_id in ctx.owned and await self.read(ctx, resource_id, inputs, None) is not None:
            # Made under the same name, it would go when the former one is deleted.
            raise kit.ResourceError(
                f"the secret {resource_id} is to be replaced by one of the same name, as other values need a new one",
                field="name",
                next_action="leave `name` out, so that each gets a name of its own, or choose another one",
            )
        return resource_id, await self.update(ctx, resource_id, None, inputs)

    async def read(
        self, ctx: kit.Context, resource_id: str, inputs: SecretInputs | None, outputs: SecretOutputs | None
    ) -> kit.Reading[SecretInputs, SecretOutputs] | None:
        environment, name = marks.parse_id(resource_id)
        async with api.connect() as modal:
            keys = await modal.secret_keys(environment, name)
        if keys is None:
            return None
        if inputs is None and resource_id not in self._left:
            raise kit.ResourceError(
                f"the secret {resource_id} can't be imported: Modal does not tell its values",
                next_action="declare it with its values, and let `pulumi up` make one; or name it in `secrets`",
            )
        known = inputs.values if inputs is not None else {}
        truth = SecretInputs(
            name=name.removeprefix(marks.prefix(ctx.urn)),
            environment=environment,
            values={key: known.get(key, _NOT_TOLD) for key in keys},
        )
        return kit.Reading(truth, SecretOutputs(full_name=name, keys=keys))

    async def update(
        self, ctx: kit.Context, resource_id: str, old: SecretInputs | None, inputs: SecretInputs
    ) -> SecretOutputs:
        environment, name = marks.parse_id(resource_id)
        async with api.connect() as modal:
            await modal.put_secret(environment, name, inputs.values)
        outputs = SecretOutputs(full_name=name, keys=sorted(inputs.values))
        ctx.exists(resource_id, outputs)
        return outputs

    async def delete(self, ctx: kit.Context, resource_id: str, inputs: SecretInputs | None) -> None:
        environment, name = marks.parse_id(resource_id)
        async with api.connect() as modal:
            await modal.remove_secret(environment, name)


class VolumeInputs(kit.Inputs):
    """environment: Modal's own. What lies in a volume goes with it."""

    name: kit.AutoName
    environment: kit.Replaced[Name]


class VolumeOutputs(kit.Outputs):
    """full_name: what it is called on Modal."""

    full_name: str


class Volume(kit.Resource[VolumeInputs, VolumeOutputs]):
    """A named volume of a Modal environment, for what containers shall keep from start to start."""

    async def find(self, ctx: kit.Context, inputs: VolumeInputs) -> Sequence[kit.Leftover]:
        async with api.connect() as modal:
            return _leftovers(ctx.urn, inputs.environment, await modal.volumes(inputs.environment))

    async def create(self, ctx: kit.Context, inputs: VolumeInputs) -> tuple[str, VolumeOutputs]:
        resource_id = f"{inputs.environment}/{marks.full_name(ctx.urn, inputs.name)}"
        return resource_id, await self.update(ctx, resource_id, None, inputs)

    async def read(
        self, ctx: kit.Context, resource_id: str, inputs: VolumeInputs | None, outputs: VolumeOutputs | None
    ) -> kit.Reading[VolumeInputs, VolumeOutputs] | None:
        environment, name = marks.parse_id(resource_id)
        async with api.connect() as modal:
            if not await modal.has_volume(environment, name):
                return None
        own = inputs.name if inputs is not None else name.removeprefix(marks.prefix(ctx.urn))
        return kit.Reading(VolumeInputs(name=own, environment=environment), VolumeOutputs(full_name=name))

    async def update(
        self, ctx: kit.Context, resource_id: str, old: VolumeInputs | None, inputs: VolumeInputs
    ) -> VolumeOutputs:
        environment, name = marks.parse_id(resource_id)
        async with api.connect() as modal:
            await modal.put_volume(environment, name)
        outputs = VolumeOutputs(full_name=name)
        ctx.exists(resource_id, outputs)
        return outputs

    async def delete(self, ctx: kit.Context, resource_id: str, inputs: VolumeInputs | None) -> None:
        environment, name = marks.parse_id(resource_id)
        async with api.connect() as modal:
            await modal.remove_volume(environment, name)


def _leftovers(urn: str, environment: str, there: Mapping[str, tuple[str, float]]) -> list[kit.Leftover]:
    start = marks.prefix(urn)
    return [kit.Leftover(f"{environment}/{name}", made) for name, made in there.values() if name.startswith(start)]
