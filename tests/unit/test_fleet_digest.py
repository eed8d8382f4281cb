"""Content digests: what `sha256sum` prints, whatever else lies in the folder; and the cache of big files' sums."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lorafleet import digest_cache
from lorafleet.digest import content_bytes, content_digest, content_files
from lorafleet.digest_cache import BIG_BYTES, Cache, default_path
from lorafleet.errors import Problem
from lorafleet.manifest import served_name
from tests.support.fleet_project import Project

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_anyone_can_check_it(project: Project) -> None:
    files = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    command = f"sha256sum {' '.join(reversed(files))} | LC_ALL=C sort -k2 | sha256sum"
    printed = subprocess.run(["sh", "-c", command], cwd=project.base, capture_output=True, text=True, check=True)
    assert content_digest(project.base, "model") == "sha256:" + printed.stdout.split()[0]


def test_which_files_count(project: Project) -> None:
    for extra in ("README.md", "training_args.bin", "optimizer.pt"):
        (project.adapter("checklist") / extra).write_text("x")
        (project.base / extra).write_text("x")
    (project.base / "original").mkdir()
    (project.base / "original" / "model.safetensors").write_text("x")
    for extra in ("vocab.json", "merges.txt", "special_tokens_map.json", "chat_template.jinja"):
        (project.base / extra).write_text("x")
    assert content_digest(project.adapter("checklist"), "adapter") == project.fleet["release"]["adapters"]["checklist"]
    assert content_files(project.base, "model") == (
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    )
    assert content_bytes(project.adapter("checklist"), "adapter") < content_bytes(project.base, "model")


def test_every_byte_and_every_name_counts(project: Project) -> None:
    before = content_digest(project.base, "model")
    (project.base / "generation_config.json").rename(project.base / "vocab.json")
    renamed = content_digest(project.base, "model")
    (project.base / "vocab.json").write_text("{ }")
    assert len({before, renamed, content_digest(project.base, "model")}) == 3


def test_served_name() -> None:
    assert served_name("easycontract", "sha256:" + "0123456789abcdef" * 4) == "easycontract@sha256-0123456789abcdef"


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="none of the files"):
        content_digest(tmp_path, "model")


def big_file(path: Path) -> Path:
    """A file that the cache remembers: big, and not changed within the clock's step."""
    with path.open("wb") as file:
        file.truncate(BIG_BYTES)
    return path


class Settled:
    """Makes the files of a test old enough for the cache, which a change a moment ago keeps out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(digest_cache, "_SETTLED_NS", -1)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> Settled:
    return Settled(monkeypatch)


def test_a_remembered_sum_is_used_until_the_file_changes(tmp_path: Path, settled: Settled) -> None:
    path, store = big_file(tmp_path / "weights"), tmp_path / "cache" / "digests.json"
    cache = Cache(store)
    assert cache.get(path) is None
    cache.put(path, digest_cache.stamp_of(path), "a" * 64)
    cache.save()
    assert Cache(store).get(path) == "a" * 64
    with path.open("r+b") as file:
        file.write(b"x")
    assert Cache(store).get(path) is None


def test_a_file_that_changed_while_it_was_read_is_not_remembered(tmp_path: Path, settled: Settled) -> None:
    path, cache = big_file(tmp_path / "weights"), Cache(tmp_path / "digests.json")
    before = digest_cache.stamp_of(path)
    os.utime(path, (1, 1))
    cache.put(path, before, "a" * 64)
    cache.save()
    assert not (tmp_path / "digests.json").exists()


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path) -> None:
    path, cache = big_file(tmp_path / "weights"), Cache(tmp_path / "digests.json")
    cache.put(path, digest_cache.stamp_of(path), "a" * 64)
    cache.save()
    assert not (tmp_path / "digests.json").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"version": 2, "files": {}}',
        b'{"version": 1, "files": []}',
        b'{"version": 1, "files": {"PATH": 3}}',
        b'{"version": 1, "files": {"PATH": {"stamp": "STAMP", "sha256": "x", "usedAt": 1}}}',
    ],
)
def test_a_damaged_cache_only_costs_time(content: bytes, tmp_path: Path, settled: Settled) -> None:
    path, store = big_file(tmp_path / "weights"), tmp_path / "digests.json"
    store.write_bytes(content.replace(b"PATH", str(path).encode()))
    cache = Cache(store)
    assert cache.get(path) is None
    cache.put(path, digest_cache.stamp_of(path), "b" * 64)
    cache.save()
    assert Cache(store).get(path) == "b" * 64


def test_a_cache_that_can_not_be_written_is_no_error(tmp_path: Path, settled: Settled) -> None:
    path = big_file(tmp_path / "weights")
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "digests.json")
    cache.put(path, digest_cache.stamp_of(path), "a" * 64)
    cache.save()
    assert cache.get(path) is None


_WRITER = """
import sys
from pathlib import Path
from lorafleet import digest_cache
digest_cache._SETTLED_NS = -1
path = Path(sys.argv[1])
cache = digest_cache.Cache(Path(sys.argv[2]))
cache.put(path, digest_cache.stamp_of(path), sys.argv[3] * 64)
cache.save()
"""


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path, settled: Settled) -> None:
    store = tmp_path / "digests.json"
    digits = "0123456789"
    paths = [big_file(tmp_path / f"weights-{digit}") for digit in digits]
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(path), str(store), digit], cwd=ROOT)
        for path, digit in zip(paths, digits, strict=True)
    ]
    assert [writer.wait(60) for writer in writers] == [0] * len(writers)
    assert [Cache(store).get(path) for path in paths] == [digit * 64 for digit in digits]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("digests.json") and path != store]


def test_the_digest_uses_the_cache(project: Project, settled: Settled, tmp_path: Path) -> None:
    big_file(project.base / "tokenizer.big")
    store = tmp_path / "digests.json"
    first = content_digest(project.base, "model", cache=Cache(store))
    assert list(json.loads(store.read_text())["files"]) == [str(project.base / "tokenizer.big")], "big files alone"
    assert content_digest(project.base, "model", cache=Cache(store)) == first == content_digest(project.base, "model")


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_path() == tmp_path / ".cache" / "lorafleet" / "digests.json"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert default_path() == Path("/var/cache/me/lorafleet/digests.json")
