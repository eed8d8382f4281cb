"""Targets of the kind `gce` that can't work: each ends in one error with its line, and what it advises does work.

Most of these pass Google's plugin for Pulumi and fail minutes later, or never start.
"""

# ruff: noqa: E501 (a table)
from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from handlers.serving.launcher import DRAIN_GRACE_S
from lorafleet.errors import DeclarationErrors, LorafleetError
from lorafleet.load import load_stack
from lorafleet.plan import Plan, resolve
from lorafleet.targets import spec_of
from providers.gce import hours, sizes
from providers.gce import spec as spec_module
from providers.gce.machines import GPUS, MACHINES, region_of, zones
from providers.gce.spec import BOOT_S, GceTarget

GOOD: dict[str, Any] = {
    "kind": "gce",
    "machine": "g2-standard-4",
    "gpu": "L4",
    "zones": ["asia-northeast3-a", "asia-northeast3-b"],
}
T4 = {"machine": "n1-standard-4", "gpu": "T4", "zones": ["asia-northeast3-b"]}
VM = {"form": "vm", "zones": ["asia-northeast3-a"]}
HOURS = {"on": "08:00", "off": "20:00", "timeZone": "Asia/Seoul"}
NUMBER = {"projectNumber": 123456789012}
TAKEN_AWAY = object()


@dataclass(frozen=True)
class Case:
    """A declaration that is `GOOD` with `change`, wrong at `field`; with `mend` on top it is right.

    says: what the error must say, above all the nearest thing that is right.
    """

    name: str
    change: dict[str, Any]
    field: str
    says: tuple[str, ...]
    mend: dict[str, Any]


def c(name: str, change: dict[str, Any], at: str, *says: str, mend: dict[str, Any]) -> Case:
    return Case(name, change, at, says, mend)


def hours_with(**changes: Any) -> dict[str, Any]:
    return {"schedule": {**HOURS, **changes}}


