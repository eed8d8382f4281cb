"""The order of a resource's calls, on a resource whose platform is a dictionary."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, ClassVar

import pytest

from providers import kit
from providers.kit import values
from providers.kit.lifecycle import InitFailedError, Lifecycle, Ownership, describe, state_of
from providers.kit.values import Sealed

URN = "urn:pulumi:test::serving::lorafleet:made-up:Disk::disk"


class Inputs(kit.Inputs):
    name: kit.AutoName
    size_gib: int = 10


class Outputs(kit.Outputs):
    status: Annotated[str, kit.Expected("ready")]
    address: str | None = None


class Disk(kit.Resource[Inputs, Outputs]):
    """A disk of a platform that is a dictionary {id: (urn, inputs)}."""

    platform: ClassVar[dict[str, tuple[str, Inputs]]] = {}
    calls: ClassVar[list[str]] = []
    fault: ClassVar[Exception | None] = None
    takes_s: ClassVar[float] = 0.0

    async def find(self, ctx: kit.Context, inputs: Inputs) -> Sequence[kit.Leftover]:
        found = [each for each, (urn, _) in self.platform.items() if urn == ctx.urn]
        return [kit.Leftover(each, newest=float(index)) for index, each in enumerate(found)]

    async def create(self, ctx: kit.Context, inputs: Inputs) -> tuple[str, Outputs]:
        self.calls.append("create")
        made = f"disk-{len(self.calls)}"
        self.platform[made] = (ctx.urn, inputs)
        ctx.exists(made, Outputs(status="starting"))
        await ctx.status("the disk to be formatted")
        await asyncio.sleep(self.takes_s)
        if self.fault:
            raise self.fault
        return made, Outputs(status="ready")

    async def read(
        self, ctx: kit.Context, resource_id: str, inputs: Inputs | None, outputs: Outputs | None
    ) -> kit.Reading[Inputs, Outputs] | None:
        entry = self.platform.get(resource_id)
        return kit.Reading(entry[1], Outputs(status="ready")) if entry else None

    async def update(self, ctx: kit.Context, resource_id: str, old: Inputs | None, inputs: Inputs) -> Outputs:
        self.calls.append(f"update {resource_id}")
        if self.fault:
            raise self.fault
        self.platform[resource_id] = (ctx.urn, inputs)
        return Outputs(status="ready")

    async def delete(self, ctx: kit.Context, resource_id: str, inputs: Inputs | None) -> None:
        self.calls.append(f"delete {resource_id}")
        self.platform.pop(resource_id, None)


@pytest.fixture(autouse=True)
def _empty() -> None:
    Disk.platform, Disk.calls, Disk.fault, Disk.takes_s = {}, [], None, 0.0


def run() -> Lifecycle:
    """The lifecycle in a new run of the plugin."""
    return Lifecycle("lorafleet:made-up:Disk", Disk(), Ownership())


def ctx() -> kit.Context:
    return kit.Context(urn=URN, name="disk")


def wanted(size_gib: int = 10, name: str = "disk-new") -> Inputs:
    return Inputs(name=name, size_gib=size_gib)


async def test_what_a_killed_run_left_is_taken_over_and_brought_up_to_date() -> None:
    Disk.platform["lost"] = (URN, wanted(5, "disk-old"))
    made, _ = await run().create(ctx(), wanted(20), 0)
    assert (made, Disk.calls) == ("lost", ["update lost"])
    assert Disk.platform["lost"][1].size_gib == 20


async def test_of_several_leftovers_the_newest_stays() -> None:
    for each in ("a", "b", "c"):
        Disk.platform[each] = (URN, wanted())
    made, _ = await run().create(ctx(), wanted(), 0)
    assert made == "c"
    assert list(Disk.platform) == ["c"]


async def test_what_belongs_to_another_resource_is_left_alone() -> None:
    Disk.platform["other"] = (f"{URN}-2", wanted())
    made, _ = await run().create(ctx(), wanted(), 0)
    assert set(Disk.platform) == {"other", made}


async def test_a_replacement_does_not_take_what_the_state_owns() -> None:
    """The engine diffs the old one, creates the new one, deletes the old one."""
    Disk.platform["old"] = (URN, wanted())
    this = run()
    this.owned("old")
    made, _ = await this.create(ctx(), wanted(20), 0)
    assert made != "old"
    await this.delete(ctx(), "old", wanted(), 0)
    assert set(Disk.platform) == {made}


async def test_a_forced_replacement_ends_with_one() -> None:
    """Nothing told that the state owns it: it is taken over, and the delete that follows spares it."""
    Disk.platform["old"] = (URN, wanted())
    this = run()
    made, _ = await this.create(ctx(), wanted(20), 0)
    await this.delete(ctx(), "old", wanted(), 0)
    assert set(Disk.platform) == {made}


async def test_a_failure_after_something_exists_keeps_it_in_the_state() -> None:
    Disk.fault = kit.ResourceError("the disk is on fire", next_action="call somebody")
    with pytest.raises(InitFailedError) as failed:
        await run().create(ctx(), wanted(), 0)
    assert failed.value.resource_id in Disk.platform
    assert failed.value.reasons == ["the disk is on fire\n  next: call somebody"]


async def test_a_failed_update_keeps_id_and_last_outputs() -> None:
    Disk.fault = RuntimeError("x")
    with pytest.raises(InitFailedError) as failed:
        await run().update(ctx(), "d", wanted(), wanted(20), Outputs(status="ready", address="a"), 0)
    assert failed.value.resource_id == "d"
    assert failed.value.outputs.model_dump()["address"] == "a"


async def test_the_time_limit_says_what_was_waited_for() -> None:
    Disk.takes_s = 30
    with pytest.raises(InitFailedError, match=r"longer than 0\.05 s while waiting for: the disk to be formatted"):
        await run().create(ctx(), wanted(), 0.05)


async def test_a_time_out_inside_is_not_the_time_limit() -> None:
    Disk.fault = TimeoutError("the platform did not answer")
    with pytest.raises(InitFailedError, match="the platform did not answer"):
        await run().create(ctx(), wanted(), 60)


async def test_a_cancelled_create_keeps_what_it_made() -> None:
    Disk.takes_s = 30
    task = asyncio.ensure_future(run().create(ctx(), wanted(), 0))
    await asyncio.sleep(0.05)
    assert Disk.platform
    task.cancel()
    with pytest.raises(InitFailedError, match="was cancelled while waiting for"):
        await task


async def test_a_read_keeps_the_name_that_the_state_has() -> None:
    Disk.platform["d"] = (URN, wanted(10, "disk-old"))
    reading = await run().read(ctx(), "d", wanted(10, "disk-new"), None)
    assert reading is not None and reading.inputs.name == "disk-new"
    imported = await run().read(ctx(), "d", None, None)
    assert imported is not None and imported.inputs.name == "disk-old"


def test_errors_are_described_without_a_traceback() -> None:
    assert "No space left" in describe(OSError(28, "No space left on device", "/disk"))
    assert "fault of the provider" in describe(KeyError("x"))


def test_outputs_that_show_a_secret_are_marked() -> None:
    state = state_of(
        {"key": Sealed("s3cr3t-key")}, Outputs(status="ready", address="http://h/?k=s3cr3t-key"), {"s3cr3t-key"}
    )
    assert state["address"] == Sealed("http://h/?k=s3cr3t-key")
    assert state["status"] == "ready"


def test_every_declared_output_is_in_the_state() -> None:
    assert state_of({}, Outputs(status="ready"), set()) == {"status": "ready", "address": None}


def test_preview_of_outputs_without_a_rule_is_unknown() -> None:
    assert run().preview({"name": "d", "sizeGib": 10})["status"] is values.UNKNOWN
