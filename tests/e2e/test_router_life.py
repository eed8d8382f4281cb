"""The router's life with real HAProxy: reloads under load, refused files, ends of every kind, what is left."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.router_kit import BASE, CLIENT_KEY, RouterProcess, UpstreamProcess, alive, free_ports, wait_for


@pytest.fixture(scope="module")
def upstream() -> Iterator[UpstreamProcess]:
    made = UpstreamProcess("server", "sk-target-77aa")
    yield made
    made.kill()


@pytest.fixture
def router(upstream: UpstreamProcess, tmp_path: Path) -> Iterator[RouterProcess]:
    made = RouterProcess(tmp_path, {"server": upstream}, {BASE: ["server"], "easycontract": ["server"]})
    yield made
    made.stop()


def supervisor(router: RouterProcess) -> subprocess.Popen[bytes]:
    assert router.process is not None
    return router.process


def test_ten_reloads_under_load_lose_nothing(router: RouterProcess) -> None:
    router.start()
    statuses: Counter[str] = Counter()
    slowest_s = 0.0
    reloads_s: list[float] = []

    async def load() -> None:
        nonlocal slowest_s
        over = asyncio.Event()

        async def client(index: int) -> None:
            nonlocal slowest_s
            # Half of them keep their connection, half come anew each time; no retries.
            limits = httpx.Limits(max_keepalive_connections=index % 2)
            async with httpx.AsyncClient(headers=router.headers(), timeout=20, limits=limits) as http:
                while not over.is_set():
                    started = time.monotonic()
                    body = router.chat(wait_s=0.02, chunks=3, gap_s=0.02) | {"stream": index % 4 == 0}
                    try:
                        answer = await http.post(f"{router.url}/v1/chat/completions", json=body)
                        whole = not body["stream"] or "[DONE]" in answer.text
                        statuses[f"{answer.status_code}{'' if whole else ' cut'}"] += 1
                    except httpx.HTTPError as error:
                        statuses[repr(error)] += 1
                    slowest_s = max(slowest_s, time.monotonic() - started)
                    await asyncio.sleep(0.03)

        clients = [asyncio.create_task(client(index)) for index in range(16)]
        for number in range(10):
            await asyncio.sleep(0.2)
            router.file["limits"]["maxTokens"] = 1000 + number
            started = time.monotonic()
            state = await asyncio.to_thread(router.reload)
            reloads_s.append(time.monotonic() - started)
            assert (state["phase"], state["error"]) == ("ready", None)
            assert state["configDigest"] == hashlib.sha256(router.path.read_bytes()).hexdigest()
        over.set()
        await asyncio.gather(*clients)

    asyncio.run(load())
    print(f"{sum(statuses.values())} requests, slowest {slowest_s:.3f} s, reloads {sorted(reloads_s)[5]:.3f} s")
    assert set(statuses) == {"200"}, statuses
    assert sum(statuses.values()) > 300
    pid = router.state()["haproxyPid"]
    assert pid is not None and alive(pid)
    assert router.post(router.chat() | {"max_tokens": 1010}).status_code == 400


def test_reload_changes_models_and_both_kinds_of_keys(router: RouterProcess, upstream: UpstreamProcess) -> None:
    router.start()
    router.file["models"].append({"name": "checklist"})
    router.file["targets"][0]["models"].append("checklist")
    router.file["clientKeysSha256"].append(hashlib.sha256(b"sk-second").hexdigest())
    router.reload()
    assert router.post(router.chat("checklist")).status_code == 200
    both = [httpx.get(f"{router.url}/v1/models", headers=router.headers(key)) for key in (CLIENT_KEY, "sk-second")]
    assert [answer.status_code for answer in both] == [200, 200]
    router.file["clientKeysSha256"].pop(0)
    router.keys["server"] = "sk-not-the-targets"
    router.reload()
    assert router.post(router.chat()).status_code == 401
    refused = httpx.post(f"{router.url}/v1/chat/completions", json=router.chat(), headers=router.headers("sk-second"))
    assert refused.status_code == 503 and refused.json()["error"]["code"] == "target_refuses_router"
    router.keys["server"] = upstream.key
    state = router.reload()
    assert state["error"] is None
    accepted = httpx.post(f"{router.url}/v1/chat/completions", json=router.chat(), headers=router.headers("sk-second"))
    assert accepted.status_code == 200


def test_reload_to_a_target_that_moved(router: RouterProcess, upstream: UpstreamProcess) -> None:
    """What HAProxy remembers over a reload holds addresses too; the new one must win."""
    router.start()
    elsewhere = UpstreamProcess("elsewhere", upstream.key)
    try:
        assert "elsewhere" not in router.post(router.chat()).text
        router.file["targets"][0]["url"] = elsewhere.url
        assert router.reload()["error"] is None
        answer = router.post(router.chat())
        assert answer.status_code == 200
        assert "elsewhere" in answer.text
    finally:
        elsewhere.kill()


def test_a_refused_file_leaves_the_former_one_serving(router: RouterProcess, tmp_path: Path) -> None:
    router.start()
    good = router.state()["configDigest"]
    before = dict(router.file)

    def refused(expected: str) -> None:
        state = router.reload()
        assert (state["phase"], state["configDigest"]) == ("ready", good)
        assert expected in state["error"]["what"] and state["error"]["next"]
        assert router.post(router.chat()).status_code == 200
        assert len(list((tmp_path / "run").glob("gen-*"))) == 1
        router.file = dict(before)

    router.file["baseModel"] = "exaone-3.5"
    refused('did you mean "exaone-3.5-2.4b"?')
    router.file["runDir"] = str(tmp_path / "elsewhere")
    refused("runDir changed")
    router.keys["serve"] = "sk-x"
    refused('did you mean "server"?')
    del router.keys["serve"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        router.file["listen"] = {"host": "127.0.0.1", "port": taken.getsockname()[1]}
        refused(f"listen.port {taken.getsockname()[1]} is taken")
    # HAProxy's check passes, its start does not: something that is not a socket stands where one must be.
    (tmp_path / "run" / "target_new.sock").mkdir()
    router.file["targets"] = [*router.file["targets"], router.file["targets"][0] | {"name": "new"}]
    refused("HAProxy did not take the new configuration")
    (tmp_path / "run" / "target_new.sock").rmdir()
    assert router.reload()["error"] is None
    router.path.write_text("{")
    supervisor(router).send_signal(signal.SIGHUP)
    wait_for(lambda: router.state()["error"], "the refusal")
    assert "is not JSON" in router.state()["error"]["what"]
    assert router.post(router.chat()).status_code == 200


def test_reload_to_another_port(router: RouterProcess) -> None:
    router.start()
    [port] = free_ports(1)
    router.file["listen"] = {"host": "127.0.0.1", "port": port}
    assert router.reload()["error"] is None
    assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    wait_for(lambda: refuses(router.port), "the end of the former port")


def ask_and_lose(router: RouterProcess) -> None:
    """A request that takes 20 s and must end sooner, without an answer."""
    with pytest.raises(httpx.HTTPError):
        router.post(router.chat(wait_s=20))


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("reloads", [0, 2])
def test_killed_supervisor_leaves_no_process_and_a_new_one_starts(router: RouterProcess, reloads: int) -> None:
    router.start()
    for _ in range(reloads):
        router.reload()
    processes = router.processes()
    assert len(processes) >= 2
    supervisor(router).kill()
    supervisor(router).wait()
    wait_for(lambda: not any(alive(pid) for pid in processes), "the end of HAProxy", 5)
    assert refuses(router.port) and refuses(router.metrics_port)
    router.state_path.unlink()
    router.start()
    assert router.post(router.chat()).status_code == 200


def test_supervisor_killed_under_load_and_during_a_reload(router: RouterProcess) -> None:
    router.start()
    hung = threading.Thread(target=ask_and_lose, args=(router,))
    hung.start()
    time.sleep(0.3)
    processes = set(router.processes())
    supervisor(router).send_signal(signal.SIGHUP)
    time.sleep(0.1)
    processes |= set(router.processes())
    supervisor(router).kill()
    supervisor(router).wait()
    wait_for(lambda: not any(alive(pid) for pid in processes), "the end of HAProxy", 5)
    wait_for(lambda: refuses(router.port), "the end of the port", 5)
    hung.join()


@pytest.mark.parametrize("which", ["master", "worker"])
def test_killed_haproxy_is_told_and_leaves_nothing(router: RouterProcess, which: str) -> None:
    router.start()
    processes = router.processes()
    os.kill(processes[0] if which == "master" else processes[-1], signal.SIGKILL)
    assert supervisor(router).wait(15) == 1
    state = router.state()
    assert (state["phase"], state["haproxyPid"]) == ("failed", None)
    assert "HAProxy ended by itself" in state["error"]["what"]
    wait_for(lambda: not any(alive(pid) for pid in processes), "the end of HAProxy", 5)
    assert "Traceback" not in router.notices_path.read_text()


def test_sigterm_lets_requests_in_flight_finish(router: RouterProcess) -> None:
    router.start()
    with httpx.Client(headers=router.headers(), timeout=20) as idle:
        assert idle.get(f"{router.url}/v1/models").status_code == 200
        answers: list[httpx.Response] = []
        flight = threading.Thread(target=lambda: answers.append(router.post(router.chat(wait_s=2))))
        flight.start()
        time.sleep(0.5)
        started = time.monotonic()
        supervisor(router).send_signal(signal.SIGTERM)
        wait_for(lambda: refuses(router.port), "the closing of the port", 2)
        assert router.state()["phase"] == "draining"
        # The idle connection of another client does not hold it up.
        assert supervisor(router).wait(10) == 0
        assert time.monotonic() - started < 4
        flight.join()
    assert answers[0].status_code == 200
    assert (router.state()["phase"], router.state()["haproxyPid"]) == ("stopped", None)
    assert router.state()["error"] is None


def test_second_sigterm_stops_at_once(router: RouterProcess) -> None:
    router.start()
    flight = threading.Thread(target=ask_and_lose, args=(router,))
    flight.start()
    time.sleep(0.3)
    supervisor(router).send_signal(signal.SIGTERM)
    wait_for(lambda: router.state()["phase"] == "draining", "the drain")
    supervisor(router).send_signal(signal.SIGTERM)
    assert supervisor(router).wait(5) == 0
    flight.join()


def test_taken_port_is_named(router: RouterProcess) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", router.metrics_port))
        taken.listen()
        assert router.launch().wait(15) == 1
    state = router.state()
    assert state["phase"] == "failed"
    assert f"metrics.port {router.metrics_port} is taken" in state["error"]["what"]
    assert refuses(router.port)


def test_second_router_in_the_same_folder_is_refused(router: RouterProcess, tmp_path: Path) -> None:
    router.start()
    second = RouterProcess(tmp_path, {}, {})
    second.file = router.file | {"stateFile": str(tmp_path / "second.json")}
    second.path = tmp_path / "second-router.json"
    second.keys = router.keys
    second.state_path = tmp_path / "second.json"
    assert second.launch().wait(15) == 1
    assert f"another router (pid {supervisor(router).pid})" in second.state()["error"]["what"]
    # With the same state file it says so too, and leaves that of the one that runs.
    before = router.state_path.read_bytes()
    second.file = router.file
    assert second.launch().wait(15) == 1
    assert router.state_path.read_bytes() == before
    assert router.post(router.chat()).status_code == 200


@pytest.mark.parametrize(
    ("content", "expected"),
    [("{", "is not JSON"), ('{"version": 1, "stateFile": "STATE"}', "listen is missing")],
)
def test_bad_file_at_start_is_told_once(router: RouterProcess, content: str, expected: str) -> None:
    router.write()
    process = subprocess.run(
        [sys.executable, "-m", "handlers.router", "--config", "/dev/stdin"],
        input=content.replace("STATE", str(router.state_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert expected in process.stderr and "Traceback" not in process.stderr
    if "STATE" in content:
        assert router.state()["phase"] == "failed" and expected in router.state()["error"]["what"]


def test_keys_are_nowhere_and_files_are_for_the_owner_only(router: RouterProcess, upstream: UpstreamProcess) -> None:
    # A path longer than a socket's may be.
    router.file["runDir"] = str(router.folder / ("long-" * 25) / "run")
    router.start()
    assert router.post(router.chat()).status_code == 200
    assert router.post(router.chat("none")).status_code == 404
    run_dir = Path(router.file["runDir"])
    files = [path for path in run_dir.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
    with_target_key = []
    for path in [*files, router.log_path, router.notices_path, router.state_path]:
        content = path.read_bytes()
        assert CLIENT_KEY.encode() not in content, path
        if upstream.key.encode() in content:
            with_target_key.append(path.name)
    assert with_target_key == ["target-keys.map"]
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    for pid in [supervisor(router).pid, *router.processes()]:
        shown = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert CLIENT_KEY.encode() not in shown and upstream.key.encode() not in shown
