"""`lorafleet prices`: what it prints, and a refresh through gpuhunt itself from catalogs served on loopback."""

from __future__ import annotations

import csv
import io
import json
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lorafleet.cli import main
from lorafleet.prices import Book, cheapest, dump, files, load_book, load_books, write_book
from tests.support.ports import free_port

VERSION = "20270131-7"
# Of a catalog's file, as gpuhunt's storage writes it.
COLUMNS = (
    *("instance_name", "location", "price", "cpu", "memory", "gpu_count", "gpu_name", "gpu_memory", "spot"),
    *("disk_size", "gpu_vendor", "flags", "cpu_arch", "provider_data"),
)


def offer(name: str, location: str, price: float, gpu: str, memory: int, **more: Any) -> dict[str, Any]:
    plain = {"cpu": 4, "memory": 16, "gpu_count": 1, "spot": False, "disk_size": "", "gpu_vendor": "nvidia"}
    there = {"instance_name": name, "location": location, "price": price, "gpu_name": gpu, "gpu_memory": memory}
    return {**plain, "flags": "", "cpu_arch": "x86", "provider_data": "{}", **there, **more}


GCP = [
    offer("g2-standard-4", "us-central1-a", 0.8, "L4", 24),
    offer("g2-standard-4", "us-central1-b", 0.75, "L4", 24),
    offer("g2-standard-4", "us-central1-a", 0.3, "L4", 24, spot=True),
    offer("g2-standard-4", "asia-northeast3-a", 0.9, "L4", 24),
    offer("g2-standard-4", "southamerica-east1-a", 0.1, "L4", 24),  # not a region of the book
    offer("g2-standard-8", "us-central1-a", 0.853624312, "L4", 24),
    offer("g2-standard-24", "us-central1-a", 0.2, "L4", 24, gpu_count=2),  # not a machine of the book
    offer("n1-standard-4", "us-central1-a", 0.54, "T4", 16),
    offer("n1-standard-4", "us-central1-a", 0.01, "V100", 16),  # the same machine with another GPU
    offer("n1-standard-4", "us-central1-a", 0.02, "T4", 16, gpu_count=2),  # or with two
    offer("a2-highgpu-1g", "us-central1-a", 3.7, "A100", 40),
    offer("a2-ultragpu-1g", "us-central1-a", 5.1, "A100", 80),
    offer("a2-highgpu-1g", "us-central1-a", 1.0, "A100", 40, flags="gcp-dws-calendar-mode"),  # another product
    offer("g2-standard-12", "us-central1-a", 0.0, "L4", 24),  # no price
    offer("v5litepod-1", "us-central1-a", 0.1, "v5litepod-1", 16, gpu_vendor="google"),
]
RUNPOD = [
    offer("NVIDIA L4", "EU-RO-1", 0.39, "L4", 24),
    offer("NVIDIA L4", "US-TX-3", 0.39, "L4", 24),
    offer("NVIDIA L4", "CA", 0.29, "L4", 24),  # a country: community cloud
    offer("NVIDIA L4", "EU-RO-1", 0.78, "L4", 24, gpu_count=2),
    offer("NVIDIA H100 PCIe", "US-TX-3", 2.89, "H100", 80),
    offer("NVIDIA A100 80GB PCIe", "US-TX-3", 1.99, "A100", 80),
    offer("NVIDIA A40", "US-TX-3", 0.44, "A40", 48),
    offer("NVIDIA A40", "CA-MTL-1", 0.40, "A40", 48),
    offer("AMD Instinct MI300X OAM", "EU-RO-1", 1.0, "MI300X", 192, gpu_vendor="amd"),
    offer("NVIDIA GeForce RTX 3070", "EU-RO-1", 0.05, "RTX3070", 8),  # not a GPU of the book
]


