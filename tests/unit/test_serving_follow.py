"""handlers.serving: what a server does about its manifest and its store, as far as it needs no vLLM.

tests/e2e/test_follow.py has the whole with a real one.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from handlers.serving import base_check, config, follow, probe
from handlers.serving.cache import Cache
from handlers.serving.client import EngineClient
from handlers.serving.errors import ServingError
from handlers.serving.fetch import Fetched, StoredAdapter
from handlers.serving.fleet import Fleet
from handlers.serving.manifest import AdapterSpec, Canary, Manifest, Version, Weights
from handlers.serving.probe import TOKENS, Answer, fault_of
from handlers.serving.publish import Publisher
from handlers.serving.remote import Folder, Found
from handlers.serving.report import Report
from handlers.serving.routes import Routes, RoutesFile
from handlers.serving.state import StateFile
from handlers.serving.watch import ManifestWatch
from tests.unit.serving_kit import launch


def until(true: Callable[[], bool], timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def version(name: str, digit: str) -> Version:
    return Version(name, "file:///x", None, "sha256:" + digit * 64)


def release(digest: str, *adapters: AdapterSpec) -> Manifest:
    return Manifest(Weights("base", "file:///b", None, "sha256:" + "b" * 64), adapters, digest)


# --- the probe's judgement


def said(text: str = "네", tokens: tuple[str, ...] = ("네",), score: float = -0.1) -> Answer:
    return Answer(text, tokens, (score,) * len(tokens), ())


GOOD = said("월세는 매달 냅니다.", tuple("월세는 매달 냅니다."))
BASE_ANSWERS = [GOOD] * 6
RUN = said("가" * TOKENS, ("가",) * TOKENS)


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        ([GOOD] * 6, None),
        ([said("", ("<end>",))] * 4 + [GOOD] * 2, None),  # trained on chats: ends at once after a plain beginning
        ([RUN] * 4 + [GOOD] * 2, None),  # goes round in circles only after plain beginnings
        ([RUN] * 3 + [GOOD] * 2 + [RUN], "repeats one token"),
        ([RUN] * 6, "repeats one token"),
        ([said("!" * TOKENS, ("!",) * TOKENS)] * 6, "repeats one token"),
        ([said("", ("<pad>",) * TOKENS)] * 6, "repeats one token"),
        ([said("", ("<end>",))] * 6, "an empty answer to every prompt"),
        ([said("\ufffd\ufffd다", ("a", "b", "c"))] * 6, "no text"),
        ([said("\x01\x02\n\x03", ("a", "b", "c"))] * 6, "no text"),
        ([GOOD] * 5 + [said(score=float("nan"))], "not finite"),
        ([GOOD] * 5 + [said(score=float("-inf"))], "not finite"),
        ([GOOD] * 5 + [said(score=-9999.0)], "not finite"),
        ([said("이 말 저 말", ("이", "말", "저", "말"), -2.0)] * 6, "are noise"),
    ],
)
def test_what_the_probe_makes_of_answers(answers: list[Answer], fault: str | None) -> None:
    found = fault_of(answers, BASE_ANSWERS)
    assert found is None if fault is None else found is not None and fault in found


def test_an_unsure_adapter_of_an_unsure_base_is_no_noise() -> None:
    unsure = [said("이 말 저 말", ("이", "말", "저", "말"), -2.0)] * 6
    assert fault_of(unsure, [said(score=-1.5)] * 6) is None


# --- the engine's side: load, switch, drain


class EngineStandIn(BaseHTTPRequestHandler):
    """Knows names as vLLM does; `busy` are the requests in flight that it tells, `mute` paths answer too late."""

    known: set[str]
    busy: dict[str, int]
    mute: set[str]

    def do_GET(self) -> None:
        self.reply(200, {"inFlight": self.busy})

    def do_POST(self) -> None:
        name = json.loads(self.rfile.read(int(self.headers["content-length"])))["lora_name"]
        if self.path == "/v1/load_lora_adapter":
            taken = name in self.known
            self.known.add(name)
            if self.path in self.mute:
                return  # no answer, though the name is known now
            self.reply(400 if taken else 200, {"message": "has already been loaded" if taken else "loaded"})
        else:
            there = name in self.known
            self.known.discard(name)
            self.reply(200 if there else 404, {"message": "unloaded"})

    def reply(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[tuple[type[EngineStandIn], Fleet]]:
    class Handler(EngineStandIn):
        known: set[str] = set()  # noqa: RUF012
        busy: dict[str, int] = {}  # noqa: RUF012
        mute: set[str] = set()  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    routes = RoutesFile(tmp_path / "routes.json", Routes("base", None, (), "0" * 64))
    yield Handler, Fleet(EngineClient("127.0.0.1", server.server_port, "token"), routes, 4)
    server.shutdown()
    server.server_close()


def stored(what: Version) -> StoredAdapter:
    return StoredAdapter(what, 8, Path("/x"))


def test_versions_leave_when_idle_and_stay_when_wanted_again(engine: tuple[type[EngineStandIn], Fleet]) -> None:
    handler, fleet = engine
    one, two, other = version("a", "1"), version("a", "2"), version("b", "3")
    for each in (one, two, other):
        fleet.load(stored(each))
    fleet.switch([AdapterSpec(two), AdapterSpec(other)])
    assert fleet.leaving == {one.served_name}
    handler.busy[one.served_name] = 2
    assert fleet.unload_idle() == ({one.served_name: 2}, [])
    assert fleet.claim([one, two]) == []  # wanted again
    handler.busy.clear()
    assert fleet.unload_idle() == ({}, [])
    assert one.served_name in handler.known
    fleet.switch([AdapterSpec(two, Canary(one, 5))])
    assert fleet.unload_idle() == ({}, [other.served_name])
    assert handler.known == {one.served_name, two.served_name}
    handler.known.clear()  # the engine does not know it any more: no reason to ask for ever
    fleet.retire([one.served_name])
    assert fleet.unload_idle() == ({}, [one.served_name])


def test_a_load_without_an_answer_leaves_no_name_behind(engine: tuple[type[EngineStandIn], Fleet]) -> None:
    handler, fleet = engine
    handler.mute.add("/v1/load_lora_adapter")
    with pytest.raises(ServingError, match="does not answer") as caught:
        fleet.load(stored(version("a", "1")))
    assert caught.value.reason == "load_failed"
    assert (handler.known, fleet.loaded) == (set(), {})
    handler.mute.clear()
    fleet.load(stored(version("a", "1")))
    assert list(fleet.loaded) == [version("a", "1").served_name]


def test_two_digests_that_begin_alike_are_not_taken_for_one(engine: tuple[type[EngineStandIn], Fleet]) -> None:
    _, fleet = engine
    fleet.load(stored(version("a", "1")))
    twin = Version("a", "file:///x", None, "sha256:" + "1" * 63 + "2")
    with pytest.raises(ServingError, match="release another version"):
        fleet.claim([twin])


def test_a_probe_that_gets_no_answer_is_a_fault_of_its_adapter() -> None:
    found = probe.probe(EngineClient("127.0.0.1", 9, "x"), {"a@1": "a"}, BASE_ANSWERS, lambda: None)
    assert found["a@1"].reason == "probe_failed"


# --- taking over


@pytest.mark.parametrize("stays", [False, True], ids=["while it is loaded", "for good"])
def test_a_version_that_spoils_the_base_is_not_served(
    engine: tuple[type[EngineStandIn], Fleet],
    state: StateFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stays: bool,
) -> None:
    """Its own answers are sensible. The base is asked before the names change over; and again once it has gone."""
    handler, fleet = engine
    one, two = version("a", "1"), version("a", "2")
    current, wanted = release("1" * 64, AdapterSpec(one)), release("2" * 64, AdapterSpec(two))
    fleet.load(stored(one))
    fleet.switch(current.adapters)
    spoilt = False

    def asked(*_: object) -> float:
        nonlocal spoilt
        spoilt = two.served_name in handler.known or (spoilt and stays)
        if spoilt:
            raise ServingError("the base answers otherwise", "look")
        return 0.0

    monkeypatch.setattr(base_check, "check_again", asked)
    monkeypatch.setattr(probe, "probe", lambda *_: {})
    fetched = Fetched(None, [stored(two)])
    monkeypatch.setattr(follow, "fetch_all", lambda *_: fetched)
    served: list[Version] = []
    broken: list[ServingError] = []
    follower = follow.Follower(
        fleet,
        Cache(tmp_path / "cache", lambda _: None),
        Report(state),
        ManifestWatch(Folder(f"file://{tmp_path}"), "local", lambda _: None),
        follow.Engine(current.base, "float32", 16, [], lambda: None),
        current,
        0,
        say=lambda _: None,
        served=served.append,
        broken=broken.append,
    )
    with pytest.raises(follow.AdaptersFailedError) as caught:
        follower.take_over(wanted)
    assert caught.value.errors[0][1].reason == "probe_failed"
    assert [spec.main for spec in fleet.routes.routes.adapters] == [one], "the old one goes on"
    assert handler.known == {one.served_name}
    assert served == []
    assert bool(broken) == stays


# --- the state


@pytest.fixture
def state(tmp_path: Path) -> StateFile:
    found = config.parse(launch("stateFile", str(tmp_path / "state.json")))
    return StateFile(found, 2)


def test_since_changes_with_the_state_only(state: StateFile, tmp_path: Path) -> None:
    def row() -> dict[str, Any]:
        found: dict[str, Any] = json.loads((tmp_path / "state.json").read_text())
        return found

    report = Report(state)
    one, two = version("a", "1"), version("a", "2")
    report.now_serving(release("1" * 64, AdapterSpec(one)))
    before = row()
    time.sleep(0.02)
    report.now_serving(release("1" * 64, AdapterSpec(one)))
    state.set()
    assert row()["updatedAt"] > before["updatedAt"]
    assert row()["adapters"] == before["adapters"]
    assert row()["manifest"] == before["manifest"]

    wanted = release("2" * 64, AdapterSpec(two), AdapterSpec(version("b", "3")))
    report.follow(wanted)
    assert [(a["name"], a["digest"], a["wanted"], a["state"]) for a in row()["adapters"]] == [
        ("a", one.digest, two.digest, "waiting"),
        ("b", None, "sha256:" + "3" * 64, "waiting"),
    ]
    error = ServingError("what", "next", "probe_failed")
    report.failed(wanted.digest, error, False, {"b": (version("b", "3"), error)})
    found = row()
    fault = {"what": "what", "next": "next", "reason": "probe_failed", "retrying": False}
    assert (found["manifest"]["state"], found["manifest"]["error"]) == ("refused", fault)
    assert [(a["state"], a["error"]) for a in found["adapters"]] == [
        ("waiting", None),
        ("failed", {**fault, "digest": "sha256:" + "3" * 64}),
    ]
    assert found["manifestDigest"] == "1" * 64

    report.reach(ServingError("gone", "wait", "manifest_unreachable"))
    assert (row()["manifest"]["state"], row()["manifest"]["digest"]) == ("unreachable", "2" * 64)
    report.reach(None)
    assert row()["manifest"]["state"] == "refused"

    report.now_serving(release("4" * 64, AdapterSpec(two, Canary(one, 7))))
    (only,) = row()["adapters"]
    assert only["canary"] == {"servedName": one.served_name, "digest": one.digest, "weight": 7}
    assert (only["state"], only["error"], row()["manifest"]["error"]) == ("serving", None, None)


def test_nothing_is_written_after_the_end(state: StateFile, tmp_path: Path) -> None:
    state.update("failed", "it is over")
    before = (tmp_path / "state.json").read_text()
    Report(state).now_serving(release("1" * 64))
    state.update("stopped", "on request")
    assert (tmp_path / "state.json").read_text() == before


# --- the store


class Flaky(Folder):
    """A folder that fails as long as `down`."""

    heartbeat_s = 1

    def __init__(self, root: Path) -> None:
        super().__init__(f"file://{root}")
        self.down = False
        self.writes: list[bytes] = []

    def write(self, path: str, content: bytes) -> None:
        if self.down:
            raise ServingError("the network is down", "wait", transient=True)
        self.writes.append(content)
        super().write(path, content)

    def create(self, path: str, content: bytes) -> None:
        if self.down:
            raise RuntimeError("a client library's own error")
        super().create(path, content)

    def read(self, path: str, stamp: object = None) -> Found | None:
        if self.down:
            raise RuntimeError("a client library's own error")
        return super().read(path, stamp)


def test_a_folder_as_a_store(tmp_path: Path) -> None:
    folder = Folder(f"file://{tmp_path}")
    with pytest.raises(ServingError, match=r"there is no file://.*/a/b\.json"):
        folder.read("a/b.json")
    folder.write("a/b.json", b"1")
    found = folder.read("a/b.json")
    assert found is not None
    assert (found.content, found.stamp) == (b"1", None)  # so new that it may change unseen: to be read again
    os.utime(tmp_path / "a/b.json", (1, 1))
    found = folder.read("a/b.json")
    assert found is not None
    assert folder.read("a/b.json", found.stamp) is None
    folder.write("a/b.json", b"2")
    assert folder.read("a/b.json", found.stamp) is not None
    folder.create("a/b.json", b"3")
    folder.create("a/c.json", b"4")
    assert ((tmp_path / "a/b.json").read_bytes(), (tmp_path / "a/c.json").read_bytes()) == (b"2", b"4")
    folder.delete("a/b.json")
    folder.delete("a/b.json")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["c.json"]


def test_a_store_that_is_down_is_told_once_and_caught_up_with(tmp_path: Path) -> None:
    remote = Flaky(tmp_path)
    said: list[str] = []
    beats: list[float] = []
    publisher = Publisher(remote, config.parse(launch()), lambda: beats.append(time.monotonic()), said.append)
    remote.down = True
    publisher.start()
    for number in range(20):
        publisher.status({"number": number})
    publisher.served(version("a", "1"))
    until(lambda: len(beats) >= 2)
    assert len([line for line in said if "is not written" in line]) == 2  # the status and the mark, each once
    remote.down = False
    mark = tmp_path / f"served/local/a/sha256-{'1' * 64}.json"
    until(mark.exists)
    until(lambda: len(remote.writes) > 0)
    assert [json.loads(content)["number"] for content in remote.writes] == [19]  # the newest only
    assert json.loads(mark.read_text())["replica"] == "0"
    publisher.close(remove=True, patience_s=30)
    assert not (tmp_path / "status/local/server/0.json").exists()


def test_the_last_status_stays_after_a_failure(tmp_path: Path) -> None:
    publisher = Publisher(Flaky(tmp_path), config.parse(launch()), lambda: None, print)
    publisher.start()
    publisher.status({"phase": "failed"})
    publisher.close(remove=False, patience_s=30)
    assert json.loads((tmp_path / "status/local/server/0.json").read_text()) == {"phase": "failed"}


def test_the_watch_gives_each_content_once_and_tells_of_trouble(tmp_path: Path) -> None:
    remote = Flaky(tmp_path)
    reached: list[str | None] = []
    watch = ManifestWatch(remote, "local", lambda error: reached.append(error.reason if error else None))
    watch.start()
    until(lambda: reached == ["manifest_unreachable"])  # there is none yet
    remote.write("manifests/local.json", b"1")
    first = watch.newer_than(0, 30)
    assert first is not None
    assert (first.number, first.raw) == (1, b"1")
    until(lambda: reached == ["manifest_unreachable", None])
    assert watch.newer_than(1, 0.6) is None
    remote.write("manifests/local.json", b"1")  # written again as it was: to be tried again
    again = watch.newer_than(1, 30)
    assert again is not None
    assert (again.number, again.raw) == (2, b"1")
    assert watch.newer_than(2, 0.6) is None
    remote.write("manifests/local.json", b"2")
    second = watch.newer_than(2, 30)
    assert second is not None
    assert (second.number, second.raw) == (3, b"2")
    remote.down = True
    until(lambda: reached[2:] == ["manifest_unreachable"])
    remote.down = False
    until(lambda: reached[3:] == [None])
    assert watch.is_newest(3)
    watch.stop()
