"""What may be declared of a target on RunPod, and the figures that go with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lorafleet.targets import Site, TargetSpec, kinds, spec_of
from providers.runpod.cards import CARDS
from providers.runpod.spec import RunpodTarget
from providers.runpod.spec_pod import RunpodPodTarget
from providers.runpod.spec_queue import RunpodQueueTarget

GB = 10**9


IMAGE = f"registry.example.com/worker@sha256:{'0' * 64}"


def spec(**fields: Any) -> RunpodTarget:
    return RunpodTarget.model_validate({"kind": "runpod", "gpus": ["L4"], **fields})


def queue(**fields: Any) -> RunpodQueueTarget:
    return RunpodQueueTarget.model_validate({"kind": "runpod-queue", "gpus": ["L4"], "image": IMAGE, **fields})


def pod(**fields: Any) -> RunpodPodTarget:
    return RunpodPodTarget.model_validate({"kind": "runpod-pod", "gpu": "L4", **fields})


def problems(declared: TargetSpec, content_bytes: int | None = 5 * GB) -> list[tuple[str, str]]:
    """(field, what is allowed)"""
    found = declared.problems(Site(Path(), "dev", "burst", content_bytes))
    return [(".".join(map(str, path)), problem.allowed) for path, problem in found]


def test_the_three_kinds_are_found_by_their_files() -> None:
    assert spec_of("runpod") is RunpodTarget
    assert spec_of("runpod-queue") is RunpodQueueTarget
    assert spec_of("runpod-pod") is RunpodPodTarget
    assert [kind for kind in kinds() if kind.startswith("runpod")] == ["runpod", "runpod-pod", "runpod-queue"]
    assert [problems(each) for each in (spec(), queue(), pod())] == [[], [], []]


def test_what_the_kinds_share_is_checked_for_each() -> None:
    for made in (spec, queue, pod):
        wrong: TargetSpec = made(diskGb=1, engine={"device": "cpu"})
        assert {field for field, _ in problems(wrong)} == {"diskGb", "engine.device"}
    assert [field for field, _ in problems(pod(engine={"kvCacheMib": 30_000}))] == ["gpu"]
    assert [field for field, _ in problems(queue(workersMin=3))] == ["workersMin"]


def test_the_secrets_that_a_stack_must_have() -> None:
    assert set(spec().stack_secrets()) == set(queue().stack_secrets()) == {"runpodKey"}
    assert pod().stack_secrets() == {}, "its key is made"
    assert set(pod(registryUsername="robot").stack_secrets()) == {"registryPassword"}
    assert set(spec(registryUsername="robot").stack_secrets()) == {"registryPassword", "runpodKey"}


@pytest.mark.parametrize(
    ("fields", "scaling", "idle_timeout_s", "wrong"),
    [
        ({}, {"type": "QUEUE_DELAY", "queueDelay": 4}, 60, []),
        ({"queueDelayS": 9, "idleTimeoutS": 5}, {"type": "QUEUE_DELAY", "queueDelay": 9}, 5, []),
        ({"requestsPerWorker": 8}, {"type": "REQUEST_COUNT", "requestCount": 8}, None, []),
        (
            {"requestsPerWorker": 8, "queueDelayS": 9, "idleTimeoutS": 5},
            {"type": "REQUEST_COUNT", "requestCount": 8},
            None,
            ["queueDelayS", "idleTimeoutS"],
        ),
    ],
)
def test_a_queue_scales_by_one_rule(
    fields: dict[str, Any], scaling: dict[str, Any], idle_timeout_s: int | None, wrong: list[str]
) -> None:
    declared = queue(**fields)
    assert (declared.scaling(), declared.idle_timeout()) == (scaling, idle_timeout_s)
    assert [field for field, _ in problems(declared)] == wrong


def test_the_worker_of_a_queue_is_pinned() -> None:
    for image in ("registry.example.com/worker:latest", None):
        with pytest.raises(ValidationError, match="image"):
            queue(image=image)
    with pytest.raises(ValidationError, match="image"):
        RunpodQueueTarget.model_validate({"kind": "runpod-queue", "gpus": ["L4"]})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hours": "8-24 Asia/Seoul"}, "no hours of a day"),
        ({"hours": "08:00-24:30 Asia/Seoul"}, "no hours of a day"),
        ({"hours": "08:00-08:00 Asia/Seoul"}, "begin when they end"),
        ({"hours": "08:00-20:00"}, "no hours of a day"),
        ({"hours": "08:00-20:00 Asia/Seul"}, "no time zone"),
        ({"hours": "08:00-20:00 ../etc/passwd"}, "no time zone"),
        ({"hours": "08:00-20:00 Asia"}, "no time zone"),
        ({"hours": 8}, "a text is needed"),
        ({"hours": "00:00-24:00 UTC", "days": ["monday"]}, "not one of those"),
        ({"gpus": ["L4"]}, "gpus"),
        ({"cloud": "SECURE"}, "not one of those"),
    ],
)
def test_wrong_hours_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        pod(**fields)


def test_a_wrong_zone_gets_the_nearest() -> None:
    with pytest.raises(ValidationError) as error:
        pod(hours="08:00-20:00 Asia/Seul")
    assert error.value.errors()[0]["ctx"]["next_action"] == "Did you mean Asia/Seoul?"


def test_days_need_hours_and_a_volume_the_secure_cloud() -> None:
    assert [field for field, _ in problems(pod(days=["mon"]))] == ["days"]
    mounted = pod(volumeGb=50, dataCenters=["EU-RO-1"], cloud="community")
    assert [field for field, _ in problems(mounted)] == ["volumeGb"]


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
