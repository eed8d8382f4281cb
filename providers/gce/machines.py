"""Machine types, and the zones that have a GPU, as data."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# What this kind of target knows, by this project's names (lorafleet/gpus.py).
GPUS = ("L4", "T4")
# Compute Engine's name of a GPU that is attached to a machine. G2 machines come with theirs.
ATTACHED = {"T4": "nvidia-tesla-t4"}


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine type that holds one GPU.

    vcpus, memory_gib: as Compute Engine counts. gpu: the one that it has, or that is attached to it.
    """

    vcpus: int
    memory_gib: float
    gpu: str


# One GPU each: the model fits on one, and an engine uses one. G2 machines with more L4s (24, 48, 96 vCPUs) would idle
# the others. https://cloud.google.com/compute/docs/accelerator-optimized-machines#g2-vms; N1 takes a single T4 up to
# 48 vCPUs (https://cloud.google.com/compute/docs/gpus#t4-gpus), so n1-*-64 and n1-*-96 would need four.
MACHINES: dict[str, Machine] = {
    "g2-standard-4": Machine(4, 16, "L4"),
    "g2-standard-8": Machine(8, 32, "L4"),
    "g2-standard-12": Machine(12, 48, "L4"),
    "g2-standard-16": Machine(16, 64, "L4"),
    "g2-standard-32": Machine(32, 128, "L4"),
    "n1-standard-4": Machine(4, 15, "T4"),
    "n1-standard-8": Machine(8, 30, "T4"),
    "n1-standard-16": Machine(16, 60, "T4"),
    "n1-standard-32": Machine(32, 120, "T4"),
    "n1-highmem-4": Machine(4, 26, "T4"),
    "n1-highmem-8": Machine(8, 52, "T4"),
    "n1-highmem-16": Machine(16, 104, "T4"),
    "n1-highmem-32": Machine(32, 208, "T4"),
}


@cache
def zones(gpu: str) -> tuple[str, ...]:
    """The zones that have this GPU, of `zones.json` (which says as of when, and where from)."""
    data = json.loads(Path(__file__).with_name("zones.json").read_text())
    return tuple(data["zones"][gpu])


def region_of(zone: str) -> str:
    """`asia-northeast3` of `asia-northeast3-a`."""
    return zone.rpartition("-")[0]


def near_zones(zone: str, gpu: str) -> tuple[str, ...]:
    """The zones with this GPU nearest to one that lacks it: of its region, else of its continent, else all."""
    valid = zones(gpu)
    for start in (f"{region_of(zone)}-", f"{zone.partition('-')[0]}-"):
        found = tuple(each for each in valid if each.startswith(start))
        if found:
            return found
    return valid


def machines_with(gpu: str) -> tuple[str, ...]:
    """The machine types with this GPU, the smallest first."""
    return tuple(name for name, machine in MACHINES.items() if machine.gpu == gpu)


def regions(zones: Iterable[str]) -> tuple[str, ...]:
    """The regions of these zones, each once, in their order."""
    return tuple(dict.fromkeys(region_of(zone) for zone in zones))
