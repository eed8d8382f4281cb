"""Targets as platforms have them: headers of their own, a path before /v1, and no health that may be asked."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
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


def test_a_full_target_is_full_for_all_models_together(tmp_path: Path, upstreams: dict[str, UpstreamProcess]) -> None:
    """Or each adapter's requests would wait for the first target, and none would reach the next one."""
    models = [BASE, "easycontract", "checklist"]
    router = RouterProcess(tmp_path, upstreams, {model: ["steady", "burst"] for model in models})
    router.file["targets"][0] |= {"maxInFlight": 3, "maxQueue": 8}
    router.file["targets"][1] |= {"healthPath": None, "statusPath": None}
    router.start()
    clients = [httpx.Client(headers=router.headers(), timeout=30) for _ in range(9)]

    def ask(number: int, wait_s: float) -> str:
        body = router.chat(models[number % 3], wait_s=wait_s)
        answer = clients[number].post(f"{router.url}/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        return answer.headers["x-lorafleet-target"]

    try:
        # The connections that they keep open and do not use take nobody's place.
        assert {ask(number, 0) for number in range(9)} == {"steady"}
        with ThreadPoolExecutor(9) as pool:
            begun = [pool.submit(ask, number, 3) for number in range(3)]
            wait_for(lambda: upstreams["steady"].seen()["in_flight"] == 3, "the first target to be full")
            found = list(pool.map(lambda number: ask(number, 0), range(3, 9)))
            assert [one.result() for one in begun] == ["steady"] * 3
        assert found == ["burst"] * 6
    finally:
        for client in clients:
            client.close()
        router.stop()


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


def test_a_refusal_goes_on_to_a_third_target_when_the_first_is_full(
    tmp_path: Path, upstreams: dict[str, UpstreamProcess]
) -> None:
    """And not back to the first one."""
    upstreams["spill"] = UpstreamProcess("spill")
    router = RouterProcess(tmp_path, upstreams, {BASE: ["steady", "burst", "spill"]})
    steady, *others = router.file["targets"]
    steady |= {"maxInFlight": 1, "maxQueue": 0}
    for other in others:
        other |= {"healthPath": None, "statusPath": None}
    router.start()
    try:
        upstreams["burst"].kill()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(served_by, router, 1, 3)
            wait_for(lambda: upstreams["steady"].seen()["in_flight"] == 1, "the first target to be full")
            assert [served_by(router, 1) for _ in range(3)] == [{"spill": 1}] * 3
            assert first.result() == {"steady": 1}
    finally:
        router.stop()


def test_one_that_does_not_take_the_routers_key_passes_its_requests_on(
    router: RouterProcess, upstreams: dict[str, UpstreamProcess]
) -> None:
    router.keys["burst"] = "sk-revoked"
    router.file["targets"][0] |= {"maxInFlight": 2, "maxQueue": 8}
    router.reload()
    assert served_by(router, 6, wait_s=0.2) == {"steady": 6}
    # With nobody left it is no 401: the client's own key is right.
    upstreams["steady"].set_ready(False)
    wait_for(lambda: router.post(router.chat()).status_code == 503, "the steady target to be left out")
    answer = router.post(router.chat())
    assert answer.json()["error"]["code"] == "target_refuses_router" and "burst" in answer.text
    assert "bad key" not in answer.text, "nothing of what the platform says"


def test_its_secrets_are_in_no_configuration_and_no_log(router: RouterProcess) -> None:
    served_by(router, 6, wait_s=0.3)
    files = [path for path in (router.folder / "run").rglob("*") if path.is_file() and path.name.endswith(".cfg")]
    assert files
    for text in [*(path.read_text() for path in files), router.log_path.read_text(), router.notices_path.read_text()]:
        assert "wk-1" not in text and "ws-1" not in text


class Metadata(ThreadingHTTPServer):
    """Google's metadata server, as far as it gives out tokens."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), MetadataHandler)
        self.token: str | None = "ya29.first"
        self.lives_s = 3599.0
        threading.Thread(target=self.serve_forever, daemon=True).start()


class MetadataHandler(BaseHTTPRequestHandler):
    server: Metadata

    def do_GET(self) -> None:
        right = self.headers["Metadata-Flavor"] == "Google" and self.path.endswith("/default/token")
        if self.server.token is None or not right:
            self.send_error(503)
            return
        document = {"access_token": self.server.token, "expires_in": self.server.lives_s, "token_type": "Bearer"}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    with Metadata() as made:
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{made.server_port}")
        monkeypatch.setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")  # without a gcloud of this machine's
        yield made
        made.shutdown()


def vertex(tmp_path: Path, upstreams: dict[str, UpstreamProcess]) -> RouterProcess:
    """A router in front of one target that has paths of its own and asks for a token of Google."""
    made = RouterProcess(tmp_path, {"burst": upstreams["burst"]}, {BASE: ["burst"]})
    place = "/v1/projects/p/locations/r/endpoints/5"
    made.file["targets"][0] |= {"healthPath": None, "statusPath": None, "token": "google"}
    made.file["targets"][0]["paths"] = {"whole": f"{place}:rawPredict", "stream": f"{place}:streamRawPredict"}
    made.keys = {}
    return made


def test_tokens_and_paths_of_vertex_ai(
    tmp_path: Path, metadata: Metadata, upstreams: dict[str, UpstreamProcess]
) -> None:
    upstreams["burst"].kill()
    upstreams["burst"] = UpstreamProcess("burst", key="ya29.first")
    router = vertex(tmp_path, upstreams)
    router.start()
    try:
        assert router.post(router.chat()).status_code == 200
        assert upstreams["burst"].seen()["path"].endswith("/endpoints/5:rawPredict")
        stream = router.post(router.chat() | {"stream": True})
        assert stream.status_code == 200 and stream.text.rstrip().endswith("data: [DONE]")
        assert upstreams["burst"].seen()["path"].endswith("/endpoints/5:streamRawPredict")
        assert router.post(router.chat() | {"stream": False}).status_code == 200
        assert upstreams["burst"].seen()["path"].endswith(":rawPredict")
        for text in (router.log_path.read_text(), router.notices_path.read_text()):
            assert "ya29" not in text
    finally:
        router.stop()


def test_a_new_token_reaches_the_running_worker_and_a_reload_keeps_it(
    tmp_path: Path, metadata: Metadata, upstreams: dict[str, UpstreamProcess]
) -> None:
    upstreams["burst"].kill()
    upstreams["burst"] = UpstreamProcess("burst", key="ya29.second")
    metadata.token = None
    router = vertex(tmp_path, upstreams)
    router.start()
    try:
        began = time.monotonic()
        answer = router.post(router.chat())
        # Nobody is asked with a token that does not exist; the client learns it at once.
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "no_target_up"
        assert upstreams["burst"].seen()["requests"] == 0 and time.monotonic() - began < 5
        assert "no access token of Google" in router.notices_path.read_text()
        metadata.token = "ya29.second"
        wait_for(lambda: router.post(router.chat()).status_code == 200, "the token")
        router.reload()
        assert router.post(router.chat()).status_code == 200
    finally:
        router.stop()
