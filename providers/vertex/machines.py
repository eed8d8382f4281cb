"""The machines that Vertex AI serves on, and where it has which GPU: facts as data, and what follows from them.

Machines and counts: https://cloud.google.com/vertex-ai/docs/predictions/configure-compute and
https://cloud.google.com/compute/docs/gpus. Regions: the `endpoints` of the API's discovery document (20261106);
tests compare. Read November 2026.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lorafleet.errors import nearest
from lorafleet.gpus import Gpu, find


@dataclass(frozen=True)
class Machine:
    """memory_gb: the machine's own; counts: how many of its GPU (by Vertex AI's name) it can have."""

    memory_gb: float
    gpu: str
    counts: tuple[int, ...]


def _n1() -> Iterator[tuple[str, Machine]]:
    for family, memory in (("standard", 3.75), ("highmem", 6.5)):
        for cpus in (4, 8, 16, 32):
            counts = (1, 2, 4) if cpus <= 16 else (2, 4)
            yield f"n1-{family}-{cpus}", Machine(cpus * memory, "NVIDIA_TESLA_T4", counts)


def _g2() -> Iterator[tuple[str, Machine]]:
    for cpus, count in ((4, 1), (8, 1), (12, 1), (16, 1), (24, 2), (32, 1), (48, 4), (96, 8)):
        yield f"g2-standard-{cpus}", Machine(cpus * 4, "NVIDIA_L4", (count,))


def _whole(name: str, gpu: str, memory_gb: Mapping[int, float]) -> Iterator[tuple[str, Machine]]:
    """Machines with all GPUs of a size: {count: memory}."""
    for count, memory in memory_gb.items():
        yield name.format(count), Machine(memory, gpu, (count,))


# The smaller GPUs first: what is proposed is the first that fits.
MACHINES: Mapping[str, Machine] = dict(
    [
        *_g2(),
        *_n1(),
        *_whole("a2-highgpu-{}g", "NVIDIA_TESLA_A100", {1: 85, 2: 170, 4: 340, 8: 680}),
        *_whole("a2-megagpu-{}g", "NVIDIA_TESLA_A100", {16: 1360}),
        *_whole("a2-ultragpu-{}g", "NVIDIA_A100_80GB", {1: 170, 2: 340, 4: 680, 8: 1360}),
        *_whole("a3-highgpu-{}g", "NVIDIA_H100_80GB", {1: 234, 2: 468, 4: 936, 8: 1872}),
        *_whole("a3-megagpu-{}g", "NVIDIA_H100_MEGA_80GB", {8: 1872}),
        *_whole("a3-ultragpu-{}g", "NVIDIA_H200_141GB", {8: 2952}),
        *_whole("a4-highgpu-{}g", "NVIDIA_B200", {8: 3968}),
        ("g4-standard-48", Machine(180, "NVIDIA_RTX_PRO_6000", (1,))),
        ("g4-standard-96", Machine(360, "NVIDIA_RTX_PRO_6000", (2,))),
        ("g4-standard-192", Machine(720, "NVIDIA_RTX_PRO_6000", (4,))),
        ("g4-standard-384", Machine(1440, "NVIDIA_RTX_PRO_6000", (8,))),
    ]
)
ACCELERATORS = tuple(dict.fromkeys(machine.gpu for machine in MACHINES.values()))


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


REGIONS = _names(
    "africa-south1 asia-east1 asia-east2 asia-northeast1 asia-northeast2 asia-northeast3 asia-south1 asia-south2 "
    "asia-southeast1 asia-southeast2 asia-southeast3 australia-southeast1 australia-southeast2 europe-central2 "
    "europe-north1 europe-north2 europe-southwest1 europe-west1 europe-west2 europe-west3 europe-west4 europe-west6 "
    "europe-west8 europe-west9 europe-west10 europe-west12 europe-west15 me-central1 me-central2 me-west1 "
    "northamerica-northeast1 northamerica-northeast2 southamerica-east1 southamerica-west1 us-central1 us-central2 "
    "us-east1 us-east4 us-east5 us-east7 us-south1 us-west1 us-west2 us-west3 us-west4 us-west8"
)

# Where Compute Engine has a GPU at all, so where Vertex AI can have it; it need not have it in each of them, and quota
# and free machines are another matter. GPUs that are not named here are not checked. Regions of the zones in
# providers/gce/zones.json, which says where they are from; a test compares.
GPU_REGIONS: Mapping[str, frozenset[str]] = {
    "NVIDIA_L4": _names(
        "asia-east1 asia-northeast1 asia-northeast3 asia-south1 asia-southeast1 europe-west1 europe-west2 europe-west3 "
        "europe-west4 europe-west6 me-central2 northamerica-northeast1 northamerica-northeast2 us-central1 us-east1 "
        "us-east4 us-west1 us-west4"
    ),
    "NVIDIA_TESLA_T4": _names(
        "asia-east1 asia-east2 asia-northeast1 asia-northeast3 asia-south1 asia-southeast1 asia-southeast2 "
        "australia-southeast1 europe-central2 europe-west1 europe-west2 europe-west3 europe-west4 me-west1 "
        "northamerica-northeast1 southamerica-east1 us-central1 us-east1 us-east4 us-west1 us-west2 us-west3 "
        "us-west4"
    ),
}


def gpu(accelerator: str) -> Gpu:
    """What the GPU can do, of Vertex AI's name."""
    return find(accelerator)


def machines_with(accelerator: str, count: int = 0) -> list[str]:
    """Names of the machines that can have so many of this GPU (any number for 0), the smallest first."""
    fit = [
        (machine.memory_gb, name)
        for name, machine in MACHINES.items()
        if machine.gpu == accelerator and (not count or count in machine.counts)
    ]
    return [name for _, name in sorted(fit)]


def nearest_region(region: str, having: Iterable[str]) -> str | None:
    """A region of the same part of the world, if there is one."""
    candidates = sorted(having)
    area = region.split("-")[0]
    near = [each for each in candidates if each.rstrip("0123456789") == region.rstrip("0123456789")]
    near = near or [each for each in candidates if each.split("-")[0] == area]
    return next(iter(near or candidates), None)


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """What to do about a name that there is not."""
    close = nearest(name, valid)
    return f"did you mean '{close}'?" if close else "take one of those"
