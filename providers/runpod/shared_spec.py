"""What may be declared of every kind of target on RunPod: the card, the disk, the place, the image's registry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field

from lorafleet.errors import Problem, shown
from lorafleet.stackfile import FieldPath
from lorafleet.targets import Site, TargetSpec
from lorafleet.values import Choice, Text, Whole

from .cards import CARDS

# Room beside the model and the adapters: vLLM's compiled kernels, a second copy of an adapter, logs.
_HEADROOM_BYTES = 5 * 10**9
# Where the model's size is not known before (hf://, gs://). A disk of 8 GB did not hold EXAONE 2.4B.
_DISK_OF_UNKNOWN_GB = 30
_SMALLEST_DISK_GB = 20
# What vLLM takes of the card's memory (its own default).
_USABLE_VRAM = 0.9

_DATA_CENTER = Text(r"[A-Z]{2,3}-[A-Z]{2,3}-[0-9]{1,2}", "the id of a RunPod data centre, as in EU-RO-1")
_CUDA = Text(r"[0-9]{1,2}\.[0-9]{1,2}", "a CUDA version as in 13.0", "Put it in quotes, as in '13.0'.")
_REGISTRY_USER = Text(r"[^\s\x00-\x1f\x7f]{1,200}", "a user name of the registry, as in _json_key_base64")

CardName = Annotated[str, Choice(tuple(CARDS))]


class RunpodSpec(TargetSpec):
    """What all kinds on RunPod declare.

    Fields:
        gpu_count: cards of one machine (a worker, or the pod).
        min_cuda: lowest CUDA version of the host's driver. The serving image is made for CUDA 13.
        data_centers: where it may run; none means anywhere.
        volume_gb: size of a network volume that keeps what was fetched, in one data centre; none means that each
            machine fetches for itself.
        disk_gb: the machine's own disk, in GB; without it, what the model needs.
        registry_username: for a private image; the password is the stack's secret `registryPassword`.
        start_timeout_s: longest time until a new machine has loaded everything, in seconds.
        drain_timeout_s: longest wait for requests in flight when it stops, in seconds.
    """

    gpu_count: Annotated[int, Whole(1, 8, "cards")] = 1
    min_cuda: Annotated[str, _CUDA] = "13.0"
    data_centers: list[Annotated[str, _DATA_CENTER]] = Field(default_factory=list)
    volume_gb: Annotated[int, Whole(10, 4096, "GB")] | None = None
    disk_gb: Annotated[int, Whole(1, 4096, "GB")] | None = None
    registry_username: Annotated[str, _REGISTRY_USER] | None = None
    start_timeout_s: Annotated[int, Whole(60, 7200, "seconds")] = 900
    drain_timeout_s: Annotated[int, Whole(0, 600, "seconds")] = 30

    def stack_secrets(self) -> Mapping[str, str]:
        if self.registry_username is None:
            return {}
        return {"registryPassword": f"the password of {self.registry_username} at the image's registry"}

    def cards(self) -> Iterable[tuple[FieldPath, str]]:
        """The cards that it may get, each with its place in the declaration."""
        return ()

    def disk_needed_gb(self, content_bytes: int | None) -> int:
        """The disk of a machine that fetches this much, in GB."""
        if self.volume_gb is not None:
            content_bytes = 0
        if content_bytes is None:
            return _DISK_OF_UNKNOWN_GB
        return _gb(content_bytes + _HEADROOM_BYTES)

    def disk(self, content_bytes: int | None) -> int:
        """The disk that a machine gets, in GB."""
        return self.disk_gb or max(_SMALLEST_DISK_GB, self.disk_needed_gb(content_bytes))

    def problems(self, site: Site) -> Iterable[tuple[FieldPath, Problem]]:
        yield from self._disk_problems(site.content_bytes)
        for path, name in self.cards():
            yield from self._card_problems(path, name, site.content_bytes)
        if self.engine.device == "cpu":
            yield (
                ("engine", "device"),
                Problem(
                    "this target has GPUs",
                    found="cpu",
                    allowed="auto or cuda",
                    next_action="Take engine.device away.",
                ),
            )
        if self.volume_gb is not None and len(self.data_centers) != 1:
            yield (
                ("dataCenters",),
                Problem(
                    "a volume lies in one data centre, and so does what mounts it",
                    found=f"{len(self.data_centers)} data centres",
                    allowed="one with volumeGb",
                    next_action="Name one data centre, or take volumeGb away.",
                ),
            )

    def _disk_problems(self, content_bytes: int | None) -> Iterable[tuple[FieldPath, Problem]]:
        needed = self.disk_needed_gb(content_bytes)
        if self.disk_gb is not None and self.disk_gb < needed:
            why = "" if content_bytes is not None else " (its size is not known yet)"
            yield (
                ("diskGb",),
                Problem(
                    f"the model and its adapters would not fit on the disk{why}",
                    found=f"{shown(self.disk_gb)} GB",
                    allowed=f"at least {needed} GB",
                    next_action="Raise diskGb or take it away: then it is chosen by what the model needs.",
                ),
            )
        if self.volume_gb is not None and content_bytes is not None:
            on_volume = _gb(content_bytes + _HEADROOM_BYTES)
            if self.volume_gb < on_volume:
                yield (
                    ("volumeGb",),
                    Problem(
                        "the model and its adapters would not fit on the volume",
                        found=f"{shown(self.volume_gb)} GB",
                        allowed=f"at least {on_volume} GB",
                        next_action="Raise volumeGb.",
                    ),
                )

    def _card_problems(
        self, path: FieldPath, name: str, content_bytes: int | None
    ) -> Iterable[tuple[FieldPath, Problem]]:
        card = CARDS[name]
        needed = (content_bytes or 0) + (self.engine.kv_cache_mib << 20)
        if needed > card.vram_gb * self.gpu_count * _USABLE_VRAM * 10**9:
            yield (
                path,
                Problem(
                    "the model and kvCacheMib do not fit into this card's memory",
                    found=f"{name} with {card.vram_gb} GB, {_gb(needed)} GB needed",
                    allowed=f"cards that {_USABLE_VRAM:.0%} of whose memory is enough",
                    next_action="Choose a larger card, more of them (gpuCount), or lower kvCacheMib.",
                ),
            )
        if self.engine.dtype != "auto" and self.engine.dtype not in card.dtypes:
            yield (
                path,
                Problem(
                    f"this card does not compute in {self.engine.dtype}",
                    found=name,
                    allowed=f"engine.dtype of {', '.join(card.dtypes)}",
                    next_action="Choose another card or another engine.dtype.",
                ),
            )


class ServerlessSpec(RunpodSpec):
    """What both kinds of serverless endpoints declare.

    Fields:
        gpus: cards that a worker may get, by RunPod's names (`CARDS`); more of them are found free more often.
        workers_min: workers that always run and are always paid for; 0: none while nobody asks.
        workers_max: workers at the same time at most.
        flash_boot: RunPod's quicker cold starts: `off`, `on`, or `priority`.
    """

    gpus: Annotated[list[CardName], Field(min_length=1)]
    workers_min: Annotated[int, Whole(0, 100, "workers")] = 0
    workers_max: Annotated[int, Whole(1, 100, "workers")] = 2
    flash_boot: Annotated[str, Choice(("off", "on", "priority"))] = "on"

    def stack_secrets(self) -> Mapping[str, str]:
        what = "a RunPod API key that may send requests to the endpoint, from RunPod's console"
        return {**super().stack_secrets(), "runpodKey": what}

    def cards(self) -> Iterable[tuple[FieldPath, str]]:
        return ((("gpus", index), name) for index, name in enumerate(self.gpus))

    def problems(self, site: Site) -> Iterable[tuple[FieldPath, Problem]]:
        yield from super().problems(site)
        if self.workers_min > self.workers_max:
            yield (
                ("workersMin",),
                Problem(
                    "there would be more workers at least than at most",
                    found=f"workersMin {self.workers_min}, workersMax {self.workers_max}",
                    allowed=f"at most {self.workers_max}",
                    next_action="Lower workersMin or raise workersMax.",
                ),
            )


def _gb(content_bytes: int) -> int:
    """Gigabytes, rounded up."""
    return -(-content_bytes // 10**9)