CASES = [
    # machines, GPUs, number formats
    c("T4 on G2", {"gpu": "T4"}, "gpu", "n1-standard-4", "gpu L4", mend={"gpu": "L4"}),
    c("T4 on G2, kept", {"gpu": "T4", "zones": T4["zones"]}, "gpu", "Take machine n1-standard-4 for a T4", mend=T4),
    c("L4 on N1", {"machine": "n1-standard-8"}, "gpu", "machine g2-standard-8", mend={"machine": "g2-standard-8"}),
    c("L4 on a large N1", {"machine": "n1-highmem-16"}, "gpu", "g2-standard-16", mend={"machine": "g2-standard-16"}),
    c("no such machine", {"machine": "g2-standard-6"}, "machine", "g2-standard-16, ", mend={"machine": "g2-standard-8"}),
    c("misspelt machine", {"machine": "g2-standart-4"}, "machine", '"g2-standard-4"', mend={"machine": "g2-standard-4"}),
    c("a machine with two L4", {"machine": "g2-standard-24"}, "machine", "g2-standard-32", mend={"machine": "g2-standard-32"}),
    c("a machine without GPUs", {"machine": "e2-standard-4"}, "machine", "g2-standard-4", mend={"machine": "g2-standard-4"}),
    c("a T4 needs four on this", {**T4, "machine": "n1-standard-96"}, "machine", "n1-standard-32", mend={"machine": "n1-standard-32"}),
    c("a GPU of another kind of machine", {"gpu": "A100"}, "gpu", "L4 or T4", mend={"gpu": "L4"}),
    c("Google's name of the GPU", {"gpu": "nvidia-l4"}, "gpu", "L4 or T4", mend={"gpu": "L4"}),
    c("small letters", {"gpu": "t4"}, "gpu", 'Did you mean "T4"?', mend=T4),
    c("no GPU", {"gpu": TAKEN_AWAY}, "gpu", "L4 or T4", mend={"gpu": "L4"}),
    c("no machine", {"machine": TAKEN_AWAY}, "machine", "g2-standard-4", mend={"machine": "g2-standard-4"}),
    c("T4 with bfloat16", {**T4, "engine": {"dtype": "bfloat16"}}, "engine.dtype", "float16", "L4 with machine g2-standard-4", mend={"engine": {"dtype": "float16"}}),
    c("T4 with bfloat16, kept", {**T4, "engine": {"dtype": "bfloat16"}}, "engine.dtype", "gpu L4", mend={"machine": "g2-standard-4", "gpu": "L4"}),
    c("on the processor", {"engine": {"device": "cpu"}}, "engine.device", "auto or cuda", mend={"engine": {"device": "cuda"}}),
    c("a cache larger than the GPU", {"engine": {"kvCacheMib": 40960}}, "engine.kvCacheMib", "at most 21 GiB", mend={"engine": {"kvCacheMib": 20480}}),
    c("a cache larger than a T4", {**T4, "engine": {"kvCacheMib": 20480}}, "engine.kvCacheMib", "gpu L4 with machine g2-standard-4", mend={"machine": "g2-standard-4", "gpu": "L4"}),
    # zones
    c("a zone without L4", {"zones": ["asia-northeast3-c"]}, "zones[0]", "asia-northeast3-a or asia-northeast3-b", mend={"zones": ["asia-northeast3-b"]}),
    c("a zone without T4", {**T4, "zones": ["asia-northeast3-a"]}, "zones[0]", "asia-northeast3-b or asia-northeast3-c", mend={"zones": ["asia-northeast3-c"]}),
    c("a region without L4", {"zones": ["asia-northeast2-a"]}, "zones[0]", "asia-northeast1-a", mend={"zones": ["asia-northeast1-a"]}),
    c("a region, not a zone", {"zones": ["asia-northeast3"]}, "zones[0]", "asia-northeast3-a", mend={"zones": ["asia-northeast3-a"]}),
    c("a zone in capitals", {"zones": ["Asia-Northeast3-a"]}, "zones[0]", "asia-northeast3-a", mend={"zones": ["asia-northeast3-a"]}),
    c("no zone", {"zones": []}, "zones", "1", mend={"zones": ["asia-northeast3-a"]}),
    c("a text for the zones", {"zones": "asia-northeast3-a"}, "zones", "list", mend={"zones": ["asia-northeast3-a"]}),
    c("two regions", {"zones": ["asia-northeast3-a", "asia-northeast1-a"]}, "zones", "one region, such as asia-northeast3-a or asia-northeast3-b", mend={"zones": ["asia-northeast3-a"]}),
    c("a zone twice", {"zones": ["asia-northeast3-a", "asia-northeast3-a"]}, "zones[1]", "each zone once", mend={"zones": ["asia-northeast3-a"]}),
    c("one VM in two zones", {"form": "vm"}, "zones", "one zone, or form group", mend={"form": "group"}),
    # how many, and how they are paid for
    c("fewer than none", {"onDemand": -3}, "onDemand", "0 to 100", mend={"onDemand": 1}),
    c("none at all", {"onDemand": 0}, "onDemand", "at least one VM", mend={"spot": 1}),
    c("a text for a number", {"spot": "2"}, "spot", "quotes", mend={"spot": 2}),
    c("one VM that is three", {**VM, "onDemand": 3}, "onDemand", "`form: vm` away", mend={"form": "group"}),
    c("one VM, and Spot", {**VM, "spot": 1}, "spot", "onDemand 0 with spot 1", mend={"onDemand": 0}),
    c("misspelt end of Spot", {"spot": 1, "spotTermination": "STOPP"}, "spotTermination", "delete or stop", 'Did you mean "stop"?', mend={"spotTermination": "stop"}),
    c("an end of Spot without Spot", {"spotTermination": "stop"}, "spotTermination", "spot of 1 or more", mend={"spot": 1}),
    c("a Spot VM that would not come back", {**VM, "onDemand": 0, "spot": 1, "spotTermination": "delete"}, "spotTermination", "stop with form vm", mend={"spotTermination": "stop"}),
    c("too long a drain for Spot", {"spot": 1, "drainTimeoutS": 60}, "drainTimeoutS", "at most 20 with Spot VMs", mend={"drainTimeoutS": 20}),
    c("standby of Spot alone", {"onDemand": 0, "spot": 2, "standby": 1}, "standby", "onDemand of 1 or more", mend={"onDemand": 1}),
    c("standby of one VM", {**VM, "standby": 1}, "standby", "form group", mend={"form": "group"}),
    c("another way of paying", {"provisioningModel": "SPOTT"}, "provisioningModel", "there is no such key", mend={"provisioningModel": TAKEN_AWAY, "spot": 1}),
    c("restart of Spot", {"spot": 1, "automaticRestart": True}, "automaticRestart", "there is no such key", mend={"automaticRestart": TAKEN_AWAY}),
    c("maintenance", {"onHostMaintenance": "MIGRATE"}, "onHostMaintenance", "there is no such key", mend={"onHostMaintenance": TAKEN_AWAY}),
    # hours
    c("an hour that is none", hours_with(on="25:00"), "schedule.on", "00:00 to 23:59", mend=hours_with(on="01:00")),
    c("an hour without minutes", hours_with(on="8"), "schedule.on", "'08:00'", mend=hours_with(on="08:00")),
    c("an hour as YAML reads it", hours_with(on=480), "schedule.on", "quotes", mend=hours_with(on="08:00")),
    c("a cron line", hours_with(on="0 8 * * *"), "schedule.on", "as in 08:00", mend=hours_with(on="08:00")),
    c("an abbreviated time zone", hours_with(timeZone="KST"), "schedule.timeZone", "Asia/Seoul", mend=hours_with()),
    c("a misspelt time zone", hours_with(timeZone="Asia/Soeul"), "schedule.timeZone", 'Did you mean "Asia/Seoul"?', mend=hours_with()),
    c("an offset", hours_with(timeZone="UTC+9"), "schedule.timeZone", "Asia/Seoul", mend=hours_with(timeZone="UTC")),
    c("no time zone", {"schedule": {"on": "08:00", "off": "20:00"}}, "schedule.timeZone", "Add the key `timeZone`", mend=hours_with()),
    c("days that are none", hours_with(days="weekdays"), "schedule.days", "mon-fri", mend=hours_with(days="mon-fri")),
    c("on as it goes off", hours_with(off="08:00"), "schedule.off", "60 minutes", mend=hours_with(off="09:00")),
    c("five minutes", hours_with(off="08:05"), "schedule.off", "60 minutes", mend=hours_with(off="09:00")),
    c("five minutes' rest", hours_with(off="07:55"), "schedule.off", "60 minutes", mend=hours_with(off="07:00")),
    c("hours of a VM without a number", {**VM, **hours_with()}, "projectNumber", "projectNumber", mend=NUMBER),
    c("a project's id for its number", {**VM, **hours_with(), "projectNumber": "fleet-123"}, "projectNumber", "whole number", mend=NUMBER),
    c("a number for nothing", NUMBER, "projectNumber", "only with schedule", mend={"projectNumber": TAKEN_AWAY}),
    # health, ports, times
    c("an answer later than the next question", {"healthCheck": {"intervalS": 5, "timeoutS": 10}}, "healthCheck.timeoutS", "at most 5", mend={"healthCheck": {"intervalS": 10, "timeoutS": 10}}),
    c("no threshold", {"healthCheck": {"unhealthyAfter": 0}}, "healthCheck.unhealthyAfter", "1 to 10", mend={"healthCheck": {"unhealthyAfter": 1}}),
    c("a long interval", {"healthCheck": {"intervalS": 301}}, "healthCheck.intervalS", "1 to 300", mend={"healthCheck": {"intervalS": 300}}),
    c("healed while it loads", {"healingDelayS": 300}, "healingDelayS", "1320 to 3600", mend={"healingDelayS": 1320}),
    c("healed after an hour and more", {"healingDelayS": 4000}, "healingDelayS", "0 to 3600", mend={"healingDelayS": 3600}),
    c("a start longer than any patience", {"startTimeoutS": 3600}, "startTimeoutS", "at most 3180", mend={"startTimeoutS": 3180}),
    c("a patience that one VM has not", {**VM, "healingDelayS": 1500}, "healingDelayS", "only with form group", mend={"form": "group"}),
    c("a port that is none", {"port": 800000}, "port", "65535", mend={"port": 8080}),
    c("a port for root", {"port": 80}, "port", "1024", mend={"port": 8080}),
    # network, project, disk, labels
    c("everybody", {"allowFrom": ["0.0.0.0/0"]}, "allowFrom[0]", "/8 or smaller", mend={"allowFrom": ["10.0.0.5/32"]}),
    c("a host with a range's length", {"allowFrom": ["10.0.0.5/24"]}, "allowFrom[0]", "Did you mean 10.0.0.0/24?", mend={"allowFrom": ["10.0.0.0/24"]}),
    c("an address without a length", {"allowFrom": ["10.0.0.5"]}, "allowFrom[0]", "10.0.0.5/32", mend={"allowFrom": ["10.0.0.5/32"]}),
    c("an address that is none", {"allowFrom": ["10.0.0.300/32"]}, "allowFrom[0]", "10.0.0.0/24", mend={"allowFrom": ["10.0.0.30/32"]}),
    c("a range twice", {"allowFrom": ["10.0.0.5/32", "10.0.0.5/32"]}, "allowFrom[1]", "each range once", mend={"allowFrom": ["10.0.0.5/32"]}),
    c("a public range", {"network": {"range": "8.8.8.0/24"}}, "network.range", "10.80.0.0/24", mend={"network": {"range": "10.80.0.0/24"}}),
    c("half a network", {"network": {"name": "fleet"}}, "network.subnetwork", "Add `subnetwork`", mend={"network": {"name": "fleet", "subnetwork": "kr"}}),
    c("the other half", {"network": {"subnetwork": "kr"}}, "network.name", "Add `name`", mend={"network": {"name": "fleet", "subnetwork": "kr"}}),
    c("a range of what is there", {"network": {"name": "fleet", "subnetwork": "kr", "range": "10.1.0.0/24"}}, "network.range", "without name and subnetwork", mend={"network": {"name": "fleet", "subnetwork": "kr"}}),
    c("a network in capitals", {"network": {"name": "Fleet_1", "subnetwork": "kr"}}, "network.name", "lower-case letters", mend={"network": {"name": "fleet-1", "subnetwork": "kr"}}),
    c("a project's number for its id", {"project": "123456789012"}, "project", "the id, not the name or the number", mend={"project": "fleet-123"}),
    c("a small disk", {"disk": {"gb": 30}}, "disk.gb", "at least 66 GB", mend={"disk": {"gb": 66}}),
    c("an old kind of disk", {"disk": {"type": "pd-standard"}}, "disk.type", "pd-balanced or pd-ssd", mend={"disk": {"type": "pd-balanced"}}),
    c("an image by its name alone", {"diskImage": "ubuntu-2204-lts"}, "diskImage", "projects/PROJECT/global/images/NAME", mend={"diskImage": "projects/fleet-123/global/images/lorafleet-1"}),
    c("a label's key", {"labels": {"Team": "a"}}, "labels.Team", "lower-case letters", mend={"labels": {"team": "a"}}),
    c("a label's value", {"labels": {"team": "A Team"}}, "labels.team", "lower-case letters", mend={"labels": {"team": "a-team"}}),
    c("a label of ours", {"labels": {"app": "x"}}, "labels.app", "any key but app", mend={"labels": {"use": "x"}}),
    c("a misspelt key", {"onDemandd": 2}, "onDemandd", "Did you mean `onDemand`?", mend={"onDemandd": TAKEN_AWAY, "onDemand": 2}),
]  # fmt: skip


