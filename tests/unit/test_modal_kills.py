"""kill -9 at every call of every operation of every resource: the next run ends in what is declared, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("modal", reason="the package `modal` is not installed")

from modal_proto import api_pb2 as pb

from providers.kit.resource import Resource
from providers.modal.resources import App, Secret, Volume
from tests.fakes.modal import FakeModal
from tests.fakes.modal.faults import Moment
from tests.fakes.modal.kit import IMAGE, NAME
from tests.fakes.modal.life import Life, modal_here

MOMENTS: tuple[Moment, ...] = ("before", "after", "answered")


@dataclass(frozen=True)
class Kind:
    """A resource: what is declared of it first and then, and what there is of it on Modal."""

    resource: type[Resource[Any, Any]]
    first: dict[str, Any]
    then: dict[str, Any]
    there: Callable[[FakeModal], list[Any]]


def apps(modal: FakeModal) -> list[Any]:
    """What runs of every app that is not stopped, those that were begun and not ended among them."""
    living = modal.cloud.living()
    return [modal.cloud.live(app).autoscaler_settings.max_containers if app.function_ids else None for app in living]


def secrets(modal: FakeModal) -> list[Any]:
    return [each.content for each in modal.cloud.secrets.values() if each.name.startswith("lf-")]


def volumes(modal: FakeModal) -> list[Any]:
    return [environment for environment, name in modal.cloud.volumes if name.startswith("lf-")]


_APP = {"environment": "main", "name": NAME, "image": IMAGE, "gpus": ["L4"], "secrets": ["hub"], "maxContainers": 2}
KINDS = {
    "App": Kind(App, _APP, {**_APP, "maxContainers": 6}, apps),
    "App, renamed": Kind(App, _APP, {**_APP, "name": f"{NAME}-2", "maxContainers": 6}, apps),
    "Secret": Kind(
        Secret,
        {"environment": "main", "values": {"HF_TOKEN": "hf-0123456789"}},
        {"environment": "main", "values": {"HF_TOKEN": "hf-9876543210"}},
        secrets,
    ),
    "Volume": Kind(Volume, {"environment": "main"}, {"environment": "other"}, volumes),
}
WANTED = {
    "App": ([2], [6]),
    "App, renamed": ([2], [6]),
    "Secret": ([{"HF_TOKEN": "hf-0123456789"}], [{"HF_TOKEN": "hf-9876543210"}]),
    "Volume": (["main"], ["other"]),
}


OPERATIONS = [
    *((kind, operation) for kind in ("App", "Secret", "Volume") for operation in ("create", "update", "delete")),
    ("App, renamed", "update"),
]


@pytest.fixture(scope="module")
def modal() -> Iterator[FakeModal]:
    with modal_here() as running:
        running.cloud.environments.add("other")
        running.put_secret("main", "hub", HF_TOKEN="hf-0123456789")
        yield running


@pytest.mark.parametrize("refreshed", [False, True], ids=["up", "refresh and up"])
@pytest.mark.parametrize(("kind", "operation"), OPERATIONS)
def test_a_kill_at_every_call(modal: FakeModal, kind: str, operation: str, refreshed: bool) -> None:
    it, (first, then) = KINDS[kind], WANTED[kind]

    def prepared() -> tuple[Life, Callable[[], object]]:
        life = Life(modal, it.resource)
        modal.cloud.image_ids.clear()  # so that it is pulled again
        if operation == "create":
            return life, lambda: life.up(it.first)
        life.up(it.first)
        return life, life.destroy if operation == "delete" else lambda: life.up(it.then)

    for _ in range(2):  # the SDK asks for an environment once in a process
        life, work = prepared()
        calls = life.calls_of(work)
        life.destroy()
    assert len(calls) >= 3, calls
    for number, rpc in enumerate(calls):
        # Once a call is answered, nothing is otherwise than before the next one.
        for moment in MOMENTS if number == len(calls) - 1 else MOMENTS[:2]:
            life, work = prepared()
            life.killed(number, moment, work)
            at = f"{operation} of {kind}, {moment} call {number}, {rpc}"
            if refreshed:
                life.refresh()
            if operation == "delete":
                life.destroy()
                assert it.there(modal) == [], at
                continue
            wanted = it.first if operation == "create" else it.then
            life.up(wanted)
            assert it.there(modal) == (first if operation == "create" else then), at
            assert life.refresh() == set(), at
            assert life.up(wanted) == [], f"{at}: not settled"
            life.destroy()
            assert it.there(modal) == [], at
    assert all(app.state in (pb.APP_STATE_STOPPED, pb.APP_STATE_STOPPING) for app in modal.cloud.apps.values())


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_create_that_was_killed_and_never_made_again_leaves_no_app_that_runs(
    modal: FakeModal, moment: Moment
) -> None:
    """Of a resource that nobody declares any more no run can know; what may be left must at least cost nothing."""
    it = KINDS["App"]
    life = Life(modal, it.resource, "other")
    calls = life.calls_of(lambda: life.up(it.first))
    life.destroy()
    for number in range(calls.index("AppPublish")):
        life.killed(number, moment, lambda: life.up(it.first))
        assert modal.cloud.deployed("main", NAME) is None
    life.up(it.first)
    assert len(modal.cloud.living()) == 1
    life.destroy()
