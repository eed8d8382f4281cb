"""Both kinds of store keep the same promises: the folder, and the bucket (a real fake-gcs-server)."""

import datetime
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from providers.artifacts.folder_store import FolderStore
from providers.artifacts.gcs_store import GcsStore
from providers.artifacts.store import (
    NOT_THERE,
    ConflictError,
    DeniedError,
    Entry,
    Store,
    StoreError,
    UnreachableError,
    open_store,
)
from tests.support.artifacts_kit import ROOT, fake_gcs

Make = Callable[[], Store]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with fake_gcs(tmp_path_factory.mktemp("gcs"), "store") as url:
        yield url


@pytest.fixture(params=["folder", "bucket", "bucket with a prefix"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "folder":
        return open_store(f"file://{tmp_path}/store")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", request.getfixturevalue("emulator"))
    url = "gs://store" if request.param == "bucket" else "gs://store/some/prefix"
    found = open_store(url)
    for entry in found.list(""):
        found.delete(entry.path)
    return found


def a_file(folder: Path, content: bytes) -> tuple[Path, str]:
    path = folder / f"file-{hashlib.sha256(content).hexdigest()[:8]}"
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


def paths(store: Store, prefix: str = "") -> list[str]:
    return [entry.path for entry in store.list(prefix)]


def test_an_empty_store_has_nothing(store: Store, tmp_path: Path) -> None:
    assert store.read("manifests/local.json") is None
    assert store.sha256("manifests/local.json") is None
    assert list(store.list("")) == []
    assert list(store.list("adapters/")) == []
    assert store.delete("manifests/local.json") is False
    assert store.download("a/b", tmp_path / "new") is None


def test_creation_happens_once(store: Store) -> None:
    generation = store.write("a/b.json", b"1", expected=NOT_THERE)
    with pytest.raises(ConflictError) as caught:
        store.write("a/b.json", b"2", expected=NOT_THERE)
    assert "a/b.json" in str(caught.value)
    blob = store.read("a/b.json")
    assert blob is not None
    assert (blob.data, blob.generation) == (b"1", generation)


def test_a_replacement_needs_the_generation_that_was_read(store: Store) -> None:
    first = store.write("a", b"1", expected=NOT_THERE)
    second = store.write("a", b"1", expected=first)
    assert second != first  # the same content written again is another generation
    with pytest.raises(ConflictError):
        store.write("a", b"3", expected=first)
    with pytest.raises(ConflictError):
        store.write("b", b"3", expected=first)
    third = store.write("a", b"3")
    assert third not in (first, second)
    assert store.read("b") is None


def test_generations_never_come_back(store: Store) -> None:
    seen = set()
    for _ in range(30):
        seen.add(store.write("a", b"x", expected=NOT_THERE))
        seen.add(store.write("a", b"x"))
        assert store.delete("a")
    assert len(seen) == 60


def test_the_list_knows_what_read_knows(store: Store) -> None:
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=5)
    generation = store.write("m/a.json", b"12345")
    store.write("m/sub/c", b"")
    store.write("m.json", b"1")
    store.write("ma", b"1")
    assert paths(store) == ["m.json", "m/a.json", "m/sub/c", "ma"]
    found = list(store.list("m/"))
    assert [entry.path for entry in found] == ["m/a.json", "m/sub/c"]
    assert isinstance(found[0], Entry)
    assert (found[0].size, found[0].generation) == (5, generation)
    assert before < found[0].updated < before + datetime.timedelta(minutes=5)


def test_delete_asks_for_the_generation(store: Store) -> None:
    first = store.write("a/b/c", b"1")
    second = store.write("a/b/c", b"2")
    with pytest.raises(ConflictError):
        store.delete("a/b/c", expected=first)
    assert store.delete("a/b/c", expected=second) is True
    assert store.delete("a/b/c", expected=second) is False
    assert paths(store) == []


def test_a_renewed_object_is_another_one_with_the_same_content(store: Store, tmp_path: Path) -> None:
    file, digest = a_file(tmp_path, b"content")
    store.upload("a/b", file, sha256=digest)
    before = next(store.list("a/"))
    generation = store.renew("a/b", expected=before.generation)
    after = next(store.list("a/"))
    assert (after.generation, after.sha256, after.size) == (generation, before.sha256, before.size)
    assert generation != before.generation
    assert store.sha256("a/b") == digest
    with pytest.raises(ConflictError):
        store.delete("a/b", expected=before.generation)
    with pytest.raises(ConflictError):
        store.renew("a/b", expected=before.generation)
    with pytest.raises(ConflictError):
        store.renew("a/c", expected=before.generation)
    assert store.delete("a/b", expected=generation)


@pytest.mark.parametrize("size", [0, 1, 3 << 20, 20 << 20])
def test_a_file_goes_up_once_and_comes_back(store: Store, tmp_path: Path, size: int) -> None:
    file, digest = a_file(tmp_path, os.urandom(size))
    up: list[int] = []
    down: list[int] = []
    assert store.upload("x/y", file, sha256=digest, progress=up.append) is True
    assert sum(up) == size
    assert store.upload("x/y", file, sha256=digest) is False
    assert store.download("x/y", tmp_path / "back", progress=down.append) == digest
    assert sum(down) == size
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    assert store.sha256("x/y") == digest
    assert next(store.list("x/")).sha256 in (digest, None)


def test_an_upload_replaces_nothing(store: Store, tmp_path: Path) -> None:
    store.write("x/y", b"damaged")
    file, digest = a_file(tmp_path, b"good")
    with pytest.raises(ConflictError, match="another content"):
        store.upload("x/y", file, sha256=digest)
    store.delete("x/y")
    store.write("x/y", b"good")  # by another tool, without a sum beside it
    assert store.upload("x/y", file, sha256=digest) is False


def test_a_file_that_is_not_what_was_summed_is_refused(store: Store, tmp_path: Path) -> None:
    file, _ = a_file(tmp_path, b"this")
    with pytest.raises(StoreError, match="changed while"):
        store.upload("x/y", file, sha256=hashlib.sha256(b"that").hexdigest())
    assert paths(store) == []


def test_of_many_at_once_one_wins(store: Store) -> None:
    start = threading.Barrier(8)

    def create(number: int) -> bool:
        start.wait()
        try:
            store.write("one", str(number).encode(), expected=NOT_THERE)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(8))) == 1