def catalog_csv(offers: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(offers)
    return text.getvalue()


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """Catalogs as dstack publishes them: {path: bytes}. What is not there is answered 404, as when one is missing."""
    pytest.importorskip("gpuhunt")
    pages: dict[str, bytes] = {}
    publish(pages, {"gcp": GCP, "runpod": RUNPOD})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("GPUHUNT_CATALOG_URL", f"http://127.0.0.1:{server.server_port}/v3")
    monkeypatch.delenv("GPUHUNT_CATALOG_DIR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield pages
    server.shutdown()
    server.server_close()


def publish(pages: dict[str, bytes], catalogs: dict[str, list[dict[str, Any]]], version: str = VERSION) -> None:
    for name, offers in catalogs.items():
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(f"{name}.csv", catalog_csv(offers))
        pages[f"/v3/{name}/version"] = f"{version}\n".encode()
        pages[f"/v3/{name}/{version}/catalog.zip"] = archive.getvalue()


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the books without what a refresh wrote, which the command takes for lorafleet's own; its folder."""
    for platform in ("gce", "modal", "runpod", "vertex"):
        book = load_book(platform)
        prices = [price for price in book.prices if price.source != "gpuhunt"]
        sources = {key: source for key, source in book.sources.items() if key != "gpuhunt"}
        (tmp_path / platform).mkdir()
        copy = Book.model_validate({**dict(book), "prices": prices, "sources": sources})
        write_book(copy, tmp_path / platform / "prices.json")
    monkeypatch.setattr(files, "providers_folder", lambda: tmp_path)
    return tmp_path


def texts(books: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in books.glob("*/prices.json")}


def changes(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[tuple[str, ...], tuple[str, Any, Any]]:
    """{(platform, name, market, region): (change, USD an hour before, now)}"""
    assert main(["prices", "refresh", "--json", *arguments]) == 0
    found: dict[tuple[str, ...], tuple[str, Any, Any]] = {}
    for each in json.loads(capsys.readouterr().out):
        price = each["now"] or each["was"]
        was, now = (each[key] and round(each[key]["usdPerHour"], 6) for key in ("was", "now"))
        found[each["platform"], price["name"], price["market"], price["region"] or ""] = (each["change"], was, now)
    return found


def test_it_shows_what_changed_and_writes_nothing(
    published: dict[str, bytes], books: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = texts(books)
    assert changes(capsys) == {
        ("gce", "g2-standard-4", "on-demand", "us-central1"): ("dearer", 0.706832, 0.75),
        ("gce", "g2-standard-4", "spot", "us-central1"): ("cheaper", 0.424056, 0.3),
        ("gce", "g2-standard-4", "on-demand", "asia-northeast3"): ("new", None, 0.9),
        ("gce", "g2-standard-8", "on-demand", "us-central1"): ("same", 0.853624, 0.853624),
        ("gce", "n1-standard-4", "on-demand", "us-central1"): ("dearer", 0.539999, 0.54),
        ("gce", "a2-highgpu-1g", "on-demand", "us-central1"): ("new", None, 3.7),
        ("gce", "a2-ultragpu-1g", "on-demand", "us-central1"): ("new", None, 5.1),
        ("runpod", "NVIDIA L4", "on-demand", ""): ("new", None, 0.39),
        ("runpod", "NVIDIA L4", "community", ""): ("new", None, 0.29),
        ("runpod", "NVIDIA H100 PCIe", "on-demand", ""): ("same", 2.89, 2.89),
        ("runpod", "NVIDIA A100 80GB PCIe", "on-demand", ""): ("new", None, 1.99),
        ("runpod", "NVIDIA A40", "on-demand", "US-TX-3"): ("dearer", 0.41, 0.44),
        ("runpod", "NVIDIA A40", "on-demand", "CA-MTL-1"): ("cheaper", 0.41, 0.40),
    }
    assert texts(books) == before


def test_it_writes_the_books_and_a_second_time_nothing_new(
    published: dict[str, bytes], books: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_books(books)
    others = {name: text for name, text in texts(books).items() if name in ("modal", "vertex")}
    assert main(["prices", "refresh", "--write"]) == 0
    said = capsys.readouterr()
    assert "dearer\tg2-standard-4\tL4\ton-demand\tus-central1\t0.7068\t0.7500\t+6.1 %" in said.out
    assert "gce: prices of 2027-01-31, written" in said.err and "modal: no catalog has its prices" in said.err
    assert {name: text for name, text in texts(books).items() if name in others} == others
    for platform in ("gce", "runpod"):
        after = load_book(platform, books)
        assert (books / platform / "prices.json").read_text() == dump(after)
        assert [each for each in after.prices if each.source != "gpuhunt"] == list(before[platform].prices)
        assert after.months == before[platform].months and after.capabilities == before[platform].capabilities
        assert str(after.sources["gpuhunt"].as_of) == "2027-01-31" and VERSION in str(after.sources["gpuhunt"].note)
    gce = load_book("gce", books)
    assert cheapest(gce, gpu="L4", market="on-demand", region="us-central1").id == (
        "gpuhunt-g2-standard-4-l4-on-demand-us-central1"
    )
    assert {change for change, _, _ in changes(capsys).values()} == {"same"}
    once = texts(books)
    assert main(["prices", "refresh", "--write"]) == 0
    assert texts(books) == once


def test_what_the_catalog_does_not_have_any_more_goes(
    published: dict[str, bytes], books: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prices", "refresh", "--write", "--platform", "runpod"]) == 0
    capsys.readouterr()
    without = [each for each in RUNPOD if each["instance_name"] != "NVIDIA A40"]
    publish(published, {"runpod": without}, "20270201-1")
    found = changes(capsys, "--platform", "runpod", "--write")
    assert found["runpod", "NVIDIA A40", "on-demand", "CA-MTL-1"] == ("gone", 0.40, None)
    assert not [price for price in load_book("runpod", books).prices if price.name == "NVIDIA A40"]


def test_an_older_catalog_is_not_written(
    published: dict[str, bytes], books: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prices", "refresh", "--write"]) == 0
    before = texts(books)
    publish(published, {"gcp": GCP, "runpod": RUNPOD}, "20260101-1")
    assert main(["prices", "refresh", "--write"]) == 1
    assert "the catalog is older than the prices" in capsys.readouterr().err
    assert texts(books) == before


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({}, "none of its catalogs could be fetched"),
        ({"runpod": RUNPOD}, "its catalog `gcp` could not be fetched"),
        ({"runpod": RUNPOD, "gcp": RUNPOD}, "nothing that this price book looks for"),
    ],
)
def test_a_catalog_that_is_not_there_is_one_error_and_nothing_is_written(
    broken: dict[str, list[dict[str, Any]]],
    says: str,
    published: dict[str, bytes],
    books: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = texts(books)
    published.clear()
    publish(published, broken)
    assert main(["prices", "refresh", "--write"]) == 1
    err = capfd.readouterr().err
    assert says in err and "next:" in err and "Traceback" not in err and err.count("allowed:") == 1
    assert texts(books) == before


def test_a_version_without_a_day_is_refused(
    published: dict[str, bytes], books: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(published, {"gcp": GCP}, "latest")
    assert main(["prices", "refresh"]) == 1
    assert "does not say of which day" in capsys.readouterr().err


def test_a_local_folder_with_catalogs_does(
    books: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pytest.importorskip("gpuhunt")
    folder = tmp_path_factory.mktemp("catalogs")
    (folder / "runpod.csv").write_text(catalog_csv(RUNPOD))
    monkeypatch.setenv("GPUHUNT_CATALOG_DIR", str(folder))
    monkeypatch.setenv("GPUHUNT_CATALOG_URL", "http://127.0.0.1:9/nobody")
    assert changes(capsys, "--platform", "runpod")["runpod", "NVIDIA L4", "on-demand", ""] == ("new", None, 0.39)
    assert main(["prices", "refresh", "--platform", "gce"]) == 1
    assert "GPUHUNT_CATALOG_DIR has no file gcp.csv" in capsys.readouterr().err


def test_without_gpuhunt_the_way_to_get_it_is_told(
    books: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gpuhunt", None)
    assert main(["prices", "refresh"]) == 1
    assert "pip install 'lorafleet[prices]'" in capsys.readouterr().err


@pytest.mark.parametrize("platform", ["modal", "vertex"])
def test_a_platform_that_no_catalog_has_is_told(platform: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "refresh", "--platform", platform]) == 1
    assert f"no catalog has the prices of {platform}" in capsys.readouterr().err


def test_show_prints_what_holds(books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "show", "--platform", "gce", "--gpu", "nvidia-tesla-t4"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("PLATFORM\tWHAT\tNAME") and len(lines) == 2
    assert not [line for line in lines if "g2-" in line]
    assert main(["prices", "show", "--platform", "gce", "--gpu", "T4", "--all"]) == 0
    [wrong, *_] = [line for line in capsys.readouterr().out.splitlines() if "g2-standard-4" in line]
    assert "wrong: There is no such machine" in wrong and "2026-01-22" in wrong and "survey 4.4, 4.5" in wrong


def test_show_as_json_and_by_market(books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "show", "--market", "serverless", "--gpu", "L4", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {(row["platform"], row["gpu"], round(row["usdPerHour"], 4)) for row in rows} == {
        ("modal", "L4", 0.7992),
        ("runpod", "L4", 0.684),
    }


def test_show_asks_which_gpu_is_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "show", "--gpu", "A100"]) == 1
    assert "allowed: A100-40GB or A100-80GB" in capsys.readouterr().err


def test_check_says_what_is_right_old_or_wrong(books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "check"]) == 0
    assert "gce: right; 18 prices, 14 of them hold, 4 are marked as wrong" in capsys.readouterr().out
    assert main(["prices", "check", "--max-age-days", "0"]) == 1
    assert "price books are older than they may be" in capsys.readouterr().err
    book = load_book("modal")
    write_book(book.model_copy(update={"prices": (), "months": ()}), books / "modal" / "prices.json")
    assert main(["prices", "check", "--platform", "modal", "--max-age-days", "0"]) == 0
    assert "modal: right; 0 prices, 0 of them hold" in capsys.readouterr().out
    (books / "gce" / "prices.json").write_text("{}")
    assert main(["prices", "check", "--platform", "gce"]) == 1
    assert "/gce/prices.json: version: this key is missing" in capsys.readouterr().err
