"""Fetching from gs:// (a real fake-gcs-server) and hf:// (a loopback server that speaks the hub's API), with the real
clients in `.venv-serving`."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from handlers.serving import digest
from tests.e2e.gcs_kit import Gcs
from tests.e2e.launcher_kit import PYTHON, ROOT, needs_serving
from tests.unit.serving_kit import make_adapter, make_model

pytestmark = needs_serving
COMMIT = "e949c91dec92095908d34e6b560af77dd0c993f8"
FETCH = """
import json, sys
from pathlib import Path
from handlers.serving.cache import Cache
from handlers.serving.errors import ServingError
from handlers.serving.manifest import Weights
name, source, revision, digest, kind, root = json.loads(sys.argv[1])
cache = Cache(Path(root), print)
cache.prepare()
try:
    found = cache.get(Weights(name, source, revision, digest), kind)
    print(json.dumps({"folder": str(found.folder), "digest": found.digest}))
except ServingError as error:
    print(json.dumps({"what": error.what, "next": error.next_step}))
"""


def fetch(
    store: Path, source: str, kind: str, environment: dict[str, str], revision: str | None = None,
    wanted: str | None = None,
) -> dict[str, str]:  # fmt: skip
    """What Cache.get gives in the serving environment: folder and digest, or the error."""
    argument = json.dumps(["x", source, revision, wanted, kind, str(store)])
    clean = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    done = subprocess.run(
        [str(PYTHON), "-c", FETCH, argument], cwd=ROOT, env=clean | environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """The folder of the bucket "weights", and the environment in which the client finds its server."""
    data = tmp_path_factory.mktemp("data")
    make_adapter(data / "weights" / "lora" / "easycontract")
    (data / "weights" / "lora" / "easycontract" / "README.md").write_text("not fetched")
    make_model(data / "weights" / "base")
    pickled = data / "weights" / "pickled"
    make_adapter(pickled)
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    gcs = Gcs(tmp_path_factory.mktemp("gcs"), "weights")
    try:
        gcs.start()
        for path in sorted((data / "weights").rglob("*.*")):
            gcs.put(str(path.relative_to(data / "weights")), path.read_bytes())
        yield data / "weights", {"STORAGE_EMULATOR_HOST": gcs.url}
    finally:
        gcs.stop()


def test_an_adapter_from_gcs_is_checked_and_kept(tmp_path: Path, bucket: tuple[Path, dict[str, str]]) -> None:
    folder, environment = bucket
    wanted = digest.of_adapter(folder / "lora" / "easycontract")
    found = fetch(tmp_path, "gs://weights/lora/easycontract", "adapter", environment, wanted=wanted)
    assert found == {"folder": str(tmp_path / wanted[7:]), "digest": wanted}
    assert sorted(path.name for path in Path(found["folder"]).iterdir()) == list(digest.ADAPTER_FILES)
    nowhere = {"STORAGE_EMULATOR_HOST": "http://127.0.0.1:9"}
    assert fetch(tmp_path, "gs://weights/lora/easycontract", "adapter", nowhere, wanted=wanted) == found


def test_a_model_from_gcs_comes_without_its_python_files(tmp_path: Path, bucket: tuple[Path, dict[str, str]]) -> None:
    folder, environment = bucket
    wanted = digest.of_model(folder / "base")
    found = fetch(tmp_path, "gs://weights/base", "model", environment, wanted=wanted)
    names = sorted(path.name for path in Path(found["folder"]).iterdir())
    assert names == ["config.json", "model.safetensors", "tokenizer.json"]


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("gs://weights/nothing/here", "there are no files at gs://weights/nothing/here"),
        ("gs://no-such-bucket/x", "the bucket of gs://no-such-bucket/x does not exist"),
        ("gs://weights/pickled", "as a pickle (adapter_model.bin)"),
        ("gs://weights/base", "lacks adapter_config.json and adapter_model.safetensors"),
        ("gs://weights/lora/easycontract", "not sha256:000"),
    ],
)
def test_what_gcs_cannot_give(tmp_path: Path, bucket: tuple[Path, dict[str, str]], source: str, what: str) -> None:
    found = fetch(tmp_path, source, "adapter", bucket[1], wanted="sha256:" + "0" * 64)
    assert what in found["what"]
    assert list(tmp_path.iterdir()) == []


class Hub(BaseHTTPRequestHandler):
    """One repository, owner/repo, with the files of `folder` at COMMIT. `cut` names a file that is sent in half."""

    folder: Path
    cut: str | None = None
    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        type(self).asked.append(f"{self.command} {path}")
        api, files = "/api/models/owner/repo", f"/owner/repo/resolve/{COMMIT}/"
        names = sorted(item.name for item in self.folder.iterdir())
        if path == f"{api}/revision/{COMMIT}":
            self.reply({"id": "owner/repo", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]})
        elif path == f"{api}/tree/{COMMIT}":
            sizes = [(name, (self.folder / name).stat().st_size) for name in names]
            self.reply([{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in sizes])
        elif path.startswith(files) and path.removeprefix(files) in names:
            self.send_file(path.removeprefix(files))
        elif path.startswith(api):
            self.error("RevisionNotFound")
        else:
            self.error("RepoNotFound")

    def reply(self, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, name: str) -> None:
        body = (self.folder / name).read_bytes()
        self.send_response(200)
        self.send_header("etag", f'"{digest.file_sha256(self.folder / name)[:40]}"')
        self.send_header("x-repo-commit", COMMIT)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if name == self.cut else body)
        self.close_connection = name == self.cut

    def error(self, code: str) -> None:
        self.send_response(404)
        self.send_header("x-error-code", code)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[type[Hub], dict[str, str]]]:
    """The class of the running hub's handler, and the environment in which the client finds it."""

    class Handler(Hub):
        folder = tmp_path / "repository"
        asked: list[str] = []  # noqa: RUF012

    make_model(Handler.folder)
    (Handler.folder / "pytorch_model.bin").write_bytes(b"a pickle")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home")}
    try:
        yield Handler, environment
    finally:
        server.shutdown()
        server.server_close()


