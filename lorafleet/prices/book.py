"""What stands in a price book, `providers/<platform>/prices.json`: dated prices and what a platform can do, as data.

A book is never fetched while lorafleet works: it is read by people in reviews, written by `lorafleet prices refresh`,
and its old states are in git. Every figure names the source that it was taken from, and a source has a date.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lorafleet.gpus import GPUS
from lorafleet.values import Choice, Model, Text, Whole, refuse

VERSION = 1
_HALF_A_CENT = 0.005 + 1e-9
_A_DOLLAR = 1.0

Item = Literal["gpu", "machine", "cpu", "memory", "disk", "storage", "ip", "network"]
Unit = Literal[
    "usd_per_hour", "usd_per_second", "usd_per_month", "usd_per_gib_month", "usd_per_gib_second", "usd_per_gib"
]
Market = Literal["on-demand", "community", "spot", "serverless", "serverless-active", "committed-1y", "committed-3y"]
ColdStart = Literal["seconds", "minutes", "tens-of-minutes"]

_KEY = Text(r"[a-z0-9]+(?:[.-][a-z0-9]+)*", "lower-case letters and digits with single hyphens or dots between them")
_URL = Text(r"https://\S+", "an address that begins with https://")
_TABLE = Text(r"[0-9]+(?:\.[0-9]+)?", "a section's number, as in 4.5")
_LINE = Text(r"\S[^\n]*", "a text on one line")
_GPU = Choice(tuple(GPUS))
Usd = Annotated[float, Field(gt=0, lt=1_000_000, allow_inf_nan=False)]


class Source(Model):
    """Where figures are from.

    Fields:
        kind: `survey` (the project's own, of one day), `page` (a public page), `catalog` (written by `prices refresh`).
        title: for people.
        as_of: the day on which the figures held.
        url: the page or the catalog; null for what has none.
        note: what to know about it, such as who read the page.
    """

    kind: Literal["survey", "page", "catalog"]
    title: Annotated[str, _LINE]
    as_of: date
    url: Annotated[str, _URL] | None = None
    note: Annotated[str, _LINE] | None = None


class Billing(Model):
    """How time or amount becomes money.

    Fields:
        granularity_s: what is rounded up to, in seconds.
        minimum_s: the least that is billed of a run, in seconds.
        idle_billed: whether it costs while it serves nobody: true for what runs all the time, false for what goes away
            with the requests.
        note: what else counts, such as the start or an idle time that is billed.
    """

    granularity_s: Annotated[int, Whole(1, 2_678_400, "seconds")]
    minimum_s: Annotated[int, Whole(0, 2_678_400, "seconds")] = 0
    idle_billed: bool
    note: Annotated[str, _LINE] | None = None


class Correction(Model):
    """Why a figure is wrong as it was recorded; it stays in the book and is not looked up.

    Fields:
        reason: what is wrong, and what is right.
        source: key of the source that says so; null where the recorded figures contradict each other.
    """

    reason: Annotated[str, _LINE]
    source: Annotated[str, _KEY] | None = None


class Price(Model):
    """One price.

    Fields:
        id: its name in the book.
        item: what is paid for.
        name: what the platform calls it.
        gpu, gpu_count: the GPU (a key of `lorafleet.gpus.GPUS`) and how many; null and 0 for what has none. A price
            of the item `gpu` is for one.
        usd, unit: the price. `usd_per_gib_…` are per GiB; `usd_per_second` of `cpu` is per core.
        listed_per_hour: the hourly figure that the source shows beside a price of a second, rounded by it to cents.
        hours_per_month: goes with `usd_per_month` of what is billed by time: for how many hours it was worked out.
        market: on what terms. `community`: on demand, on computers of third parties. `serverless`: workers that come
            and go with requests; `serverless-active`: such workers that always run.
        region: as the platform names it; null if the price is the same everywhere or no region was recorded.
        beside: what is needed with it and billed apart. A price that names `machine` here is a part, not a whole.
        estimate: the source itself calls it one, or wrote it with a `~`.
        billing, source: keys in the book.
        tables: of a survey's figure, the sections that have it.
        corrected: set if the figure is wrong.
        note: for people.
    """

    id: Annotated[str, _KEY]
    item: Item
    name: Annotated[str, _LINE]
    gpu: Annotated[str, _GPU] | None = None
    gpu_count: Annotated[int, Whole(0, 16, "GPUs")] = 0
    usd: Usd
    unit: Unit
    listed_per_hour: Usd | None = None
    hours_per_month: Annotated[int, Whole(1, 744, "hours")] | None = None
    market: Market
    region: Annotated[str, _LINE] | None = None
    beside: tuple[Item, ...] = ()
    estimate: bool = False
    billing: Annotated[str, _KEY]
    source: Annotated[str, _KEY]
    tables: tuple[Annotated[str, _TABLE], ...] = ()
    corrected: Correction | None = None
    note: Annotated[str, _LINE] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Price:
        if (self.gpu is None) != (self.gpu_count == 0) or (self.item == "gpu" and self.gpu_count > 1):
            raise refuse(
                "the GPU and its number do not agree",
                allowed="gpu and gpuCount together, or neither; gpuCount at most 1 for the item gpu",
                next_action="Correct gpu or gpuCount.",
            )
        if self.hours_per_month is not None and self.unit != "usd_per_month":
            raise refuse(
                "hoursPerMonth says how a month was worked out, and this is no price of a month",
                allowed="hoursPerMonth with the unit usd_per_month only",
                next_action="Take hoursPerMonth away, or correct the unit.",
            )
        listed = self.listed_per_hour
        if listed is not None and (self.unit != "usd_per_second" or abs(listed - self.usd * 3600) > _HALF_A_CENT):
            raise refuse(
                "the prices of a second and of an hour do not agree",
                allowed="listedPerHour beside usd_per_second only, 3600 times usd but for half a cent",
                next_action="Look at the source, and correct usd or listedPerHour.",
            )
        return self

    @property
    def per_hour(self) -> float | None:
        """USD an hour; None of what is not billed by time. A price of a month is spread over its hours."""
        match self.unit:
            case "usd_per_hour":
                return self.usd
            case "usd_per_second":
                return self.usd * 3600
            case "usd_per_month" if self.hours_per_month is not None:
                return self.usd / self.hours_per_month
        return None


class Month(Model):
    """What the survey worked out for a month, kept to be compared with the price that it follows from.

    Fields:
        what: for people.
        price: id of the price.
        hours: hours of the month.
        usd: the recorded result, which must follow from the price but for rounding to dollars unless it is corrected.
        source, tables, estimate, corrected: as those of a price.
    """

    what: Annotated[str, _LINE]
    price: Annotated[str, _KEY]
    hours: Annotated[int, Whole(1, 744, "hours")]
    usd: Usd
    source: Annotated[str, _KEY]
    tables: tuple[Annotated[str, _TABLE], ...] = ()
    estimate: bool = False
    corrected: Correction | None = None


class Factor(Model):
    """What multiplies prices: `times`, or anything from `times` to `times_to`."""

    what: Annotated[str, _LINE]
    times: Annotated[float, Field(gt=0, le=100)]
    times_to: Annotated[float, Field(gt=0, le=100)] | None = None
    source: Annotated[str, _KEY]
    tables: tuple[Annotated[str, _TABLE], ...] = ()


class Credit(Model):
    """Money that the platform gives each month."""

    what: Annotated[str, _LINE]
    usd_per_month: Usd
    source: Annotated[str, _KEY]
    tables: tuple[Annotated[str, _TABLE], ...] = ()


class OfferedGpu(Model):
    """A GPU that the platform has: `gpu` as in `lorafleet.gpus.GPUS`, `names` as the platform calls it."""

    gpu: Annotated[str, _GPU]
    names: tuple[Annotated[str, _LINE], ...]


class Machine(Model):
    """A machine type as it is priced, with the GPUs that it has or that are attached to it."""

    name: Annotated[str, _LINE]
    gpu: Annotated[str, _GPU]
    gpu_count: Annotated[int, Whole(1, 16, "GPUs")]


class Start(Model):
    """How long a cold start takes: the class, and what was measured or reported (null: nothing is known)."""

    what: Annotated[str, _LINE]
    cold_start: ColdStart
    seconds: Annotated[float, Field(gt=0)] | None = None
    source: Annotated[str, _KEY]


class Quota(Model):
    """A limit that an account starts with. `limit` null: it differs between accounts; 0: nothing can be made."""

    name: Annotated[str, _LINE]
    limit: Annotated[int, Whole(0, 1_000_000)] | None
    why: Annotated[str, _LINE]
    next_action: Annotated[str, _LINE]
    source: Annotated[str, _KEY]


class Capabilities(Model):
    """What the platform can do, beside what it costs. dtypes and memory follow from the GPU (`lorafleet.gpus`)."""

    gpus: tuple[OfferedGpu, ...]
    machines: tuple[Machine, ...] = ()
    starts: tuple[Start, ...] = ()
    quotas: tuple[Quota, ...] = ()


class MarketRule(Model):
    """Offers at locations that match `locations` (a regular expression, as a whole) are of this market."""

    locations: Annotated[str, _LINE]
    market: Market


class Refresh(Model):
    """How `prices refresh` finds this platform in gpuhunt's catalog.

    Fields:
        catalog: gpuhunt's name of the platform.
        item: `machine` (those in `capabilities.machines` are kept) or `gpu` (one GPU, those in `capabilities.gpus`).
        region_of: regular expression with one group, which takes the region out of a location; null: as it is.
        regions: the regions that are kept; empty: all, and one price that holds in all is kept without a region.
        markets: the first rule that matches tells an offer's market; without a match it is on demand or spot.
        billing: key in the book, for the prices that are written; `serverless` and the like are not in the catalog.
        beside: as that of a price.
    """

    catalog: Annotated[str, _KEY]
    item: Literal["gpu", "machine"]
    region_of: Annotated[str, _LINE] | None = None
    regions: tuple[Annotated[str, _LINE], ...] = ()
    markets: tuple[MarketRule, ...] = ()
    billing: Annotated[str, _KEY]
    beside: tuple[Item, ...] = ()

    @model_validator(mode="after")
    def _patterns(self) -> Refresh:
        for pattern, groups in ((self.region_of, 1), *((rule.locations, 0) for rule in self.markets)):
            try:
                right = pattern is None or re.compile(pattern).groups == groups
            except re.error:
                right = False
            if not right:
                raise refuse(
                    "this is not a regular expression of the kind that is needed",
                    allowed="regionOf with one group, locations without a group",
                    next_action=f"Correct {pattern}.",
                )
        return self


class Book(Model):
    """A platform's prices and capabilities.

    Fields:
        version: of this format, 1.
        platform: the folder's name.
        currency: of all prices.
        sources, billing: by their keys.
        prices, months, factors, credits: see their classes.
        capabilities: what the platform can do.
        refresh: how `prices refresh` works for it; null: no catalog has it.
        missing: what is known to be missing, for people.
    """

    version: Literal[1]
    platform: Annotated[str, _LINE]
    currency: Literal["USD"] = "USD"
    sources: dict[Annotated[str, _KEY], Source]
    billing: dict[Annotated[str, _KEY], Billing]
    prices: tuple[Price, ...]
    months: tuple[Month, ...] = ()
    factors: tuple[Factor, ...] = ()
    credits: tuple[Credit, ...] = ()
    capabilities: Capabilities
    refresh: Refresh | None = None
    missing: tuple[Annotated[str, _LINE], ...] = ()

    @model_validator(mode="after")
    def _keys_lead_somewhere(self) -> Book:
        for what, wanted, there in (
            ("source", self._sources_used(), self.sources),
            ("billing", (price.billing for price in self.prices), self.billing),
            ("billing", () if self.refresh is None else (self.refresh.billing,), self.billing),
            ("price", (month.price for month in self.months), {price.id: price for price in self.prices}),
            ("GPU among capabilities.gpus", self._gpus_used(), {each.gpu: each for each in self.capabilities.gpus}),
        ):
            for key in wanted:
                if key not in there:
                    raise refuse(
                        f"there is no {what} `{key}` in this book",
                        allowed=", ".join(there) or "none is there yet",
                        next_action="Correct the name, or add it.",
                    )
        for month in self.months:
            self._check_month(month)
        ids = [price.id for price in self.prices]
        twice = next((each for each in ids if ids.count(each) > 1), None)
        if twice is not None:
            raise refuse(
                f"two prices have the id `{twice}`", allowed="ids that differ", next_action="Rename or remove one."
            )
        return self

    def _check_month(self, month: Month) -> None:
        price = next(price for price in self.prices if price.id == month.price)
        hourly = price.per_hour
        if hourly is None or (month.corrected is None and abs(hourly * month.hours - month.usd) > _A_DOLLAR):
            follows = "nothing by the hour" if hourly is None else f"{hourly * month.hours:.2f} USD"
            raise refuse(
                f"the month `{month.what}` does not follow from its price `{price.id}`, which gives {follows}",
                allowed="the price times the hours, rounded to dollars, or `corrected` with the reason",
                next_action="Look at the source, and correct the month or the price, or say why the figure is wrong.",
            )

    def _sources_used(self) -> Iterable[str]:
        able = self.capabilities
        yield from (price.source for price in self.prices)
        yield from (month.source for month in self.months)
        yield from (factor.source for factor in self.factors)
        yield from (credit.source for credit in self.credits)
        yield from (start.source for start in able.starts)
        yield from (quota.source for quota in able.quotas)
        corrections = [price.corrected for price in self.prices] + [month.corrected for month in self.months]
        yield from (each.source for each in corrections if each is not None and each.source is not None)

    def _gpus_used(self) -> Iterable[str]:
        yield from (price.gpu for price in self.prices if price.gpu is not None)
        yield from (machine.gpu for machine in self.capabilities.machines)

    def as_of(self, price: Price | Month) -> date:
        """The day on which a price of this book held."""
        return self.sources[price.source].as_of
