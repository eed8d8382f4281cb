"""`lorafleet:artifacts:Manifest`: which digest each public adapter name serves; running servers follow it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from lorafleet import manifest as manifests
from lorafleet.manifest import served_name
from providers import kit

from . import layout
from .store import NOT_THERE, Blob, ConflictError, DeniedError, Store, StoreError, open_store

if TYPE_CHECKING:
    # Others are imported where they are needed: programs wait for what is imported here.
    from lorafleet.licence import Licence

    from .followers import Verdict

# How long a store that does not answer is asked again: for a preview, and where the work depends on it.
_GLANCE_S, _PATIENCE_S = 5.0, 20.0

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class BaseModel(kit.Model):
    """The base model: served name, source URI, and what pins its content."""

    name: str
    source: str
    revision: Revision | None = None
    digest: Digest | None = None


class Canary(kit.Model):
    """A version that gets `weight` percent of the requests for a name."""

    digest: Digest
    weight: Annotated[int, Field(ge=1, le=99)]


class Elsewhere(kit.Model):
    """Where an adapter comes from that is not kept in the store."""

    source: str
    revision: Revision | None = None


class ManifestInputs(kit.Inputs):
    """store: URL; environment: the stack. adapters: {public name: digest}. image: part of the release, for its record.

    licence_accepted: the base model's licence, where it has one that must be accepted (`lorafleet.licence`).
    follow_timeout_s: how long an update waits until every running server serves the new digests.
    """

    store: kit.Replaced[str]
    environment: kit.Replaced[str]
    base_model: BaseModel
    adapters: dict[str, Digest]
    canaries: dict[str, Canary] = Field(default_factory=dict)
    elsewhere: dict[str, Elsewhere] = Field(default_factory=dict)
    image: Annotated[str, Field(pattern=r"@sha256:[0-9a-f]{64}$")] | None = None
    licence_accepted: Annotated[str, Field(pattern=r"^exaone-nc$")] | None = None
    follow_timeout_s: Annotated[int, Field(ge=1, le=7200)] = 300


class ManifestOutputs(kit.Outputs):
    """url: of the object; digest: hex SHA-256 of it; served: {name: immutable name on the servers}."""

    url: str
    digest: str
    served: dict[str, str]


class Manifest(kit.Resource[ManifestInputs, ManifestOutputs]):
    """What an environment serves, as an object in the store that its servers follow.

    An update ends when every server that runs serves the new digests; it fails, with the reasons, when one refuses
    them: that one goes on with the old ones. A target without a running server starts with what is written here.
    """

    # Its place in the store is its name: there can be only one.
    delete_before_replace: ClassVar[bool] = True

    def time_limit_s(self, inputs: ManifestInputs | None) -> float:
        return (inputs.follow_timeout_s if inputs else 300) + 60.0

    def reads_before_diff(self, inputs: ManifestInputs) -> bool:
        return inputs.store.startswith("file://")  # a bucket is asked by `pulumi refresh`: a preview needs no network

    async def problems(
        self, ctx: kit.Context, inputs: ManifestInputs, old: ManifestInputs | None
    ) -> AsyncIterator[kit.Problem]:
        try:
            store = open_store(inputs.store, retry_s=_GLANCE_S)
        except StoreError as error:
            yield kit.Problem(("store",), error.what, error.allowed, error.next_action)
            return
        wanted = _stored(inputs)
        try:
            found = await asyncio.gather(
                *(asyncio.to_thread(_look_up, store, name, digest) for _, name, digest in wanted)
            )
            licence = await asyncio.to_thread(_licence_of, store, inputs.base_model.source)
        except StoreError as error:  # not reachable from here and now; writing the manifest will tell
            await ctx.warn(f"the store can't be asked whether it has these adapters\n{error}")
            return
        if licence is not None and inputs.licence_accepted != licence.id:
            yield kit.Problem(
                ("licenceAccepted",),
                f"the base model was mirrored under a licence that must be accepted: {licence.title}",
                f"licenceAccepted: {licence.id}, and `purpose`, under baseModel of the declaration",
                f"read {licence.url}; it allows {licence.terms}",
            )
        for (path, name, digest), (there, hold) in zip(wanted, found, strict=True):
            if not there:
                yield kit.Problem(
                    path,
                    f"{inputs.store} has no version {digest[:19]}… of {name}",
                    f"a digest that `lorafleet adapter list {name}` shows",
                    f"put it there: lorafleet adapter push FOLDER --name {name} --stack {inputs.environment}",
                )
            elif hold:
                await ctx.warn(f"{name} {digest[:19]}… is held back: {hold}")

    async def find(self, ctx: kit.Context, inputs: ManifestInputs) -> Sequence[kit.Leftover]:
        from .followers import Followers

        store = open_store(inputs.store, retry_s=_PATIENCE_S)
        blob = await _in_thread(_read, store, inputs.environment)
        try:
            document: dict[str, Any] = json.loads(blob.data) if blob else {}
            _inputs_of(document, inputs.store, inputs.environment, None)
        except (ValueError, LookupError, TypeError, AttributeError):
            return []  # nothing, or no manifest: it is written anew
        if verdicts := await _in_thread(Followers(store, inputs.environment, document).look):
            servers = ", ".join(verdict.server for verdict in verdicts)
            await ctx.warn(
                f"{_url(inputs)} is there already, and servers follow it ({servers}); this stack takes it over. "
                "If they are another stack's, give one of the two another name or another store"
            )
        return [kit.Leftover(_url(inputs))]

    def preview(self) -> Mapping[str, Callable[[ManifestInputs], Any]]:
        return {
            "url": _url,
            "digest": lambda inputs: manifests.digest_of(_document(inputs)),
            "served": _served,
        }

    async def create(self, ctx: kit.Context, inputs: ManifestInputs) -> tuple[str, ManifestOutputs]:
        return _url(inputs), await self._converge(ctx, inputs)

    async def update(
        self, ctx: kit.Context, resource_id: str, old: ManifestInputs | None, inputs: ManifestInputs
    ) -> ManifestOutputs:
        return await self._converge(ctx, inputs)

    async def _converge(self, ctx: kit.Context, inputs: ManifestInputs) -> ManifestOutputs:
        """Writes what is to be served and waits until the servers that run serve it."""
        from .followers import Followers
        from .release_record import record

        store, document, outputs = open_store(inputs.store, retry_s=_PATIENCE_S), _document(inputs), _outputs(inputs)
        await ctx.status(f"{inputs.store} to take the manifest")
        # Before the manifest, so that a killed run leaves no gap in the history. Whether a release was ever served
        # is told by the marks that servers leave (`served/`).
        try:
            await asyncio.to_thread(record, store, inputs.environment, _release(inputs), outputs.digest)
        except DeniedError as error:
            await ctx.warn(f"this release is not noted in the history that rollbacks use\n{error}")
        except StoreError as error:
            raise _told(error) from None
        followers = Followers(store, inputs.environment, document)
        refusals = [verdict for verdict in await _in_thread(followers.look) if verdict.failed]
        await _in_thread(_write, store, inputs.environment, document, bool(refusals))
        followers.forgive(refusals)
        ctx.exists(outputs.url, outputs)
        # Once it is written, no prune takes anything away that it names; one may have done so just before.
        for _, name, digest in _stored(inputs):
            if not (await _in_thread(_look_up, store, name, digest))[0]:
                raise kit.ResourceError(
                    f"{name} {digest[:19]}… was removed from {inputs.store} while this ran",
                    next_action=f"push it again (lorafleet adapter push FOLDER --name {name} "
                    f"--stack {inputs.environment}), then run `pulumi up`",
                )
        verdicts = await followers.settle(ctx, inputs.follow_timeout_s)
        if failed := [verdict for verdict in verdicts if verdict.failed]:
            raise _not_followed(failed, inputs)
        return outputs

    async def read(
        self, ctx: kit.Context, resource_id: str, inputs: ManifestInputs | None, outputs: ManifestOutputs | None
    ) -> kit.Reading[ManifestInputs, ManifestOutputs] | None:
        from .followers import Followers

        place, environment = _place(resource_id)
        store = open_store(place, retry_s=_PATIENCE_S)
        blob = await _in_thread(_read, store, environment)
        if blob is None:
            return None
        try:
            document = json.loads(blob.data)
            found = _inputs_of(document, place, environment, inputs)
        except (ValueError, LookupError, TypeError, AttributeError):
            if inputs is None:
                raise kit.ResourceError(
                    f"{resource_id} is not a manifest", next_action="import an object that lorafleet has written"
                ) from None
            reason = f"{resource_id} is not a manifest any more; `pulumi up` writes it again"
            return kit.Reading(inputs, _outputs(inputs).model_copy(update={"digest": ""}), (reason,))
        verdicts = await _in_thread(Followers(store, environment, document).look)
        unhealthy = tuple(
            f"{verdict.about}; `pulumi up` waits for it" for verdict in verdicts if verdict.state != "follows"
        )
        return kit.Reading(found, _outputs(found), unhealthy)

    async def delete(self, ctx: kit.Context, resource_id: str, inputs: ManifestInputs | None) -> None:
        place, environment = _place(resource_id)
        await _in_thread(_remove, open_store(place, retry_s=_PATIENCE_S), environment)


def _stored(inputs: ManifestInputs) -> list[tuple[tuple[str, ...], str, str]]:
    """(path of the input, name, digest) of each version that the store must have."""
    adapters = [
        (("adapters", name), name, digest) for name, digest in inputs.adapters.items() if name not in inputs.elsewhere
    ]
    canaries = [(("canaries", name, "digest"), name, canary.digest) for name, canary in inputs.canaries.items()]
    return [*adapters, *canaries]


def _look_up(store: Store, name: str, digest: str) -> tuple[bool, str]:
    """Whether the store has the version, and why it is held back ("" if it is not)."""
    there = store.read(f"{layout.adapter(name, digest)}/{layout.METADATA}") is not None
    hold = store.read(layout.hold(name, digest)) if there else None
    try:
        return there, str(json.loads(hold.data)["why"]) if hold else ""
    except (ValueError, LookupError, TypeError):
        return there, "its hold can't be read"


def _licence_of(store: Store, source: str) -> Licence | None:
    """The licence of a base model that was mirrored into this store; what lies elsewhere is checked by its name."""
    if not source.startswith(f"{store.url}/models/"):
        return None
    from lorafleet.licence import needed

    blob = store.read(f"{source.removeprefix(f'{store.url}/').rstrip('/')}/{layout.METADATA}")
    return needed(blob.data.decode(errors="replace")) if blob else None


def _read(store: Store, environment: str) -> Blob | None:
    return store.read(layout.manifest(environment))


def _write(store: Store, environment: str, document: dict[str, Any], again: bool) -> None:
    """Writes the manifest if it says something else; `again`: else makes servers that refused it try once more."""
    path, blob = layout.manifest(environment), _read(store, environment)
    data = (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode()
    if blob is None or blob.data != data:
        store.write(path, data, expected=blob.generation if blob else NOT_THERE)
    elif again:
        store.renew(path, expected=blob.generation)


def _remove(store: Store, environment: str) -> None:
    store.delete(layout.manifest(environment))
    for entry in list(store.list(layout.statuses(environment))):
        store.delete(entry.path)


async def _in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Asks the store without holding up the other resources; its errors become the kit's."""
    try:
        return await asyncio.to_thread(function, *arguments)
    except ConflictError as error:
        raise kit.ResourceError(
            f"the manifest was written by someone else at the same moment: {error.what}",
            next_action="see who else runs `pulumi up` on this environment, then run it again",
        ) from None
    except StoreError as error:
        raise _told(error) from None


