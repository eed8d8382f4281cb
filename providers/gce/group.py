"""`form: group`: VMs that are replaced when they fail or change, behind one address of their network.

On-demand and Spot VMs are two groups, as a template has one way of paying; the address is in front of both.
"""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
from pulumi_gcp.compute._inputs import RegionInstanceGroupManagerUpdatePolicyArgsDict
from pulumi_gcp.compute.address import Address
from pulumi_gcp.compute.forwarding_rule import ForwardingRule
from pulumi_gcp.compute.health_check import HealthCheck
from pulumi_gcp.compute.instance_template import InstanceTemplate
from pulumi_gcp.compute.region_autoscaler import RegionAutoscaler
from pulumi_gcp.compute.region_backend_service import RegionBackendService
from pulumi_gcp.compute.region_instance_group_manager import RegionInstanceGroupManager

from .spec import GceTarget
from .vm import Vms

READY = "/ready"


def make(vms: Vms, after: Sequence[pulumi.Resource]) -> pulumi.Output[str]:
    """The groups and the address in front; gives the address."""
    spec = vms.spec
    healing = _healing_check(vms)
    counts = {"on-demand": spec.on_demand, "spot": spec.spot}
    groups = [_group(vms, kind, count, healing, after) for kind, count in counts.items() if count]
    return _address(vms, groups)


def _group(
    vms: Vms, kind: str, count: int, healing: HealthCheck, after: Sequence[pulumi.Resource]
) -> RegionInstanceGroupManager:
    name, spec, place = f"{vms.name}-{kind}", vms.spec, vms.place
    spot = kind == "spot"
    template = InstanceTemplate(
        name,
        **vms.common(spot=spot),
        region=place.region,
        disks=[
            {
                "boot": True,
                "auto_delete": True,
                "source_image": spec.disk_image,
                "disk_size_gb": vms.disk_gb,
                "disk_type": spec.disk.type,
                "labels": vms.labels,
            }
        ],
        opts=place.options(after=vms.standing.made),
    )
    standby = 0 if spot else spec.standby
    group = RegionInstanceGroupManager(
        name,
        project=place.project,
        region=place.region,
        base_instance_name=vms.base_name(spot=spot),
        versions=[{"instance_template": template.self_link_unique}],
        # With a schedule the autoscaler sets it, and naming it here would fight with that.
        target_size=None if spec.schedule else count,
        distribution_policy_zones=list(spec.zones),
        # As even as free GPUs allow; EVEN would wait for a zone that has none, and ANY takes no autoscaler.
        # https://cloud.google.com/compute/docs/instance-groups/regional-mig-set-target-distribution-shape#limitations
        distribution_policy_target_shape="BALANCED",
        update_policy=update_policy(spec),
        auto_healing_policies={"health_check": healing.id, "initial_delay_sec": spec.healing_delay},
        # They fetch and load everything once before they are stopped.
        standby_policy={"mode": "SCALE_OUT_POOL", "initial_delay_sec": spec.healing_delay} if standby else None,
        target_stopped_size=standby or None,
        opts=place.options(after=after),
    )
    if spec.schedule:
        RegionAutoscaler(
            name,
            project=place.project,
            region=place.region,
            target=group.id,
            autoscaling_policy={
                "min_replicas": 0,
                "max_replicas": count,
                # The schedule is the only signal: one that is measured on VMs, such as their CPUs' load, would keep the
                # last VM running. Nor is there a cooldown_period, which would only put off the scaling in.
                # https://cloud.google.com/compute/docs/autoscaler/understanding-autoscaler-decisions
                "scaling_schedules": [
                    {
                        "name": "hours",
                        "schedule": spec.schedule.start_cron,
                        "duration_sec": spec.schedule.minutes * 60,
                        "time_zone": spec.schedule.time_zone,
                        "min_required_replicas": count,
                    }
                ],
            },
            opts=place.options(),
        )
    return group


def update_policy(spec: GceTarget) -> RegionInstanceGroupManagerUpdatePolicyArgsDict:
    """How a change reaches the VMs. A group of a region changes a VM in each zone at a time, so both numbers are the
    zones' or 0."""
    surge = spec.updates == "surge"
    return {
        "type": "PROACTIVE",
        "minimal_action": "REPLACE",
        "most_disruptive_allowed_action": "REPLACE",
        "replacement_method": "SUBSTITUTE",
        "max_surge_fixed": len(spec.zones) if surge else 0,
        "max_unavailable_fixed": 0 if surge else len(spec.zones),
        "instance_redistribution_type": "NONE",  # the shape BALANCED asks for it
    }


def _healing_check(vms: Vms) -> HealthCheck:
    """When a VM counts as broken, and, in an update, a new one as good: patient, as mending takes minutes."""
    return HealthCheck(
        f"{vms.name}-healing",
        project=vms.place.project,
        check_interval_sec=30,
        timeout_sec=10,
        healthy_threshold=1,
        unhealthy_threshold=6,
        http_health_check={"port": vms.spec.port, "request_path": READY},
        opts=vms.place.options(),
    )


def _address(vms: Vms, groups: Sequence[RegionInstanceGroupManager]) -> pulumi.Output[str]:
    name, spec, place = vms.name, vms.spec, vms.place
    check = spec.health_check
    ready = HealthCheck(
        f"{name}-ready",
        project=place.project,
        check_interval_sec=check.interval_s,
        timeout_sec=check.timeout_s,
        healthy_threshold=check.healthy_after,
        unhealthy_threshold=check.unhealthy_after,
        http_health_check={"port": spec.port, "request_path": READY},
        opts=place.options(),
    )
    service = RegionBackendService(
        name,
        project=place.project,
        region=place.region,
        load_balancing_scheme="INTERNAL",
        protocol="TCP",
        health_checks=ready.id,
        backends=[{"group": group.instance_group, "balancing_mode": "CONNECTION"} for group in groups],
        # A VM that is taken out keeps its connections until its requests have ended.
        connection_draining_timeout_sec=spec.drain_timeout_s,
        opts=place.options(),
    )
    address = Address(
        f"{name}-address",
        address_type="INTERNAL",
        purpose="GCE_ENDPOINT",
        subnetwork=vms.standing.subnetwork,
        region=place.region,
        opts=place.options(),
    )
    ForwardingRule(
        name,
        project=place.project,
        region=place.region,
        load_balancing_scheme="INTERNAL",
        ip_protocol="TCP",
        ports=[str(spec.port)],
        ip_address=address.address,
        backend_service=service.id,
        network=vms.standing.network,
        subnetwork=vms.standing.subnetwork,
        opts=place.options(),
    )
    return address.address
