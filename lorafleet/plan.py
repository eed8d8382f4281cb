"""The resolved plan: everything that follows from a declaration, as plain data.

`resolve` looks at `file://` folders of this machine and at nothing else, so a plan can be printed and tested
without Pulumi and without any platform.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafleet import adapters, digest, digest_cache, exaone, manifest, models
from lorafleet.checks import check_licence
from lorafleet.declaration import Adapter, Fleet, Rollout
from lorafleet.engine import EngineSettings
from lorafleet.errors import Problem, shown
from lorafleet.limits import RouterLimits
from lorafleet.origin import Report
from lorafleet.sources import Source
from lorafleet.targets import Site, TargetSpec

ROUTER_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class PlannedBase:
    """The base model. `digest` is None only where `revision` pins it, `size_bytes` where it is unknown."""

    name: str
    source: str
    revision: str | None
    digest: str | None
    architecture: str
    license: str
    size_bytes: int | None
    licence_accepted: str | None = None


@dataclass(frozen=True, slots=True)
class PlannedCanary:
    """A version that gets `weight` percent of the requests for the adapter's name."""

    served_name: str
    source: str
    digest: str
    weight: int
    rank: int | None
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class PlannedAdapter:
    """An adapter. `served_name` is the immutable name on a server, `name` the one that clients use.

    `stored` tells whether it comes from the store. `rank` and `size_bytes` are None where the files can't be looked at.
    """

    name: str
    served_name: str
    source: str
    revision: str | None
    digest: str
    rank: int | None
    size_bytes: int | None
    stored: bool
    canary: PlannedCanary | None = None


@dataclass(frozen=True, slots=True)
class PlannedTarget:
    """A target.

    `models` are the public names that it serves, the base first. `max_loras` is the number of adapter slots
    of vLLM: one more than adapters, because on CPU the last slot must stay unused (vllm#48421) and because a
    new version of an adapter is loaded beside the old one. `disk_bytes` is the size of what it fetches, None
    while a part is unknown.
    """

    name: str
    kind: str
    models: tuple[str, ...]
    max_loras: int
    disk_bytes: int | None
    engine: EngineSettings
    spec: TargetSpec


