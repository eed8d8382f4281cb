"""Whether Vertex AI has such a machine with such GPUs, as a deployment's inputs name them."""

from __future__ import annotations

from collections.abc import Iterator

from lorafleet.errors import listed
from providers import kit

from .machines import ACCELERATORS, MACHINES, did_you_mean, machines_with


def problems(machine_type: str, accelerator: str, count: int) -> Iterator[kit.Problem]:
    """What is wrong with a machine and its GPUs, each with what would be right."""
    if bool(accelerator) != bool(count):
        yield kit.Problem(
            ("acceleratorCount",),
            "the type and the number of GPUs go together",
            "both or neither",
            "set acceleratorType and acceleratorCount",
        )
        return
    if accelerator and accelerator not in ACCELERATORS:
        yield kit.Problem(
            ("acceleratorType",),
            f"Vertex AI serves on no '{accelerator}' that this image runs on",
            ", ".join(ACCELERATORS),
            did_you_mean(accelerator, ACCELERATORS),
        )
        return
    family = machine_type.split("-")[0]
    if not accelerator and family not in {name.split("-")[0] for name in MACHINES} - {"n1"}:
        return  # a machine without GPUs: for models that need none
    machine = MACHINES.get(machine_type)
    if machine is None:
        allowed = machines_with(accelerator, count) or machines_with(accelerator) or list(MACHINES)
        yield kit.Problem(
            ("machineType",),
            f"there is no machine '{machine_type}' with GPUs",
            ", ".join(allowed),
            did_you_mean(machine_type, allowed),
        )
    elif machine.gpu != accelerator:
        if not accelerator and family == "n1":
            return
        fit = machines_with(accelerator, count) if accelerator else []
        own = f"{machine_type} with {machine.counts[0]} {machine.gpu}"
        yield kit.Problem(
            ("machineType",),
            f"{machine_type} has no {accelerator or 'place for no GPU'}",
            f"{own}{f', or {accelerator} in {listed(fit)}' if fit else ''}",
            f"take {fit[0]}" if fit else f"set acceleratorType {machine.gpu} and acceleratorCount {machine.counts[0]}",
        )
    elif count not in machine.counts:
        fit = machines_with(accelerator, count)
        yield kit.Problem(
            ("acceleratorCount",),
            f"{machine_type} has not {count} of {accelerator}",
            f"{listed(machine.counts)} with {machine_type}",
            f"take {fit[0]} for {count}" if fit else f"take {machine.counts[0]}",
        )