def _told(error: StoreError) -> kit.ResourceError:
    what = ": ".join(part for part in (error.where, error.what, error.found) if part)
    return kit.ResourceError(what, next_action=error.next_action)


def _document(inputs: ManifestInputs) -> dict[str, Any]:
    return manifests.document(
        store=inputs.store,
        base_model=inputs.base_model.model_dump(),
        adapters=inputs.adapters,
        canaries={name: (canary.digest, canary.weight) for name, canary in inputs.canaries.items()},
        elsewhere={name: (each.source, each.revision) for name, each in inputs.elsewhere.items()},
    )


def _inputs_of(
    document: Mapping[str, Any], store: str, environment: str, state: ManifestInputs | None
) -> ManifestInputs:
    """The inputs that a manifest was made from; what it does not hold is taken from the state."""
    adapters: dict[str, str] = {}
    canaries: dict[str, Canary] = {}
    elsewhere: dict[str, Elsewhere] = {}
    for entry in document["adapters"]:
        name, digest, source = entry["name"], entry["digest"], entry["source"]
        adapters[name] = digest
        if source != manifests.stored_source(store, name, digest):
            elsewhere[name] = Elsewhere(source=source, revision=entry.get("revision"))
        if canary := entry.get("canary"):
            canaries[name] = Canary(digest=canary["digest"], weight=canary["weight"])
    return ManifestInputs(
        store=store,
        environment=environment,
        base_model=BaseModel(**document["baseModel"]),
        adapters=adapters,
        canaries=canaries,
        elsewhere=elsewhere,
        image=state.image if state else None,
        licence_accepted=state.licence_accepted if state else None,
        follow_timeout_s=state.follow_timeout_s if state else 300,
    )


