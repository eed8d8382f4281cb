"""The app on Modal through a real plugin process and the real SDK, against the stand-in for Modal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("modal", reason="the package `modal` is not installed")

from modal_proto import api_pb2 as pb

from providers.kit import values
from tests.fakes.modal import FakeModal, serving
from tests.fakes.modal.faults import Moment
from tests.fakes.modal.kit import APP, ID, IMAGE, NAME, assert_one_app, checked, killed_at, plugin
from tests.support.plugin_client import CallError, Plugin

# Real kills of a real plugin; test_modal_kills.py has every call.
KILLS: list[tuple[str, Moment]] = [
    ("EnvironmentGetOrCreate", "after"),
    ("AppCreate", "after"),
    ("AppPublish", "before"),
    ("AppPublish", "after"),
    ("AppPublish", "answered"),
]


@pytest.fixture
def modal() -> Iterator[FakeModal]:
    with serving() as running:
        yield running


def create(running: Plugin, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    inputs = checked(running, **more)
    made, outputs, _ = running.create(APP, inputs)
    assert made == ID
    return inputs, outputs


def test_nothing_of_this_machine_goes_into_the_app(modal: FakeModal) -> None:
    with plugin(modal) as running:
        _, outputs = create(running)
    [request] = [each for name, each in modal.cloud.calls if name == "FunctionCreate"]
    function = request.function
    assert (list(function.mount_ids), function.function_serialized, function.class_serialized) == ([], b"", b"")
    assert function.http_config.HasField("lift_and_shift_config"), "the image's own command must run"
    [publish] = [each for name, each in modal.cloud.calls if name == "AppPublish"]
    assert not publish.HasField("commit_info"), "the commit, its author and the remote's URL, which may hold a token"
    [image] = [each.image for name, each in modal.cloud.calls if name == "ImageGetOrCreate"]
    assert list(image.dockerfile_commands) == [f"FROM {IMAGE}"]
    assert outputs["url"] == f"https://acme--{NAME}-serving.us-east.modal.direct"


def test_the_same_again_makes_no_new_version(modal: FakeModal) -> None:
    for gpus in (["L4"], ["L4", "A10"]):
        with plugin(modal) as running:
            inputs, outputs = create(running, gpus=gpus)
            assert running.update(APP, ID, outputs, inputs, inputs)["version"] == 1
            changed = {**inputs, "maxContainers": 3}
            assert running.update(APP, ID, outputs, inputs, changed)["version"] == 2
            running.delete(APP, ID, inputs, outputs)


def test_a_deletion_stops_it_and_the_name_can_be_used_again(modal: FakeModal) -> None:
    with plugin(modal) as running:
        inputs, outputs = create(running)
        running.delete(APP, ID, inputs, outputs)
        assert modal.cloud.living() == []
        assert {app.state for app in modal.cloud.apps.values()} == {pb.APP_STATE_STOPPED}
        running.delete(APP, ID, inputs, outputs)
        _, again = create(running)
    assert again["appId"] != outputs["appId"]
    assert_one_app(modal)


DRIFTS: list[tuple[str, Any]] = [
    ("image", lambda live: setattr(live.ranked_functions[0].function, "image_id", "im-other")),
    ("maxContainers", lambda live: setattr(live.autoscaler_settings, "max_containers", 9)),
    ("gpus", lambda live: setattr(live.ranked_functions[0].function.resources.gpu_config, "gpu_type", "H100")),
    # Nothing that could be declared, which a refresh must tell all the same.
    ("gpus", lambda live: setattr(live.ranked_functions[0].function.resources.gpu_config, "gpu_type", "a new one")),
    ("proxyAuth", lambda live: setattr(live.http_config, "unauthenticated", True)),
    ("startupTimeoutS", lambda live: setattr(live.http_config, "startup_timeout", 30)),
    ("computeRegions", lambda live: live.ranked_functions[0].function.scheduler_placement.regions.append("eu")),
    ("secrets", lambda live: live.ranked_functions[0].function.secret_ids.append("st-gone")),
    ("cpu", lambda live: setattr(live.ranked_functions[0].function.resources, "milli_cpu", 500)),
    ("", lambda live: None),
]


def test_a_deployment_from_elsewhere_is_seen_and_mended(modal: FakeModal) -> None:
    with plugin(modal) as running:
        inputs, outputs = create(running)
        app = modal.cloud.deployed("main", NAME)
        assert app is not None
        for field, change in DRIFTS:
            version = outputs["version"]
            change(modal.cloud.deploy_from_elsewhere(app, by="mallory"))
            with pytest.raises(CallError, match=f"version {version + 1} .* by mallory") as seen:
                running.read(APP, ID, inputs, outputs)
            assert seen.value.kept is not None
            read = values.decode(seen.value.kept.inputs)
            different = {key for key in {**inputs, **read} if inputs.get(key) != read.get(key)}
            assert different == {field} - {""}
            outputs.update(running.update(APP, ID, values.decode(seen.value.kept.properties), read, inputs))
            assert outputs["version"] == version + 2
            assert running.read(APP, ID, inputs, outputs)[1] == inputs
    assert_one_app(modal, max_containers=1)


def test_an_autoscaler_that_somebody_moved_is_moved_back_although_nothing_is_deployed(modal: FakeModal) -> None:
    with plugin(modal) as running:
        inputs, outputs = create(running)
        app = modal.cloud.deployed("main", NAME)
        assert app is not None
        function = modal.cloud.functions[app.function_ids["serving"]]
        function.overrides = pb.AutoscalerSettings(min_containers=5, max_containers=7, target_concurrency_float=2)
        _, read, _ = running.read(APP, ID, inputs, outputs)
        assert (read["minContainers"], read["maxContainers"], read["targetConcurrency"]) == (5, 7, 2)
        mended = running.update(APP, ID, outputs, read, inputs)
        assert mended["version"] == 1
        assert running.read(APP, ID, inputs, outputs)[1] == inputs


def test_another_app_under_our_name_is_told_and_replaced(modal: FakeModal) -> None:
    with plugin(modal) as running:
        inputs, outputs = create(running)
        app = modal.cloud.deployed("main", NAME)
        assert app is not None
        modal.cloud.deploy_from_elsewhere(app, tag="web")
        with pytest.raises(CallError, match="has no server 'serving'") as seen:
            running.read(APP, ID, inputs, outputs)
        assert seen.value.kept is not None
        running.update(APP, ID, values.decode(seen.value.kept.properties), inputs, inputs)
        assert running.read(APP, ID, inputs)[1] == inputs
        with pytest.raises(CallError, match="ENVIRONMENT/NAME"):
            running.read(APP, "ap-123")


def test_an_app_that_somebody_else_made_is_not_taken(modal: FakeModal) -> None:
    with plugin(modal) as running:
        create(running)
    app = modal.cloud.deployed("main", NAME)
    assert app is not None
    app.tags = {}
    with plugin(modal) as another, pytest.raises(CallError, match="this stack did not make") as refused:
        another.create(APP, checked(another))
    assert f"pulumi import lorafleet:modal:App spill {ID}" in str(refused.value)
    assert len(app.history) == 1


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"gpus": ["L5"]}, "Invalid GPU type"),
    ({"environment": "nowhere"}, "Environment 'nowhere' not found"),
    ({"secrets": ["missing"]}, "Secret 'missing' not found"),
    ({"computeRegions": ["mars"]}, "Invalid region"),
    ({"cloud": "azure"}, "Invalid cloud provider"),
    ({"routingRegion": "mars"}, "Invalid routing region"),
    ({"volumes": {"/mnt/a": {"volume": "missing"}}}, "Volume 'missing' not found"),
    ({"buckets": {"/mnt/a": {"bucket": "abc", "secret": "hub"}}}, "missing key(s): AWS_ACCESS_KEY_ID"),
    (
        {"buckets": {"/mnt/a": {"bucket": "abc", "secret": "hub", "endpoint": "https://storage.googleapis.com"}}},
        "missing key(s): GOOGLE_ACCESS_KEY_ID",
    ),
    ({"image": f"registry.example.com/other@sha256:{'0' * 64}"}, "manifest unknown"),
    ({"image": f"registry.example.com/private@sha256:{'0' * 64}"}, "403"),
]


def test_what_modal_refuses_is_one_clear_error_and_leaves_nothing(modal: FakeModal) -> None:
    modal.put_secret("main", "hub", HF_TOKEN="hf-0123456789")
    modal.cloud.images = {IMAGE: None, f"registry.example.com/private@sha256:{'0' * 64}": "registry"}
    with plugin(modal) as running:
        for more, said in REFUSED:
            with pytest.raises(CallError) as refused:
                running.create(APP, checked(running, **more))
            assert said in str(refused.value)
            assert "next:" in str(refused.value)
            assert "Traceback" not in str(refused.value)
            assert refused.value.kept is None, "nothing was made, so nothing must be in the state"
            assert modal.cloud.living() == []


UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"maxContainers": 0}, "maxContainers"),
    ({"minContainers": 3, "maxContainers": 2}, "maxContainers"),
    ({"scaledownWindowS": 1}, "scaledownWindowS"),
    ({"exitGracePeriodS": 0}, "exitGracePeriodS"),
    ({"startupTimeoutS": 0}, "startupTimeoutS"),
    ({"maxConcurrency": 8}, "maxConcurrency"),
    ({"gpus": ["L4:1"]}, "gpus[0]"),
    ({"volumes": {"/mnt/a": {"volume": "one"}, "/mnt/b": {"volume": "one"}}}, "volumes"),
    ({"volumes": {"/a": {"volume": "one"}}, "buckets": {"/a": {"bucket": "abc"}}}, 'buckets["/a"]'),
    *(({"volumes": {path: {"volume": "one"}}}, "volumes") for path in ("mnt", "/", "/mnt/", "/a/../b", "/tmp")),
]


def test_what_cannot_be_is_refused_before_modal_is_asked() -> None:
    with Plugin() as running:
        for more, field in UNFIT:
            news = {"environment": "main", "name": NAME, "image": IMAGE, "gpus": ["L4"], **more}
            _, failures = running.check(APP, news)
            assert failures, more
            for where, reason in failures:
                assert where.startswith(field)
                assert "Traceback" not in reason


def test_a_wrong_token_is_one_line_that_names_the_variables(modal: FakeModal) -> None:
    with plugin(modal, MODAL_TOKEN_SECRET="as-wrong-012345") as running:
        with pytest.raises(CallError) as refused:
            running.create(APP, checked(running))
        first, *_ = str(refused.value).splitlines()
        assert "MODAL_TOKEN_ID and MODAL_TOKEN_SECRET" in first
        assert "as-wrong" not in str(refused.value)
    with plugin(modal, MODAL_TOKEN_ID="") as running:
        inputs = checked(running)
        assert running.create(APP, inputs, preview=True)[1]["status"] == "deployed"
        with pytest.raises(CallError, match="MODAL_TOKEN_ID holds no token"):
            running.create(APP, inputs)


@pytest.mark.parametrize(("rpc", "when"), KILLS)
def test_kill_in_a_create(modal: FakeModal, rpc: str, when: Moment) -> None:
    with killed_at(modal, rpc, when, lambda running: create(running)), plugin(modal) as second:
        inputs, outputs = create(second)
        assert second.read(APP, ID, inputs, outputs)[1:] == (inputs, outputs)
        assert_one_app(modal)


@pytest.mark.parametrize(("rpc", "when"), KILLS[-2:])
def test_kill_in_an_update(modal: FakeModal, rpc: str, when: Moment) -> None:
    with plugin(modal) as first:
        inputs, outputs = create(first)
    wanted = {**inputs, "maxContainers": 6}
    with (
        killed_at(modal, rpc, when, lambda running: running.update(APP, ID, outputs, inputs, wanted)),
        plugin(modal) as second,
    ):
        outputs.update(second.update(APP, ID, outputs, inputs, wanted))
        assert second.read(APP, ID, wanted, outputs)[1] == wanted
        assert outputs["version"] == 2
    assert_one_app(modal, max_containers=6)


@pytest.mark.parametrize("when", ["before", "after"])
def test_kill_in_a_delete(modal: FakeModal, when: Moment) -> None:
    with plugin(modal) as first:
        inputs, outputs = create(first)
    with (
        killed_at(modal, "AppStop", when, lambda running: running.delete(APP, ID, inputs, outputs)),
        plugin(modal) as second,
    ):
        second.delete(APP, ID, inputs, outputs)
    assert modal.cloud.living() == []
