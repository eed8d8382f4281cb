"""Starts and ends of a server in the middle of a release, and a store in a bucket that is gone for a while."""

import json
from pathlib import Path

import pytest

from tests.e2e.follow_kit import ADAPTERS, Load, altered, wrong_answers
from tests.e2e.gcs_kit import Gcs
from tests.e2e.launcher_kit import Server, Store, alive, base_model, children, demo_digest, kill, needs_serving
from tests.e2e.launcher_kit import wait_until as until

pytestmark = needs_serving
SECOND = dict.fromkeys(ADAPTERS, 2)
OTHER_BASE = base_model() | {"digest": "sha256:" + "1" * 64}


def in_the_middle(server: Server) -> bool:
    """Between the reading of a manifest and its switch."""
    return any(entry["state"] in ("fetching", "loading", "probing") for entry in server.state()["adapters"])


def release(server: Server, version: int) -> str:
    """Writes the manifest, and returns when the server is in the middle of taking it over."""
    wanted = server.store.serve(version, version)
    until(lambda: in_the_middle(server) or server.state()["manifestDigest"] == wanted, 60, server.log, 0.001)
    assert in_the_middle(server), "it was quicker than this test"
    return wanted


def test_kill_9_and_sigterm_in_the_middle_of_a_release(tmp_path: Path) -> None:
    """What starts after it serves the new set, at once and whole."""
    server = Server(tmp_path)
    server.document["drainTimeoutS"] = 10
    server.start()
    server.wait_for("ready")
    try:
        pids = children(server.state()["pid"])
        with Load(server.url, 8):  # slows the takeover down; its requests are cut off
            wanted = release(server, 2)
            kill(server.state()["pid"])
            server.exit_code()
        until(lambda: not alive(pids), 30)
        (tmp_path / "cache" / f".{'f' * 64}.1.999999999.partial").mkdir()  # as if ended while it fetched

        server.start()
        state = server.wait_for("ready")
        assert state["manifestDigest"] == wanted
        assert {entry["digest"] for entry in state["adapters"]} == {demo_digest(name, 2) for name in ADAPTERS}
        assert wrong_answers(server.url, SECOND, 2) == []
        assert not list((tmp_path / "cache").glob(".*.partial"))

        pids = children(state["pid"])
        with Load(server.url, 8) as load:
            release(server, 1)
            assert server.process is not None
            server.process.terminate()
            until(lambda: server.state()["phase"] in ("draining", "stopped"), 30, server.log)
            load.ended.set()
        assert server.exit_code() == 0
        assert not [fault for fault in load.faults if " 200 " in fault]  # refused is right while it stops, wrong is not
        assert server.state()["phase"] == "stopped"
        assert server.store.status() is None
        until(lambda: not alive(pids), 30)
    finally:
        server.close()


# as the product does it, but without the look at the weights: so that a real engine gets to compute with NaNs
WITHOUT_THE_LOOK = """
import sys
from handlers.serving import __main__, check
check.check_weights = lambda *_: None
sys.exit(__main__.main(sys.argv[1:]))
"""


def test_an_adapter_that_computes_nan_harms_nobody(tmp_path: Path) -> None:
    """Neither through the KV cache nor through the slot that it was in, which rows without an adapter read on a CPU."""
    server = Server(tmp_path)
    server.start("-c", WITHOUT_THE_LOOK)
    server.wait_for("ready")
    try:
        good = server.store.demo("checklist")
        with Load(server.url, 4) as load:
            # each in another slot: there are four
            for kind in ("NaN weights", "infinite weights", "times 1e10", "times 1e30", "times 1e20"):
                source = server.store.add("easycontract", altered(tmp_path / kind, kind))
                wanted = server.store.write({"easycontract": source, "checklist": good})
                until(lambda wanted=wanted: server.state()["manifest"]["digest"] == wanted, 60, server.log)  # type: ignore[misc]
                manifest = server.wait_for_trouble("refused", "probe_failed")
                assert "not finite (NaN)" in manifest["error"]["what"]
                assert wrong_answers(server.url, dict.fromkeys(ADAPTERS, 1), 1) == []
                server.wait_for_manifest(server.store.serve())
                until(lambda: server.state()["manifest"]["state"] == "serving", 60, server.log)
        assert load.faults == []
        assert server.state()["phase"] == "ready"
    finally:
        server.close()


