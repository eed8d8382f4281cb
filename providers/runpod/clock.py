"""Starting and stopping pods by the hours of their declarations. RunPod has no such schedule of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from lorafleet.declaration import Fleet
from lorafleet.errors import LorafleetError
from lorafleet.origin import PROJECT
from providers import kit

from . import answers, hours, marks
from .api import Api
from .http import OutcomeUnknownError
from .spec_pod import RunpodPodTarget
from .switching import switch


@dataclass(frozen=True)
class Turn:
    """What was done, or would be, to the pod of one target: `started`, `stopped` or `left`, and why."""

    target: str
    pod: str
    did: str
    why: str


def scheduled(fleet: Fleet) -> Mapping[str, RunpodPodTarget]:
    """The targets that have hours, by name."""
    found = {name: spec for name, spec in fleet.targets.items() if isinstance(spec, RunpodPodTarget)}
    return {name: spec for name, spec in found.items() if spec.hours is not None}


async def turn(
    client: Api, stack: str, targets: Mapping[str, RunpodPodTarget], moment: datetime, *, act: bool
) -> tuple[list[Turn], list[LorafleetError]]:
    """Starts and stops what is not as its hours say at the moment, and touches nothing else; without `act` only looks.

    It waits for nothing: a pod that was started is ready minutes later. (What was done, what failed) of all targets.

    Raises kit.ResourceError if RunPod cannot be asked at all.
    """
    pods = await client.list_pods()
    done: list[Turn] = []
    failed: list[LorafleetError] = []
    for name, spec in targets.items():
        try:
            done.append(await _turn(client, stack, name, spec, pods, moment, act))
        except LorafleetError as error:
            failed.append(error)
        except kit.ResourceError as error:
            failed.append(LorafleetError(error.what, target=name, next_action=error.next_action))
    return done, failed


async def _turn(
    client: Api,
    stack: str,
    name: str,
    spec: RunpodPodTarget,
    pods: list[answers.Pod],
    moment: datetime,
    act: bool,
) -> Turn:
    pod = _pod_of(stack, name, pods)
    assert spec.hours is not None
    on = hours.parse(spec.hours, spec.days).on(moment)
    why = f"its hours are {spec.hours}{' on ' + ', '.join(spec.days) if spec.days else ''}"
    if on == (pod.status not in ("EXITED", "ERROR")) or (not on and pod.status == "ERROR"):
        return Turn(name, pod.id, "left", f"{why}, and it is {pod.status}")
    if act:
        try:
            await switch(client, pod.id, on=on)
        except OutcomeUnknownError:
            now = await client.get_pod(pod.id)
            if now is None or on == (now.status == "EXITED"):
                raise
    return Turn(name, pod.id, "started" if on else "stopped", why)


def _pod_of(stack: str, name: str, pods: list[answers.Pod]) -> answers.Pod:
    urn = marks.pod_urn(stack, PROJECT, name)
    found = [each for each in pods if marks.is_marked(each.name, urn) and each.status != "TERMINATED"]
    if len(found) == 1:
        return found[0]
    raise LorafleetError(
        "there is no pod of this target" if not found else f"there are {len(found)} pods of this target",
        target=name,
        found=", ".join(each.id for each in found),
        allowed="one",
        next_action=f"Run `pulumi up --stack {stack}`, which leaves one. If one is under way, wait until it has ended.",
    )
