"""Each thing that goes wrong at Modal, at each call: what passes is waited out, what does not is one clear error."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("modal", reason="the package `modal` is not installed")

from providers.kit.resource import Resource
from providers.modal.resources import App, Secret, Volume
from tests.fakes.modal import FakeModal
from tests.fakes.modal.faults import Kind
from tests.fakes.modal.kit import IMAGE, NAME
from tests.fakes.modal.life import Life, modal_here

_APP = {"environment": "main", "name": NAME, "image": IMAGE, "gpus": ["L4"], "secrets": ["hub"], "maxContainers": 2}
DECLARED: dict[str, tuple[type[Resource[Any, Any]], dict[str, Any], dict[str, Any]]] = {
    "App": (App, _APP, {**_APP, "maxContainers": 6}),
    "Secret": (
        Secret,
        {"environment": "main", "values": {"HF_TOKEN": "hf-0123456789"}},
        {"environment": "main", "values": {"HF_TOKEN": "hf-9876543210"}},
    ),
    "Volume": (Volume, {"environment": "main"}, {"environment": "other"}),
}


@pytest.fixture
def modal() -> Iterator[FakeModal]:
    with modal_here() as running:
        running.cloud.environments.add("other")
        running.put_secret("main", "hub", HF_TOKEN="hf-0123456789")
        yield running


def there(modal: FakeModal) -> int:
    """How many apps, secrets and volumes of ours there are, begun and not ended ones among them."""
    named = [*modal.cloud.secrets.values(), *modal.cloud.volumes.values()]
    return len(modal.cloud.living()) + sum(each.name.startswith("lf-") for each in named)


def operations(life: Life, first: dict[str, Any], then: dict[str, Any]) -> list[tuple[Callable[[], object], int]]:
    """Each with the number of things that there are after it."""
    return [(lambda: life.up(first), 1), (lambda: life.up(then), 1), (life.refresh, 1), (life.destroy, 0)]


def recorded(modal: FakeModal, kind: str) -> list[list[str]]:
    """The calls of each operation."""
    resource, first, then = DECLARED[kind]
    for _ in range(2):  # the SDK asks for an environment once in a process
        modal.cloud.image_ids.clear()
        life = Life(modal, resource)
        calls = [sorted(set(life.calls_of(work))) for work, _ in operations(life, first, then)]
    return calls


@pytest.mark.parametrize("dedupes", [True, False], ids=["deduped", "done twice"])
@pytest.mark.parametrize("fault", ["unavailable", "reset_before", "reset_after"])
@pytest.mark.parametrize("kind", DECLARED)
def test_what_passes_is_waited_out_at_every_call(modal: FakeModal, kind: str, fault: Kind, dedupes: bool) -> None:
    """dedupes: whether Modal sees by its key that a call is sent once more."""
    modal.dedupes = dedupes
    calls = recorded(modal, kind)
    resource, first, then = DECLARED[kind]
    modal.cloud.image_ids.clear()
    life = Life(modal, resource)
    for (work, left), rpcs in zip(operations(life, first, then), calls, strict=True):
        set_here = [modal.faults.add(rpc, fault) for rpc in rpcs]
        work()
        assert [each.rpc for each in set_here if each.times] == [], "it never came to that call"
        assert there(modal) == left
        assert life.state is None or life.refresh() == set()


@pytest.mark.parametrize("kind", DECLARED)
def test_what_does_not_pass_is_one_error_and_the_next_run_goes_on(modal: FakeModal, kind: str) -> None:
    """RESOURCE_EXHAUSTED, which is HTTP's 429, at every call of every operation."""
    resource, first, then = DECLARED[kind]
    for number, rpcs in enumerate(recorded(modal, kind)):
        for rpc in rpcs:
            modal.cloud.image_ids.clear()
            life = Life(modal, resource)
            steps = operations(life, first, then)
            for work, _ in steps[:number]:
                work()
            modal.faults.add(rpc, "exhausted", times=99)
            with pytest.raises(Exception, match="no more room") as refused:
                steps[number][0]()
            assert "next:" in str(refused.value)
            assert "Error" not in str(refused.value), "an error by the name of its class"
            modal.faults.clear()
            work, left = steps[number]
            work()
            assert there(modal) == left, (number, rpc)
            life.destroy()
            assert there(modal) == 0, (number, rpc)


