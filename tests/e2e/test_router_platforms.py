"""Targets as platforms have them: headers of their own, a path before /v1, and no health that may be asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.router_kit import BASE, RouterProcess, UpstreamProcess, wait_for


@pytest.fixture
def upstreams() -> Iterator[dict[str, UpstreamProcess]]:
    made = {name: UpstreamProcess(name) for name in ("steady", "burst")}
    yield made
    for one in made.values():
        one.kill()


@pytest.fixture
def router(tmp_path: Path, upstreams: dict[str, UpstreamProcess]) -> Iterator[RouterProcess]:
    made = RouterProcess(tmp_path, upstreams, {BASE: ["steady", "burst"]})
    steady, burst = made.file["targets"]
    steady |= {"maxInFlight": 2, "maxQueue": 0}
    burst |= {"url": f"{burst['url']}/v2/abc/openai", "healthPath": None, "statusPath": None}
    made.keys["burst"] = {"key": upstreams["burst"].key, "headers": {"Modal-Key": "wk-1", "Modal-Secret": "ws-1"}}
    made.start()
    yield made
    made.stop()


def served_by(router: RouterProcess, count: int, wait_s: float = 0) -> Counter[str]:
    body = router.chat(wait_s=wait_s)
    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda _: router.post(body), range(count)))
    assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
    return Counter(answer.headers["x-lorafleet-target"] for answer in answers)


def test_a_sleeping_target_is_left_alone_until_it_is_needed(
    router: RouterProcess, upstreams: dict[str, UpstreamProcess]
) -> None:
    for _ in range(20):
        assert served_by(router, 1) == {"steady": 1}
    assert upstreams["burst"].seen()["requests"] == 0
    found = served_by(router, 8, wait_s=1.0)
    assert found["steady"] == 2 and found["burst"] == 6
    # What its platform asks for came with it, at its own path.
    headers = upstreams["burst"].seen()["headers"]
    assert headers["modal-key"] == "wk-1" and headers["modal-secret"] == "ws-1"
    assert upstreams["burst"].seen()["path"] == "/v2/abc/openai/v1/chat/completions"
    assert "modal-key" not in upstreams["steady"].seen()["headers"]


def test_when_all_are_full_the_client_is_told_to_come_again(router: RouterProcess) -> None:
    router.file["targets"][1] |= {"maxInFlight": 1, "maxQueue": 0}
    router.file["limits"]["queueTimeoutS"] = 2
    router.reload()
    body = router.chat(wait_s=4)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: router.post(body), range(8)))
    found = Counter(answer.status_code for answer in answers)
    assert found == {200: 3, 429: 5}, [answer.text for answer in answers]
    for answer in answers:
        if answer.status_code == 429:
            assert answer.headers["retry-after"] and answer.json()["error"]["code"] == "overloaded"


def test_it_takes_over_when_the_others_are_down(router: RouterProcess, upstreams: dict[str, UpstreamProcess]) -> None:
    upstreams["steady"].set_ready(False)
    wait_for(lambda: served_by(router, 1) == {"burst": 1}, "the steady target to be left out")
    upstreams["steady"].kill()
    assert served_by(router, 4) == {"burst": 4}


def test_one_that_refuses_connections_passes_its_requests_on(
    router: RouterProcess, upstreams: dict[str, UpstreamProcess]
) -> None:
    upstreams["burst"].kill()
    assert served_by(router, 2, wait_s=0.2) == {"steady": 2}
    # With nobody left the client is told so, and soon.
    upstreams["steady"].set_ready(False)
    wait_for(lambda: router.post(router.chat()).status_code == 503, "all targets to be out")


def test_its_secrets_are_in_no_configuration_and_no_log(router: RouterProcess) -> None:
    served_by(router, 6, wait_s=0.3)
    files = [path for path in (router.folder / "run").rglob("*") if path.is_file() and path.name.endswith(".cfg")]
    assert files
    for text in [*(path.read_text() for path in files), router.log_path.read_text(), router.notices_path.read_text()]:
        assert "wk-1" not in text and "ws-1" not in text
