"""What the router, with real HAProxy, tells of its targets' adapters, and what it hands on to targets of a canary."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.router_kit import BASE, CLIENT_KEY, RouterProcess, UpstreamProcess, status_document, wait_for

KEYS = {"left": "sk-target-left-19c2", "right": "sk-target-right-7d40"}
WANTED = "sha256:" + "c" * 64
FAILED = {"what": 'easycontract: "q_proj"\nis cut short', "next": "-", "reason": "adapter_invalid", "retrying": False}


@pytest.fixture(scope="module")
def upstreams() -> Iterator[dict[str, UpstreamProcess]]:
    made = {name: UpstreamProcess(name, key) for name, key in KEYS.items()}
    yield made
    for upstream in made.values():
        upstream.kill()


@pytest.fixture(autouse=True)
def all_well(upstreams: dict[str, UpstreamProcess]) -> None:
    for upstream in upstreams.values():
        upstream.set_status(status_document())


def new_router(folder: Path, upstreams: dict[str, UpstreamProcess]) -> RouterProcess:
    made = RouterProcess(folder, upstreams, {BASE: list(upstreams), "easycontract": list(upstreams)})
    made.start()
    return made


@pytest.fixture(scope="module")
def router(upstreams: dict[str, UpstreamProcess], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterProcess]:
    made = new_router(tmp_path_factory.mktemp("router"), upstreams)
    yield made
    made.stop()


def wait_for_up(router: RouterProcess, **wanted: int) -> None:
    def up() -> bool:
        samples = router.fleet_samples()
        return all(samples.get(f'lorafleet_target_up{{target="{name}"}}') == value for name, value in wanted.items())

    wait_for(up, f"targets that are {wanted}", 30)


def samples_of(router: RouterProcess, target: str) -> dict[str, float]:
    """Without the age, which always changes."""
    return {
        sample: value
        for sample, value in router.fleet_samples().items()
        if f'target="{target}"' in sample and not sample.startswith("lorafleet_target_status_age")
    }


def test_both_kinds_of_metrics_have_one_address(router: RouterProcess, upstreams: dict[str, UpstreamProcess]) -> None:
    wait_for_up(router, left=1, right=1)
    answer = router.fleet()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    served = status_document()["status"]["adapters"][0]
    labels = f'target="left",adapter="easycontract",digest="{served["digest"]}",wanted="{served["digest"]}"'
    samples = router.fleet_samples()
    assert samples[f'lorafleet_adapter_info{{{labels},state="serving"}}'] == 1
    assert samples['lorafleet_adapter_healthy{target="right",adapter="easycontract"}'] == 1
    since = samples['lorafleet_adapter_state_since_seconds{target="left",adapter="easycontract"}']
    assert since == 1767225600.5
    in_flight = f'lorafleet_requests_in_flight{{target="left",served_name="{served["servedName"]}"}}'
    assert samples[in_flight] == 3
    assert 0 <= samples['lorafleet_target_status_age_seconds{target="left"}'] < 300
    assert "haproxy_backend_http_requests_total" in router.metrics()
    base = f"http://127.0.0.1:{router.metrics_port}"
    assert [httpx.get(base + path).status_code for path in ("/", "/metrics/", "/metrics/fleet/x")] == [404] * 3
    assert httpx.post(f"{base}/metrics/fleet").status_code == 405
    assert httpx.head(f"{base}/metrics/fleet").headers["content-length"] != "0"
    assert httpx.get(f"{router.url}/metrics/fleet", headers=router.headers()).status_code == 404


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_text(router: RouterProcess, upstreams: dict[str, UpstreamProcess]) -> None:
    upstreams["left"].set_status(status_document(state="failed", wanted=WANTED, error=FAILED))
    wait_for(lambda: "adapter_invalid" in router.fleet().text, "the fault", 30)
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=router.fleet().text, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_an_adapter_that_fails_is_told_with_its_reason(
    router: RouterProcess, upstreams: dict[str, UpstreamProcess]
) -> None:
    healthy = 'lorafleet_adapter_healthy{target="left",adapter="easycontract"}'
    wait_for(lambda: router.fleet_samples().get(healthy) == 1, "a good start", 30)
    document = status_document(state="failed", wanted=WANTED, error=FAILED)
    document["status"]["manifest"] |= {"digest": "cd" * 32, "state": "refused", "error": FAILED}
    upstreams["left"].set_status(document)
    wait_for(lambda: router.fleet_samples()[healthy] == 0, "the fault", 30)
    told = 'reason="adapter_invalid",message="easycontract: \\"q_proj\\" is cut short"'
    samples = router.fleet_samples()
    assert samples[f'lorafleet_adapter_error_info{{target="left",adapter="easycontract",{told}}}'] == 1
    assert samples[f'lorafleet_manifest_error_info{{target="left",{told}}}'] == 1
    manifest = f'target="left",digest="{"ab" * 32}",wanted="{"cd" * 32}",state="refused"'
    assert samples[f"lorafleet_target_manifest_info{{{manifest}}}"] == 1
    assert samples['lorafleet_adapter_healthy{target="right",adapter="easycontract"}'] == 1
    upstreams["left"].set_status(status_document(canary={"servedName": "x", "digest": WANTED, "weight": 25}))
    wait_for(lambda: router.fleet_samples()[healthy] == 1, "the end of the fault", 30)
    samples = router.fleet_samples()
    assert not any("error_info" in sample for sample in samples)
    weight = f'lorafleet_adapter_canary_weight{{target="left",adapter="easycontract",digest="{WANTED}"}}'
    assert samples[weight] == 25


@pytest.mark.parametrize(
    ("content", "wait_s", "told"),
    [
        (b"{", 0, "is not JSON"),
        (b'{"status": 5}', 0, "no object under the key"),
        (b"[" * 500_000, 0, "is not JSON"),
        (b" " * 2_000_000, 0, "over 1024 KiB"),
        (status_document(), 60, "no answer within 3 s"),
    ],
    ids=["garbage", "wrong", "deep", "huge", "slow"],
)
def test_a_target_that_says_nonsense_or_nothing_harms_no_other(
    router: RouterProcess,
    upstreams: dict[str, UpstreamProcess],
    content: bytes | dict[str, Any],
    wait_s: float,
    told: str,
) -> None:
    wait_for_up(router, left=1, right=1)
    said_before = len(router.notices_path.read_text())
    upstreams["left"].set_status(content, wait_s)
    wait_for_up(router, left=0, right=1)
    # What it said last is shown for a while yet.
    assert 'lorafleet_adapter_healthy{target="left",adapter="easycontract"}' in samples_of(router, "left")
    notices = router.notices_path.read_text()[said_before:]
    assert "target left does not say at /lorafleet/state what it serves: " in notices and told in notices
    assert "Traceback" not in notices and "sk-" not in notices
    began = time.monotonic()
    assert router.fleet().status_code == 200
    assert time.monotonic() - began < 2.5
    assert router.post(router.chat("easycontract")).status_code == 200
    upstreams["left"].set_status(status_document())
    wait_for_up(router, left=1, right=1)


def test_a_dead_target_is_down_and_soon_forgotten(router: RouterProcess, upstreams: dict[str, UpstreamProcess]) -> None:
    wait_for_up(router, left=1, right=1)
    upstreams["left"].kill()
    try:
        wait_for_up(router, left=0, right=1)
        wait_for(lambda: samples_of(router, "left") == {'lorafleet_target_up{target="left"}': 0}, "forgetting", 40)
        assert router.fleet_samples()['lorafleet_target_status_age_seconds{target="left"}'] > 10
    finally:
        upstreams["left"].start()
    wait_for_up(router, left=1, right=1)


def test_a_reload_takes_over_changed_targets(upstreams: dict[str, UpstreamProcess], tmp_path: Path) -> None:
    router = new_router(tmp_path, upstreams)
    try:
        wait_for_up(router, left=1, right=1)
        left, right = router.file["targets"]
        router.file["targets"] = [left | {"statusPath": None}, right, right | {"name": "third", "url": left["url"]}]
        router.keys["third"] = router.keys["left"]
        assert router.reload()["error"] is None
        wait_for_up(router, right=1, third=1)
        assert samples_of(router, "left") == {}
        router.keys["right"] = "sk-not-its-key"
        assert router.reload()["error"] is None
        wait_for_up(router, right=0, third=1)
        assert "refuses the key" in router.notices_path.read_text()
        router.file["targets"].pop()
        del router.keys["third"]
        router.keys["right"] = KEYS["right"]
        assert router.reload()["error"] is None
        wait_for_up(router, right=1)
        assert samples_of(router, "third") == {}
    finally:
        router.stop()


def test_no_key_is_told(router: RouterProcess, upstreams: dict[str, UpstreamProcess]) -> None:
    said = {**FAILED, "what": f"Bearer {KEYS['left']} was refused"}
    upstreams["left"].set_status(status_document(error=said))
    wait_for(lambda: "Bearer [key] was refused" in router.fleet().text, "the fault", 30)
    everything = router.fleet().text + router.notices_path.read_text() + router.log_path.read_text()
    assert not any(key in everything for key in (*KEYS.values(), CLIENT_KEY))


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        (None, None),
        ("user-42", "user-42"),
        ("a \"b'c %[src] \\", "a \"b'c %[src] \\"),
        ("x" * 128, "x" * 128),
        ("x" * 129, None),
        ("", None),
        ("tab\there", None),
        ("한글", None),
    ],
    ids=str,
)
def test_only_the_session_passes(
    router: RouterProcess, upstreams: dict[str, UpstreamProcess], sent: str | None, arrives: str | None
) -> None:
    others = ("Target", "Adapter", "Reason", "Session-Id", "Sessio")
    headers = [(b"Authorization", f"Bearer {CLIENT_KEY}".encode())]
    headers += [(f"X-Lorafleet-{name}".encode(), b"x") for name in others]
    if sent is not None:
        headers.append((b"X-Lorafleet-Session", sent.encode()))
    answer = httpx.post(f"{router.url}/v1/chat/completions", json=router.chat("easycontract"), headers=headers)
    assert answer.status_code == 200
    seen = upstreams[answer.headers["x-lorafleet-target"]].seen()["headers"]
    ours = {name: value for name, value in seen.items() if name.startswith("x-lorafleet-")}
    assert ours == ({} if arrives is None else {"x-lorafleet-session": arrives})


def test_the_session_goes_with_a_request_that_another_target_takes(tmp_path: Path) -> None:
    both = {name: UpstreamProcess(name) for name in ("left", "right")}
    router = new_router(tmp_path, both)
    url, headers = f"{router.url}/v1/chat/completions", router.headers() | {"x-lorafleet-session": "user-42"}
    is_up = {"proxy": "target_left", "state": "UP"}
    try:
        # A health check may find out first that it died; then no request is sent twice, and the next round tells.
        for _ in range(10):
            wait_for(lambda: router.metric("haproxy_server_status", **is_up) == 1, "the target's return", 30)
            both["left"].kill()
            answers = [httpx.post(url, json=router.chat(), headers=headers, timeout=30) for _ in range(2)]
            assert [answer.headers["x-lorafleet-target"] for answer in answers] == ["right", "right"]
            assert both["right"].seen()["headers"]["x-lorafleet-session"] == "user-42"
            both["left"].start()
            if any(int(line["retries"]) > 0 for line in router.log_lines()):
                break
        else:
            pytest.fail("no request went to another target")
    finally:
        router.stop()
        for upstream in both.values():
            upstream.kill()