def test_slow_answers_are_waited_for(modal: FakeModal) -> None:
    modal.faults.delay_s = 0.05
    for resource, first, _ in DECLARED.values():
        life = Life(modal, resource)
        life.up(first)
        assert life.refresh() == set()
        life.destroy()
    assert there(modal) == 0


def test_a_pull_that_is_cut_off_is_joined_again(modal: FakeModal) -> None:
    modal.faults.add("ImageJoinStreaming", "reset_half")
    life = Life(modal, App)
    life.up(_APP)
    assert modal.arrived.count("ImageJoinStreaming") == 2
    assert life.refresh() == set()


def test_a_deployment_that_stands_half_done_is_cleared_by_the_next_run(modal: FakeModal) -> None:
    """It broke off, and so did the call that would have told Modal so."""
    life = Life(modal, App)
    for rpc in ("FunctionCreate", "AppClientDisconnect"):
        modal.faults.add(rpc, "denied")
    with pytest.raises(Exception, match="does not let this token"):
        life.up(_APP)
    assert [app.function_ids for app in modal.cloud.living()] == [{}]
    life.up(_APP)
    assert modal.cloud.living() == [modal.cloud.deployed("main", NAME)]


def test_a_stop_that_takes_its_time_is_waited_for(modal: FakeModal) -> None:
    life = Life(modal, App)
    life.up(_APP)
    modal.cloud.looks_until_stopped = 20
    looks = modal.arrived.count("AppGetByDeploymentName")
    life.destroy()
    assert modal.arrived.count("AppGetByDeploymentName") - looks > 20
    life.up(_APP)
    assert there(modal) == 1


@pytest.mark.parametrize("rpc", ["AppPublish", "AppGetByDeploymentName"])
def test_an_app_that_somebody_stops_meanwhile_is_told_or_made_again(modal: FakeModal, rpc: str) -> None:
    """Behind our back, in the middle of an update."""
    life = Life(modal, App)
    life.up(_APP)
    app = modal.cloud.deployed("main", NAME)
    assert app is not None
    held = modal.faults.add(rpc, "hold_after")

    def somebody() -> None:
        held.reached.wait(60)
        modal.cloud.stop(app)
        held.release.set()

    other = threading.Thread(target=somebody)
    other.start()
    with pytest.raises(Exception, match=r"next:") as told:
        life.up({**_APP, "maxContainers": 6})
    other.join(60)
    assert "Traceback" not in str(told.value)
    assert life.refresh() == {"gone"}
    life.up({**_APP, "maxContainers": 6})
    assert life.refresh() == set()
    assert there(modal) == 1


def test_a_secret_with_a_name_of_its_own_is_not_lost_when_its_values_change(modal: FakeModal) -> None:
    """Replaced by one of the same name, it would be deleted together with the former one."""
    life, declared = (
        Life(modal, Secret),
        {"environment": "main", "name": "lf-own", "values": {"HF_TOKEN": "0123456789"}},
    )
    life.up(declared)
    with pytest.raises(Exception, match="leave `name` out"):
        life.up({**declared, "values": {"HF_TOKEN": "9876543210"}})
    assert there(modal) == 1
    life.up({"environment": "main", "values": {"HF_TOKEN": "9876543210"}})
    assert there(modal) == 1
    assert life.refresh() == set()


def test_a_secret_or_volume_that_an_app_needs_and_that_is_gone_is_named(modal: FakeModal) -> None:
    life = Life(modal, App)
    life.up(_APP)
    with modal.cloud.lock:
        modal.cloud.secrets.pop(("main", "hub"))
    assert life.refresh() == {"secrets"}, "the app still has the id of what is gone"
    with pytest.raises(Exception, match="Secret 'hub' not found in 'main'"):
        life.up(_APP)
    modal.put_secret("main", "hub", HF_TOKEN="hf-0123456789")
    life.up(_APP)
    assert life.refresh() == set()


def test_a_server_that_does_not_answer_is_an_error_within_a_bounded_time(
    modal: FakeModal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.modal.api._CONNECT_TIMEOUT_S", 1.0)
    modal.faults.add("ClientHello", "unavailable", times=10**6)
    begun = time.monotonic()
    with pytest.raises(Exception, match="Modal does not answer") as told:
        Life(modal, Volume).up({"environment": "main"})
    assert time.monotonic() - begun < 30
    assert "next:" in str(told.value)
