"""images/bases.json and the locks: asking a registry (one on this machine), and what the files must hold to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tools.images import __main__ as command
from tools.images import bases, locks
from tools.images.places import BASES, ImagesError

MANIFEST = b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}'
DIGEST = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()


class Registry(BaseHTTPRequestHandler):
    """The part of the distribution API that pinning needs: manifests, behind a token that anyone gets."""

    altered = False

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/token":
            scope = parse_qs(url.query)["scope"][0]
            self.say(200, json.dumps({"token": f"for {scope}"}).encode())
        elif self.headers["authorization"] != "Bearer for repository:library/python:pull":
            realm = (
                f'Bearer realm="http://{self.headers["host"]}/token",service="r",scope="repository:library/python:pull"'
            )
            self.say(401, b"{}", {"www-authenticate": realm})
        elif url.path in ("/v2/library/python/manifests/3.12", f"/v2/library/python/manifests/{DIGEST}"):
            assert "application/vnd.oci.image.index.v1+json" in self.headers["accept"]
            self.say(200, MANIFEST + b" " * self.altered, {"docker-content-digest": DIGEST})
        else:
            self.say(404, b"{}")

    def say(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        Registry.altered = False


def document(image: str | None, digest: str | None = None) -> dict[str, Any]:
    entry = {"image": image, "digest": digest, "source": "elsewhere", "date": "2026-01-01", "verified": False}
    return {"bases": {"python": entry}, "debian_snapshot": "20261121T060000Z"}


def test_a_tag_is_pinned(registry: str) -> None:
    pins = document(f"{registry}/library/python:3.12")
    assert bases.pin(pins, "python") == DIGEST
    entry = pins["bases"]["python"]
    assert entry["digest"] == DIGEST and entry["verified"] is True and entry["source"] == registry


def test_a_digest_is_verified(registry: str) -> None:
    pins = document(f"{registry}/library/python:3.12", DIGEST)
    assert bases.verify(pins, "python") == DIGEST
    assert pins["bases"]["python"]["verified"] is True and pins["bases"]["python"]["source"] == "elsewhere"


def test_what_was_altered_on_the_way_is_refused(registry: str) -> None:
    Registry.altered = True
    for pins, ask in ((document(f"{registry}/library/python:3.12"), bases.pin),
                      (document(f"{registry}/library/python:3.12", DIGEST), bases.verify)):  # fmt: skip
        before = json.dumps(pins)
        with pytest.raises(ImagesError, match="do not use it"):
            ask(pins, "python")
        assert json.dumps(pins) == before


def test_an_image_that_is_not_there(registry: str) -> None:
    with pytest.raises(ImagesError, match=r"answers 404 for library/python 3\.11"):
        bases.pin(document(f"{registry}/library/python:3.11"), "python")
    with pytest.raises(ImagesError, match=f"answers 404 for library/python sha256:{'00' * 32}"):
        bases.verify(document(f"{registry}/library/python:3.12", f"sha256:{'00' * 32}"), "python")


def test_a_registry_that_can_not_be_reached() -> None:
    with pytest.raises(ImagesError, match=r"127.0.0.1:1 can't be reached: ConnectError"):
        bases.pin(document("127.0.0.1:1/library/python:3.12"), "python")


@pytest.mark.parametrize("image", ["python:3.12", "docker.io/library/python", "docker.io/library/python:latest", "a b"])
def test_names_in_full_only(image: str) -> None:
    with pytest.raises(ImagesError, match="is not REGISTRY/REPOSITORY:TAG"):
        bases.pin(document(image), "python")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("bases", "python", "digest"), "sha256:12", "python.digest is"),
        (("bases", "python", "verified"), "yes", "verified is 'yes'"),
        (("bases", "python", "source"), None, "does not say where"),
        (("bases", "python", "image"), None, "has a digest and no image"),
        (("debian_snapshot",), "today", "debian_snapshot is not a time"),
        (("bases",), [], "can't be used"),
    ],
)
def test_a_wrong_file_is_said_to_be(tmp_path: Path, path: tuple[str, ...], value: object, says: str) -> None:
    whole = json.loads(BASES.read_text())
    inner = whole
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file = tmp_path / "bases.json"
    file.write_text(json.dumps(whole))
    with pytest.raises(ImagesError, match=says):
        bases.load(file)


def test_the_command_writes_the_file(registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "bases.json"
    bases.save(document(None), file)
    load, save = bases.load, bases.save
    monkeypatch.setattr(bases, "load", lambda: load(file))
    monkeypatch.setattr(bases, "save", lambda written: save(written, file))
    assert command.main(["pin", "python"]) == 1
    assert command.main(["pin", "--image", f"{registry}/library/python:3.12"]) == 1
    assert command.main(["pin", "--snapshot", "tomorrow"]) == 1
    assert load(file) == document(None)
    assert command.main(["pin", "python", "--image", f"{registry}/library/python:3.12"]) == 0
    assert command.main(["pin", "python", "--verify", "--snapshot", "20261201T000000Z"]) == 0
    written = load(file)
    assert written["bases"]["python"]["digest"] == DIGEST and written["debian_snapshot"] == "20261201T000000Z"


def test_the_locks_hold() -> None:
    assert [str(problem) for problem in locks.problems()] == []
    assert locks.pins(locks.SERVING)["vllm"] == {"0.32.0"}
    assert len(locks.pins(locks.SERVING)) > 150


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("vllm==0.32.0", "vllm==0.33.0", "for vllm==0.32.0"),
        ("transformers==5.19.0", "transformers==5.18.0", "and the tests run"),
        ("vllm==0.32.0 \\", "--index-url https://example.org\nvllm==0.32.0 \\", "names a package index"),
        ("vllm==0.32.0 \\", "some-package==1.0\nvllm==0.32.0 \\", "some-package==1.0 has no hash"),
    ],
)
def test_a_lock_that_was_edited_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, says: str
) -> None:
    text = locks.SERVING.read_text()
    assert text.count(old) == 1
    monkeypatch.setattr(locks, "ROOT", tmp_path)
    lock = tmp_path / "requirements.lock"
    lock.write_text(text.replace(old, new))
    (tmp_path / "requirements.in").write_text(locks.SERVING.with_suffix(".in").read_text())
    monkeypatch.setattr(locks, "SERVING", lock)
    monkeypatch.setattr(locks, "RUNPOD", lock)
    assert any(says in str(problem) for problem in locks.problems())