def test_no_change_is_lost_between_writers(store: Store) -> None:
    store.write("count", b"0")

    def add(_: int) -> None:
        for _ in range(10):
            while True:
                blob = store.read("count")
                assert blob is not None
                try:
                    store.write("count", str(int(blob.data) + 1).encode(), expected=blob.generation)
                    break
                except ConflictError:
                    pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    blob = store.read("count")
    assert blob is not None and blob.data == b"40"


def test_uploads_of_the_same_at_once_are_one(store: Store, tmp_path: Path) -> None:
    file, digest = a_file(tmp_path, os.urandom(1 << 20))
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda _: store.upload("big", file, sha256=digest), range(6)))
    # fake-gcs-server looks at the precondition before it takes the lock, so two may believe that they were first
    assert 1 <= sum(done) <= (1 if isinstance(store, FolderStore) else 6)
    assert store.sha256("big") == digest
    assert len(paths(store)) == 1


@pytest.mark.parametrize("path", ["", "/a", "a/", "../a", "a/../b", "a//b", ".store/lock", "a/.b", "a\nb", "a" * 1000])
def test_a_path_stays_inside(store: Store, path: str) -> None:
    with pytest.raises(StoreError, match="can't be the path"):
        store.write(path, b"1")
    with pytest.raises(StoreError, match="can't be the path"):
        store.read(path)


def test_what_is_no_store() -> None:
    for url in ("", "s3://bucket", "gs://", "gs://UPPER", "file://relative", "http://x:secret@host/", "/tmp"):
        with pytest.raises(StoreError) as caught:
            open_store(url)
        assert "secret" not in str(caught.value)
        assert "gs://bucket" in str(caught.value)


# The bucket alone.


def test_a_bucket_that_does_not_exist(emulator: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    store = open_store("gs://no-such-bucket")
    with pytest.raises(StoreError, match="the bucket does not exist"):
        list(store.list(""))
    file, digest = a_file(tmp_path, b"x")
    with pytest.raises(StoreError, match="the bucket does not exist"):
        store.upload("a", file, sha256=digest)
    with pytest.raises(StoreError, match="the bucket does not exist"):
        store.write("a", b"x", expected=NOT_THERE)


def test_a_bucket_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    store = GcsStore("bucket", retry_s=0.1)  # nothing is asked yet
    for ask in (lambda: store.read("a"), lambda: list(store.list("")), lambda: store.write("a", b"")):
        with pytest.raises(UnreachableError, match="does not answer"):
            ask()


def test_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing"))
    with pytest.raises(DeniedError, match="no Google credentials") as caught:
        GcsStore("bucket").read("a")
    assert "gcloud auth application-default login" in str(caught.value)


# The folder alone.

WRITER = """
import sys
from pathlib import Path
from providers.artifacts.folder_store import FolderStore
def stop(count): print(flush=True); sys.stdin.read()
FolderStore(Path(sys.argv[1])).upload("a/b", Path(sys.argv[2]), sha256=sys.argv[3], progress=stop)
"""


def test_a_killed_writer_leaves_nothing(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    file, digest = a_file(tmp_path, b"x" * 100)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "store"), str(file), digest],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert writer.stdout is not None and writer.stdout.readline() == b"\n"
    store.write("other", b"1")  # leaves the file of a writer that lives
    assert len(list((tmp_path / "store/.store").glob("new-*"))) == 1
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert paths(store) == ["other"]
    assert store.upload("a/b", file, sha256=digest) is True
    assert list((tmp_path / "store/.store").glob("new-*")) == []


def test_a_writer_that_ends_while_another_sweeps(tmp_path: Path) -> None:
    """Its file is listed and can't be opened any more, like a link to nothing."""
    store = FolderStore(tmp_path)
    store.write("a", b"1")
    (tmp_path / ".store/new-gone").symlink_to("nothing")
    store.write("a", b"2")
    assert (tmp_path / "a").read_bytes() == b"2"


def test_objects_are_plain_files(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    store.write("manifests/local.json", b"{}")
    assert (tmp_path / "store/manifests/local.json").read_bytes() == b"{}"
    (tmp_path / "store/manifests/.hidden").write_bytes(b"")
    (tmp_path / "store/manifests/link.json").symlink_to("local.json")
    assert paths(store) == ["manifests/local.json"]
    with pytest.raises(StoreError):
        store.read("manifests/link.json")
    store.delete("manifests/local.json")
    assert (tmp_path / "store/manifests").is_dir()  # something else is in it


def test_a_clock_that_goes_back_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path / "store")
    first = store.write("a", b"1")
    monkeypatch.setattr("time.time_ns", lambda: 1_000_000_000)
    second = store.write("a", b"1", expected=first)
    assert second > first


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o555)
    with pytest.raises(DeniedError):
        FolderStore(tmp_path / "store").write("a", b"1")


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(UnreachableError, match="can't be used"):
        FolderStore(tmp_path / "store").write("a", b"1")