def test_a_bucket_that_is_gone_for_a_while(tmp_path: Path) -> None:
    """At the start it is waited for; later the old set serves on, the state says why, and it heals by itself."""
    gcs = Gcs(tmp_path / "gcs", "fleet")
    store = Store(tmp_path / "unused", "gs://fleet/team", lambda path, content: gcs.put(f"team/{path}", content))
    server = Server(tmp_path / "server", store)
    server.environment |= {"STORAGE_EMULATOR_HOST": gcs.url}
    server.document["replica"] = None
    server.start()
    try:
        until(lambda: "trying again" in server.state().get("detail", ""), 60, server.log)
        gcs.start()
        first = store.serve(1, 1)
        state = server.wait_for("ready")
        assert (state["manifestDigest"], state["heartbeatS"]) == (first, 30)
        path = f"team/status/test/server/{state['replica']}.json"
        until(lambda: (gcs.get(path) or {}).get("phase") == "ready", 60, server.log)

        gcs.stop()
        server.wait_for_trouble("unreachable", "manifest_unreachable", 90)
        assert server.state()["manifest"]["digest"] == first
        assert wrong_answers(server.url, dict.fromkeys(ADAPTERS, 1), 1) == []
        gcs.start()
        wanted = store.serve(2, 2)
        server.wait_for_manifest(wanted, 120)
        assert wrong_answers(server.url, SECOND, 1) == []
        until(lambda: (gcs.get(path) or {}).get("manifestDigest") == wanted, 120, server.log)
        for name in ADAPTERS:
            mark = f"team/served/test/{name}/{demo_digest(name, 2).replace(':', '-')}.json"
            until(lambda mark=mark: gcs.get(mark) is not None, 60, server.log)  # type: ignore[misc]
        assert server.terminate() == 0
        assert gcs.get(path) is None
    finally:
        server.close()
        gcs.stop()


def test_a_start_waits_for_its_manifest_and_fetches_again(tmp_path: Path) -> None:
    """Without an engine: it ends before, for want of a base model."""
    store = Store(tmp_path / "store")
    server = Server(tmp_path, store)
    server.document["baseModel"] = base_model() | {"source": f"file://{tmp_path}/nowhere"}
    server.start()
    until(lambda: "there is no file://" in server.state().get("detail", ""), 60, server.log)
    server.wait_for_trouble("unreachable", "manifest_unreachable")
    store.serve()
    assert server.exit_code() == 1
    assert "nowhere is not a folder" in server.state()["error"]["what"]


@pytest.mark.parametrize(
    ("content", "what", "reason"),
    [
        (b"{", "is not JSON", "manifest_invalid"),
        (json.dumps({"version": 1, "baseModel": OTHER_BASE, "adapters": []}).encode(), "but this", "base_differs"),
    ],
    ids=["malformed", "another base"],
)
def test_a_start_with_a_manifest_that_cannot_be_served(tmp_path: Path, content: bytes, what: str, reason: str) -> None:
    store = Store(tmp_path / "store")
    store.put("manifests/test.json", content)
    server = Server(tmp_path, store)
    server.start()
    assert server.exit_code() == 1
    state = server.state()
    assert state["phase"] == "failed"
    assert what in state["error"]["what"]
    assert (state["manifest"]["state"], state["manifest"]["error"]["reason"]) == ("refused", reason)
    assert (store.status() or {})["phase"] == "failed"


def test_the_start_time_ends_the_waiting(tmp_path: Path) -> None:
    server = Server(tmp_path, Store(tmp_path / "store"), startTimeoutS=2)
    server.start()
    assert server.exit_code() == 1
    assert "there is no file://" in server.state()["error"]["what"]
    assert "pulumi up" in server.state()["error"]["next"]


def test_sigterm_while_it_waits_for_a_manifest(tmp_path: Path) -> None:
    server = Server(tmp_path, Store(tmp_path / "store"))
    server.start()
    until(lambda: "there is no file://" in server.state().get("detail", ""), 60, server.log)
    assert server.terminate() == 0
    assert server.state()["phase"] == "stopped"
    assert server.store.status() is None
