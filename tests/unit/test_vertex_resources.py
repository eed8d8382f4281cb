"""Vertex AI's resources against the stand-in: lost answers, operations that go on after a kill, drift, leftovers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from providers import kit
from providers.kit.lifecycle import InitFailedError
from providers.vertex.deployment import DeploymentOutputs, without
from providers.vertex.resources import Deployment, Endpoint, Model, Traffic
from tests.fakes.runpod.faults import Kind
from tests.fakes.vertex import Fake, Fault
from tests.fakes.vertex.refusal import RefusedError
from tests.fakes.vertex.run import ENDPOINT, MODEL, OTHER_IMAGE, PARENT, Run, furnished, started

AnyResource = type[kit.Resource[Any, Any]]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with started(monkeypatch) as server:
        yield server


async def settled(resource: AnyResource, inputs: dict[str, Any]) -> str:
    """What `pulumi up` comes to when it is run until it succeeds: the id."""
    for _ in range(3):
        try:
            return await Run(resource).create(inputs)
        except InitFailedError as failed:
            # The state knows it: the next `up` updates it.
            await Run(resource).update(failed.resource_id, inputs, inputs, failed.outputs)
            return failed.resource_id
        except kit.ResourceError:
            continue
    raise AssertionError("three runs were not enough")


FAULTS: list[Kind] = [
    *("error before", "error after", "reset before", "reset after", "rate limit"),
    *("half done", "quietly half done", "delay"),
]  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
async def test_one_of_each_comes_of_creates_that_go_wrong(fake: Fake, kind: Kind) -> None:
    for place in (r".*/models:upload", r".*/endpoints", r".*:deployModel"):
        fake.faults.add(Fault(kind, "POST", place, seconds=0.2))
    endpoint = await settled(Endpoint, ENDPOINT)
    model = await settled(Model, MODEL)
    alias = (await Run(Model).update(model, MODEL, MODEL)).version_alias
    inputs: dict[str, Any] = {"name": "main-12345678", "endpoint": endpoint, "model": f"{model}@{alias}"}
    inputs |= {"machineType": "g2-standard-8", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 1}
    deployment = await settled(Deployment, inputs)
    assert fake.cloud.count() == {"models": 1, "endpoints": 1, "deployed": 1}
    begun = [("CreateEndpoint", endpoint), ("DeployModel", endpoint), ("UploadModel", model)]
    begun += [("UpdateEndpoint", endpoint)] if "half" in kind else []
    assert sorted(fake.cloud.operations.begun) == sorted(begun), "something was begun twice"
    made: list[tuple[AnyResource, str, dict[str, Any]]] = [
        (Deployment, deployment, inputs), (Model, model, MODEL), (Endpoint, endpoint, ENDPOINT),
    ]  # fmt: skip
    for resource, name, declared in made:
        reading = await Run(resource).read(name, declared)
        assert reading is not None
        assert reading.inputs == Run(resource).load(declared)
        await Run(resource).delete(name, declared)
    assert fake.cloud.count() == {}


@pytest.mark.parametrize("kind", FAULTS)
async def test_changes_that_go_wrong_are_made_good(fake: Fake, kind: Kind) -> None:
    endpoint, inputs = await furnished(fake)
    deployment = await Run(Deployment).create(inputs)
    model = inputs["model"].partition("@")[0]
    more = {"displayName": "Other", "labels": {"team": "theirs"}, "description": "all new"}
    changes: list[tuple[AnyResource, str, dict[str, Any], dict[str, Any]]] = [
        (Endpoint, endpoint, ENDPOINT, {**ENDPOINT, **more, "requestTimeoutS": 1200}),
        (Model, model, MODEL, {**MODEL, **more, "image": OTHER_IMAGE}),
        (Deployment, deployment, inputs, {**inputs, "minReplicas": 2, "maxReplicas": 4, "metrics": []}),
    ]
    for resource, name, old, new in changes:
        for method in ("PATCH", "POST"):
            fake.faults.add(Fault(kind, method, seconds=0.2))
        try:
            await Run(resource).update(name, old, new)
        except InitFailedError as failed:
            assert "it is not known whether" in str(failed)
        fake.faults.clear()
        await Run(resource).update(name, old, new)
        reading = await Run(resource).read(name, new)
        assert reading is not None
        assert reading.inputs == Run(resource).load(new)
    assert len(fake.cloud.models[model]) == 2, "a version was uploaded twice"


@pytest.mark.parametrize("kind", ["error before", "error after", "reset before", "reset after", "rate limit"])
async def test_removals_that_go_wrong_leave_nothing(fake: Fake, kind: Kind) -> None:
    endpoint, inputs = await furnished(fake)
    deployment = await Run(Deployment).create(inputs)
    fake.faults.add(Fault(kind, "POST", r".*:undeployModel", seconds=0.2))
    await Run(Deployment).delete(deployment, inputs)
    for resource, name, declared in (
        (Model, inputs["model"].partition("@")[0], MODEL),
        (Endpoint, endpoint, ENDPOINT),
    ):
        fake.faults.add(Fault(kind, "DELETE", seconds=0.2))
        await Run(resource).delete(name, declared)
        await Run(resource).delete(name, declared)  # gone already: no error
    assert fake.cloud.count() == {}
    removals = [kind for kind, _ in fake.cloud.operations.begun if kind in ("UndeployModel", "Delete")]
    assert len(removals) == 3, "a removal was begun twice"


async def test_an_operation_that_a_killed_run_began_is_waited_for_and_not_begun_again(fake: Fake) -> None:
    """Nothing is there yet but the operation, and no state knows its name."""
    endpoint, inputs = await furnished(fake)
    fake.cloud.operations.looks = 3
    begun = len(fake.cloud.operations.begun)
    for resource, declared in ((Model, MODEL), (Endpoint, ENDPOINT)):
        name = f"other-of-{resource.__name__.lower()}"
        fake.faults.add(Fault("reset after", "POST", times=100))
        first = Run(resource, name)
        task_inputs = {**declared, "name": "killed-00000001"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("providers.vertex.steps._BEGUN_AT_MOST", 1)
            with pytest.raises(kit.ResourceError, match="it is not known whether"):
                await first.create(task_inputs)
        fake.faults.clear()
        made = await Run(resource, name).create({**declared, "name": "next-00000002"})
        assert len(fake.cloud.operations.begun) == begun + 1
        begun += 1
        await Run(resource, name).delete(made, declared)
        begun += 1
    fake.faults.add(Fault("reset after", "POST", r".*:deployModel"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("providers.vertex.steps._BEGUN_AT_MOST", 1)
        with pytest.raises(kit.ResourceError, match="it is not known whether"):
            await Run(Deployment).create(inputs)
    second = Run(Deployment)
    await second.create({**inputs, "name": "main-00000002"})
    assert [kind for kind, _ in fake.cloud.operations.begun[begun:]] == ["DeployModel"]
    assert any("waiting for an operation that is under way" in each for each in second.said)
    [deployed] = fake.cloud.endpoints[endpoint]["deployedModels"]
    assert deployed["displayName"].startswith("main-12345678-lf")


async def test_a_run_that_gave_up_waiting_is_gone_on_with_by_the_operation_in_the_state(fake: Fake) -> None:
    _, inputs = await furnished(fake)
    fake.cloud.operations.looks = 10**6
    with pytest.raises(InitFailedError, match="while waiting for: deploying the model") as failed:
        await Run(Deployment).create(inputs, 0.3)
    name, outputs = failed.value.resource_id, failed.value.outputs
    assert isinstance(outputs, DeploymentOutputs) and "/operations/" in outputs.operation
    reading = await Run(Deployment).read(name, inputs, outputs)
    assert reading is not None, "`pulumi refresh` would forget it, and the next `up` deploy a second one"
    assert reading.unhealthy == ("it is still being deployed; `pulumi up` waits for it",)
    fake.cloud.lists_operations = False  # its name is enough
    [operation] = [each for each in fake.cloud.operations._all.values() if not each.shown["done"]]
    operation.looks = 2
    told = await Run(Deployment).update(name, inputs, inputs, outputs)
    assert told.operation == ""
    assert [kind for kind, _ in fake.cloud.operations.begun].count("DeployModel") == 1


async def test_a_deployment_that_failed_is_nothing_and_is_tried_again(fake: Fake) -> None:
    _, inputs = await furnished(fake)
    fake.cloud.operations.failing["DeployModel"] = RefusedError("RESOURCE_EXHAUSTED", "no L4 is free in europe-west4")
    with pytest.raises(kit.ResourceError, match="deploying the model failed: no L4 is free") as error:
        await Run(Deployment).create(inputs)
    assert "ask for quota, take another machine or region" in error.value.next_action
    await Run(Deployment).create(inputs)
    assert fake.cloud.count()["deployed"] == 1


async def test_one_after_the_other_is_deployed_on_an_endpoint(fake: Fake) -> None:
    """Vertex AI refuses a second operation on an endpoint while one is under way."""
    endpoint, inputs = await furnished(fake)
    names = [f"number-0000000{number}" for number in range(6)]
    await asyncio.gather(*(Run(Deployment, each).create({**inputs, "name": each}) for each in names))
    assert len(fake.cloud.endpoints[endpoint]["deployedModels"]) == len(names)
    assert fake.cloud.endpoints[endpoint]["trafficSplit"] == {}, "requests went to what nobody gave any"


async def test_a_new_version_has_its_own_name_and_the_former_one_is_found_again(fake: Fake) -> None:
    model = await Run(Model).create(MODEL)
    first = (await Run(Model).update(model, MODEL, MODEL)).version_alias
    changed = {**MODEL, "image": OTHER_IMAGE}
    second = await Run(Model).update(model, MODEL, changed)
    assert second.version_id == "2" and second.version_alias != first
    back = await Run(Model).update(model, changed, MODEL)
    assert (back.version_alias, back.version_id) == (first, "1")
    assert len(fake.cloud.models[model]) == 2, "the way back uploaded something"
    assert "default" in fake.cloud.models[model]["1"]["versionAliases"]
    renamed = await Run(Model).update(model, MODEL, {**MODEL, "displayName": "Other", "labels": {}})
    assert renamed.version_alias == first, "a label made a new version"


async def test_what_the_state_owns_is_neither_taken_over_nor_removed(fake: Fake) -> None:
    endpoint, inputs = await furnished(fake)
    run = Run(Deployment)
    first = await run.create(inputs)
    run.life.owned(first)
    second = await run.create({**inputs, "name": "main-00000002", "machineType": "g2-standard-4"})
    assert second != first
    assert len(fake.cloud.endpoints[endpoint]["deployedModels"]) == 2


async def test_a_leftover_on_other_machines_is_removed(fake: Fake) -> None:
    endpoint, inputs = await furnished(fake)
    await Run(Deployment).create({**inputs, "machineType": "g2-standard-4"})
    run = Run(Deployment)
    await run.create({**inputs, "name": "main-00000002"})
    [left] = fake.cloud.endpoints[endpoint]["deployedModels"]
    assert left["dedicatedResources"]["machineSpec"]["machineType"] == "g2-standard-8"
    assert any(each.startswith("removing ") for each in run.said)


async def test_an_endpoint_goes_with_what_killed_runs_left_on_it_but_not_with_what_is_others(fake: Fake) -> None:
    endpoint, inputs = await furnished(fake)
    deployment = await Run(Deployment).create(inputs)
    await Run(Deployment, "canary").create({**inputs, "name": "canary-12345678"})
    thing = fake.cloud.endpoints[endpoint]
    ids = [each["id"] for each in thing["deployedModels"]]
    thing["trafficSplit"] = {ids[0]: 90, ids[1]: 10}
    thing["deployedModels"][1]["displayName"] = "by hand"
    with pytest.raises(kit.ResourceError, match=f"somebody else deployed: {ids[1]}"):
        await Run(Endpoint).delete(endpoint, ENDPOINT)
    assert len(thing["deployedModels"]) == 2
    thing["deployedModels"][1]["displayName"] = "canary-00000000-lf0123456789ab"
    await Run(Endpoint).delete(endpoint, ENDPOINT)
    assert fake.cloud.endpoints == {}
    assert await Run(Deployment).read(deployment, inputs) is None


async def test_traffic_moves_before_the_old_one_goes_and_needs_what_is_deployed(fake: Fake) -> None:
    endpoint, inputs = await furnished(fake)
    main = await Run(Deployment).create(inputs)
    canary = await Run(Deployment, "canary").create({**inputs, "name": "canary-12345678"})
    first, second = (each.rpartition("/")[2] for each in (main, canary))
    shares = [{"deployedModelId": first, "percent": 90}, {"deployedModelId": second, "percent": 10}]
    traffic = {"endpoint": endpoint, "split": shares}
    name = await Run(Traffic).create(traffic)
    assert fake.cloud.endpoints[endpoint]["trafficSplit"] == {first: 90, second: 10}
    await Run(Deployment, "canary").delete(canary, inputs)
    assert fake.cloud.endpoints[endpoint]["trafficSplit"] == {first: 100}
    reading = await Run(Traffic).read(name, traffic)
    assert reading is not None and reading.inputs != Run(Traffic).load(traffic), "the drift is not seen"
    with pytest.raises(kit.ResourceError, match=f"has no deployed model {second}"):
        await Run(Traffic).update(name, traffic, traffic)
    await Run(Traffic).delete(name, traffic)
    assert fake.cloud.endpoints[endpoint]["trafficSplit"] == {}
    assert await Run(Traffic).read(name, traffic) is None


async def test_what_scales_to_zero_can_be_made_to_stay_up_and_back(fake: Fake) -> None:
    endpoint, inputs = await furnished(fake)
    sleeper = {**inputs, "minReplicas": 0, "scaleToZero": {"idleS": 600}}
    deployment = await Run(Deployment).create(sleeper)
    for old, new in ((sleeper, inputs), (inputs, sleeper), (sleeper, {**sleeper, "scaleToZero": {"idleS": 900}})):
        await Run(Deployment).update(deployment, old, new)
        reading = await Run(Deployment).read(deployment, new)
        assert reading is not None and reading.inputs == Run(Deployment).load(new)
        [made] = fake.cloud.endpoints[endpoint]["deployedModels"]
        assert ("initialReplicaCount" in made["dedicatedResources"]) == ("scaleToZero" in new)


async def test_a_refresh_tells_of_what_is_paid_for_and_gets_no_requests(fake: Fake) -> None:
    endpoint, inputs = await furnished(fake)
    first = (await Run(Deployment).create(inputs)).rpartition("/")[2]
    second = (await Run(Deployment, "canary").create({**inputs, "name": "canary-12345678"})).rpartition("/")[2]
    await Run(Traffic).create({"endpoint": endpoint, "split": [{"deployedModelId": first, "percent": 100}]})
    run = Run(Endpoint)
    await run.read(endpoint, ENDPOINT)
    [told] = run.said
    assert told.startswith("canary-12345678-lf") and f"--deployed-model-id={second} --region=europe-west4" in told


def test_a_share_that_is_free_goes_to_who_has_most() -> None:
    assert without({"1": 60, "2": 30, "3": 10}, "3") == {"1": 70, "2": 30}
    assert without({"1": 100}, "1") == {}
    assert without({"1": 50, "2": 50}, "9") == {"1": 50, "2": 50}


async def test_drift_is_told_as_it_is(fake: Fake) -> None:
    endpoint, inputs = await furnished(fake)
    deployment = await Run(Deployment).create(inputs)
    [deployed] = fake.cloud.endpoints[endpoint]["deployedModels"]
    deployed["dedicatedResources"]["maxReplicaCount"] = 9
    deployed["status"] = {"message": "Replica is preempted", "availableReplicaCount": 0}
    reading = await Run(Deployment).read(deployment, inputs)
    assert reading is not None and reading.inputs.max_replicas == 9
    assert reading.unhealthy == ("none of its replicas is up: Replica is preempted",)
    model = inputs["model"].partition("@")[0]
    fake.cloud.models[model]["1"]["containerSpec"]["env"].append({"name": "DEBUG", "value": "their-secret"})
    seen = await Run(Model).read(model, MODEL)
    assert seen is not None
    assert [each.name for each in seen.inputs.secret_env] == ["LORAFLEET_CONFIG", "DEBUG"], "what others add is hidden"


async def test_many_are_found_page_by_page(fake: Fake) -> None:
    for number in range(105):
        name = f"{PARENT}/models/m{number}"
        fake.cloud.models[name] = {"1": {"name": name, "displayName": "x", "versionAliases": ["default"]}}
    fake.cloud.operations.looks = 1
    made = await Run(Model).create(MODEL)
    assert await Run(Model).create({**MODEL, "name": "again-00000000"}) == made
