"""The price books themselves, and what is refused in one."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lorafleet.errors import LorafleetError
from lorafleet.gpus import GPUS, find
from lorafleet.prices import Book, cheapest, dump, load_book, load_books, path_of, platforms, write_book
from lorafleet.scaffold import contents
from providers.gce import machines as gce
from providers.modal import spec as modal
from providers.runpod import cards as runpod
from providers.vertex import machines as vertex

BOOKS = load_books()
CLOUDS = ("gce", "modal", "runpod", "vertex")

# The survey's figures: (platform, section, GPU, USD, unit). What stands in several sections is here for each of them.
SURVEY = {
    ("modal", "3.3", "T4", 0.59, "hour"),
    ("runpod", "3.3", None, 0.00016, "second"),
    ("vertex", "3.3", "T4", 0.40, "hour"),
    ("runpod", "4.1", "A40", 0.41, "hour"),
    ("runpod", "4.1", "RTX 4090", 0.44, "hour"),
    ("runpod", "4.1", "A100-80GB", 0.78, "hour"),
    ("runpod", "4.1", "H100", 1.47, "hour"),
    ("vertex", "4.1", "T4", 0.40, "hour"),
    ("vertex", "4.1", "L4", 0.70, "hour"),
    ("vertex", "4.1", "A100-80GB", 2.93, "hour"),
    ("vertex", "4.1", "H100", 10.0, "hour"),
    ("runpod", "4.4", None, 0.16, "hour"),
    ("runpod", "4.4", "A40", 0.41, "hour"),
    ("vertex", "4.4", "T4", 0.40, "hour"),
    ("gce", "4.4", "T4", 219, "month"),
    ("gce", "4.5", "T4", 219, "month"),
    ("gce", "4.5", "T4", 65, "month"),
    ("gce", "4.5", "L4", 350, "month"),
    ("gce", "4.5", "L4", 108, "month"),
    ("vertex", "4.6", "T4", 0.40, "hour"),
    ("runpod", "4.6", "A40", 0.41, "hour"),
    ("runpod", "4.6", "RTX 4090", 0.44, "hour"),
    ("modal", "4.6", "T4", 0.59, "hour"),
    *(
        ("modal", "5.6", gpu, usd, "hour")
        for gpu, usd in (("T4", 0.59), ("L4", 0.80), ("A10", 1.10), ("L40S", 1.95), ("A100-40GB", 2.10))
    ),
    *(("modal", "5.6", gpu, usd, "hour") for gpu, usd in (("A100-80GB", 2.50), ("H100", 3.95), ("H200", 4.54))),
    *(
        ("modal", "5.6", gpu, usd, "second")
        for gpu, usd in (("T4", 0.000164), ("L4", 0.000222), ("A10", 0.000306), ("L40S", 0.000542))
    ),
    *(("modal", "5.6", gpu, usd, "second") for gpu, usd in (("A100-40GB", 0.000583), ("A100-80GB", 0.000694))),
    *(("modal", "5.6", gpu, usd, "second") for gpu, usd in (("H100", 0.001097), ("H200", 0.001261))),
    ("runpod", "6", "A40", 0.41, "hour"),
    ("vertex", "7.3", "T4", 0.40, "hour"),
    ("vertex", "7.3", "L4", 0.70, "hour"),
    ("vertex", "7.3", "P100", 1.84, "hour"),
    ("vertex", "7.3", "A100-40GB", 2.93, "hour"),
    ("vertex", "7.3", "A100-80GB", 2.93, "hour"),
    ("vertex", "7.3", "H100", 10.0, "hour"),
    ("vertex", "7.5", "T4", 0.40, "hour"),
    ("runpod", "8.7", "A40", 0.41, "hour"),
}
# What the survey worked out for a month: (platform, section, GPU, hours, USD).
SURVEY_MONTHS = {
    ("runpod", "4.4", None, 30, 5),
    ("runpod", "4.4", "A40", 720, 295),
    ("vertex", "4.4", "T4", 720, 288),
    ("gce", "4.5", "T4", 360, 110),
    ("gce", "4.5", "T4", 360, 33),
    ("gce", "4.5", "L4", 360, 175),
    ("gce", "4.5", "L4", 360, 54),
    ("vertex", "4.6", "T4", 720, 288),
    ("vertex", "4.6", "T4", 360, 144),
    ("runpod", "4.6", "A40", 720, 295),
    ("runpod", "4.6", "A40", 360, 148),
    ("runpod", "4.6", "RTX 4090", 720, 317),
    ("runpod", "4.6", "RTX 4090", 360, 158),
    ("modal", "4.6", "T4", 720, 425),
    ("modal", "4.6", "T4", 360, 212),
}
# Sections in which a figure of Modal stands by the hour alone.
HOURLY_ONLY = {("modal", "3.3"), ("modal", "4.6")}


def test_every_cloud_has_a_book() -> None:
    assert set(CLOUDS) <= set(platforms()) == set(BOOKS)


def test_the_books_have_every_figure_of_the_survey_and_no_other() -> None:
    found = set()
    for platform, book in BOOKS.items():
        for price in book.prices:
            if price.source != "survey":
                assert not price.tables
                continue
            assert price.tables, price.id
            for table in price.tables:
                if price.listed_per_hour is not None:
                    found.add((platform, table, price.gpu, price.listed_per_hour, "hour"))
                if (platform, table) not in HOURLY_ONLY:
                    found.add((platform, table, price.gpu, price.usd, price.unit.removeprefix("usd_per_")))
    assert found == SURVEY


def test_the_books_have_every_month_of_the_survey_and_no_other() -> None:
    found = set()
    for platform, book in BOOKS.items():
        gpus = {price.id: price.gpu for price in book.prices}
        found |= {
            (platform, table, gpus[month.price], month.hours, month.usd)
            for month in book.months
            for table in month.tables
        }
    assert found == SURVEY_MONTHS


def test_all_of_the_survey_is_of_its_day() -> None:
    for platform, book in BOOKS.items():
        assert platform not in CLOUDS or str(book.sources["survey"].as_of) == "2026-01-22"
        assert max(source.as_of for source in book.sources.values()) <= datetime.now(UTC).date()


def test_no_machine_has_a_gpu_that_it_cannot_have() -> None:
    """G2 machines carry L4 and nothing else; a T4 can be attached to N1 machines only."""
    machines = [
        (p, price) for p, book in BOOKS.items() for price in book.prices if price.item == "machine" and price.gpu
    ]
    wrong = [(p, each.id) for p, each in machines if each.name.startswith("g2-") and each.gpu != "L4"]
    assert wrong == [("gce", "survey-t4"), ("gce", "survey-t4-spot")]
    for platform, price in machines:
        if (platform, price.id) in wrong:
            assert price.corrected is not None and price.corrected.source == "machines"
    priced = {machine.name: machine.gpu for machine in BOOKS["gce"].capabilities.machines}
    assert priced.items() >= {name: machine.gpu for name, machine in gce.MACHINES.items()}.items()
    family = {"L4": "g2-", "T4": "n1-", "A100-40GB": "a2-highgpu-", "A100-80GB": "a2-ultragpu-"}
    assert all(name.startswith(family[gpu]) for name, gpu in priced.items())


def test_the_books_know_every_gpu_that_may_be_declared() -> None:
    declared = {
        "gce": set(gce.ATTACHED.values()),
        "modal": set(modal.GPUS),
        "runpod": {card.id for card in runpod.CARDS.values()},
        "vertex": set(vertex.ACCELERATORS),
    }
    for platform, names in declared.items():
        assert names and names <= {name for each in BOOKS[platform].capabilities.gpus for name in each.names}


def test_what_a_platform_calls_a_gpu_is_that_gpu() -> None:
    for platform in CLOUDS:
        for offered in BOOKS[platform].capabilities.gpus:
            assert offered.names
            for name in offered.names:
                assert find(name) is GPUS[offered.gpu], name


def test_a_new_google_project_has_no_gpus() -> None:
    [quota] = [each for each in BOOKS["gce"].capabilities.quotas if each.name == "GPUS_ALL_REGIONS"]
    assert quota.limit == 0 and "Quotas" in quota.next_action


@pytest.mark.parametrize("platform", CLOUDS)
def test_a_book_is_laid_out_as_a_refresh_writes_it(platform: str) -> None:
    """So that a refresh changes the lines of what changed and no others."""
    assert path_of(platform).read_text() == dump(BOOKS[platform])


def put(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        part: Any = document
        for step in path[:-1]:
            part = part[step]
        part[path[-1]] = value

    return change


def twice(document: dict[str, Any]) -> None:
    document["prices"].append(document["prices"][0])


WRONG: dict[str, tuple[Callable[[dict[str, Any]], None], str, str]] = {
    "unknown key": (put("prices", 0, "usdd", value=1), "prices[survey-a40].usdd", "there is no such key here"),
    "missing key": (lambda d: d["prices"][0].pop("market"), "prices[survey-a40].market", "this key is missing"),
    "no price": (put("prices", 0, "usd", value=0), "prices[survey-a40].usd", "greater than 0"),
    "not a number": (put("prices", 0, "usd", value=float("nan")), "prices[survey-a40].usd", "number"),
    "text": (put("prices", 0, "usd", value="cheap"), "prices[survey-a40].usd", "number"),
    "unit": (put("prices", 0, "unit", value="usd_per_day"), "prices[survey-a40].unit", "usd_per_hour"),
    "market": (put("prices", 0, "market", value="preemptible"), "prices[survey-a40].market", "spot"),
    "gpu": (put("prices", 0, "gpu", value="A40G"), "prices[survey-a40].gpu", "Did you mean"),
    "gpu without a number": (put("prices", 0, "gpuCount", value=0), "prices[survey-a40]", "do not agree"),
    "hours": (put("prices", 0, "hoursPerMonth", value=720), "prices[survey-a40]", "no price of a month"),
    "cents": (put("prices", 0, "listedPerHour", value=0.41), "prices[survey-a40]", "do not agree"),
    "source": (put("prices", 0, "source", value="hearsay"), "", "no source `hearsay`"),
    "corrected": (
        put("prices", 0, "corrected", value={"reason": "wrong", "source": "hearsay"}),
        "",
        "no source `hearsay`",
    ),
    "billing": (put("prices", 0, "billing", value="barter"), "", "no billing `barter`"),
    "month's price": (put("months", 1, "price", value="none"), "", "no price `none`"),
    "month": (put("months", 1, "usd", value=300), "", "does not follow from its price"),
    "same id": (twice, "", "two prices have the id `survey-a40`"),
    "unlisted gpu": (lambda d: d["capabilities"]["gpus"].pop(9), "", "no GPU among capabilities.gpus"),
    "day": (put("sources", "survey", "asOf", value="2026-13-01"), "sources.survey.asOf", "date"),
    "address": (put("sources", "survey", "url", value="http://x"), "sources.survey.url", "begins with https://"),
    "pattern": (put("refresh", "markets", 0, "locations", value="("), "refresh", "regular expression"),
    "platform": (put("platform", value="modal"), "platform", "another platform's"),
    "version": (put("version", value=2), "version", "1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_book_is_refused(case: str, tmp_path: Path) -> None:
    change, field, says = WRONG[case]
    document = json.loads(dump(BOOKS["runpod"]))
    change(document)
    (tmp_path / "runpod").mkdir()
    (tmp_path / "runpod" / "prices.json").write_text(json.dumps(document))
    with pytest.raises(LorafleetError) as error:
        load_book("runpod", tmp_path)
    [fault] = error.value.errors
    assert fault.field == field
    assert says in str(fault)
    assert fault.where.endswith("/runpod/prices.json") and fault.allowed and fault.next_action


@pytest.mark.parametrize(("text", "says"), [("", "empty"), ("{", "JSON"), ("[]", "JSON object")])
def test_a_file_that_is_no_book_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "runpod").mkdir()
    (tmp_path / "runpod" / "prices.json").write_text(text)
    with pytest.raises(LorafleetError) as error:
        load_book("runpod", tmp_path)
    assert says in str(error.value)


def test_a_platform_without_a_book_is_told() -> None:
    with pytest.raises(LorafleetError) as error:
        load_book("runpods")
    assert error.value.next_action == "Did you mean `runpod`?"


def test_a_new_platform_s_book_is_right(tmp_path: Path) -> None:
    (tmp_path / "my_cloud").mkdir()
    (tmp_path / "my_cloud" / "prices.json").write_text(contents("my_cloud")["prices.json"])
    book = load_book("my_cloud", tmp_path)
    assert dump(book) == (tmp_path / "my_cloud" / "prices.json").read_text()
    assert cheapest(book, gpu="T4").name == "example-16gb"


def test_a_book_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(LorafleetError) as error:
        write_book(BOOKS["gce"], tmp_path / "nowhere" / "prices.json")
    assert "can't be written" in str(error.value) and error.value.next_action
    write_book(BOOKS["gce"], tmp_path / "prices.json")
    assert [path.name for path in tmp_path.iterdir()] == ["prices.json"]
    assert (tmp_path / "prices.json").read_text() == dump(BOOKS["gce"])


def test_a_book_is_the_same_after_writing_and_reading() -> None:
    for book in BOOKS.values():
        assert Book.model_validate_json(dump(book)) == book
