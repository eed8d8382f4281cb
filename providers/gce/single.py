"""`form: vm`: one VM with a fixed address of its network, and maybe hours in which it runs."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
from pulumi_gcp.compute.address import Address
from pulumi_gcp.compute.instance import Instance
from pulumi_gcp.compute.resource_policy import ResourcePolicy
from pulumi_gcp.projects.iam_custom_role import IAMCustomRole
from pulumi_gcp.projects.iam_member import IAMMember

from .vm import Vms


def make(vms: Vms, after: Sequence[pulumi.Resource]) -> pulumi.Output[str]:
    """The VM; gives its address, which stays when the VM is made anew."""
    name, spec, place = vms.name, vms.spec, vms.place
    address = Address(
        f"{name}-address",
        address_type="INTERNAL",
        purpose="GCE_ENDPOINT",
        subnetwork=vms.standing.subnetwork,
        region=place.region,
        opts=place.options(),
    )
    policies, granted = _hours(vms)
    Instance(
        name,
        **vms.common(spot=bool(spec.spot), address=address.address),
        zone=spec.zones[0],
        boot_disk={
            "auto_delete": True,
            "initialize_params": {
                "image": spec.disk_image,
                "size": vms.disk_gb,
                "type": spec.disk.type,
                "labels": vms.labels,
            },
        },
        resource_policies=policies,
        allow_stopping_for_update=True,
        opts=pulumi.ResourceOptions.merge(
            place.options(after=[*after, *granted, *vms.standing.made]),
            pulumi.ResourceOptions(
                # The address can be had by one at a time.
                delete_before_replace=True,
                # It is read at the first boot only.
                replace_on_changes=["metadata"],
            ),
        ),
    )
    return address.address


def _hours(vms: Vms) -> tuple[pulumi.Output[str] | None, list[pulumi.Resource]]:
    """The schedule for the VM, and what must be granted first: Compute Engine's own account starts and stops it.

    https://cloud.google.com/compute/docs/instances/schedule-instance-start-stop#service_agent_required_roles
    """
    schedule = vms.spec.schedule
    if schedule is None:
        return None, []
    name, place = vms.name, vms.place
    role = IAMCustomRole(
        f"{name}-hours",
        role_id=f"lorafleet_hours_{vms.plan.environment}_{name}".replace("-", "_"),
        project=place.project,
        title="lorafleet: start and stop a VM",
        permissions=["compute.instances.start", "compute.instances.stop"],
        opts=place.options(),
    )
    granted = IAMMember(
        f"{name}-hours",
        project=place.project,
        role=role.name,
        member=f"serviceAccount:service-{vms.spec.project_number}@compute-system.iam.gserviceaccount.com",
        opts=place.options(),
    )
    policy = ResourcePolicy(
        f"{name}-hours",
        project=place.project,
        region=place.region,
        instance_schedule_policy={
            "time_zone": schedule.time_zone,
            "vm_start_schedule": {"schedule": schedule.start_cron},
            "vm_stop_schedule": {"schedule": schedule.stop_cron},
        },
        opts=place.options(),
    )
    return policy.id, [granted]