@dataclass(frozen=True, slots=True)
class PlannedRouter:
    """The router. `models` are the public names in the order that `/v1/models` lists them.

    `runs` is `here`, on the machine that deploys, or `elsewhere`.
    """

    runs: str
    host: str
    port: int
    metrics_port: int
    limits: RouterLimits
    models: tuple[str, ...]

    @property
    def endpoint(self) -> str:
        """The base URL for OpenAI clients."""
        return f"http://{self.host}:{self.port}/v1"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a fleet resolves to. `root` is the project's root, `store` the URL of the store."""

    environment: str
    root: Path
    store: str
    base: PlannedBase
    adapters: tuple[PlannedAdapter, ...]
    targets: tuple[PlannedTarget, ...]
    router: PlannedRouter
    rollout: Rollout
    image: str | None

    def target(self, name: str) -> PlannedTarget:
        """One target by name. Raises KeyError."""
        for target in self.targets:
            if target.name == name:
                return target
        raise KeyError(name)

    def manifest(self) -> dict[str, Any]:
        """The manifest (docs/architecture.md)."""
        return manifest.document(
            store=self.store,
            base_model=self.base_model(),
            adapters={adapter.name: adapter.digest for adapter in self.adapters},
            canaries={a.name: (a.canary.digest, a.canary.weight) for a in self.adapters if a.canary},
            elsewhere={a.name: (a.source, a.revision) for a in self.adapters if not a.stored},
        )

    def base_model(self) -> dict[str, str | None]:
        """The `baseModel` of a manifest and of a launch file."""
        base = self.base
        return {"name": base.name, "source": base.source, "revision": base.revision, "digest": base.digest}

    def manifest_digest(self) -> str:
        """Hexadecimal SHA-256 of the manifest as canonical JSON."""
        return manifest.digest_of(self.manifest())

    def router_models(self) -> list[dict[str, str]]:
        """The `models` of a router file (docs/architecture.md)."""
        return [{"name": name} for name in self.router.models]

    def to_dict(self) -> dict[str, Any]:
        """The whole plan as plain data with camelCase keys."""
        return {
            "environment": self.environment,
            "store": self.store,
            "baseModel": {
                **self.base_model(),
                "architecture": self.base.architecture,
                "license": self.base.license,
                "sizeBytes": self.base.size_bytes,
            },
            "adapters": [
                {
                    **entry,
                    "servedName": adapter.served_name,
                    "rank": adapter.rank,
                    "sizeBytes": adapter.size_bytes,
                }
                for entry, adapter in zip(self.manifest()["adapters"], self.adapters, strict=True)
            ],
            "targets": {
                target.name: {
                    **target.spec.model_dump(by_alias=True, mode="json"),
                    "models": list(target.models),
                    "maxLoras": target.max_loras,
                    "diskBytes": target.disk_bytes,
                }
                for target in self.targets
            },
            "router": {
                "runs": self.router.runs,
                "endpoint": self.router.endpoint if self.router.runs == "here" else None,
                "port": self.router.port,
                "metricsPort": self.router.metrics_port,
                "limits": self.router.limits.model_dump(by_alias=True),
                "models": self.router_models(),
            },
            "image": self.image,
            "manifestDigest": self.manifest_digest(),
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def render(self) -> str:
        """The plan as text for people."""
        from lorafleet.render import render  # only needed for people; a preview does without

        return render(self)


def resolve(fleet: Fleet, *, cache: digest_cache.Cache | None = None) -> Plan:
    """Work the plan out.

    Args:
        fleet: a checked declaration.
        cache: where sums of big files are remembered; by default the user's own cache.

    Raises:
        LorafleetError: the files that it names are not what they should be (`DeclarationErrors` for several).
    """
    cache = cache or digest_cache.Cache()
    report = Report(fleet.origin)
    root = fleet.origin.root
    facts = _look_at_base(fleet, root, report, cache)
    check_licence(fleet, models.licence_texts(fleet.base_model.source.folder(root)) if facts else (), report)
    # By name: Pulumi hands a declaration over sorted, a stack file has the order of its author.
    adapters_by_name = sorted(fleet.adapters.items())
    planned = [_planned_adapter(name, adapter, fleet, facts, report, cache) for name, adapter in adapters_by_name]
    ready = tuple(adapter for adapter in planned if adapter is not None)
    base = _planned_base(fleet, facts)
    names = (base.name, *sorted(fleet.adapters))
    canaries = [adapter.canary for adapter in ready if adapter.canary]
    sizes = [base.size_bytes, *(each.size_bytes for each in ready), *(each.size_bytes for each in canaries)]
    disk_bytes = None if None in sizes else sum(size for size in sizes if size is not None)
    for name, target in fleet.targets.items():
        _check_target(name, target, ready, facts, Site(root, fleet.environment, name, disk_bytes), report)
    report.finish()
    return Plan(
        environment=fleet.environment,
        root=root,
        store=fleet.store_url,
        base=base,
        adapters=ready,
        targets=tuple(
            PlannedTarget(name, target.kind, names, len(ready) + len(canaries) + 1, disk_bytes, target.engine, target)
            for name, target in fleet.targets.items()
        ),
        router=_planned_router(fleet, names),
        rollout=fleet.rollout,
        image=fleet.release.image,
    )


def _planned_router(fleet: Fleet, models: tuple[str, ...]) -> PlannedRouter:
    declared = fleet.router
    return PlannedRouter(declared.runs, ROUTER_HOST, declared.port, declared.metrics_port, declared.limits, models)


def _look_at_base(fleet: Fleet, root: Path, report: Report, cache: digest_cache.Cache) -> models.BaseFacts | None:
    source, pinned = fleet.base_model.source, fleet.release.base_model.digest
    if source.scheme != "file":
        return None
    folder = source.folder(root)
    try:
        facts = models.inspect(folder)
        found = digest.content_digest(folder, "model", cache=cache)
    except Problem as problem:
        report.problem(("baseModel", "source"), problem)
        return None
    if found != pinned:
        _note_digest(report, ("release", "baseModel", "digest"), "base model", found, pinned)
    return facts


def _planned_base(fleet: Fleet, facts: models.BaseFacts | None) -> PlannedBase:
    base, pin = fleet.base_model, fleet.release.base_model
    return PlannedBase(
        name=base.name,
        source=base.source.absolute(fleet.origin.root),
        revision=pin.revision,
        digest=pin.digest,
        architecture=base.architecture,
        license=base.license,
        size_bytes=facts.size_bytes if facts else None,
        licence_accepted=base.licence_accepted,
    )


def _planned_adapter(
    name: str,
    adapter: Adapter,
    fleet: Fleet,
    base: models.BaseFacts | None,
    report: Report,
    cache: digest_cache.Cache,
) -> PlannedAdapter | None:
    """The adapter, or None after its mistake was noted."""
    pinned = fleet.release.adapters[name]
    stored = adapter.source is None
    source = adapter.source or Source.parse(manifest.stored_source(fleet.store_url, name, pinned))
    facts: adapters.AdapterFacts | None = None
    if source.scheme == "file":
        place = ("release", "adapters", name) if stored else ("adapters", name, "source")
        facts = _look_at_adapter(name, source, pinned, place, fleet, base, report, cache)
        if facts is None:
            return None
        if adapter.rank is not None and adapter.rank != facts.rank:
            report.add(
                ("adapters", name, "rank"),
                "the declared rank is not the adapter's",
                found=str(adapter.rank),
                allowed=str(facts.rank),
                next_action="Take `rank` away: it is read from the adapter.",
            )
    return PlannedAdapter(
        name=name,
        served_name=manifest.served_name(name, pinned),
        source=source.absolute(fleet.origin.root),
        revision=adapter.revision,
        digest=pinned,
        rank=facts.rank if facts else adapter.rank,
        size_bytes=facts.size_bytes if facts else None,
        stored=stored,
        canary=_planned_canary(name, fleet, base, report, cache) if name in fleet.release.canaries else None,
    )


def _planned_canary(
    name: str, fleet: Fleet, base: models.BaseFacts | None, report: Report, cache: digest_cache.Cache
) -> PlannedCanary:
    canary = fleet.release.canaries[name]
    source = Source.parse(manifest.stored_source(fleet.store_url, name, canary.digest))
    facts: adapters.AdapterFacts | None = None
    if source.scheme == "file":
        place = ("release", "canaries", name, "digest")
        facts = _look_at_adapter(name, source, canary.digest, place, fleet, base, report, cache)
    return PlannedCanary(
        served_name=manifest.served_name(name, canary.digest),
        source=str(source),
        digest=canary.digest,
        weight=canary.weight,
        rank=facts.rank if facts else None,
        size_bytes=facts.size_bytes if facts else None,
    )


def _look_at_adapter(
    name: str,
    source: Source,
    pinned: str,
    place: tuple[str, ...],
    fleet: Fleet,
    base: models.BaseFacts | None,
    report: Report,
    cache: digest_cache.Cache,
) -> adapters.AdapterFacts | None:
    """What the files in a folder say; None after a mistake was noted at `place`."""
    folder = source.folder(fleet.origin.root)
    stored = place[0] == "release"
    if stored and not (folder / manifest.METADATA).is_file():
        # A push that was ended in the middle has files, but no metadata: it does not count.
        report.add(
            place,
            f"the store does not have this version of {name}",
            found=f"{pinned[:19]}… is not in {fleet.store}",
            allowed=f"a digest that `lorafleet adapter list {name} --stack {fleet.environment}` shows",
            next_action=f"Put it there: lorafleet adapter push FOLDER --name {name} --stack {fleet.environment}",
        )
        return None
    try:
        facts = adapters.inspect(folder, base_names=base_names(fleet), shape=base.shape if base else None)
        found = digest.content_digest(folder, "adapter", cache=cache)
    except Problem as problem:
        report.problem(place, problem)
        return None
    if found != pinned and stored:
        report.add(
            place,
            f"the files of {name} in the store are damaged: they do not have the digest that they are kept under",
            found=found,
            allowed=pinned,
            next_action=f"See what else is wrong with `lorafleet adapter verify --stack {fleet.environment}`, remove "
            f"that folder and push the adapter again.",
        )
    elif found != pinned:
        _note_digest(report, ("release", "adapters", name), f"adapter {name}", found, pinned)
    return facts


def base_names(fleet: Fleet) -> set[str]:
    """The values of an adapter's `base_model_name_or_path` that mean the declared base."""
    base = fleet.base_model
    own = str(base.source.folder(fleet.origin.root)) if base.source.scheme == "file" else base.source.address
    return {base.name, own, *(name.rstrip("/") for name in base.trained_as)}


def _note_digest(report: Report, path: tuple[str, ...], what: str, found: str, pinned: str | None) -> None:
    report.add(
        path,
        f"the {what} in this folder is not the one that the release pins",
        found=f"{found} in the folder",
        allowed=f"{pinned}, as pinned",
        next_action="If the new content is meant, write its digest here; if not, restore the files.",
    )


def _check_target(
    name: str,
    target: TargetSpec,
    planned: tuple[PlannedAdapter, ...],
    base: models.BaseFacts | None,
    site: Site,
    report: Report,
) -> None:
    engine = target.engine
    for adapter in planned:
        rank = max(adapter.rank or 0, (adapter.canary and adapter.canary.rank) or 0)
        if rank > engine.max_lora_rank:
            report.add(
                ("targets", name, "engine", "maxLoraRank"),
                f"the adapter {adapter.name} has a higher rank than this target takes",
                found=f"rank {rank}, maxLoraRank {engine.max_lora_rank}",
                allowed=f"maxLoraRank of {rank} or more",
                next_action="Raise maxLoraRank (every adapter then takes more memory) or lower the rank.",
            )
    if base is not None:
        _check_lengths(name, engine, base.shape, report)
    for path, problem in target.problems(site):
        report.problem(("targets", name, *path), problem, target=name)


def _check_lengths(name: str, engine: EngineSettings, shape: exaone.Shape, report: Report) -> None:
    if engine.max_model_len > shape.max_positions:
        report.value(
            ("targets", name, "engine", "maxModelLen"),
            "this is longer than the model was made for",
            engine.max_model_len,
            allowed=f"at most {shape.max_positions} tokens (max_position_embeddings in config.json)",
            next_action="Lower maxModelLen.",
        )
        return
    needed = shape.kv_bytes_per_token(engine.dtype) * engine.max_model_len
    if needed > engine.kv_cache_mib << 20:
        report.add(
            ("targets", name, "engine", "kvCacheMib"),
            "one request of maxModelLen tokens would not fit in",
            found=shown(engine.kv_cache_mib),
            allowed=f"at least {-(-needed >> 20)} MiB for {engine.max_model_len} tokens",
            next_action="Raise kvCacheMib or lower maxModelLen.",
        )
