"""The declaration of a fleet, as it stands under `serving:fleet` in `stacks/Pulumi.<environment>.yaml`.

Keys are camelCase there and snake_case here. `lorafleet.load` reads and checks a declaration; nothing in this
module looks at files or platforms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny

from lorafleet.limits import RouterLimits
from lorafleet.origin import Origin
from lorafleet.sources import Source
from lorafleet.targets import TargetSpec
from lorafleet.values import (
    AdapterName,
    Choice,
    Digest,
    Image,
    Model,
    ModelName,
    Port,
    Revision,
    Sentence,
    StoreUrl,
    TargetName,
    Whole,
)

DEFAULT_STORE = "file://.lorafleet/store"
Architecture = Annotated[Literal["ExaoneForCausalLM"], Choice(("ExaoneForCausalLM",))]


class BaseModel(Model):
    """The model that all adapters share.

    Fields:
        name: name that clients ask for.
        source: where its files are.
        architecture: as in the model's config.json; the adapters' module names follow from it.
        license: the licence that it is served under, for people to read in the plan.
        licence_accepted: id of a licence that asks for it (`lorafleet.licence`), such as `exaone-nc`.
        purpose: what the model is used for here; goes with `licence_accepted`.
        trained_as: other names that adapters carry for this same base (`base_model_name_or_path` in their
            adapter_config.json). The name above, the hub's `owner/repository` and the `file://` folder are
            accepted without being listed.
    """

    name: ModelName
    source: Source
    architecture: Architecture = "ExaoneForCausalLM"
    license: Sentence
    licence_accepted: Sentence | None = None
    purpose: Sentence | None = None
    trained_as: tuple[Sentence, ...] = ()


class Adapter(Model):
    """One LoRA adapter; its key in `adapters` is the name that clients ask for.

    Fields:
        source: where its files are; without it, in the store (`lorafleet adapter push` puts them there).
        description: for people.
        revision: commit of the hub, for `hf://` only, and needed there.
        rank: LoRA rank. Needed for a `source` that can't be looked at from here (`hf://`, `gs://`); otherwise it is
            read from the files, and when it is declared too, both must agree.
    """

    source: Source | None = None
    description: Sentence | None = None
    revision: Revision | None = None
    rank: Annotated[int, Whole(1, 512)] | None = None


class BasePin(Model):
    """Which files of the base are served: `revision` for `hf://` (a digest may be added), else `digest`."""

    revision: Revision | None = None
    digest: Digest | None = None


class Canary(Model):
    """A version of an adapter that is tried out on a part of the requests.

    Fields:
        digest: content digest of the version.
        weight: percentage of the requests for the adapter's name that it gets.
    """

    digest: Digest
    weight: Annotated[int, Whole(1, 99, "percent of the requests")]


class Release(Model):
    """The pinned set that this environment serves. Promotion copies this block to the next environment's
    file.

    Fields:
        base_model: pin of the base.
        adapters: content digest of every declared adapter, by name.
        image: image of the serving runtime by digest, for platforms that run one.
        canaries: versions that are tried out, by the adapter's name.
    """

    base_model: BasePin
    adapters: Mapping[AdapterName, Digest]
    image: Image | None = None
    canaries: Mapping[AdapterName, Canary] = Field(default_factory=dict)


class Rollout(Model):
    """How `pulumi up` sees a release through.

    Fields:
        timeout_s: how long it waits until every running server serves the new digests, in seconds.
    """

    timeout_s: Annotated[int, Whole(5, 7200, "seconds")] = 300


class Router(Model):
    """The one OpenAI-compatible address in front.

    Fields:
        runs: `here`, as a process of the machine that runs `pulumi up`, or `elsewhere`: then the stack's outputs
            `routerFile` and `targetKeys` are what the image `router` is started with.
        port: port of the API.
        metrics_port: port of the Prometheus metrics; only the router's own machine can reach it.
        limits: what is let through.
    """

    runs: Annotated[Literal["here", "elsewhere"], Choice(("here", "elsewhere"))] = "here"
    port: Port
    metrics_port: Port
    limits: RouterLimits = RouterLimits()


class Declaration(Model):
    """Everything that one environment declares.

    Fields:
        store: where its adapters, its manifest and what its servers report are kept.
    """

    store: StoreUrl = DEFAULT_STORE
    base_model: BaseModel
    adapters: Mapping[AdapterName, Adapter]
    targets: Mapping[TargetName, SerializeAsAny[TargetSpec]]
    router: Router
    rollout: Rollout = Rollout()
    release: Release


class Fleet(Declaration):
    """A declaration together with where it came from. Made by `lorafleet.load`, which has checked it."""

    origin: Origin

    @property
    def environment(self) -> str:
        """Name of the stack, such as `local` or `prod`."""
        return self.origin.environment

    @property
    def store_url(self) -> str:
        """The store: `gs://bucket[/folder]` or `file://` and an absolute folder."""
        scheme, _, rest = self.store.partition("://")
        return f"file://{Source('file', rest).folder(self.origin.root)}" if scheme == "file" else self.store
