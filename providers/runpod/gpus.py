"""From cards to RunPod's pools and back.

A serverless endpoint is placed on pools of cards, minus cards that are left out. Which card is in which pool is
RunPod's decision and changes, so it is always asked for (`GET /v2/catalog/gpus`) and stands nowhere in this repository.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lorafleet.errors import listed, nearest
from providers import kit

from .answers import EndpointGpu, GpuType


def selection(catalog: Sequence[GpuType], wanted: Iterable[str]) -> tuple[list[str], list[str]]:
    """(pools, types of these pools that are left out) which stand for exactly the wanted types, both sorted.

    Raises kit.ResourceError for a type that RunPod does not have or does not offer serverless.
    """
    pool_of = {each.id: each.pool for each in catalog}
    chosen = set(wanted)
    for each in sorted(chosen):
        if pool_of.get(each) is None:
            offered = sorted(card for card, pool in pool_of.items() if pool is not None)
            close = nearest(each, offered)
            why = "offers no serverless workers with" if each in pool_of else "has no GPU type"
            raise kit.ResourceError(
                f"RunPod {why} '{each}'",
                field="gpus",
                next_action=f"did you mean '{close}'?" if close else f"choose from {listed(offered)}",
            )
    pools = {pool for each in chosen if (pool := pool_of[each]) is not None}
    return sorted(pools), sorted(each for each, pool in pool_of.items() if pool in pools and each not in chosen)


def eligible(catalog: Sequence[GpuType], gpu: EndpointGpu) -> list[str]:
    """The types that an endpoint's workers can get, sorted."""
    excluded = {each.strip() for each in gpu.excluded_types}
    return sorted(each.id for each in catalog if each.pool in gpu.pools and each.id not in excluded)
