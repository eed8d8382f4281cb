"""The table of GPUs: one name for each, and all that platforms call it."""

from __future__ import annotations

import pytest

from lorafleet.errors import Problem
from lorafleet.gpus import GPUS, find, plain


def test_no_name_stands_for_two_gpus() -> None:
    owners: dict[str, set[str]] = {}
    for gpu in GPUS.values():
        for name in (gpu.name, *gpu.aliases):
            owners.setdefault(plain(name), set()).add(gpu.name)
    assert [(name, gpus) for name, gpus in owners.items() if len(gpus) > 1] == []


def test_every_name_finds_its_gpu_however_it_is_written() -> None:
    for key, gpu in GPUS.items():
        assert gpu.name == key
        for name in (gpu.name, *gpu.aliases):
            assert find(name) is find(name.upper()) is find(name.replace(" ", "-").replace("_", "-")) is gpu


def test_what_a_gpu_can_do_follows_from_its_compute_capability() -> None:
    assert find("T4").dtypes == ("float32", "float16")
    assert find("nvidia-l4").dtypes == ("float32", "float16", "bfloat16")
    assert {gpu.name for gpu in GPUS.values() if not gpu.servable} == {"P4", "P100", "V100"}
    assert {gpu.name for gpu in GPUS.values() if "bfloat16" not in gpu.dtypes} == {"P4", "P100", "V100", "T4"}


@pytest.mark.parametrize(
    ("name", "allowed", "next_action"),
    [
        ("A100", "A100-40GB or A100-80GB", "Say which."),
        ("RTX 4091", "P4, P100, V100, T4,", "Did you mean `RTX 4090`?"),
        ("", "P4, P100, V100, T4,", "Take one of those."),
    ],
)
def test_a_name_that_is_none_is_told(name: str, allowed: str, next_action: str) -> None:
    with pytest.raises(Problem) as problem:
        find(name)
    assert problem.value.allowed.startswith(allowed)
    assert problem.value.next_action == next_action
