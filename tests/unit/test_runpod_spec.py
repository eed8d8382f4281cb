"""What may be declared of a target on RunPod, and the figures that go with it."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import providers.runpod
from lorafleet.targets import Site, spec_of
from providers.runpod.cards import CARDS
from providers.runpod.spec import RunpodTarget

GB = 10**9


def spec(**fields: Any) -> RunpodTarget:
    return RunpodTarget.model_validate({"kind": "runpod", "gpus": ["L4"], **fields})


def problems(declared: RunpodTarget, content_bytes: int | None = 5 * GB) -> list[tuple[str, str]]:
    """(field, what is allowed)"""
    found = declared.problems(Site(Path(), "dev", "burst", content_bytes))
    return [(".".join(map(str, path)), problem.allowed) for path, problem in found]


def test_it_is_found_by_its_folder() -> None:
    assert spec_of("runpod") is RunpodTarget
    assert problems(spec()) == []


@pytest.mark.parametrize(
    ("content_bytes", "disk", "needed"),
    [(None, 30, 30), (1 * GB, 20, 6), (15 * GB, 20, 20), (15 * GB + 1, 21, 21), (40 * GB, 45, 45)],
)
def test_the_disk_is_at_least_what_the_model_needs(content_bytes: int | None, disk: int, needed: int) -> None:
    assert spec().disk(content_bytes) == disk
    small = spec(diskGb=needed - 1)
    assert ("diskGb", f"at least {needed} GB") in problems(small, content_bytes)
    assert "diskGb" not in dict(problems(spec(diskGb=needed), content_bytes))


def test_a_volume_takes_the_model_instead_of_the_disk() -> None:
    declared = spec(volumeGb=44, dataCenters=["EU-RO-1"], gpus=["A100 SXM"])
    assert problems(declared, 40 * GB) == [("volumeGb", "at least 45 GB")]
    assert declared.disk(40 * GB) == 20
    assert [field for field, _ in problems(spec(volumeGb=50))] == ["dataCenters"]
    assert [field for field, _ in problems(spec(volumeGb=50, dataCenters=["EU-RO-1", "US-TX-3"]))] == ["dataCenters"]


def test_each_card_must_hold_model_and_cache() -> None:
    declared = spec(gpus=["RTX A4000", "A40"], engine={"kvCacheMib": 4096})
    assert [field for field, _ in problems(declared, 12 * GB)] == ["gpus.0"]
    assert problems(spec(gpus=["RTX A4000"], gpuCount=2, engine={"kvCacheMib": 4096}), 12 * GB) == []


def test_workers_and_device_that_cannot_be() -> None:
    assert [field for field, _ in problems(spec(workersMin=3, workersMax=2))] == ["workersMin"]
    assert [field for field, _ in problems(spec(engine={"device": "cpu"}))] == ["engine.device"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"gpus": ["L44"]}, "gpus"),
        ({"gpus": []}, "gpus"),
        ({"gpus": "L4"}, "gpus"),
        ({"minCuda": 13.0}, "minCuda"),
        ({"dataCenters": ["Romania"]}, "dataCenters"),
        ({"requestTimeoutS": 331}, "requestTimeoutS"),
        ({"flashBoot": True}, "flashBoot"),
        ({"gpuTypes": ["L4"]}, "gpuTypes"),
    ],
)
def test_a_wrong_value_is_refused_at_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as error:
        spec(**fields)
    assert {each["loc"][0] for each in error.value.errors()} == {field}


def test_the_nearest_card_is_named() -> None:
    with pytest.raises(ValidationError) as error:
        spec(gpus=["RTX4090"])
    [fault] = error.value.errors()
    assert fault["ctx"]["next_action"] == 'Did you mean "RTX 4090"?'


def test_cards_are_distinct_and_can_serve() -> None:
    assert len({card.id for card in CARDS.values()}) == len(CARDS)
    assert all(card.vram_gb >= 16 and "bfloat16" in card.dtypes for card in CARDS.values())


def test_prices_have_a_date_and_a_source_and_agree_with_themselves() -> None:
    prices = json.loads((Path(providers.runpod.__file__).parent / "prices.json").read_text())
    assert date.fromisoformat(prices["asOf"]) <= date.today()
    assert prices["source"].startswith("https://")
    per_hour = {each["gpu"]: each["usdPerHour"] for each in prices["pods"]}
    months = {each["what"]: each["usd"] for each in prices["months"]}
    for gpu, article in (("A40", "an A40"), ("RTX 4090", "an RTX 4090")):
        assert months[f"pod with {article}, 24/7"] == round(720 * per_hour[gpu])
        assert months[f"pod with {article}, 12 hours a day"] == round(360 * per_hour[gpu])
