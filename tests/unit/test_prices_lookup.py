"""Looking prices up, in a small book of the test's own."""

from __future__ import annotations

from typing import Any

import pytest

from lorafleet.errors import Problem
from lorafleet.prices import Book, Price, cheapest, current, load_books, matching, usd_per_hour


def price(identity: str, usd: float, **more: Any) -> dict[str, Any]:
    return {
        "id": identity,
        "item": "gpu",
        "name": "L4",
        "gpu": "L4",
        "gpuCount": 1,
        "usd": usd,
        "unit": "usd_per_hour",
        "market": "on-demand",
        "billing": "time",
        "source": "new",
        **more,
    }


def book(*prices: dict[str, Any]) -> Book:
    return Book.model_validate(
        {
            "version": 1,
            "platform": "example",
            "sources": {
                "old": {"kind": "survey", "title": "a survey", "asOf": "2026-01-01"},
                "new": {"kind": "page", "title": "a page", "asOf": "2026-06-01", "url": "https://example.com"},
            },
            "billing": {"time": {"granularityS": 1, "idleBilled": True}},
            "prices": prices,
            "capabilities": {"gpus": [{"gpu": "L4", "names": ["L4"]}, {"gpu": "T4", "names": ["T4"]}]},
        }
    )


def ids(prices: tuple[Price, ...]) -> list[str]:
    return [each.id for each in prices]


@pytest.mark.parametrize(
    ("unit", "more", "usd", "hourly"),
    [
        ("usd_per_hour", {}, 0.5, 0.5),
        ("usd_per_second", {}, 0.0002, 0.72),
        ("usd_per_month", {"hoursPerMonth": 360}, 180, 0.5),
    ],
)
def test_usd_per_hour(unit: str, more: dict[str, Any], usd: float, hourly: float) -> None:
    [only] = book(price("a", usd, unit=unit, **more)).prices
    assert usd_per_hour(only) == pytest.approx(hourly)


@pytest.mark.parametrize("unit", ["usd_per_month", "usd_per_gib_month", "usd_per_gib"])
def test_what_is_not_billed_by_time_has_no_price_of_an_hour(unit: str) -> None:
    [only] = book(price("a", 1, unit=unit)).prices
    with pytest.raises(Problem, match="not one of time"):
        usd_per_hour(only)


def test_a_newer_price_of_the_same_thing_replaces_an_older_one() -> None:
    prices = (
        price("old", 0.1, source="old"),
        price("new", 0.9, name="NVIDIA L4"),
        price("new-too", 0.8, name="L4 of another kind"),
        price("old-spot", 0.05, source="old", market="spot"),
        price("wrong", 0.01, corrected={"reason": "a slip of the pen"}),
    )
    assert ids(current(book(*prices))) == ["new", "new-too", "old-spot"]
    assert cheapest(book(*prices), gpu="nvidia-l4", market="on-demand").id == "new-too"
    assert cheapest(book(*prices), gpu="nvidia-l4").id == "old-spot"


def test_a_region_s_newer_price_does_not_make_another_region_s_old() -> None:
    prices = (
        price("everywhere-old", 0.1, source="old"),
        price("east-old", 0.2, source="old", region="east"),
        price("west-old", 0.3, source="old", region="west"),
        price("west-new", 0.4, region="west"),
    )
    assert ids(current(book(*prices))) == ["east-old", "west-new"]
    assert cheapest(book(*prices), gpu="L4", region="west").id == "west-new"
    assert cheapest(book(*prices), gpu="L4").id == "east-old"


def test_a_wrong_price_does_not_replace_a_right_one() -> None:
    prices = (price("right", 0.5, source="old"), price("wrong", 0.1, corrected={"reason": "a slip of the pen"}))
    assert ids(current(book(*prices))) == ["right"]


def test_a_part_is_not_the_cheapest_whole() -> None:
    prices = (
        price("chip", 0.3, beside=["machine"]),
        price("machine", 0.7, item="machine", name="small-1", beside=["disk"]),
        price("machine-of-two", 0.1, item="machine", name="small-2", gpuCount=2),
    )
    assert cheapest(book(*prices), gpu="L4").id == "machine"
    assert cheapest(book(*prices), gpu="L4", gpu_count=2).id == "machine-of-two"
    assert ids(matching(book(*prices), gpu="L4", item="gpu")) == ["chip"]


def test_units_are_compared_by_the_hour() -> None:
    prices = (price("second", 0.0001, unit="usd_per_second"), price("hour", 0.35))
    assert cheapest(book(*prices), gpu="L4").id == "hour"


def test_what_is_not_there_is_told_with_what_is() -> None:
    with pytest.raises(Problem) as problem:
        cheapest(book(price("a", 1)), gpu="T4", market="spot", region="east")
    assert problem.value.found == "1 x T4, spot, region east"
    assert problem.value.allowed == "1 x L4 on-demand"
    with pytest.raises(Problem) as problem:
        cheapest(book(price("a", 1)), gpu="A100")
    assert problem.value.allowed == "A100-40GB or A100-80GB"


def test_the_books_of_the_clouds_answer() -> None:
    books = load_books()
    assert usd_per_hour(cheapest(books["modal"], gpu="T4")) == pytest.approx(0.5904)
    assert cheapest(books["gce"], gpu="T4").name == "n1-standard-4"
    assert cheapest(books["gce"], gpu="L4", market="on-demand").name == "g2-standard-4"
    assert cheapest(books["vertex"], gpu="L4").item == "machine"
    assert cheapest(books["runpod"], gpu="L4", market="serverless").unit == "usd_per_second"
