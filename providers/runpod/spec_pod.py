"""What may be declared of a target of the kind `runpod-pod`: one machine that runs all the time, or by the clock."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from lorafleet.errors import Problem
from lorafleet.stackfile import FieldPath
from lorafleet.targets import Site
from lorafleet.values import Choice, Text, refuse

from .hours import DAYS, FORM, Day, parse
from .shared_spec import CardName, RunpodSpec


def _readable(text: str) -> str:
    try:
        parse(text)
    except Problem as problem:
        raise refuse(problem.what, allowed=problem.allowed, next_action=problem.next_action) from None
    return text


class RunpodPodTarget(RunpodSpec):
    """The fleet on a pod of RunPod: one machine, paid for while it runs.

    Fields:
        gpu: the card, by RunPod's name (`CARDS`).
        cloud: `secure` (RunPod's own data centres) or `community` (other people's machines).
        hours: when it runs, on the wall clock of a time zone, as in `08:00-24:00 Asia/Seoul`; without it, always.
            An end before the begin is the next day's. Something must start and stop it: `lorafleet runpod clock`.
        days: the days on which `hours` begin; none means every day.
    """

    kind: Literal["runpod-pod"]
    gpu: CardName
    cloud: Annotated[str, Choice(("secure", "community"))] = "secure"
    hours: Annotated[str, Text(r".{1,100}", FORM), AfterValidator(_readable)] | None = None
    days: list[Annotated[Day, Choice(DAYS)]] = Field(default_factory=list)

    def cards(self) -> Iterable[tuple[FieldPath, str]]:
        return ((("gpu",), self.gpu),)

    def problems(self, site: Site) -> Iterable[tuple[FieldPath, Problem]]:
        yield from super().problems(site)
        if self.days and self.hours is None:
            yield (
                ("days",),
                Problem(
                    "these are the days of hours that are not given",
                    found="days without hours",
                    allowed="days with hours",
                    next_action="Add hours, such as 00:00-24:00 UTC for whole days, or take days away.",
                ),
            )
        if self.volume_gb is not None and self.cloud == "community":
            yield (
                ("volumeGb",),
                Problem(
                    "RunPod's network volumes are mounted in its own data centres alone",
                    found="volumeGb with cloud: community",
                    allowed="cloud: secure with volumeGb",
                    next_action="Choose cloud: secure, or take volumeGb away.",
                ),
            )


SPEC = RunpodPodTarget
