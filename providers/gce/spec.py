"""What may be declared of a target of the kind `gce`: VMs with one GPU on Google Compute Engine."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from lorafleet.errors import Problem
from lorafleet.stackfile import FieldPath
from lorafleet.targets import Site, TargetSpec
from lorafleet.values import Choice, Model, Port, Text, Whole, refuse

from .hours import Schedule
from .machines import GPUS, MACHINES, region_of

# With NVIDIA's driver R580 inside, which CUDA 13 of the serving image needs. A family, so that new VMs get security
# updates; an image's own name pins it. https://cloud.google.com/compute/docs/images/os-details
DISK_IMAGE = "projects/ubuntu-os-accelerator-images/global/images/family/ubuntu-accelerator-2204-amd64-with-nvidia-580"
# A Spot VM is cut off 30 s after the notice: https://cloud.google.com/compute/docs/instances/spot#preemption
SPOT_DRAIN_S = 20
# What the rest of a VM's end may take after the last request: vLLM ends, the container is gone, systemd is told.
STOP_S = 6
# Compute Engine's own limits of a group: https://cloud.google.com/compute/docs/reference/rest/v1/regionInstanceGroupManagers
LONGEST_DELAY_S = 3600
# From the machine's first second to the server's, with everything to be fetched (docs/gce.md, "From nothing to ready").
BOOT_S = 420

# https://cloud.google.com/resource-manager/docs/creating-managing-projects
_PROJECT = Text(
    r"[a-z](?:[a-z0-9-]{4,28})[a-z0-9]",
    "a project's id: 6 to 30 lower-case letters, digits and inner hyphens, beginning with a letter",
    "Write the id, not the name or the number: `gcloud projects list` shows all three.",
)
_ZONE = Text(
    r"[a-z]+-[a-z]+[1-9][0-9]?-[a-z]",
    "a zone of Google Cloud, as in asia-northeast3-a",
    "Write one that `gcloud compute zones list` shows; a region, such as asia-northeast3, is not enough.",
)
_NAME = Text(
    r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?",
    "1 to 63 lower-case letters, digits and inner hyphens, beginning with a letter",
    "Write the name alone, as `gcloud compute networks list` shows it.",
)
_LABEL_KEY = Text(
    r"(?!goog)[a-z][a-z0-9_-]{0,62}",
    "1 to 63 lower-case letters, digits, hyphens and underscores, beginning with a letter",
)
_LABEL_VALUE = Text(r"[a-z0-9_-]{0,63}", "at most 63 lower-case letters, digits, hyphens and underscores")
_DISK_IMAGE = Text(
    r"projects/[a-z][a-z0-9-]{4,28}[a-z0-9]/global/images/(?:family/)?[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?",
    "projects/PROJECT/global/images/NAME, or …/images/family/FAMILY",
    "`gcloud compute images list --uri` shows it; leave out everything before projects/.",
)


@dataclass(frozen=True, slots=True)
class Range:
    """A range of IPv4 addresses, as in 10.80.0.0/24. `private`: of those that are for networks of one's own."""

    private: bool = False

    @property
    def allowed(self) -> str:
        return "a private range of /16 to /28, as in 10.80.0.0/24" if self.private else "a range, as in 10.0.0.0/24"

    def check(self, value: object) -> str:
        try:
            network = ipaddress.IPv4Network(value) if isinstance(value, str) and "/" in value else None
        except ValueError:
            network = None
        if network is None:
            raise refuse("this is not a range of addresses", allowed=self.allowed, next_action=_cidr_hint(value))
        if self.private and not (network.is_private and 16 <= network.prefixlen <= 28):
            raise refuse("this range can't be used here", allowed=self.allowed, next_action="Take 10.80.0.0/24.")
        if network.prefixlen < 8:
            raise refuse(
                "this range would open the servers to half the Internet",
                allowed=f"{self.allowed}, of /8 or smaller",
                next_action="Write the addresses that the router has, as in 10.0.0.5/32.",
            )
        return str(network)

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)


def _cidr_hint(value: object) -> str:
    try:
        return f"Did you mean {ipaddress.IPv4Network(str(value), strict=False)}?"
    except ValueError:
        return "Write four numbers and the length of the common part: 10.0.0.0/24."


class Network(Model):
    """Where the VMs stand.

    Fields:
        name, subnetwork: of a VPC network that is there already, and of its part in the region of `zones`. It must have
            Private Google Access, and Cloud NAT for what is not Google's. Without both a network is made.
        range: addresses of the network that is made.
        external_ip: give each VM an address of the Internet. Nothing is let in through it.
    """

    name: Annotated[str, _NAME] | None = None
    subnetwork: Annotated[str, _NAME] | None = None
    range: Annotated[str, Range(private=True)] | None = None
    external_ip: bool = False


class Disk(Model):
    """A VM's own disk.

    Fields:
        gb: its size in GB; without it, what the system, the image and the model need.
        type: `pd-balanced`, or `pd-ssd`, which is quicker and dearer.
    """

    gb: Annotated[int, Whole(10, 65_536, "GB")] | None = None
    type: Annotated[Literal["pd-balanced", "pd-ssd"], Choice(("pd-balanced", "pd-ssd"))] = "pd-balanced"


