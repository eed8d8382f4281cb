"""`lorafleet:vertex:Model`: a container in Vertex AI's model registry, with its versions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from providers import kit

from . import api, container, credentials, fields, marks, steps
from .answers import Model as Found
from .container import ContainerInputs
from .fields import NamedInputs

_UPLOAD = "the upload of the model"


class ModelInputs(NamedInputs, ContainerInputs):
    """A model. A change of the container is a new version of it; former versions stay, for a way back.

    kms_key: a key of the customer's own, `projects/…/cryptoKeys/…`, in the same region.
    """

    kms_key: kit.Replaced[fields.KmsKey] = ""


class ModelOutputs(kit.Outputs):
    """version_alias: what the declared container's version is called, for `<id>@<version_alias>`; the same container
    has the same one. version_id: its number."""

    version_alias: str
    version_id: str


class Model(kit.Resource[ModelInputs, ModelOutputs]):
    """A model in the registry: nothing runs until it is deployed. Its id is `projects/…/models/…`."""

    def time_limit_s(self, inputs: ModelInputs | None) -> float:
        return 1800.0  # Vertex AI copies the image

    async def problems(
        self, ctx: kit.Context, inputs: ModelInputs, old: ModelInputs | None
    ) -> AsyncIterator[kit.Problem]:
        await credentials.warn_without(ctx)
        for problem in container.problems(inputs):
            yield problem

    def preview(self) -> Mapping[str, Callable[[ModelInputs], Any]]:
        return {"version_alias": container.alias}

    async def find(self, ctx: kit.Context, inputs: ModelInputs) -> Sequence[kit.Leftover]:
        client, parent = _client(inputs)
        under_way = [
            each for each in await client.operations(parent) if not each.done and _makes_marked(each.name, ctx.urn)
        ]
        await steps.ended(ctx, client, under_way, _UPLOAD)
        found = sorted(await _marked(client, ctx, inputs), key=lambda each: each.create_time)
        fit = [each for each in found if _kms_key(each) == inputs.kms_key]
        return [kit.Leftover(_name(inputs, each), float(place)) for place, each in enumerate(fit)]

    async def create(self, ctx: kit.Context, inputs: ModelInputs) -> tuple[str, ModelOutputs]:
        client, parent = _client(inputs)
        unfit = [_name(inputs, each) for each in await _marked(client, ctx, inputs)]
        await steps.remove_leftovers(ctx, unfit, lambda name: self.delete(ctx, name, None))
        name = f"{parent}/models/{marks.new_id(inputs.name, ctx.urn)}"
        return name, await _brought_to(ctx, client, name, inputs)

    async def read(
        self, ctx: kit.Context, resource_id: str, inputs: ModelInputs | None, outputs: ModelOutputs | None
    ) -> kit.Reading[ModelInputs, ModelOutputs] | None:
        client = api.connect(resource_id)
        await steps.after_removals(ctx, client, resource_id)
        found = await _looked_up(ctx, client, resource_id)
        if found is None:
            return None
        truth = _inputs(found, resource_id, inputs)
        return kit.Reading(truth, _outputs(truth, found))

    async def update(
        self, ctx: kit.Context, resource_id: str, old: ModelInputs | None, inputs: ModelInputs
    ) -> ModelOutputs:
        return await _brought_to(ctx, api.connect(resource_id), resource_id, inputs)

    async def delete(self, ctx: kit.Context, resource_id: str, inputs: ModelInputs | None) -> None:
        client = api.connect(resource_id)

        async def there() -> bool:
            return await _looked_up(ctx, client, resource_id) is not None

        await steps.removed(
            ctx, client, lambda: client.delete_model(resource_id), there, resource_id, "the removal of the model"
        )


async def _brought_to(ctx: kit.Context, client: api.Api, name: str, inputs: ModelInputs) -> ModelOutputs:
    """Uploads what is missing, the model or a version of it, makes that version the default one, and names it."""
    alias = container.alias(inputs)
    body = {**fields.settings(inputs), **container.settings(inputs), "versionAliases": [alias, "default"]}
    request: dict[str, Any] = {"modelId": marks.last(name), "model": body}
    if inputs.kms_key:
        body["encryptionSpec"] = {"kmsKeyName": inputs.kms_key}

    async def version() -> Found | None:
        return next((each for each in await client.versions(name) if alias in each.version_aliases), None)

    async def there() -> bool:
        if await client.get_model(name) is None:
            return False
        # Of a model, one version after the other is uploaded.
        request.pop("modelId", None)
        request["parentModel"] = name
        return await version() is not None

    await steps.begun(
        ctx,
        client,
        lambda: client.upload_model(api.parent_of(name), request),
        there,
        name,
        _UPLOAD,
        accepted=lambda _: ctx.exists(name, ModelOutputs(version_alias=alias, version_id="")),
    )
    current = await steps.shown(ctx, version, name)
    outputs = ModelOutputs(version_alias=alias, version_id=current.version_id)
    ctx.exists(name, outputs)
    if "default" not in current.version_aliases:
        await client.merge_aliases(f"{name}@{current.version_id}", ["default"])
    model = await steps.shown(ctx, lambda: client.get_model(name), name)
    wanted, found = fields.settings(inputs), _settings_of(model)
    differing = {key: value for key, value in wanted.items() if found[key] != value}
    if differing:
        await client.change_model(name, differing)
    return outputs


async def _looked_up(ctx: kit.Context, client: api.Api, name: str) -> Found | None:
    async def listed() -> list[str]:
        return [each.name for each in await client.list_models(api.parent_of(name))]

    return await steps.looked_up(ctx, lambda: client.get_model(name), listed, name)


def _settings_of(found: Found) -> dict[str, Any]:
    return {"displayName": found.display_name, "description": found.description, "labels": found.labels}


def _inputs(found: Found, name: str, known: ModelInputs | None) -> ModelInputs:
    given = known.name if known else marks.plain(found.display_name)
    return ModelInputs(
        name=given,
        project=api.project_of(name),
        location=api.location_of(name),
        display_name="" if found.display_name == given else found.display_name,
        description=found.description,
        labels=found.labels,
        kms_key=_kms_key(found),
        **container.inputs_of(found, known),
    )


def _outputs(truth: ModelInputs, found: Found) -> ModelOutputs:
    return ModelOutputs(version_alias=container.alias(truth), version_id=found.version_id)


async def _marked(client: api.Api, ctx: kit.Context, inputs: ModelInputs) -> list[Found]:
    parent = api.parent(inputs.project, inputs.location)
    return [
        each
        for each in await client.list_models(parent)
        if marks.is_marked(each.name, ctx.urn) and steps.is_free(ctx, each.name)
    ]


def _makes_marked(operation: str, urn: str) -> bool:
    """Whether an operation (`…/models/ID/operations/N`) is about a model of this resource."""
    thing, _, _ = operation.rpartition("/operations/")
    return "/models/" in thing and marks.is_marked(thing, urn)


def _name(inputs: ModelInputs, found: Found) -> str:
    """The resource name with the project as it is declared: Vertex AI answers with the project's number."""
    return f"{api.parent(inputs.project, inputs.location)}/models/{marks.last(found.name)}"


def _kms_key(found: Found) -> str:
    return found.encryption_spec.kms_key_name if found.encryption_spec else ""


def _client(inputs: ModelInputs) -> tuple[api.Api, str]:
    parent = api.parent(inputs.project, inputs.location)
    return api.connect(parent), parent
