"""Adapters and models from the hub (a loopback server that speaks its API) and from a bucket, with the real clients."""

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lorafleet.digest import content_digest
from tests.support.artifacts_kit import (
    BASE,
    DEMO_ADAPTER,
    emulator_environment,
    fake_gcs,
    make_project,
    plain_environment,
)

COMMIT = "e949c91dec92095908d34e6b560af77dd0c993f8"
Run = Callable[..., tuple[int, str, str]]


class Hub(BaseHTTPRequestHandler):
    """The repository owner/repo with the files of `folder` at COMMIT; owner/gated, which asks for an agreement.

    `damage`: a file that arrives with other bytes than the hub says. `cut`: how often a file still breaks off half-way.
    """

    folder: Path
    damage = ""
    cut = 0
    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        type(self).asked.append(f"{self.command} {path} {self.headers.get('range', '')}".strip())
        api, files = "/api/models/owner/repo", f"/owner/repo/resolve/{COMMIT}/"
        names = sorted(item.name for item in self.folder.iterdir())
        if path.startswith(("/api/models/owner/gated", "/owner/gated")):
            self.error(403, "GatedRepo")
        elif path == f"{api}/revision/{COMMIT}":
            self.reply({"id": "owner/repo", "sha": COMMIT, "siblings": [self.sibling(name) for name in names]})
        elif path.startswith(files) and path.removeprefix(files) in names:
            self.send_file(path.removeprefix(files))
        elif path.startswith(api):
            self.error(404, "RevisionNotFound")
        else:
            self.error(404, "RepoNotFound")

    def sibling(self, name: str) -> dict[str, Any]:
        data = (self.folder / name).read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        found: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": blob}
        if name.endswith(".safetensors"):
            found["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return found

    def reply(self, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, name: str) -> None:
        body = (self.folder / name).read_bytes()
        etag = hashlib.sha256(body).hexdigest()
        if name == self.damage:
            body = body[:-1] + bytes([body[-1] ^ 1])
        start = int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if "range" in self.headers else 200)
        self.send_header("etag", f'"{etag}"')
        self.send_header("x-repo-commit", COMMIT)
        self.send_header("content-length", str(len(body) - start))
        if "range" in self.headers:
            self.send_header("content-range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if self.command == "GET":
            if type(self).cut > 0 and name.endswith(".safetensors"):
                type(self).cut -= 1
                self.wfile.write(body[start : (start + len(body)) // 2])
                self.close_connection = True
                return
            self.wfile.write(body[start:])

    def error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("x-error-code", code)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[type[Hub]]:
    class Handler(Hub):
        folder = tmp_path / "repository"
        asked: list[str] = []  # noqa: RUF012

    Handler.folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Handler.endpoint = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    try:
        yield Handler
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def run(tmp_path: Path, hub: Any) -> Run:
    """Runs a command of a project with an empty folder store; gives its exit code and both outputs."""
    project = make_project(tmp_path / "project", f"file://{tmp_path}/store")
    environment = plain_environment() | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }

    def command(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "lorafleet.cli", *arguments], cwd=project, env=environment, capture_output=True,
            text=True, timeout=300, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    return command


def copy(source: Path, hub: type[Hub]) -> None:
    for path in source.iterdir():
        shutil.copyfile(path, hub.folder / path.name)


def test_an_adapter_from_the_hub(run: Run, hub: type[Hub], tmp_path: Path) -> None:
    copy(DEMO_ADAPTER, hub)
    (hub.folder / "training_args.bin").write_bytes(b"\x80\x04.")
    code, out, err = run("adapter", "push", f"hf://owner/repo@{COMMIT}", "--name", "a", "--json")
    assert code == 0, err
    pushed = json.loads(out)
    assert pushed["digest"] == content_digest(DEMO_ADAPTER, "adapter")
    assert pushed["ignored"] == ["training_args.bin"]
    assert pushed["metadata"]["source"] == f"hf://owner/repo@{COMMIT}"
    assert not [line for line in hub.asked if "training_args" in line]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (f"hf://owner/gated@{COMMIT}", "asks for an agreement"),
        (f"hf://owner/other@{COMMIT}", "no such repository"),
        (f"hf://owner/repo@{'0' * 40}", "no such commit"),
        ("hf://owner/repo@main", "needs the commit"),
        (f"hf://owner/repo@{COMMIT}", "did not arrive as the hub has it"),
    ],
)
def test_what_the_hub_can_not_give(source: str, says: str, run: Run, hub: type[Hub], tmp_path: Path) -> None:
    copy(DEMO_ADAPTER, hub)
    hub.damage = "adapter_model.safetensors"
    code, out, err = run("adapter", "push", source, "--name", "a")
    assert (code, out) == (1, "")
    assert says in err.splitlines()[0], err
    assert "next:" in err and "Traceback" not in err
    assert not list((tmp_path / "store").rglob("sha256-*"))


