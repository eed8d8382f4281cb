"""The declaration of a fleet, as it stands under `serving:fleet` in `stacks/Pulumi.<environment>.yaml`.

Keys are camelCase there and snake_case here. `lorafleet.load` reads and checks a declaration; nothing in this
module looks at files or platforms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import SerializeAsAny

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
    TargetName,
    Whole,
)

Architecture = Annotated[Literal["ExaoneForCausalLM"], Choice(("ExaoneForCausalLM",))]


class BaseModel(Model):
    """The model that all adapters share.

    Fields:
        name: name that clients ask for.
        source: where its files are.
        architecture: as in the model's config.json; the adapters' module names follow from it.
        license: the licence that it is served under, for people to read in the plan.
        trained_as: other names that adapters carry for this same base (`base_model_name_or_path` in their
            adapter_config.json). The name above, the hub's `owner/repository` and the `file://` folder are
            accepted without being listed.
    """

    name: ModelName
    source: Source
    architecture: Architecture = "ExaoneForCausalLM"
    license: Sentence
    trained_as: tuple[Sentence, ...] = ()


class Adapter(Model):
    """One LoRA adapter; its key in `adapters` is the name that clients ask for.

    Fields:
        source: where its files are.
        description: for people.
        revision: commit of the hub, for `hf://` only, and needed there.
        rank: LoRA rank. Needed where the files can't be looked at (`hf://`, `gs://`); for `file://` it is
            read from them, and when it is declared too, both must agree.
    """

    source: Source
    description: Sentence | None = None
    revision: Revision | None = None
    rank: Annotated[int, Whole(1, 512)] | None = None


class BasePin(Model):
    """Which files of the base are served: `revision` for `hf://` (a digest may be added), else `digest`."""

    revision: Revision | None = None
    digest: Digest | None = None


class Release(Model):
    """The pinned set that this environment serves. Promotion copies this block to the next environment's
    file.

    Fields:
        base_model: pin of the base.
        adapters: content digest of every declared adapter, by name.
        image: image of the serving runtime by digest, for platforms that run one.
    """

    base_model: BasePin
    adapters: Mapping[AdapterName, Digest]
    image: Image | None = None


class Router(Model):
    """The one OpenAI-compatible address in front.

    Fields:
        port: port of the API.
        metrics_port: port of the Prometheus metrics; only this machine can reach it.
        limits: what is let through.
    """

    port: Port
    metrics_port: Port
    limits: RouterLimits = RouterLimits()


class Declaration(Model):
    """Everything that one environment declares."""

    base_model: BaseModel
    adapters: Mapping[AdapterName, Adapter]
    targets: Mapping[TargetName, SerializeAsAny[TargetSpec]]
    router: Router
    release: Release


class Fleet(Declaration):
    """A declaration together with where it came from. Made by `lorafleet.load`, which has checked it."""

    origin: Origin

    @property
    def environment(self) -> str:
        """Name of the stack, such as `local` or `prod`."""
        return self.origin.environment