def _release(inputs: ManifestInputs) -> dict[str, Any]:
    """The release block as plain data, as it would stand in a stack file."""
    base = inputs.base_model
    release: dict[str, Any] = {
        "baseModel": {key: value for key, value in (("revision", base.revision), ("digest", base.digest)) if value},
        "adapters": dict(sorted(inputs.adapters.items())),
    }
    if inputs.image is not None:
        release["image"] = inputs.image
    if inputs.canaries:
        release["canaries"] = {name: each.model_dump() for name, each in sorted(inputs.canaries.items())}
    return release


def _outputs(inputs: ManifestInputs) -> ManifestOutputs:
    return ManifestOutputs(url=_url(inputs), digest=manifests.digest_of(_document(inputs)), served=_served(inputs))


def _served(inputs: ManifestInputs) -> dict[str, str]:
    return {name: served_name(name, digest) for name, digest in inputs.adapters.items()}


def _url(inputs: ManifestInputs) -> str:
    return f"{inputs.store}/{layout.manifest(inputs.environment)}"


def _place(resource_id: str) -> tuple[str, str]:
    """The store's URL and the environment of an id."""
    store, separator, name = resource_id.rpartition("/manifests/")
    if not separator or not name.endswith(".json"):
        raise kit.ResourceError(
            f"{resource_id} is not the URL of a manifest",
            next_action="give <store>/manifests/<environment>.json, such as gs://bucket/manifests/prod.json",
        )
    return store, name.removesuffix(".json")


def _not_followed(failed: Sequence[Verdict], inputs: ManifestInputs) -> kit.ResourceError:
    lines = [f"{len(failed)} running server(s) do not serve this release; they go on with the one before"]
    lines += [f"    {verdict.about}" for verdict in failed]
    return kit.ResourceError(
        "\n".join(lines),
        next_action="put that right and run `pulumi up` again, or go back: "
        f"lorafleet release rollback {inputs.environment}",
    )