class Stack:
    """A stack file with one target of the kind, whose store and base model lie elsewhere."""

    def __init__(self, root: Path, name: str = "primary") -> None:
        self.root, self.name = root, name
        self.target = copy.deepcopy(GOOD)
        self.file = root / "stacks" / "Pulumi.dev.yaml"
        self.file.parent.mkdir()

    def change(self, more: dict[str, Any]) -> None:
        self.target.update(copy.deepcopy({k: v for k, v in more.items() if v is not TAKEN_AWAY}))
        for key in [key for key, value in more.items() if value is TAKEN_AWAY]:
            self.target.pop(key, None)

    def plan(self) -> Plan:
        fleet = {
            "store": "gs://a-bucket",
            "baseModel": {"name": "exaone-3.5-2.4b", "source": "hf://an-owner/a-model", "license": "none needed (a test)"},
            "adapters": {"easycontract": {"rank": 8}},
            "targets": {self.name: self.target},
            "router": {"port": 8100, "metricsPort": 8102},
            "release": {"baseModel": {"revision": "e" * 40}, "adapters": {"easycontract": f"sha256:{'1' * 64}"}},
        }  # fmt: skip
        self.file.write_text(yaml.safe_dump({"config": {"serving:fleet": fleet}}, sort_keys=False))
        return resolve(load_stack(self.root, "dev"))

    def spec(self) -> GceTarget:
        spec = self.plan().target(self.name).spec
        assert isinstance(spec, GceTarget)
        return spec


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return Stack(tmp_path)