def test_a_model_from_the_hub_at_its_commit(tmp_path: Path, hub: tuple[type[Hub], dict[str, str]]) -> None:
    handler, environment = hub
    store = tmp_path / "store"
    found = fetch(store, "hf://owner/repo", "model", environment, revision=COMMIT)
    assert found == {"folder": str(store / f"rev-{COMMIT}"), "digest": digest.of_model(handler.folder)}
    names = sorted(path.name for path in Path(found["folder"]).iterdir())
    assert names == ["config.json", "model.safetensors", "tokenizer.json"]
    assert not [line for line in handler.asked if ".py" in line or ".bin" in line]
    handler.asked.clear()
    assert fetch(store, "hf://owner/repo", "model", environment, revision=COMMIT) == found
    assert handler.asked == []


def test_a_download_that_breaks_off_leaves_nothing(tmp_path: Path, hub: tuple[type[Hub], dict[str, str]]) -> None:
    handler, environment = hub
    handler.cut = "model.safetensors"
    found = fetch(tmp_path / "store", "hf://owner/repo", "model", environment, revision=COMMIT)
    assert "hf://owner/repo at e949c91dec92 could not be fetched" in found["what"]
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize(
    ("source", "revision", "what"),
    [
        ("hf://owner/repo", "0" * 40, "there is no such commit"),
        ("hf://owner/other", COMMIT, "there is no such repository, or it is private"),
    ],
)
def test_what_the_hub_does_not_have(
    tmp_path: Path, hub: tuple[type[Hub], dict[str, str]], source: str, revision: str, what: str
) -> None:
    found = fetch(tmp_path / "store", source, "model", hub[1], revision=revision)
    assert what in found["what"]
    assert list((tmp_path / "store").iterdir()) == []
