"""The cache: fetched content in folders named by digest. Whole or not there at all, and checked when it is taken.

`<cache>/<64 hex of the digest>/` or, where only a commit is known, `<cache>/rev-<40 hex>/` with the digest that it had
when it was fetched in `<cache>/rev-<40 hex>.digest`.

Several servers may share a cache. vLLM may read the folder of a loaded adapter again at any time and dies when it has
gone; so a server holds a shared lock (flock) on each folder that it uses, and `sweep` takes away only folders on which
nobody else has one. The kernel ends the locks of a process that ends, in whatever way.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from handlers.serving import digest as digests
from handlers.serving import sources
from handlers.serving.errors import ServingError
from handlers.serving.manifest import Weights
from handlers.serving.sources import local

ATTEMPTS = 4
DIGEST_FOLDER = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Content:
    folder: Path
    digest: str


class Cache:
    """Methods may be called from several threads."""

    def __init__(self, root: Path, say: Callable[[str], None]) -> None:
        self.root = root
        self.say = say
        self.held: dict[Path, int] = {}
        """folders in use -> the descriptor that holds the lock"""
        self.lock = threading.Lock()

    def prepare(self) -> None:
        """Makes the folder, and takes away what launchers that were ended in the middle have left."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for partial in self.root.glob(".*.partial"):
                owner = partial.name.split(".")[-2]
                # its own number too: in a container, each start has the same
                living = owner.isdigit() and Path(f"/proc/{owner}").exists() and int(owner) != os.getpid()
                if not living:
                    shutil.rmtree(partial, ignore_errors=True)
        except OSError as error:
            raise ServingError(
                f"the cache {self.root} cannot be made: {error.strerror}", "check the path and its mode"
            ) from None

    def get(self, weights: Weights, kind: str) -> Content:
        """The content in a folder that nobody changes, fetched when it is not there yet."""
        if kind == sources.MODEL and weights.source.startswith("file://"):
            return self.in_place(weights)
        folder = self.folder(weights)
        key = folder.name
        for _ in range(ATTEMPTS):
            wanted = weights.digest or self.noted(key)
            if self.hold(folder):
                found = digest_of(folder, kind)
                if found == wanted:
                    return Content(folder, found)
                self.say(f"{weights.name}: the copy in the cache was altered; fetching it again")
                self.release(folder)
                shutil.rmtree(folder, ignore_errors=True)
            self.fetch(weights, kind, key)
        raise ServingError(
            f"{weights.name}: {folder} is altered again and again, or cannot be replaced",
            "see who else writes to the cache, and its mode and owner",
            "fetch_failed",
        )

    def folder(self, weights: Weights) -> Path:
        """Where the cache has it, or would."""
        return self.root / (weights.digest.removeprefix("sha256:") if weights.digest else f"rev-{weights.revision}")

    def in_place(self, weights: Weights) -> Content:
        """A model of this machine stays where it is: a copy would cost gigabytes."""
        folder = Path(weights.source.removeprefix("file://"))
        local.list_folder(folder, sources.MODEL)
        found = digest_of(folder, sources.MODEL)
        check(weights, found)
        return Content(folder, found)

    def fetch(self, weights: Weights, kind: str, key: str) -> None:
        self.say(f"{weights.name}: fetching from {weights.source}")
        # two names of a manifest may have the same content, and are fetched side by side
        partial = self.root / f".{key}.{threading.get_ident()}.{os.getpid()}.partial"
        try:
            partial.mkdir()
            sources.download(weights, kind, partial)
            found = digest_of(partial, kind)
            check(weights, found)
            if weights.digest is None:
                (self.root / f"{key}.digest").write_text(found + "\n", encoding="ascii")
            try:
                partial.rename(self.root / key)
            except OSError as error:
                # another server with the same cache was faster: its copy is as good, for the name is the content
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        except OSError as error:
            space = "free some disk space" if error.errno == errno.ENOSPC else "check the disk and the modes"
            raise ServingError(
                f"{weights.name} could not be stored under {self.root}: {error.strerror or error}", space,
                "fetch_failed",
            ) from None  # fmt: skip
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self.say(f"{weights.name}: fetched and checked, {found[:19]}")

    def hold(self, folder: Path) -> bool:
        """Takes the lock that keeps the folder here. False when there is no such folder."""
        with self.lock:
            if folder in self.held:
                return True
            while True:
                try:
                    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                except FileNotFoundError:
                    return False
                except OSError as error:
                    raise ServingError(
                        f"{folder} in the cache cannot be read: {error.strerror}", "check its mode and owner",
                        "fetch_failed",
                    ) from None  # fmt: skip
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                if same_folder(descriptor, folder):
                    self.held[folder] = descriptor
                    return True
                os.close(descriptor)  # it was moved away between the two calls

    def release(self, folder: Path) -> None:
        with self.lock:
            self._close(folder)

    def _close(self, folder: Path) -> None:
        descriptor = self.held.pop(folder, None)
        if descriptor is not None:
            os.close(descriptor)

    def sweep(self, needed: Callable[[], Collection[Path]]) -> list[str]:
        """Takes away the adapters (never a model) that are neither needed nor in use by another server. Returns the
        names of their folders. What cannot be taken away stays: it does no harm.

        `needed` is asked while nobody can take hold of a folder: what is wanted from now on is fetched again.
        """
        doomed: list[tuple[str, Path]] = []
        for folder in list(self.root.iterdir()) if self.root.is_dir() else ():
            is_adapter = DIGEST_FOLDER.fullmatch(folder.name) and (folder / digests.ADAPTER_FILES[0]).is_file()
            if not is_adapter:
                continue
            with self.lock, contextlib.suppress(OSError):
                if folder in needed():
                    continue
                self._close(folder)
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    aside = self.root / f".{folder.name}.{threading.get_ident()}.{os.getpid()}.partial"
                    folder.rename(aside)
                    doomed.append((folder.name, aside))
                finally:
                    os.close(descriptor)
        for _, aside in doomed:
            shutil.rmtree(aside, ignore_errors=True)
        return [name for name, _ in doomed]

    def noted(self, key: str) -> str | None:
        try:
            return (self.root / f"{key}.digest").read_text(encoding="ascii").strip()
        except OSError:
            return None


def same_folder(descriptor: int, folder: Path) -> bool:
    try:
        there, here = folder.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def digest_of(folder: Path, kind: str) -> str:
    """The content digest of a folder; of what is there, when files are missing."""
    try:
        if kind == sources.MODEL:
            return digests.of_model(folder)
        return digests.of_files(folder, [name for name in digests.ADAPTER_FILES if (folder / name).is_file()])
    except OSError as error:
        raise ServingError(f"{error.filename} cannot be read: {error.strerror}", "check its mode and owner") from None


def check(weights: Weights, found: str) -> None:
    if weights.digest is not None and found != weights.digest:
        raise ServingError(
            f"{weights.name}: the files at {weights.source} have the digest {found}, not {weights.digest}",
            "they were changed or damaged: put the right files there, or declare the new digest",
            "digest_differs",
        )
