"""Vertex AI's client over real sockets: whose quota counts, and what TLS says of whether a request was sent."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from providers import kit
from providers.vertex import api, credentials, http
from providers.vertex.http import OutcomeUnknownError

PARENT = "projects/p-tests/locations/europe-west4"
TOKEN = "ya29.a-secret-token-of-the-tests"


class Peer(ThreadingHTTPServer):
    """Answers every request with `answer`, or, where `broken`, with what is no TLS. asked: (path, headers)."""

    daemon_threads = True

    def __init__(self, answer: dict[str, object], *, tls: ssl.SSLContext | None = None, broken: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answer, self.tls, self.broken = json.dumps(answer).encode(), tls, broken
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        return None  # a client that does not trust the certificate hangs up


class _Handler(BaseHTTPRequestHandler):
    server: Peer

    def setup(self) -> None:
        self.plain = self.request.dup()
        if self.server.tls is not None:
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        super().finish()
        self.plain.close()

    def log_message(self, *_: object) -> None:
        return None

    def _handle(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.asked.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
        if self.server.broken:
            self.plain.sendall(b"this is no record of TLS")
            return
        self.send_response(200)
        self.send_header("content-length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    do_GET = do_POST = _handle  # noqa: N815 - the base class asks for these names


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(http, "_ATTEMPTS", 2)
    monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.01)
    credentials._application_default.cache_clear()
    yield
    credentials._application_default.cache_clear()


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
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + _pem(key))
    return path


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


async def test_the_project_whose_quota_counts_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google refuses a person's credentials without it. Theirs name it themselves; here the environment does."""
    tokens = Peer({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"})
    vertex = Peer({})
    account = {
        "type": "service_account",
        "client_email": "tests@p-tests.iam.gserviceaccount.com",
        "private_key": _pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)).decode(),
        "token_uri": f"{tokens.url}/token",
    }
    file = tmp_path / "key.json"
    file.write_text(json.dumps(account))
    monkeypatch.delenv(credentials.TOKEN_VARIABLE, raising=False)
    monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", "p-pays")
    monkeypatch.setenv(credentials.FILE_VARIABLE, str(file))
    monkeypatch.setenv(http.URL_VARIABLE, vertex.url)
    try:
        assert await api.connect(PARENT).list_models(PARENT) == []
        assert await api.connect(PARENT).list_models(PARENT) == []
    finally:
        for peer in (tokens, vertex):
            peer.shutdown()
            peer.server_close()
    assert len(tokens.asked) == 1, "a token that is still good was not used again"
    for _, headers in vertex.asked:
        assert (headers["authorization"], headers["x-goog-user-project"]) == (f"Bearer {TOKEN}", "p-pays")


@pytest.mark.parametrize("trusted", [False, True])
async def test_a_post_is_repeated_where_the_certificate_was_refused_and_not_where_tls_broke_later(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    vertex = Peer({}, tls=context, broken=True)
    monkeypatch.setenv(credentials.TOKEN_VARIABLE, TOKEN)
    monkeypatch.setenv(http.URL_VARIABLE, vertex.url)
    if trusted:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    else:
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    expected = OutcomeUnknownError if trusted else kit.ResourceError
    says = "not known whether" if trusted else "cannot be reached: its certificate is not accepted"
    try:
        with pytest.raises(expected, match=says):
            await api.connect(PARENT).upload_model(PARENT, {"modelId": "a"})
    finally:
        vertex.shutdown()
        vertex.server_close()
    assert len(vertex.asked) == (1 if trusted else 0)
