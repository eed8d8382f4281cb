"""What must fit together in a declaration of this kind. Most of it Google's plugin for Pulumi lets through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lorafleet.errors import Problem, listed, nearest, shown
from lorafleet.gpus import GPUS as GPU_TABLE
from lorafleet.stackfile import FieldPath
from lorafleet.targets import Site

from . import hours, sizes
from .machines import MACHINES, machines_with, near_zones, region_of, regions, zones

if TYPE_CHECKING:
    from .spec import GceTarget

Found = Iterator[tuple[FieldPath, Problem]]

# What vLLM takes of the GPU's memory (its own default).
_USABLE_VRAM = 0.9
_SHOWN_ZONES = 6
_LONGEST_LISTS = 20


def problems(spec: GceTarget, site: Site) -> Found:
    """Each thing that could not work, with its field."""
    yield from _gpu(spec, site)
    yield from _zones(spec)
    yield from _counts(spec)
    yield from _schedule(spec)
    yield from _network(spec)
    yield from _times(spec)
    yield from _disk(spec, site)
    yield from _names(spec, site)


def _gpu(spec: GceTarget, site: Site) -> Found:
    machine = MACHINES[spec.machine]
    if machine.gpu != spec.gpu:
        yield (
            ("gpu",),
            Problem(
                f"{spec.machine} machines can't have a {spec.gpu}",
                found=f"{spec.gpu} on {spec.machine}",
                allowed=f"{spec.gpu} with {listed(machines_with(spec.gpu))}; {machine.gpu} with {spec.machine}",
                next_action=f"Take machine {_like(spec.machine, spec.gpu)} for a {spec.gpu}, or gpu {machine.gpu}.",
            ),
        )
        return  # what follows depends on which of the two was meant
    gpu = GPU_TABLE[spec.gpu]
    engine = spec.engine
    if engine.device == "cpu":
        yield (
            ("engine", "device"),
            Problem(
                "the engine would not use the GPU that is paid for",
                found="cpu",
                allowed="auto or cuda",
                next_action="Take `device` away.",
            ),
        )
    if engine.dtype != "auto" and engine.dtype not in gpu.dtypes:
        able = [name for name in ("L4", "T4") if engine.dtype in GPU_TABLE[name].dtypes]
        yield (
            ("engine", "dtype"),
            Problem(
                f"a {spec.gpu} does not compute in {engine.dtype}",
                found=f"{engine.dtype} on a {spec.gpu}",
                allowed=f"auto or {listed(gpu.dtypes)} with a {spec.gpu}",
                next_action=f"Write dtype float16, or take gpu {able[0]} with machine {_like(spec.machine, able[0])}."
                if able
                else "Write dtype auto.",
            ),
        )
    needed = (site.content_bytes or 0) + (engine.kv_cache_mib << 20)
    usable = int(gpu.vram_gib * _USABLE_VRAM * 2**30)
    if needed > usable:
        larger = spec.gpu == "T4" and needed <= GPU_TABLE["L4"].vram_gib * _USABLE_VRAM * 2**30
        yield (
            ("engine", "kvCacheMib"),
            Problem(
                f"the model and kvCacheMib do not fit into a {spec.gpu}'s memory",
                found=f"{-(-needed // 2**30)} GiB needed, {spec.gpu} with {gpu.vram_gib} GiB",
                allowed=f"at most {usable // 2**30} GiB ({_USABLE_VRAM:.0%} of it) for both",
                next_action=f"Take gpu L4 with machine {_like(spec.machine, 'L4')}, or lower kvCacheMib."
                if larger
                else "Lower kvCacheMib, or serve this model on a larger GPU elsewhere.",
            ),
        )


def _like(machine: str, gpu: str) -> str:
    """The machine with this GPU that has as many vCPUs, or else the smallest one."""
    wanted = MACHINES[machine].vcpus
    return next((name for name in machines_with(gpu) if MACHINES[name].vcpus == wanted), machines_with(gpu)[0])


def _zones(spec: GceTarget) -> Found:
    valid = zones(spec.gpu)
    # Which of the two was meant, where machine and GPU do not fit together, nobody knows: then the list is no help.
    known = MACHINES[spec.machine].gpu == spec.gpu
    for index, zone in enumerate(spec.zones):
        if known and zone not in valid:
            near = near_zones(zone, spec.gpu)
            yield (
                ("zones", index),
                Problem(
                    f"this zone has no {spec.gpu}, as far as is known",
                    found=shown(zone),
                    allowed=f"a zone with {spec.gpu}: {listed(near[:_SHOWN_ZONES])}"
                    f"{'' if len(near) <= _SHOWN_ZONES else ' ...'}",
                    next_action=f"Take {nearest(zone, near) or near[0]}. If the list is out of date "
                    "(`gcloud compute accelerator-types list`), bring providers/gce/zones.json up to date.",
                ),
            )
        elif zone in spec.zones[:index]:
            yield (
                ("zones", index),
                Problem(
                    "this zone stands here twice",
                    found=shown(zone),
                    allowed="each zone once",
                    next_action="Take the second one away.",
                ),
            )
    found = regions(spec.zones)
    if len(found) > 1:
        same = [zone for zone in valid if region_of(zone) == found[0]]
        yield (
            ("zones",),
            Problem(
                "VMs of one target stand in one region",
                found=f"zones of {listed(found, 'and')}",
                allowed=f"zones of one region, such as {listed(same or spec.zones[:1])}",
                next_action="Declare a target for each region.",
            ),
        )
    if spec.form == "vm" and len(spec.zones) > 1:
        yield (
            ("zones",),
            Problem(
                "one VM stands in one zone",
                found=f"{len(spec.zones)} zones with form vm",
                allowed="one zone, or form group",
                next_action=f"Leave {spec.zones[0]} alone there, or take `form: vm` away.",
            ),
        )


def _counts(spec: GceTarget) -> Found:
    total = spec.on_demand + spec.spot
    if total == 0:
        yield (
            ("onDemand",),
            Problem(
                "there would be no VM at all",
                found="onDemand 0, spot 0",
                allowed="at least one VM in both together",
                next_action="Raise onDemand or spot, or take the target away.",
            ),
        )
    if spec.form == "vm" and total > 1:
        field = "spot" if spec.spot else "onDemand"
        yield (
            (field,),
            Problem(
                "form vm is one VM",
                found=f"onDemand {spec.on_demand}, spot {spec.spot}",
                allowed="onDemand 1, or onDemand 0 with spot 1",
                next_action="Take `form: vm` away: a group may have several.",
            ),
        )
    if spec.spot_termination and not spec.spot:
        yield (
            ("spotTermination",),
            Problem(
                "there are no Spot VMs whose end it could be",
                found=f"spotTermination {spec.spot_termination}, spot 0",
                allowed="only with spot of 1 or more",
                next_action="Take it away, or say how many Spot VMs there are with `spot`.",
            ),
        )
    if spec.form == "vm" and spec.spot and spec.spot_termination == "delete":
        yield (
            ("spotTermination",),
            Problem(
                "a single VM that is deleted would not come back",
                found="spotTermination delete with form vm",
                allowed="stop with form vm; delete with form group",
                next_action="Take `form: vm` away: a group makes a new one.",
            ),
        )
    if spec.standby and (spec.form == "vm" or not spec.on_demand):
        yield (
            ("standby",),
            Problem(
                "stopped VMs stand by for the on-demand VMs of a group",
                found=f"standby {spec.standby}, form {spec.form}, onDemand {spec.on_demand}",
                allowed="with form group and onDemand of 1 or more",
                next_action="Take `standby` away.",
            ),
        )


def _schedule(spec: GceTarget) -> Found:
    schedule = spec.schedule
    if schedule is None:
        if spec.project_number is not None:
            yield (
                ("projectNumber",),
                Problem(
                    "the number is used for nothing",
                    found=shown(spec.project_number),
                    allowed="only with schedule and form vm",
                    next_action="Take it away.",
                ),
            )
        return
    if schedule.minutes < hours.SHORTEST_MINUTES or schedule.minutes > 24 * 60 - hours.SHORTEST_MINUTES:
        yield (
            ("schedule", "off"),
            Problem(
                "the VMs would run or rest for too short a time",
                found=f"on {schedule.on}, off {schedule.off}",
                allowed=f"at least {hours.SHORTEST_MINUTES} minutes each: a start takes up to 15",
                next_action="Mend the times, or take `schedule` away: then the VMs always run.",
            ),
        )
    if spec.form == "vm" and spec.project_number is None:
        yield (
            ("projectNumber",),
            Problem(
                "Compute Engine's own account starts and stops the VM, and the project's number is in its name",
                found="nothing",
                allowed="the project's number, with schedule and form vm",
                next_action="`gcloud projects describe PROJECT --format 'value(projectNumber)'` prints it.",
            ),
        )


def _network(spec: GceTarget) -> Found:
    network = spec.network
    given = {"name": network.name, "subnetwork": network.subnetwork}
    missing = [field for field, value in given.items() if value is None]
    if len(missing) == 1:
        yield (
            ("network", missing[0]),
            Problem(
                "a network that is there already is told by its name and its subnetwork's",
                found=f"no {missing[0]}",
                allowed="name and subnetwork, or neither: then a network is made",
                next_action=f"Add `{missing[0]}`; `gcloud compute networks subnets list` shows both.",
            ),
        )
    elif not missing and network.range is not None:
        yield (
            ("network", "range"),
            Problem(
                "a network that is there already has its range",
                found=shown(network.range),
                allowed="range without name and subnetwork",
                next_action="Take `range` away.",
            ),
        )
    for index, each in enumerate(spec.allow_from):
        if each in spec.allow_from[:index]:
            yield (
                ("allowFrom", index),
                Problem(
                    "this range stands here twice",
                    found=shown(each),
                    allowed="each range once",
                    next_action="Take the second one away.",
                ),
            )
    for field, size in (("allowFrom", len(spec.allow_from)), ("labels", len(spec.labels))):
        if size > _LONGEST_LISTS:
            yield (
                (field,),
                Problem(
                    "the list is too long",
                    found=f"{size} items",
                    allowed=f"at most {_LONGEST_LISTS} items",
                    next_action="Take some away.",
                ),
            )


def _times(spec: GceTarget) -> Found:
    from .spec import BOOT_S, LONGEST_DELAY_S, SPOT_DRAIN_S

    check = spec.health_check
    if check.timeout_s > check.interval_s:
        yield (
            ("healthCheck", "timeoutS"),
            Problem(
                "the next question would be asked before the wait for the last answer is over",
                found=f"timeoutS {check.timeout_s}, intervalS {check.interval_s}",
                allowed=f"timeoutS of at most {check.interval_s}",
                next_action="Lower timeoutS or raise intervalS.",
            ),
        )
    if spec.spot and spec.drain_timeout_s > SPOT_DRAIN_S:
        yield (
            ("drainTimeoutS",),
            Problem(
                "a Spot VM is cut off 30 seconds after it was told",
                found=f"drainTimeoutS {spec.drain_timeout_s}, spot {spec.spot}",
                allowed=f"at most {SPOT_DRAIN_S} with Spot VMs",
                next_action=f"Lower drainTimeoutS to {SPOT_DRAIN_S}.",
            ),
        )
    needed = BOOT_S + spec.start_timeout_s
    if spec.form == "vm":
        if spec.healing_delay_s is not None:
            yield (
                ("healingDelayS",),
                Problem(
                    "one VM by itself is not replaced when it fails",
                    found=f"healingDelayS {spec.healing_delay_s}, form vm",
                    allowed="only with form group",
                    next_action="Take healingDelayS away, or take `form: vm` away: a group replaces what fails.",
                ),
            )
    elif needed > LONGEST_DELAY_S:
        yield (
            ("startTimeoutS",),
            Problem(
                "a group would replace VMs that are still loading: it leaves them in peace for an hour at most",
                found=f"startTimeoutS {spec.start_timeout_s}, and {BOOT_S} s until the server starts",
                allowed=f"at most {LONGEST_DELAY_S - BOOT_S}",
                next_action="Lower startTimeoutS.",
            ),
        )
    elif spec.healing_delay_s is not None and spec.healing_delay_s < needed:
        yield (
            ("healingDelayS",),
            Problem(
                "VMs that are still loading would count as broken and be replaced, again and again",
                found=f"healingDelayS {spec.healing_delay_s}, startTimeoutS {spec.start_timeout_s}",
                allowed=f"{needed} to {LONGEST_DELAY_S}: {BOOT_S} s until the server starts, and startTimeoutS",
                next_action="Take healingDelayS away, or lower startTimeoutS (a prepared disk image helps).",
            ),
        )


def _disk(spec: GceTarget, site: Site) -> Found:
    needed = sizes.disk_needed_gb(site.content_bytes)
    if spec.disk.gb is not None and spec.disk.gb < needed:
        yield (
            ("disk", "gb"),
            Problem(
                "the system, the serving image and the model would not fit on the disk",
                found=f"{spec.disk.gb} GB",
                allowed=f"at least {needed} GB",
                next_action="Raise it or take it away: then it is chosen by what is needed.",
            ),
        )


def _names(spec: GceTarget, site: Site) -> Found:
    name = sizes.base_name(site.environment, site.target, spot=bool(spec.spot))
    if len(name) > sizes.LONGEST_BASE_NAME:
        yield (
            (),
            Problem(
                "the VMs' names would be too long for Compute Engine",
                found=f"{name} ({len(name)} characters)",
                allowed=f"at most {sizes.LONGEST_BASE_NAME} characters, the stack's and the target's name included",
                next_action="Give the target or the stack a shorter name.",
            ),
        )
    if site.target[0].isdigit():
        yield (
            (),
            Problem(
                "names on Compute Engine begin with a letter, and the target's is in front of them",
                found=shown(site.target),
                allowed="a target's name that begins with a letter",
                next_action=f"Give the target another name, such as vm-{site.target}.",
            ),
        )
    for key in ("app", "environment", "target"):
        if key in spec.labels:
            yield (
                ("labels", key),
                Problem(
                    "this label is this project's own",
                    found=shown(spec.labels[key]),
                    allowed="any key but app, environment and target",
                    next_action="Give yours another key.",
                ),
            )
