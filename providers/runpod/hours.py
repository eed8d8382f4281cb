"""Hours of the week in which a pod runs, such as `08:00-24:00 Asia/Seoul` from Monday to Friday."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

from lorafleet.errors import Problem, nearest

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)
FORM = "HH:MM-HH:MM and a time zone, as in 08:00-24:00 Asia/Seoul"
# Who starts and stops pods by the clock comes a while after the hour: GitHub's scheduled workflows, for instance. So
# long after a switch, a pod that does not run yet, or still runs, is no drift.
LATE = timedelta(minutes=30)

_TEXT = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]|24):([0-5]\d) (\S+)")


@dataclass(frozen=True)
class Hours:
    """begin, end: minutes since midnight of the zone's wall clock; if end is not after begin, it is the next day's.

    days: those on which it begins, 0 is Monday.
    """

    begin: int
    end: int
    zone: ZoneInfo
    days: frozenset[int]

    def on(self, moment: datetime) -> bool:
        """Whether a moment (with a time zone) is one of these hours."""
        here = moment.astimezone(self.zone)
        minute, today = here.hour * 60 + here.minute, here.weekday()
        if self.begin < self.end:
            return today in self.days and self.begin <= minute < self.end
        began_today = today in self.days and minute >= self.begin
        return began_today or ((today - 1) % 7 in self.days and minute < self.end)

    def switched_just_now(self, moment: datetime) -> bool:
        """Whether the hours began or ended within the last `LATE`."""
        return self.on(moment) != self.on(moment - LATE)


def parse(text: str, days: Sequence[Day] = ()) -> Hours:
    """The hours of a text of the form `FORM`; without days, of every day.

    Raises Problem.
    """
    found = _TEXT.fullmatch(text)
    if not found or (found[3] == "24" and found[4] != "00"):
        raise Problem("these are no hours of a day", found=text, allowed=FORM, next_action="Write them in that form.")
    begin, end = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
    if begin == end:
        raise Problem(
            "these hours begin when they end",
            found=text,
            allowed="two different times; 00:00-24:00 is the whole day",
            next_action="Change one of the times.",
        )
    return Hours(begin, end, _zone(found[5]), frozenset(DAYS.index(day) for day in days or DAYS))


def now() -> datetime:
    return datetime.now(UTC)


def _zone(name: str) -> ZoneInfo:
    # A name that is not there is a KeyError, one that is a folder an OSError.
    with contextlib.suppress(KeyError, ValueError, OSError):
        return ZoneInfo(name)
    close = nearest(name, available_timezones())
    raise Problem(
        "there is no time zone of this name",
        found=name,
        allowed="a name of the IANA time zone database, as in Asia/Seoul",
        next_action=f"Did you mean {close}?" if close else "Write its name as in Asia/Seoul.",
    )
