"""What is the same for a VM by itself and for the VMs of a group, as inputs of pulumi-gcp's resources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi

from lorafleet.plan import Plan, PlannedTarget

from . import host, sizes
from .machines import ATTACHED
from .network import Standing
from .place import Place
from .spec import GceTarget


@dataclass(frozen=True)
class Vms:
    """A target's VMs. `secret` is the full name of the version of the secret that they read."""

    name: str
    plan: Plan
    planned: PlannedTarget
    spec: GceTarget
    place: Place
    standing: Standing
    secret: pulumi.Output[str]
    image: str

    @property
    def labels(self) -> dict[str, str]:
        return {**self.spec.labels, **own_labels(self.plan.environment, self.name)}

    @property
    def disk_gb(self) -> int:
        return sizes.disk_gb(self.spec.disk.gb, self.planned.disk_bytes)

    def base_name(self, *, spot: bool) -> str:
        return sizes.base_name(self.plan.environment, self.name, spot=spot)

    def common(self, *, spot: bool, address: pulumi.Output[str] | None = None) -> dict[str, Any]:
        """Inputs of an Instance and of an InstanceTemplate alike."""
        interface: dict[str, Any] = {"subnetwork": self.standing.subnetwork}
        if address is not None:
            interface["network_ip"] = address
        if self.spec.network.external_ip:
            interface["access_configs"] = [{}]
        inputs: dict[str, Any] = {
            "project": self.place.project,
            "machine_type": self.spec.machine,
            "network_interfaces": [interface],
            "metadata": self._metadata(),
            "labels": self.labels,
            "scheduling": scheduling(self.spec, spot=spot),
            # What it may do is told by the account's rights, not by this; Google advises to leave it wide.
            "service_account": {
                "email": self.place.account,
                "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
            },
            # Not secure boot: it would refuse a driver that somebody built into a disk image of their own.
            "shielded_instance_config": {"enable_vtpm": True, "enable_integrity_monitoring": True},
            "can_ip_forward": False,
        }
        if self.spec.gpu in ATTACHED:
            inputs["guest_accelerators"] = [{"type": ATTACHED[self.spec.gpu], "count": 1}]
        return inputs

    def _metadata(self) -> dict[str, pulumi.Input[str]]:
        """Everyone who may see the VM can read it: names of secrets stand here, and no secret."""
        return {
            "user-data": host.of_target(self.spec, self.image).user_data(),
            "lorafleet-launch": host.launch_file(self.name, self.plan, self.spec),
            "lorafleet-secret": self.secret,
            "enable-oslogin": "TRUE",
            "block-project-ssh-keys": "TRUE",
            "serial-port-enable": "FALSE",
        }


def own_labels(environment: str, target: str) -> dict[str, str]:
    return {"app": "lorafleet", "environment": environment, "target": target}


def scheduling(spec: GceTarget, *, spot: bool) -> dict[str, Any]:
    """A VM with a GPU can't be moved while it runs, so it ends for maintenance; a Spot VM is not started again."""
    if not spot:
        return {
            "provisioning_model": "STANDARD",
            "preemptible": False,
            "automatic_restart": True,
            "on_host_maintenance": "TERMINATE",
        }
    termination = spec.spot_termination or ("stop" if spec.form == "vm" else "delete")
    return {
        "provisioning_model": "SPOT",
        "preemptible": True,
        "automatic_restart": False,
        "on_host_maintenance": "TERMINATE",
        "instance_termination_action": termination.upper(),
    }