def test_the_good_one_is_good(stack: Stack) -> None:
    assert spec_of("gce") is GceTarget
    spec = stack.spec()
    assert (spec.form, spec.on_demand, spec.spot, spec.region) == ("group", 1, 0, "asia-northeast3")
    assert not spec.network.external_ip
    assert spec.healing_delay == BOOT_S + 900


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_it_is_refused_and_the_advice_works(case: Case, stack: Stack) -> None:
    stack.change(case.change)
    with pytest.raises(LorafleetError) as caught:
        stack.plan()
    [error] = caught.value.errors
    text = str(error)
    assert error.field == f"targets.primary.{case.field}", text
    assert re.fullmatch(r"stacks/Pulumi\.dev\.yaml:\d+", error.where), text
    assert error.what and error.allowed and error.next_action, text
    assert len(text.splitlines()) <= 4 and "pydantic" not in text, text
    for piece in case.says:
        assert piece in text, text
    stack.change(case.mend)
    stack.plan()


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


def test_several_mistakes_are_told_at_once(stack: Stack) -> None:
    stack.change({"gpu": "T4", "standby": 2, "onDemand": 0, "healthCheck": {"timeoutS": 5}, "disk": {"gb": 20}})
    with pytest.raises(DeclarationErrors) as caught:
        stack.plan()
    fields = {error.field.removeprefix("targets.primary.") for error in caught.value.errors}
    assert fields >= {"gpu", "standby", "onDemand", "healthCheck.timeoutS", "disk.gb"}