class HealthCheck(Model):
    """How the load balancer finds out that a server can take requests (`GET /ready`).

    Fields:
        interval_s: from one question to the next, in seconds.
        timeout_s: longest wait for the answer, in seconds; at most the interval.
        unhealthy_after, healthy_after: so many answers of one kind in a row.
    """

    # A server that ends takes new requests for 3 s more (handlers/serving); a Spot VM is found out by then.
    interval_s: Annotated[int, Whole(1, 300, "seconds")] = 1
    timeout_s: Annotated[int, Whole(1, 300, "seconds")] = 1
    unhealthy_after: Annotated[int, Whole(1, 10, "answers")] = 3
    healthy_after: Annotated[int, Whole(1, 10, "answers")] = 1


class GceTarget(TargetSpec):
    """The fleet on VMs of Compute Engine: one VM, or groups of VMs behind an address of their network.

    Fields:
        machine: machine type, one of `machines.MACHINES`.
        gpu: `L4` (G2 machines have it) or `T4` (attached to N1 machines).
        zones: where VMs may run, all in one region. A group spreads over them.
        form: `vm`, one VM with a fixed address; `group`, VMs that are replaced when they fail or change. Without it,
            `group`.
        on_demand: VMs that stay.
        spot: VMs at a lower price that Google may take away at any time; needs `form: group` to come back by itself.
        spot_termination: what becomes of a Spot VM that is taken away: `delete`, or `stop`, which keeps its disk.
        schedule: hours of the day in which the VMs run; without it, always.
        project: id of the Google Cloud project; without it, the one of the stack `shared`.
        project_number: its number; only needed for `schedule` with `form: vm`.
        network: where they stand.
        allow_from: addresses that may send requests, beside VMs that run as the service account of the router.
        iap_ssh: let `gcloud compute ssh --tunnel-through-iap` in.
        port: the server's.
        disk, disk_image: the VM's disk, and what is on it at first.
        health_check: of the load balancer.
        healing_delay_s: how long a new VM of a group is left in peace before it counts as broken, in seconds; without
            it, as long as it may take to boot and load everything.
        standby: stopped VMs of the group that are ready to be started; only their disks are paid for.
        updates: `surge`, new VMs first, then the old ones go: no gap, and GPUs of as many VMs more as there are zones;
            `in-place`, the old ones first: a gap, and no more GPUs than declared.
        ops_agent: send logs and the GPU's figures to Cloud Logging and Cloud Monitoring.
        labels: of the VMs, beside this project's own.
        start_timeout_s: longest time from the server's start until every adapter answered, in seconds.
        drain_timeout_s: longest wait for requests in flight when a VM stops, in seconds; with Spot VMs at most 20.
    """

    kind: Literal["gce"]
    machine: Annotated[str, Choice(tuple(MACHINES))]
    gpu: Annotated[str, Choice(GPUS)]
    zones: Annotated[list[Annotated[str, _ZONE]], Field(min_length=1)]
    form: Annotated[Literal["vm", "group"], Choice(("vm", "group"))] = "group"
    on_demand: Annotated[int, Whole(0, 100, "VMs")] = 1
    spot: Annotated[int, Whole(0, 100, "VMs")] = 0
    spot_termination: Annotated[Literal["delete", "stop"], Choice(("delete", "stop"))] | None = None
    schedule: Schedule | None = None
    project: Annotated[str, _PROJECT] | None = None
    project_number: Annotated[int, Whole(1, 10**15, "as `gcloud projects describe` shows it")] | None = None
    network: Network = Network()
    allow_from: list[Annotated[str, Range()]] = Field(default_factory=list)
    iap_ssh: bool = False
    port: Port = 8000
    disk: Disk = Disk()
    disk_image: Annotated[str, _DISK_IMAGE] = DISK_IMAGE
    health_check: HealthCheck = HealthCheck()
    healing_delay_s: Annotated[int, Whole(0, LONGEST_DELAY_S, "seconds")] | None = None
    standby: Annotated[int, Whole(0, 100, "VMs")] = 0
    updates: Annotated[Literal["surge", "in-place"], Choice(("surge", "in-place"))] = "surge"
    ops_agent: bool = True
    labels: Mapping[Annotated[str, _LABEL_KEY], Annotated[str, _LABEL_VALUE]] = Field(default_factory=dict)
    start_timeout_s: Annotated[int, Whole(60, 7200, "seconds")] = 900
    drain_timeout_s: Annotated[int, Whole(0, 80, "seconds")] = SPOT_DRAIN_S

    @property
    def region(self) -> str:
        return region_of(self.zones[0])

    @property
    def healing_delay(self) -> int:
        """Seconds that a new VM of a group is left in peace."""
        return BOOT_S + self.start_timeout_s if self.healing_delay_s is None else self.healing_delay_s

    def problems(self, site: Site) -> Iterable[tuple[FieldPath, Problem]]:
        from .rules import problems  # apart: what belongs together is in the way of reading what there is

        return problems(self, site)


SPEC = GceTarget
