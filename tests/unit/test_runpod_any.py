"""Random valid declarations of RunPod's resources: made, changed, changed back, and never a change that stays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers import kit
from providers.kit.check import dump
from providers.kit.diff import diff
from providers.runpod import hours
from providers.runpod.resources import NetworkVolume, Pod, RegistryCredential, ServerlessEndpoint
from tests.fakes.runpod import Fake, openapi
from tests.fakes.runpod.run import IMAGE, Run, started

Declared = dict[str, Any]
Resource = type[kit.Resource[Any, Any]]

GPUS = ["NVIDIA L4", "NVIDIA GeForce RTX 4090", "NVIDIA A40", "NVIDIA RTX A6000", "NVIDIA L40S", "NVIDIA RTX A4000"]
CENTRES = ["EU-RO-1", "EU-SE-1", "US-KS-2", "US-TX-3"]
names = st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
cuda: st.SearchStrategy[Declared] = st.sampled_from(
    [{}, {"minCudaVersion": "13.0"}, {"allowedCudaVersions": ["13.0", "12.8"]}]
)


@st.composite
def containers(draw: st.DrawFn) -> Declared:
    variables = draw(st.dictionaries(names, texts, max_size=4))
    hidden = sorted(name for name in variables if draw(st.booleans()))
    return {
        "name": "any-12345678",
        "image": draw(st.sampled_from([IMAGE, "example.com/other:1"])),
        "args": draw(texts),
        "env": {name: value for name, value in variables.items() if name not in hidden},
        "secretEnv": [{"name": name, "value": variables[name]} for name in hidden],
        "diskGb": draw(st.integers(1, 500)),
        "ports": draw(st.lists(st.sampled_from(["8000/http", "22/tcp", "9000/http"]), unique=True)),
    }


@st.composite
def endpoints(draw: st.DrawFn, kind: str) -> Declared:
    by_requests = kind == "LOAD_BALANCER" or draw(st.booleans())
    scaling: Declared = (
        {"type": "REQUEST_COUNT", "requestCount": draw(st.integers(1, 100))}
        if by_requests
        else {"type": "QUEUE_DELAY", "queueDelay": draw(st.integers(1, 40)) / 2}
    )
    low = draw(st.integers(0, 3))
    workers: Declared = {"min": low, "max": low + draw(st.integers(0, 3))}
    if not (kind == "QUEUE" and by_requests) and draw(st.booleans()):
        workers["idleTimeout"] = draw(st.integers(1, 3600))
    return {
        **draw(containers()),
        **draw(cuda),
        "type": kind,
        "gpus": draw(st.lists(st.sampled_from(GPUS), min_size=1, unique=True)),
        "gpuCount": draw(st.integers(1, 8)),
        "workers": workers,
        "scaling": scaling,
        "timeoutMs": draw(st.integers(1, 600_000)),
        "flashboot": draw(st.sampled_from(["OFF", "FLASHBOOT", "PRIORITY_FLASHBOOT"])),
        "dataCenterIds": draw(st.lists(st.sampled_from(CENTRES), unique=True)),
    }


@st.composite
def pods(draw: st.DrawFn) -> Declared:
    """What can be changed of a pod; `pairs` adds what cannot."""
    running = draw(st.booleans())
    schedule = draw(st.sampled_from(["", "00:00-24:00 UTC", "08:00-20:00 Asia/Seoul", "22:30-06:15 Europe/Berlin"]))
    return {
        **draw(containers()),
        "running": running,
        "schedule": schedule,
        "scheduleDays": draw(st.lists(st.sampled_from(["mon", "wed", "sun"]), unique=True)) if schedule else [],
        "locked": draw(st.booleans()) if running and not schedule else False,
        "globalNetworking": draw(st.booleans()),
        "startTimeoutS": draw(st.integers(10, 7200)),
    }


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Resource, Declared, Declared]:
    """(resource, a declaration of it, another one that it can become)"""
    kinds: list[Resource] = [ServerlessEndpoint, ServerlessEndpoint, Pod, NetworkVolume]
    resource = draw(st.sampled_from(kinds))
    if resource is ServerlessEndpoint:
        kind = draw(st.sampled_from(["LOAD_BALANCER", "QUEUE"]))
        return resource, draw(endpoints(kind)), draw(endpoints(kind))
    if resource is Pod:
        fixed = {
            "gpu": draw(st.sampled_from(GPUS)),
            "gpuCount": draw(st.integers(1, 8)),
            "cloud": draw(st.sampled_from(["SECURE", "COMMUNITY"])),
            "dataCenterIds": draw(st.lists(st.sampled_from(CENTRES), unique=True)),
            **draw(cuda),
        }
        return resource, {**draw(pods()), **fixed}, {**draw(pods()), **fixed}
    volume: Declared = {"name": "any-12345678", "dataCenter": draw(st.sampled_from(CENTRES))}
    if draw(st.booleans()):
        volume["type"] = "STANDARD"
    small, large = sorted(draw(st.tuples(st.integers(10, 4096), st.integers(10, 4096))))
    return resource, {**volume, "sizeGb": small}, {**volume, "sizeGb": large}


@pytest.fixture(scope="module")
def fake() -> Iterator[Fake]:
    with pytest.MonkeyPatch.context() as monkeypatch, started(monkeypatch) as server:
        server.cloud.not_found_at_first = 0
        # A schedule that switches in the middle of a test would be a change.
        monkeypatch.setattr(hours, "now", lambda: datetime(2026, 11, 23, 3, tzinfo=UTC))
        yield server


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(pair=pairs())
def test_no_declaration_shows_a_change_for_ever(fake: Fake, pair: tuple[Resource, Declared, Declared]) -> None:
    resource, first, second = pair
    shrinks = resource is NetworkVolume

    async def live() -> None:
        made = await Run(resource).create(first)
        for before, declared in ((first, first), (first, second), *([] if shrinks else [(second, first)])):
            run = Run(resource)
            inputs = run.load(declared)
            old = run.load(before)
            assert [each async for each in resource().problems(run.context(), inputs, old)] == []
            if before is not declared:
                await run.update(made, before, declared)
            reading = await Run(resource).read(made, declared)
            assert reading is not None and not reading.unhealthy
            assert diff(resource.inputs_model(), dump(reading.inputs), dump(inputs)) == []
            # What is already so is sent to RunPod by no update.
            asked = len(fake.changes())
            await Run(resource).update(made, declared, declared)
            assert len(fake.changes()) == asked
        await Run(resource).delete(made, second)
        assert fake.cloud.count() == {}

    asyncio.run(live())


async def test_credentials_are_kept_as_declared(fake: Fake) -> None:
    inputs = {"name": "any-12345678", "username": "robot", "password": "a-password-0123456789"}
    made = await Run(RegistryCredential).create(inputs)
    reading = await Run(RegistryCredential).read(made, inputs)
    assert reading is not None and dump(reading.inputs) == inputs
    await Run(RegistryCredential).delete(made, inputs)
    assert fake.cloud.count() == {}


def test_requests_were_valid_and_reached_every_operation(fake: Fake) -> None:
    """Runs last: the requests of the tests above. A request that breaks RunPod's description is in `violations`."""
    assert fake.violations == []
    seen = {f"{method} {openapi.template(path)}" for method, path, _ in fake.requests}
    kinds = ("serverless", "pods", "network-volumes", "registries")
    assert {f"POST /v2/{kind}" for kind in kinds} <= seen
    assert {f"GET /v2/{kind}/{{id}}" for kind in kinds} | {f"DELETE /v2/{kind}/{{id}}" for kind in kinds} <= seen
    assert {f"PATCH /v2/{kind}/{{id}}" for kind in kinds[:3]} | {"POST /v2/pods/{id}/action"} <= seen
    assert len(fake.requests) > 1000