def test_names_that_would_be_too_long(tmp_path: Path) -> None:
    longest = sizes.LONGEST_BASE_NAME - len("lorafleet-dev-")
    with pytest.raises(LorafleetError, match="too long for Compute Engine"):
        stack = Stack(tmp_path, "a" * 40)
        stack.change({"spot": 1, "onDemand": 0})
        stack.plan()
    assert longest >= 40, "a target's name alone is never too long in a stack with a short one"


def test_names_that_begin_with_a_digit(tmp_path: Path) -> None:
    with pytest.raises(LorafleetError, match=r"begin with a letter(?s:.*)such as vm-1st\."):
        Stack(tmp_path, "1st").plan()


def test_a_server_that_ends_is_found_out_while_it_still_takes_requests() -> None:
    """A Spot VM that goes is not taken out of the load balancer by anybody else."""
    check = spec_module.HealthCheck()
    assert check.unhealthy_after * check.interval_s <= DRAIN_GRACE_S


@pytest.mark.parametrize(
    ("on", "off", "days", "start", "stop", "minutes"),
    [
        ("08:00", "20:00", "daily", "0 8 * * *", "0 20 * * *", 720),
        ("08:30", "20:15", "mon-fri", "30 8 * * 1-5", "15 20 * * 1-5", 705),
        ("20:00", "08:00", "mon-fri", "0 20 * * 1-5", "0 8 * * 2-6", 720),
        ("22:00", "06:00", "mon-sat", "0 22 * * 1-6", "0 6 * * 0,2-6", 480),
        ("09:00", "00:00", "mon-fri", "0 9 * * 1-5", "0 0 * * 2-6", 900),
    ],
)
def test_hours_as_cron(on: str, off: str, days: str, start: str, stop: str, minutes: int) -> None:
    schedule = hours.Schedule.model_validate({"on": on, "off": off, "days": days, "timeZone": "Asia/Seoul"})
    assert (schedule.start_cron, schedule.stop_cron, schedule.minutes) == (start, stop, minutes)


@pytest.mark.parametrize(("content", "disk"), [(None, 100), (10**9, 100), (30 * 10**9, 106)])
def test_the_disk_is_chosen_by_what_must_fit(content: int | None, disk: int) -> None:
    assert sizes.disk_gb(None, content) == disk >= sizes.disk_needed_gb(content)
    assert sizes.disk_gb(500, content) == 500


def test_the_zones_are_dated_and_well_formed() -> None:
    data = json.loads((Path(spec_module.__file__).parent / "zones.json").read_text())
    assert date.fromisoformat(data["asOf"]) <= date.today()
    assert data["source"].startswith("https://")
    assert tuple(data["zones"]) == GPUS
    for gpu in GPUS:
        found = zones(gpu)
        assert len(set(found)) == len(found) and list(found) == sorted(found)
        assert all(re.fullmatch(r"[a-z]+-[a-z]+\d-[a-z]", zone) for zone in found)
    assert len({region_of(zone) for zone in zones("T4")}) > 20


def test_each_machine_has_one_gpu_that_is_known() -> None:
    assert {machine.gpu for machine in MACHINES.values()} == set(GPUS)
    for name, machine in MACHINES.items():
        assert int(name.rpartition("-")[2]) == machine.vcpus
        assert name.startswith("g2-" if machine.gpu == "L4" else "n1-")