def test_a_model_from_the_hub_goes_on_where_it_was(run: Run, hub: type[Hub], tmp_path: Path) -> None:
    copy(BASE, hub)
    (hub.folder / "modeling.py").write_text("raise SystemExit")
    (hub.folder / "LICENSE").write_text("EXAONE AI Model License Agreement 1.1 - NC")
    mirror = ("model", "mirror", "hf://owner/repo", "--revision", COMMIT, "--name", "demo")
    code, _, err = run(*mirror)
    assert code == 1 and "must be accepted" in err
    assert not [line for line in hub.asked if "safetensors" in line]
    accepted = (*mirror, "--licence-accepted", "exaone-nc", "--purpose", "a study", "--json")
    hub.damage = "tokenizer.json"
    code, _, err = run(*accepted)
    assert code == 1 and "did not arrive" in err
    assert not list((tmp_path / "store").rglob("sha256-*"))
    hub.damage, hub.cut = "", 1
    hub.asked.clear()
    code, out, err = run(*accepted)
    assert code == 0, err
    assert json.loads(out)["metadata"]["digest"] == content_digest(BASE, "model")
    assert json.loads(out)["metadata"]["revision"] == COMMIT
    assert not [line for line in hub.asked if "modeling.py" in line]
    assert [path.name for path in (tmp_path / "cache/lorafleet/staging").iterdir()] == ["lock"]


def test_an_adapter_from_a_bucket_into_a_bucket(tmp_path: Path) -> None:
    with fake_gcs(tmp_path / "gcs", "store", "training") as url:
        environment = emulator_environment(url) | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        project = make_project(tmp_path / "project", "gs://training")

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "lorafleet.cli", "adapter", *arguments], cwd=project, env=environment,
                capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip

        digest = content_digest(DEMO_ADAPTER, "adapter")
        first = run("push", str(DEMO_ADAPTER), "--name", "a")
        assert first.returncode == 0, first.stderr
        source = f"gs://training/adapters/a/{digest.replace(':', '-')}"
        second = run("push", source, "--name", "b", "--store", "gs://store/here", "--json")
        assert second.returncode == 0, second.stderr
        assert json.loads(second.stdout)["digest"] == digest
        assert json.loads(second.stdout)["metadata"]["source"] == source
        nothing = run("push", "gs://training/nothing", "--name", "b")
        assert nothing.returncode == 1 and "lacks adapter_config.json" in nothing.stderr
        checked = run("verify", "--store", "gs://store/here", "--json")
        assert json.loads(checked.stdout)["versions"] == [f"b@{digest}"]
        pruned = run("prune", "--store", "gs://store/here", "--older-than", "0", "--yes", "--json")
        assert [one["digest"] for one in json.loads(pruned.stdout)["remove"]] == [digest], pruned.stderr
        assert json.loads(run("list", "--store", "gs://store/here", "--json").stdout) == []
