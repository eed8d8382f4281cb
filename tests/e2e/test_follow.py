"""A real vLLM follows its manifest: releases under load, bad releases, canaries, adapters that come and go.

One server for the whole module; each test ends with both adapters at their first version.
"""

import hashlib
import json
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.follow_kit import ADAPTERS, CLIENT, HEADER, HEADERS, Load, altered, chat, text_of, wrong_answers
from tests.e2e.launcher_kit import (
    BASE,
    Server,
    Store,
    base_model,
    children,
    column,
    demo_digest,
    needs_serving,
    questions,
)
from tests.e2e.launcher_kit import wait_until as until

pytestmark = needs_serving
FIRST = dict.fromkeys(ADAPTERS, 1)
SECOND = dict.fromkeys(ADAPTERS, 2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"))
    running.start()
    running.wait_for("ready")
    yield running
    running.close()


@pytest.fixture
def store(server: Server) -> Iterator[Store]:
    """The server's store. Afterwards the first versions are served, and all trouble is forgotten."""
    yield server.store
    server.wait_for_manifest(server.store.serve())
    until(lambda: server.state()["manifest"]["state"] == "serving", 60, server.log)
    until(lambda: server.state()["draining"] == [], 60, server.log)
    state = server.state()
    assert state["manifest"]["error"] is None
    assert [(a["state"], a["error"]) for a in state["adapters"]] == [("serving", None)] * 2


def memory_mib(engine: int) -> float:
    """Resident memory of vLLM's processes."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in (engine, *children(engine))]
    return sum(pages) * 4096 / 2**20


def test_20_releases_back_and_forth_under_load_lose_and_mix_nothing(server: Server, store: Store) -> None:
    """16 in flight; every text is that of the version in its header."""
    times = []
    memory = []
    with Load(server.url) as load:
        time.sleep(1)
        for number in range(20):
            version = 2 - number % 2
            wanted = store.serve(version, version)
            begun = time.monotonic()
            until(lambda wanted=wanted: server.state()["manifestDigest"] == wanted, 60, server.log, 0.005)  # type: ignore[misc]
            times.append(time.monotonic() - begun)
            # from the switch on, new requests get the new version
            header = chat(server.url, "checklist", "월세는 언제 내나요?").headers[HEADER]
            assert header == f"checklist@{demo_digest('checklist', version)}"
            memory.append(memory_mib(server.state()["enginePid"]))
    assert load.faults == []
    assert set(load.answers) == set(load.columns)
    times.sort()
    print(
        f"{sum(load.answers.values())} requests; switched after {statistics.median(times):.2f} s (median), "
        f"{times[-2]:.2f} s (p95), {times[-1]:.2f} s (most); memory of vLLM {memory[1]:.0f} -> {memory[-1]:.0f} MiB"
    )


BAD = [
    ("NaN weights", "adapter_invalid", "NaN"),
    ("infinite weights", "adapter_invalid", "infinite"),
    ("times 1e30", "adapter_invalid", "huge numbers"),
    ("truncated", "adapter_invalid", "is cut off"),
    ("no JSON", "adapter_invalid", "is not a JSON object"),
    ("modules_to_save", "adapter_invalid", "modules_to_save"),
    ("rank 32", "rank_too_high", "above this server's engine.maxLoraRank 16"),
    ("other shapes", "load_failed", "loading easycontract"),
    ("other names", "load_failed", "loading easycontract"),
    ("noise 3000", "probe_failed", "probing easycontract"),
    ("noise 10", "probe_failed", "probing easycontract"),
    ("noise 1", "probe_failed", "probing easycontract"),
    ("noise 0.2", "probe_failed", "probing easycontract"),
    ("times 1000", "probe_failed", "probing easycontract"),
    ("times 10", "probe_failed", "probing easycontract"),
]


@pytest.mark.parametrize(("kind", "reason", "what"), BAD, ids=[kind for kind, _, _ in BAD])
def test_a_bad_adapter_never_replaces_a_good_one(
    server: Server, store: Store, tmp_path: Path, kind: str, reason: str, what: str
) -> None:
    """And the other adapter of that release is not switched either."""
    bad = store.add("easycontract", altered(tmp_path / "bad", kind))
    wanted = store.write({"easycontract": bad, "checklist": store.demo("checklist", 2)})
    manifest = server.wait_for_trouble("refused", reason)
    assert (manifest["digest"], manifest["error"]["retrying"]) == (wanted, False)
    assert what in manifest["error"]["what"]
    assert manifest["error"]["next"]
    state = server.state()
    failed, other = server.adapter("easycontract"), server.adapter("checklist")
    assert (failed["state"], failed["error"]["reason"]) == ("failed", reason)
    assert (failed["digest"], failed["wanted"]) == (demo_digest("easycontract"), bad["digest"])
    assert (other["state"], other["error"], other["wanted"]) == ("waiting", None, demo_digest("checklist", 2))
    assert state["phase"] == "ready"
    assert wrong_answers(server.url, FIRST, 2) == []


def test_a_wrong_digest(server: Server, store: Store) -> None:
    changed = store.demo("easycontract", 2)
    store.write({"easycontract": changed | {"digest": "sha256:" + "7" * 64}, "checklist": store.demo("checklist")})
    assert "not sha256:777" in server.wait_for_trouble("refused", "digest_differs")["error"]["what"]
    assert server.adapter("checklist")["state"] == "serving"
    assert wrong_answers(server.url, FIRST, 1) == []


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is not JSON"),
        (b'{"version": 1,', "is not JSON"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[]", "not an object"),
        (b"[" * 100_000, "too deeply nested"),
        (b" " * 1_048_577, "is larger than"),
        (b'{"version": 1, "version": 1}', "is there twice"),
        (b'{"version": 9, "baseModel": {}, "adapters": []}', "version is 9"),
    ],
    ids=str,
)
def test_a_malformed_manifest(server: Server, store: Store, content: bytes, what: str) -> None:
    store.put("manifests/test.json", content)
    until(lambda: what in (server.state()["manifest"]["error"] or {}).get("what", ""), 60, server.log)
    manifest = server.state()["manifest"]
    assert (manifest["state"], manifest["digest"], manifest["error"]["reason"]) == ("refused", None, "manifest_invalid")
    assert wrong_answers(server.url, FIRST, 1) == []


def test_another_base_model_needs_a_restart(server: Server, store: Store) -> None:
    store.write({}, base_model() | {"digest": "sha256:" + "1" * 64})
    assert "restart the server" in server.wait_for_trouble("refused", "base_differs")["error"]["next"]
    assert wrong_answers(server.url, FIRST, 1) == []


def test_too_many_versions_at_a_time(server: Server, store: Store) -> None:
    easycontract = store.demo("easycontract")
    store.write({f"name{number}": easycontract for number in range(40)})
    error = server.wait_for_trouble("refused", "too_many_adapters")["error"]
    assert "restart the server" in error["next"]
    assert wrong_answers(server.url, FIRST, 1) == []


def test_a_manifest_and_an_adapter_that_are_gone_for_a_while(server: Server, store: Store) -> None:
    path = store.folder / "manifests/test.json"
    path.rename(path.with_name("elsewhere"))
    assert server.wait_for_trouble("unreachable", "manifest_unreachable")["error"]["retrying"] is True
    assert wrong_answers(server.url, FIRST, 1) == []
    path.with_name("elsewhere").rename(path)
    until(lambda: server.state()["manifest"]["state"] == "serving", 60, server.log)

    new = store.demo("easycontract", 2)
    folder = store.folder / "adapters/easycontract" / new["digest"].replace(":", "-")
    # another name, so that the cache has no copy of it yet
    aside = folder.rename(folder.with_name("aside"))
    document = json.loads((aside / "adapter_config.json").read_text())
    (aside / "adapter_config.json").write_text(json.dumps(document, indent=7))
    source = store.add("late", aside)
    late = store.folder / "adapters/late" / source["digest"].replace(":", "-")
    late.rename(late.with_name("not yet"))
    wanted = store.write({"easycontract": source, "checklist": store.demo("checklist")})
    error = server.wait_for_trouble("following", "fetch_failed")["error"]
    assert (error["retrying"], "is not a folder" in error["what"]) == (True, True)
    assert server.adapter("easycontract")["state"] == "failed"
    assert wrong_answers(server.url, FIRST, 1) == []
    late.with_name("not yet").rename(late)
    server.wait_for_manifest(wanted)
    assert wrong_answers(server.url, {"easycontract": 2, "checklist": 1}, 1) == []


def test_a_canary_gets_its_share_and_keeps_its_sessions(server: Server, store: Store) -> None:
    canary = store.demo("easycontract", 2)
    checklist = store.demo("checklist")

    def release(weight: int) -> None:
        entry = store.demo("easycontract") | {"canary": canary | {"weight": weight}}
        server.wait_for_manifest(store.write({"easycontract": entry, "checklist": checklist}))

    def header(session: str | None) -> str:
        body = {"model": "easycontract", "prompt": "월세", "max_tokens": 1}
        given = {"x-lorafleet-session": session} if session is not None else {}
        answer = CLIENT.post(f"{server.url}/v1/completions", json=body, headers=given)
        return answer.headers[HEADER].removeprefix("easycontract@")

    def expected(session: str, weight: int) -> str:
        digest = hashlib.sha256(f"easycontract\0{canary['digest']}\0{session}".encode()).digest()
        return str(canary["digest"]) if int.from_bytes(digest[:8], "big") % 10000 < weight * 100 else first

    first = demo_digest("easycontract")
    sessions = [f"user-{number}" for number in range(60)]
    seen = []
    with ThreadPoolExecutor(max_workers=8) as pool:
        for weight in (30, 60):
            release(weight)
            found = list(pool.map(header, sessions))
            assert found == list(pool.map(header, sessions)) == [expected(each, weight) for each in sessions]
            seen.append({each for each, digest in zip(sessions, found, strict=True) if digest == canary["digest"]})
        assert seen[0] < seen[1]
        share = list(pool.map(header, [None] * 300)).count(canary["digest"]) / 300
    assert 0.45 < share < 0.75  # of 60 %: five standard deviations
    entry = server.adapter("easycontract")
    assert (entry["digest"], entry["canary"]["digest"], entry["canary"]["weight"]) == (first, canary["digest"], 60)
    models = httpx.get(f"{server.url}/v1/models", headers=HEADERS).json()["data"]
    assert [model["canary"]["weight"] for model in models if "canary" in model] == [60]
    question, wanted = next(iter(questions().items()))
    for session in sessions[:6]:
        answer = chat(server.url, "easycontract", question, x_lorafleet_session=session)
        version = 2 if session in seen[1] else 1
        assert text_of(answer) == wanted[column("easycontract", version)]


def test_adapters_come_and_go_and_more_than_there_are_slots_answer_right(server: Server, store: Store) -> None:
    """Six versions live, and all of them asked at once; the engine has slots for four."""
    four = {"easycontract": ("easycontract", 1), "checklist": ("checklist", 1)}
    four |= {"easy2": ("easycontract", 2), "check2": ("checklist", 2)}
    six = four | {"easy1": ("easycontract", 1), "check1": ("checklist", 1)}
    wanted = store.write({name: store.demo(*version) for name, version in six.items()})
    server.wait_for_manifest(wanted)
    log = server.log_file.read_text()
    assert "--max-loras 4 " in log
    with ThreadPoolExecutor(max_workers=16) as pool:
        asked = [(name, question) for question in list(questions())[:6] for name in (*six, BASE)]
        texts = list(pool.map(lambda pair: text_of(chat(server.url, *pair)), asked))
    right = [questions()[question]["base" if name == BASE else column(*six[name])] for name, question in asked]
    assert texts == right
    server.wait_for_manifest(store.write({"checklist": store.demo("checklist")}))
    assert chat(server.url, "easy1", "월세?").status_code == 404
    assert chat(server.url, "easycontract", "월세?").status_code == 404
    assert [entry["name"] for entry in server.state()["adapters"]] == ["checklist"]


def test_a_request_in_flight_ends_on_the_version_it_began_with(server: Server, store: Store) -> None:
    """The old version drains, and is used again when it is wanted again while it drains."""
    old = server.adapter("easycontract")["servedName"]
    body = {"model": "easycontract", "prompt": "월세", "max_tokens": 450, "ignore_eos": True, "stream": True}
    url = f"{server.url}/v1/completions"
    with httpx.stream("POST", url, headers=HEADERS, json=body, timeout=120) as answer:
        lines = answer.iter_lines()
        next(lines)
        server.wait_for_manifest(store.serve(2, 1))
        until(lambda: server.state()["draining"] == [{"servedName": old, "inFlight": 1}], 30, server.log)
        assert wrong_answers(server.url, {"easycontract": 2, "checklist": 1}, 1) == []
        server.wait_for_manifest(store.serve(1, 1))
        assert [line for line in lines if line][-1] == "data: [DONE]"
    until(lambda: server.state()["draining"] == [], 30, server.log)
    assert f"unloaded {old}" not in server.log_file.read_text().rpartition("serving the manifest")[2]
    assert wrong_answers(server.url, FIRST, 1) == []


def test_the_newest_manifest_wins(server: Server, store: Store) -> None:
    for _ in range(10):
        store.serve(2, 2)
        store.serve(1, 2)
        last = store.serve(2, 1)
    server.wait_for_manifest(last)
    assert wrong_answers(server.url, {"easycontract": 2, "checklist": 1}, 1) == []


def test_files_go_only_when_nothing_needs_them(server: Server, store: Store) -> None:
    def cached() -> set[str]:
        return {path.name for path in (server.folder / "cache").iterdir() if len(path.name) == 64}

    def keys(*versions: dict[str, int]) -> set[str]:
        return {demo_digest(name, number)[7:] for version in versions for name, number in version.items()}

    server.wait_for_manifest(store.serve(2, 2))
    server.wait_for_manifest(store.serve(1, 1))
    server.wait_for_manifest(store.serve(1, 2))
    # current: 1 and 2; previous: 1 and 1
    until(lambda: cached() == keys({"easycontract": 1, "checklist": 2}, FIRST), 30, lambda: str(cached()))


def test_the_store_is_told(server: Server, store: Store) -> None:
    def told() -> dict[str, Any]:
        return store.status() or {}

    until(lambda: told().get("phase") == "ready", 30)
    before = told()
    assert before["heartbeatS"] == 2
    until(lambda: told()["updatedAt"] > before["updatedAt"], 30)
    same = ("version", "environment", "target", "replica", "manifestDigest", "pid", "enginePid", "baseModel")
    assert {key: told()[key] for key in same} == {key: server.state()[key] for key in same}
    assert told()["adapters"][0]["since"] == before["adapters"][0]["since"]
    for name in ADAPTERS:
        for version in (1, 2):
            if version == 2:
                server.wait_for_manifest(store.serve(2, 2))
            digest = demo_digest(name, version)
            path = store.folder / f"served/test/{name}/{digest.replace(':', '-')}.json"
            until(path.exists, 30)
            mark = json.loads(path.read_text())
            assert (mark["name"], mark["digest"], mark["target"], mark["replica"]) == (name, digest, "server", "0")
    answer = httpx.get(f"{server.url}/lorafleet/state", headers=HEADERS).json()
    assert set(answer) == {"inFlight", "done", "status"}
    assert answer["status"]["manifestDigest"] == server.state()["manifestDigest"]
