"""RunPod's resources against the stand-in: lost answers, half-done work, drift, leftovers, random declarations."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from providers import kit
from providers.kit.diff import diff
from providers.kit.lifecycle import InitFailedError
from providers.runpod import api, http
from providers.runpod.resources import NetworkVolume, Pod, RegistryCredential, ServerlessEndpoint
from tests.fakes.runpod import Fake, Fault
from tests.fakes.runpod.faults import Kind
from tests.fakes.runpod.run import ALL, ENDPOINT, POD, REGISTRY, VOLUME, Run, started

EACH = pytest.mark.parametrize(("resource", "inputs", "folder"), ALL, ids=[each[2] for each in ALL])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with started(monkeypatch) as server:
        yield server


async def settled(resource: type[kit.Resource[Any, Any]], inputs: dict[str, Any]) -> str:
    """What `pulumi up` comes to when it is run until it succeeds: the id."""
    for _ in range(3):
        try:
            return await Run(resource).create(inputs)
        except InitFailedError as failed:
            # The state knows it: the next `up` updates it.
            await Run(resource).update(failed.resource_id, inputs, inputs)
            return failed.resource_id
        except kit.ResourceError:
            continue
    raise AssertionError("three runs were not enough")


FAULTS: list[Kind] = [
    *("error before", "error after", "reset before", "reset after", "rate limit"),
    *("half done", "quietly half done", "delay"),
]  # fmt: skip


@EACH
@pytest.mark.parametrize("kind", FAULTS)
async def test_one_thing_comes_of_a_create_that_goes_wrong(
    fake: Fake, resource: type[kit.Resource[Any, Any]], inputs: dict[str, Any], folder: str, kind: Kind
) -> None:
    fake.faults.add(Fault(kind, "POST", f"/v2/{folder}"))
    made = await settled(resource, inputs)
    assert list(fake.cloud.things[folder]) == [made]
    reading = await Run(resource).read(made, inputs)
    assert reading is not None
    assert reading.inputs == Run(resource).load(inputs)
    await Run(resource).delete(made, inputs)
    assert fake.cloud.count() == {}


@pytest.mark.parametrize("kind", FAULTS)
async def test_an_update_that_goes_wrong_is_made_good(fake: Fake, kind: Kind) -> None:
    new = {**ENDPOINT, "diskGb": 60, "env": {"PORT": "9000"}, "workers": {"max": 5}, "timeoutMs": 1000}
    made = await settled(ServerlessEndpoint, ENDPOINT)
    fake.faults.add(Fault(kind, "PATCH"))
    await Run(ServerlessEndpoint).update(made, ENDPOINT, new)
    reading = await Run(ServerlessEndpoint).read(made, new)
    assert reading is not None
    assert reading.inputs == Run(ServerlessEndpoint).load(new)


@pytest.mark.parametrize("kind", ["error before", "error after", "reset after", "half done"])
async def test_a_delete_that_goes_wrong_leaves_nothing(fake: Fake, kind: Kind) -> None:
    """`half done`: the endpoint is gone, its hidden template is not."""
    made = await settled(ServerlessEndpoint, {**ENDPOINT, "flashboot": "FLASHBOOT"})
    fake.cloud.templates["mine"] = {**next(iter(fake.cloud.templates.values())), "id": "mine", "name": "burst-12345678"}
    fake.faults.add(Fault(kind, "DELETE", "/v2/serverless/.*"))
    await Run(ServerlessEndpoint).delete(made, ENDPOINT)
    assert fake.cloud.endpoints == {}
    assert set(fake.cloud.templates) == {"mine"}, "somebody else's stays"


@EACH
async def test_what_is_deleted_before_runpod_finds_it_is_deleted_all_the_same(
    fake: Fake, resource: type[kit.Resource[Any, Any]], inputs: dict[str, Any], folder: str
) -> None:
    made = await settled(resource, inputs)
    fake.cloud._unseen[made] = 3
    await Run(resource).delete(made, inputs)
    assert fake.cloud.count() == {}


async def test_only_what_differs_is_sent_and_the_variables_as_a_whole(fake: Fake) -> None:
    made = await settled(ServerlessEndpoint, ENDPOINT)
    fake.requests.clear()
    new = {**ENDPOINT, "workers": {"max": 5}, "secretEnv": [{"name": "OTHER", "value": "a-secret"}]}
    await Run(ServerlessEndpoint).update(made, ENDPOINT, new)
    [(_, _, body)] = [request for request in fake.requests if request[0] == "PATCH"]
    assert body == {
        "env": {"PORT": "8000", "OTHER": "a-secret"},
        "workers": {"min": 0, "max": 5, "idleTimeout": 10},
    }
    fake.requests.clear()
    await Run(ServerlessEndpoint).update(made, new, new)
    assert fake.changes() == [], "a change to the same value would cycle all workers"


async def test_variables_that_somebody_added_count_as_secret_and_go(fake: Fake) -> None:
    made = await settled(ServerlessEndpoint, ENDPOINT)
    fake.cloud.endpoints[made]["env"] |= {"DEBUG": "their-secret"}
    reading = await Run(ServerlessEndpoint).read(made, ENDPOINT)
    assert reading is not None
    assert [each.name for each in reading.inputs.secret_env] == ["LORAFLEET_CONFIG", "DEBUG"]
    await Run(ServerlessEndpoint).update(made, ENDPOINT, ENDPOINT)
    assert set(fake.cloud.endpoints[made]["env"]) == {"PORT", "LORAFLEET_CONFIG"}


@pytest.mark.parametrize(("days", "limit"), [(3, 2), (7, 0)])
async def test_workers_that_runpod_takes_away_are_explained_and_come_back(fake: Fake, days: int, limit: int) -> None:
    made = await settled(ServerlessEndpoint, ENDPOINT)
    fake.cloud.idle_for(days)
    run = Run(ServerlessEndpoint)
    reading = await run.read(made, ENDPOINT)
    assert reading is not None
    assert reading.inputs.workers.max == limit
    [said] = run.said
    assert f"workers.max is {limit} and not 3: RunPod lowers it by itself" in said
    assert "`pulumi up` restores it" in said
    await run.update(made, ENDPOINT, ENDPOINT)
    assert fake.cloud.endpoints[made]["workers"]["max"] == 3


async def test_a_card_that_runpod_adds_to_a_pool_is_explained_and_left_out(fake: Fake) -> None:
    made = await settled(ServerlessEndpoint, ENDPOINT)
    assert fake.cloud.endpoints[made]["gpu"]["excludedTypes"] == ["NVIDIA GeForce RTX 4090"]
    fake.cloud.gpus.append({**fake.cloud.gpus[3], "id": "NVIDIA L4 Max", "name": "L4 Max"})
    api._shared.cache_clear()  # another run
    run = Run(ServerlessEndpoint)
    reading = await run.read(made, ENDPOINT)
    assert reading is not None
    assert reading.inputs.gpus == ["NVIDIA L4", "NVIDIA L4 Max"]
    assert "workers may also get NVIDIA L4 Max" in run.said[0]
    await run.update(made, ENDPOINT, ENDPOINT)
    assert "NVIDIA L4 Max" in fake.cloud.endpoints[made]["gpu"]["excludedTypes"]


@pytest.mark.parametrize(
    ("gpu", "words"),
    [("NVIDIA L44", "did you mean 'NVIDIA L4"), ("Tesla V100-PCIE-16GB", "offers no serverless workers")],
)
async def test_a_card_that_is_not_offered_is_told_before_anything_is_made(fake: Fake, gpu: str, words: str) -> None:
    with pytest.raises(kit.ResourceError) as error:
        await Run(ServerlessEndpoint).create({**ENDPOINT, "gpus": [gpu]})
    assert words in str(error.value)
    assert fake.changes() == []


async def test_what_a_killed_run_left_becomes_what_is_wanted_now(fake: Fake) -> None:
    first = await settled(ServerlessEndpoint, ENDPOINT)
    wanted = {**ENDPOINT, "name": "burst-87654321", "diskGb": 77}
    assert await settled(ServerlessEndpoint, wanted) == first
    assert fake.cloud.endpoints[first]["disk"] == 77
    other_type = {**wanted, "type": "QUEUE", "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4}}
    second = await settled(ServerlessEndpoint, other_type)
    assert list(fake.cloud.endpoints) == [second]
    assert second != first, "the type of an endpoint cannot be changed"
    assert len(fake.cloud.templates) == 1


async def test_a_credential_left_behind_is_removed_and_one_in_the_state_is_not(fake: Fake) -> None:
    first = await Run(RegistryCredential).create(REGISTRY)
    owner = Run(RegistryCredential)
    owner.life.owned(first)
    second = await owner.create({**REGISTRY, "name": "images-2", "password": "another-password"})
    assert set(fake.cloud.registries) == {first, second}, "the state owns the first one until it is replaced"
    third = await Run(RegistryCredential).create({**REGISTRY, "name": "images-3"})
    assert set(fake.cloud.registries) == {third}
    assert fake.cloud.passwords[third] == ("robot", REGISTRY["password"])


async def test_a_volume_grows_and_never_shrinks(fake: Fake) -> None:
    made = await settled(NetworkVolume, VOLUME)
    await Run(NetworkVolume).update(made, VOLUME, {**VOLUME, "sizeGb": 60})
    assert fake.cloud.volumes[made]["size"] == 60
    with pytest.raises(InitFailedError, match="cannot be made smaller"):
        async with asyncio.timeout(10):
            run = Run(NetworkVolume)
            context = run.context()
            context.exists(made, NetworkVolume.outputs_model()(actual_type="STANDARD"))
            await run.life._guarded(context, NetworkVolume().update(context, made, None, run.load(VOLUME)), 10)
    run = Run(NetworkVolume)
    found = [each async for each in NetworkVolume().problems(run.context(), run.load(VOLUME), run.load(
        {**VOLUME, "sizeGb": 60}))]  # fmt: skip
    assert [each.path for each in found] == [("sizeGb",)]
    assert fake.cloud.volumes[made]["size"] == 60


async def test_a_volume_is_never_replaced_for_its_type(fake: Fake) -> None:
    """It would be lost with its data: left out, or said after an import, the type that it has is no change."""
    made = await settled(NetworkVolume, VOLUME)
    standard, other = {**VOLUME, "type": "STANDARD"}, {**VOLUME, "type": "HIGH_PERFORMANCE"}
    for before, after in ((VOLUME, standard), (standard, VOLUME)):
        run = Run(NetworkVolume)
        assert [each async for each in NetworkVolume().problems(run.context(), run.load(after), run.load(before))] == []
        assert not any(change.replace for change in diff(run.type.inputs_model(), before, after))
        await run.update(made, before, after)
    assert fake.changes() == [("POST", "/v2/network-volumes")]
    run = Run(NetworkVolume)
    found = [each async for each in NetworkVolume().problems(run.context(), run.load(other), run.load(standard))]
    assert [each.path for each in found] == [("type",)]
    with pytest.raises(kit.ResourceError, match="is of type STANDARD for good"):
        await run.update(made, VOLUME, other)


async def test_a_volume_that_is_left_over_and_does_not_fit_is_told_and_stays(fake: Fake) -> None:
    first = await Run(NetworkVolume).create({**VOLUME, "sizeGb": 500})
    run = Run(NetworkVolume)
    second = await run.create({**VOLUME, "name": "weights-2"})
    assert set(fake.cloud.volumes) == {first, second}
    assert f"the volume {first} (500 GB in EU-RO-1) is left over" in run.said[0]
    owner = Run(NetworkVolume)
    owner.life.owned(first)
    owner.life.owned(second)
    await owner.create({**VOLUME, "name": "weights-3", "dataCenter": "US-KS-2"})
    assert owner.said == [], "what the state owns is not left over"


async def test_a_pod_is_stopped_and_started(fake: Fake) -> None:
    fake.cloud.pod_looks = 2
    made = await settled(Pod, POD)
    assert fake.cloud.pods[made]["status"] == "RUNNING"
    stopped = {**POD, "running": False}
    await Run(Pod).update(made, POD, stopped)
    assert fake.cloud.pods[made]["status"] == "EXITED"
    run = Run(Pod)
    reading = await run.read(made, POD)
    assert reading is not None and not reading.inputs.running
    assert "`pulumi up` starts it again" in run.said[0]
    await Run(Pod).update(made, stopped, {**POD, "locked": True})
    assert fake.cloud.pods[made]["status"] == "RUNNING"
    await Run(Pod).delete(made, {**POD, "locked": True})
    assert fake.cloud.pods == {}


async def test_a_pod_keeps_its_volume_and_may_mount_it_elsewhere(fake: Fake) -> None:
    volume = await settled(NetworkVolume, VOLUME)
    mounted = {**POD, "networkMount": {"volumeId": volume, "path": "/data"}}
    made = await settled(Pod, mounted)
    moved = {**POD, "networkMount": {"volumeId": volume, "path": "/models"}}
    await Run(Pod).update(made, mounted, moved)
    reading = await Run(Pod).read(made)
    assert reading is not None
    assert reading.inputs.network_mount.path == "/models"
    run = Run(Pod)
    found = [each async for each in Pod().problems(run.context(), run.load(POD), run.load(mounted))]
    assert [each.path for each in found] == [("networkMount",)]
    assert list(fake.cloud.pods) == [made]


async def test_a_leftover_pod_with_another_card_is_removed(fake: Fake) -> None:
    first = await settled(Pod, POD)
    owner = Run(Pod)
    owner.life.owned(first)
    second = await owner.create({**POD, "name": "always-2", "gpu": "NVIDIA L4"})
    assert set(fake.cloud.pods) == {first, second}, "the state owns the first one until it is replaced"
    third = await settled(Pod, {**POD, "name": "always-3", "gpu": "NVIDIA L40S"})
    assert list(fake.cloud.pods) == [third]


async def test_a_pod_in_error_is_told_and_mended(fake: Fake) -> None:
    from tests.fakes.runpod import pods

    made = await settled(Pod, POD)
    pods.become(fake.cloud.pods[made], "ERROR")
    reading = await Run(Pod).read(made, POD)
    assert reading is not None and "ERROR" in reading.unhealthy[0]
    await Run(Pod).update(made, POD, POD)
    assert fake.cloud.pods[made]["status"] == "RUNNING"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"scaling": {"type": "QUEUE_DELAY", "queueDelay": 4}}, [("scaling", "type")]),
        ({"scaling": {"type": "REQUEST_COUNT"}}, [("scaling", "requestCount")]),
        ({"scaling": {"type": "REQUEST_COUNT", "requestCount": 1, "queueDelay": 1}}, [("scaling", "queueDelay")]),
        ({"type": "QUEUE", "workers": {"idleTimeout": 5}}, [("workers", "idleTimeout")]),
        ({"workers": {"min": 4, "max": 3}}, [("workers", "min")]),
        ({"minCudaVersion": "12.8", "allowedCudaVersions": ["12.8"]}, [("minCudaVersion",)]),
        ({"secretEnv": [{"name": "PORT", "value": "x"}]}, [("secretEnv", 0, "name")]),
    ],
)
async def test_what_runpod_would_refuse_is_told_at_preview(change: dict[str, Any], where: list[Any]) -> None:
    run = Run(ServerlessEndpoint)
    found = [
        each async for each in ServerlessEndpoint().problems(run.context(), run.load({**ENDPOINT, **change}), None)
    ]
    assert [each.path for each in found] == where
    assert all(each.what and each.next_action for each in found)


async def test_a_preview_without_a_token_says_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(http.TOKEN_VARIABLE, raising=False)
    run = Run(ServerlessEndpoint)
    assert [each async for each in ServerlessEndpoint().problems(run.context(), run.load(ENDPOINT), None)] == []
    assert "RUNPOD_API_KEY" in run.said[0] and "`pulumi up` needs it" in run.said[0]
