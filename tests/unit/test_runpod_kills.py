"""A run that dies at any call to RunPod, before the call or after it, and the run after it.

The run's memory is lost at that moment, as with kill -9; what the engine has in its state is what is said here. (With
the real engine: `make chaos`.) Whether the answer was still read makes no difference: nothing of it was kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from providers.runpod import api
from providers.runpod.resources import NetworkVolume, Pod, RegistryCredential, ServerlessEndpoint
from tests.fakes.runpod import Fake
from tests.fakes.runpod.run import ENDPOINT, IMAGE, POD, REGISTRY, VOLUME, Run, started

OTHER_IMAGE = IMAGE.replace("0", "1")


class Killed(BaseException):
    """No code of the plugin runs after this."""


@dataclass
class Mortal:
    """The API of a run that dies at its call number `at` (the first is 0), if it makes so many."""

    inner: Any
    at: int
    when: Literal["before", "after"]
    calls: int = field(default=0)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any) -> Any:
            number, self.calls = self.calls, self.calls + 1
            if number == self.at and self.when == "before":
                raise Killed
            answer = await getattr(self.inner, name)(*arguments)
            if number == self.at:
                raise Killed
            return answer

        return call


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with started(monkeypatch) as server:
        yield server


@dataclass
class Case:
    """A resource as first declared, changed in place, and changed so that a new one is needed."""

    resource: Any
    folder: str
    first: dict[str, Any]
    changed: dict[str, Any]
    replaced: dict[str, Any]


CASES = {
    "endpoint": Case(
        ServerlessEndpoint,
        "serverless",
        ENDPOINT,
        {**ENDPOINT, "image": OTHER_IMAGE, "gpus": ["NVIDIA A40"], "workers": {"max": 5}, "flashboot": "FLASHBOOT"},
        {**ENDPOINT, "type": "QUEUE", "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4}},
    ),
    "pod": Case(Pod, "pods", POD, {**POD, "image": OTHER_IMAGE, "locked": True}, {**POD, "gpu": "NVIDIA L40S"}),
    "stopped pod": Case(
        Pod, "pods", {**POD, "running": False}, {**POD, "diskGb": 44}, {**POD, "running": False, "gpu": "NVIDIA L40S"}
    ),
    "volume": Case(
        NetworkVolume, "network-volumes", VOLUME, {**VOLUME, "sizeGb": 60}, {**VOLUME, "dataCenter": "US-KS-2"}
    ),
    "credential": Case(
        RegistryCredential, "registries", REGISTRY, REGISTRY, {**REGISTRY, "password": "another-password-0123"}
    ),
}
EACH = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
# Of a credential, nothing can be changed.
CHANGEABLE = pytest.mark.parametrize("case", [CASES[name] for name in CASES if name != "credential"])
WHEN = pytest.mark.parametrize("when", ["before", "after"])
_MOST_CALLS = 60


async def every_death(
    monkeypatch: pytest.MonkeyPatch,
    when: Literal["before", "after"],
    prepare: Callable[[], Awaitable[Any]],
    work: Callable[[Any], Awaitable[Any]],
    recover: Callable[[Any], Awaitable[None]],
) -> int:
    """Does `work` again and again, each time dying one call later, until it outlives all: how many calls it makes.

    Each time, `prepare` makes what there is before, and `recover` is the next run, with what it must come to.
    """
    connect = api.connect
    for at in range(_MOST_CALLS):
        before = await prepare()
        mortal = Mortal(connect(), at, when)
        with monkeypatch.context() as this_run, contextlib.suppress(Killed):
            this_run.setattr(api, "connect", lambda mortal=mortal: mortal)
            await work(before)
        await recover(before)
        if mortal.calls <= at:
            return at
    raise AssertionError("it asks without end")


async def is_declared(fake: Fake, case: Case, made: str, inputs: dict[str, Any]) -> None:
    """There is this one alone, and it is as declared."""
    things = fake.cloud.things[case.folder]
    assert list(things) == [made]
    assert len(fake.cloud.templates) == len(fake.cloud.endpoints)
    reading = await Run(case.resource).read(made, inputs)
    assert reading is not None
    assert reading.inputs == Run(case.resource).load(inputs)
    if case.folder == "registries":
        assert fake.cloud.passwords[made] == (inputs["username"], inputs["password"])
    if case.folder == "pods":
        assert things[made]["status"] == ("RUNNING" if inputs.get("running", True) else "EXITED")


def renamed(inputs: dict[str, Any]) -> dict[str, Any]:
    """The next run of the engine makes another name."""
    return {**inputs, "name": inputs["name"].replace("12345678", "87654321")}


@EACH
@WHEN
async def test_create(fake: Fake, monkeypatch: pytest.MonkeyPatch, case: Case, when: Any) -> None:
    async def empty() -> None:
        assert fake.cloud.count() == {}

    async def next_run(_: Any) -> None:
        inputs = renamed(case.first)
        made = await Run(case.resource).create(inputs)
        await is_declared(fake, case, made, inputs)
        await Run(case.resource).delete(made, inputs)

    calls = await every_death(monkeypatch, when, empty, lambda _: Run(case.resource).create(case.first), next_run)
    assert calls >= 3


@CHANGEABLE
@WHEN
async def test_update(fake: Fake, monkeypatch: pytest.MonkeyPatch, case: Case, when: Any) -> None:
    async def next_run(made: str) -> None:
        # The refresh finds the truth, whatever it is; the update brings it to what is declared.
        reading = await Run(case.resource).read(made, case.first)
        assert reading is not None
        run = Run(case.resource)
        await run.life.update(run.context(), made, reading.inputs, run.load(case.changed), reading.outputs, 60)
        await is_declared(fake, case, made, case.changed)
        await Run(case.resource).delete(made, case.changed)

    calls = await every_death(
        monkeypatch,
        when,
        lambda: Run(case.resource).create(case.first),
        lambda made: Run(case.resource).update(made, case.first, case.changed),
        next_run,
    )
    assert calls >= 2


@EACH
@WHEN
async def test_delete(fake: Fake, monkeypatch: pytest.MonkeyPatch, case: Case, when: Any) -> None:
    async def next_run(made: str) -> None:
        # With a refresh the state forgets what is gone; without one it is deleted again.
        if len(fake.requests) % 2 or await Run(case.resource).read(made, case.changed) is not None:
            await Run(case.resource).delete(made, case.changed)
        assert fake.cloud.count() == {}

    async def one() -> str:
        made = await Run(case.resource).create(case.first)
        if case.changed is not case.first:
            await Run(case.resource).update(made, case.first, case.changed)
        return made

    calls = await every_death(
        monkeypatch, when, one, lambda made: Run(case.resource).delete(made, case.changed), next_run
    )
    assert calls >= 1


@EACH
@WHEN
async def test_replacement(fake: Fake, monkeypatch: pytest.MonkeyPatch, case: Case, when: Any) -> None:
    """The engine makes the new one, writes that down, and deletes the old one."""
    wanted = renamed(case.replaced)
    known: dict[str, str] = {}

    async def one() -> str:
        known.clear()
        return await Run(case.resource).create(case.first)

    async def replace(old: str) -> None:
        run = Run(case.resource)
        run.life.owned(old)  # by its diff
        known["new"] = await run.create(wanted)
        await run.delete(old, case.first)

    async def next_run(old: str) -> None:
        run = Run(case.resource)
        if "new" not in known:
            if await run.read(old, case.first) is None:
                raise AssertionError("the old one was lost before there was a new one")
            known["new"] = await run.create({**wanted, "name": f"{wanted['name'][:-1]}2"})
            inputs = {**wanted, "name": f"{wanted['name'][:-1]}2"}
        else:
            inputs = wanted
        await run.delete(old, case.first)
        await is_declared(fake, case, known["new"], inputs)
        await Run(case.resource).delete(known["new"], inputs)
        assert fake.cloud.count() == {}

    calls = await every_death(monkeypatch, when, one, replace, next_run)
    assert calls >= 4
