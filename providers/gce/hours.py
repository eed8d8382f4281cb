"""When the VMs run: two times of the day in a time zone, as the two kinds of schedules of Compute Engine want them."""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass
from functools import cache
from typing import Annotated

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from lorafleet.errors import nearest
from lorafleet.values import Choice, Model, Text, refuse

_MINUTES_A_DAY = 24 * 60
# Starting takes Compute Engine up to 15 minutes after the time, and the server minutes more.
# https://cloud.google.com/compute/docs/instances/schedule-instance-start-stop#limitations
SHORTEST_MINUTES = 60

_TIME = Text(
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]",
    "a time of the day from 00:00 to 23:59, as in 08:00",
    "Write hours and minutes with a colon, in quotes: '08:00'.",
)
_DAYS = {"daily": "*", "mon-fri": "1-5", "mon-sat": "1-6"}
# The days after those, for what is switched off on the morning after.
_DAYS_AFTER = {"daily": "*", "mon-fri": "2-6", "mon-sat": "0,2-6"}


@cache
def _time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


@dataclass(frozen=True, slots=True)
class TimeZone:
    """A name of the time zone database, such as `Asia/Seoul`. Abbreviations such as KST are none."""

    @property
    def allowed(self) -> str:
        return "a name of the time zone database, as in Asia/Seoul or UTC"

    def check(self, value: object) -> str:
        if isinstance(value, str) and value in _time_zones() and ("/" in value or value == "UTC"):
            return value
        near = nearest(value, [each for each in _time_zones() if "/" in each]) if isinstance(value, str) else None
        hint = f'Did you mean "{near}"?' if near else "https://en.wikipedia.org/wiki/List_of_tz_database_time_zones"
        raise refuse("this is not the name of a time zone", allowed=self.allowed, next_action=hint)

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)


class Schedule(Model):
    """When the VMs run; outside of it there are none, or they are stopped.

    Fields:
        on, off: times of the day; `off` before `on` means the next day.
        time_zone: of both; summer time is followed.
        days: the days on which they are switched on.
    """

    on: Annotated[str, _TIME]
    off: Annotated[str, _TIME]
    time_zone: Annotated[str, TimeZone()]
    days: Annotated[str, Choice(tuple(_DAYS))] = "daily"

    @property
    def minutes(self) -> int:
        """How long they run at a time; 0 when both times are the same."""
        return (_minute(self.off) - _minute(self.on)) % _MINUTES_A_DAY

    @property
    def start_cron(self) -> str:
        """When they start: minute, hour, day of the month, month, day of the week."""
        return _cron(self.on, _DAYS[self.days])

    @property
    def stop_cron(self) -> str:
        """When they stop."""
        overnight = _minute(self.off) <= _minute(self.on)
        return _cron(self.off, (_DAYS_AFTER if overnight else _DAYS)[self.days])


def _minute(time: str) -> int:
    return int(time[:2]) * 60 + int(time[3:])


def _cron(time: str, days: str) -> str:
    return f"{int(time[3:])} {int(time[:2])} * * {days}"
