"""Asking targets what they serve, over real sockets that are slow, broken, greedy or encrypted; the endpoint."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from handlers.router import asking, endpoint, metrics, status, watch
from handlers.router.asking import NoAnswerError, ask
from handlers.router.config import Access, Target
from handlers.router.errors import RouterError
from tests.support.ports import free_port
from tests.unit.test_router_render import parsed, router_file
from tests.unit.test_router_status import document

KEY = "sk-target-5ab0c9d1"
PATH = "/lorafleet/state"


def http(body: bytes, answer: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {answer}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


GOOD = http(json.dumps(document()).encode())


class Peer:
    """Answers each connection with `parts`, one after the other, `pause_s` apart; keeps what it was asked."""

    def __init__(self, *parts: bytes, pause_s: float = 0, tls: ssl.SSLContext | None = None) -> None:
        self.parts = parts
        self.pause_s = pause_s
        self.asked: list[str] = []
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def target(self, name: str = "server", scheme: str = "http") -> Target:
        value = router_file()
        value["targets"][0] |= {"name": name, "url": f"{scheme}://127.0.0.1:{self.port}"}
        return parsed(value).targets[0]

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self.asked.append(connection.recv(65536).decode("latin-1"))
            for part in self.parts:
                connection.sendall(part)
                time.sleep(self.pause_s)
            connection.close()


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    made: list[Peer] = []

    def make(*parts: bytes, pause_s: float = 0, tls: ssl.SSLContext | None = None) -> Peer:
        made.append(Peer(*parts, pause_s=pause_s, tls=tls))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_what_is_asked_and_read(peer: Callable[..., Peer]) -> None:
    server = peer(GOOD)
    found = ask(server.target(), PATH, Access(KEY))
    assert [adapter.name for adapter in found.adapters] == ["checklist", "easycontract"]
    [request] = server.asked
    assert request.startswith(f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n")
    assert f"\r\nAuthorization: Bearer {KEY}\r\n" in request
    ask(server.target(), PATH, Access())
    assert "Authorization" not in server.asked[1]


def test_chunked_answer_and_one_without_a_length(peer: Callable[..., Peer]) -> None:
    body = json.dumps(document()).encode()
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    for answer in (chunked, b"HTTP/1.0 200 OK\r\n\r\n" + body):
        assert len(ask(peer(answer).target(), PATH, Access()).adapters) == 2


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "no valid HTTP"),
        (b"garbage\r\n\r\n", "no valid HTTP"),
        (b"\x16\x03\x01" * 100_000, "no valid HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 500 + b"\r\n", "no valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nshort", "not JSON"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "no valid HTTP"),
        (http(b"{}", "401 Unauthorized"), "refuses the key"),
        (http(b"{}", "503 Busy"), "HTTP 503"),
        (http(b"", "302 Found", f"Location: http://127.0.0.1:{free_port()}/\r\n"), "HTTP 302"),
        (http(b"<html>"), "not JSON"),
        (http(b"{}"), 'no object under the key "status"'),
        (http(b" " * (asking.MOST_BYTES + 1)), "over 1024 KiB"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (2 * asking.MOST_BYTES), "over 1024 KiB"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_answers_are_told(peer: Callable[..., Peer], answer: bytes, told: str) -> None:
    with pytest.raises(NoAnswerError, match=re.escape(told)) as error:
        ask(peer(answer).target(), PATH, Access(KEY))
    assert KEY not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("parts", [[], [b"H"] * 600, [GOOD[:100], *[b" "] * 600]], ids=["silent", "head", "body"])
def test_a_target_that_drips_is_given_up_in_time(peer: Callable[..., Peer], parts: list[bytes]) -> None:
    server = peer(*(parts or [b""] * 600), pause_s=0.05)
    began = time.monotonic()
    with pytest.raises(NoAnswerError, match=r"no answer within 0\.5 s"):
        ask(server.target(), PATH, Access(KEY), timeout_s=0.5)
    # It drips for 30 s.
    assert time.monotonic() - began < 15


def test_nobody_listens(peer: Callable[..., Peer]) -> None:
    server = peer(GOOD)
    target = replace(server.target(), port=free_port())
    with pytest.raises(NoAnswerError, match=r"cannot be reached: Connection refused"):
        ask(target, PATH, Access(KEY))
    with pytest.raises(NoAnswerError, match="cannot be reached"):
        ask(replace(target, host="no-such-host.invalid"), PATH, Access(KEY))


def test_a_target_that_says_its_key_is_not_repeated(peer: Callable[..., Peer]) -> None:
    value = document()
    value["status"]["adapters"][1]["error"]["what"] = f"401 with Bearer {KEY}"
    found = ask(peer(http(json.dumps(value).encode())).target(), PATH, Access(KEY))
    fault = found.adapters[1].fault
    assert fault is not None and fault.message == "401 with Bearer [key]"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


def test_https_with_a_certificate_that_is_trusted_and_one_that_is_not(
    peer: Callable[..., Peer], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    target = peer(GOOD, tls=context).target(scheme="https")
    with pytest.raises(NoAnswerError, match="its certificate is refused: self-signed certificate"):
        ask(target, PATH, Access(KEY))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    asking._tls.cache_clear()
    try:
        assert len(ask(target, PATH, Access(KEY)).adapters) == 2
    finally:
        asking._tls.cache_clear()
    with pytest.raises(NoAnswerError):
        ask(peer(GOOD).target(scheme="https"), PATH, Access(KEY), timeout_s=2)


def wait_for(true: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[watch.Watch, list[str]]]:
    """A watch that asks often, and its log."""
    monkeypatch.setattr(watch, "INTERVAL_S", 0.05)
    monkeypatch.setattr(watch, "_SHORTEST_PAUSE_S", 0.05)
    said: list[str] = []
    made = watch.Watch(said.append)
    yield made, said
    made.stop()


def ups(made: watch.Watch) -> dict[str, bool]:
    return {one.target: one.up for one in made.seen()}


def test_a_slow_target_delays_no_other(watching: tuple[watch.Watch, list[str]], peer: Callable[..., Peer]) -> None:
    made, _ = watching
    slow, quick = peer(b"", pause_s=60), peer(GOOD)
    unasked = replace(peer(GOOD).target("asleep"), status_path=None)
    made.follow((slow.target("slow"), unasked, quick.target("quick")), {"quick": Access(KEY)})
    wait_for(lambda: len(quick.asked) >= 5)
    assert len(slow.asked) == 1
    assert ups(made) == {"quick": True}
    # It is asked again only when its time is over, and then said to be down.
    wait_for(lambda: ups(made) == {"slow": False, "quick": True})


def test_what_is_said_once_and_kept_when_a_target_falls_silent(
    watching: tuple[watch.Watch, list[str]], peer: Callable[..., Peer]
) -> None:
    made, said = watching
    server = peer(GOOD)
    made.follow((server.target(),), {"server": Access(KEY)})
    wait_for(lambda: ups(made) == {"server": True})
    [seen] = made.seen()
    assert seen.status is not None and seen.status.manifest.state == "refused"
    assert said == []
    server.parts = (http(b"[]"),)
    wait_for(lambda: ups(made) == {"server": False})
    asked = len(server.asked)
    wait_for(lambda: len(server.asked) > asked + 3)
    [seen] = made.seen()
    assert seen.status is not None and not seen.up and seen.age_s is not None and seen.age_s > 0
    server.parts = (GOOD,)
    wait_for(lambda: ups(made) == {"server": True})
    assert len(said) == 2
    assert "server" in said[0] and "status" in said[0] and "again" in said[1]
    assert not any(KEY in line for line in said)


def test_age_and_end_of_a_status() -> None:
    """The age grows while a server that hangs repeats its document; one that does not answer is soon forgotten."""
    value = document()
    first = status.read(json.dumps(value).encode())
    value["status"]["updatedAt"] = "2026-01-01T00:00:03.000Z"
    second = status.read(json.dumps(value).encode())

    def at(known: watch._Known, now: float) -> tuple[bool, float, bool]:
        last = known.last
        assert last is not None
        return known.up, now - last.renewed, last.is_too_old(now)

    known = watch._Known(False).after(first, 100)
    assert at(known, 101) == (True, 1, False)
    known = known.after(first, 102)
    assert at(known, 103) == (True, 3, False)
    known = known.after(second, 104)
    assert at(known, 104) == (True, 0, False)
    known = known.after(None, 106)
    # Its last answer came at 104.
    assert at(known, 115) == (False, 11, False)
    assert at(known, 116) == (False, 12, True)
    without_time = replace(first, updated_at="")
    assert at(known.after(without_time, 120).after(without_time, 122), 122) == (True, 0, False)
    assert watch._Known(False).after(None, 1) == watch._Known(False)


def test_other_targets_are_followed_and_unchanged_ones_keep_what_is_known(
    watching: tuple[watch.Watch, list[str]], peer: Callable[..., Peer]
) -> None:
    made, _ = watching
    stays, goes, comes = peer(GOOD), peer(GOOD), peer(GOOD)
    made.follow((stays.target("stays"), goes.target("moves")), {"stays": Access(KEY)})
    wait_for(lambda: ups(made) == {"stays": True, "moves": True})
    made.follow((replace(stays.target("stays"), max_queue=1), comes.target("moves")), {"stays": Access(KEY)})
    assert ups(made)["stays"] is True
    wait_for(lambda: len(comes.asked) >= 2)
    asked = len(goes.asked)
    comes_asked = len(comes.asked)
    wait_for(lambda: len(comes.asked) > comes_asked + 3)
    assert len(goes.asked) <= asked + 1
    made.follow((stays.target("stays"),), {"stays": Access("sk-another-key")})
    wait_for(lambda: "sk-another-key" in stays.asked[-1])
    assert list(ups(made)) in ([], ["stays"])
    behind = replace(stays.target("stays"), url=f"{stays.target().url}/v2/abc", prefix="/v2/abc")
    made.follow((behind,), {"stays": Access("sk-another-key")})
    wait_for(lambda: "GET /v2/abc/" in stays.asked[-1])


def test_endpoint_answers_on_a_socket_for_the_owner_alone(tmp_path: Path) -> None:
    run_dir = tmp_path / ("long-" * 25)
    run_dir.mkdir()
    texts = iter(["first 1\n", "half of a character: \ud800\n"])
    made = endpoint.Endpoint(run_dir, lambda: next(texts))
    try:
        made.start()
        path = run_dir / "fleet.sock"
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(RouterError, match="cannot be made"):
            endpoint.Endpoint(run_dir, lambda: "")
        # By a short way, as HAProxy does it from within the folder.
        short = tmp_path / "short"
        short.symlink_to(run_dir)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(short / "fleet.sock"))) as client:
            answer = client.get("http://router/metrics/fleet")
            assert (answer.status_code, answer.text) == (200, "first 1\n")
            assert answer.headers["content-type"] == metrics.CONTENT_TYPE
            assert client.get("http://router/").text == "half of a character: ?\n"
    finally:
        made.shutdown()
        made.server_close()
