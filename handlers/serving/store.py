"""The store: fetched content in folders named by digest. Whole or not there at all, and checked at each start.

`<store>/<64 hex of the digest>/` or, where only a commit is known, `<store>/rev-<40 hex>/` with the digest that it had
when it was fetched in `<store>/rev-<40 hex>.digest`.
"""

import errno
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from handlers.serving import digest as digests
from handlers.serving import sources
from handlers.serving.config import Weights
from handlers.serving.errors import ServingError
from handlers.serving.sources import local


@dataclass(frozen=True)
class Content:
    folder: Path
    digest: str


class Store:
    def __init__(self, root: Path, say: Callable[[str], None]) -> None:
        self.root = root
        self.say = say

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
                f"the store {self.root} cannot be made: {error.strerror}", "check the path and its mode"
            ) from None

    def get(self, weights: Weights, kind: str) -> Content:
        """The content in a folder that nobody changes, fetched when it is not there yet."""
        if kind == sources.MODEL and weights.source.startswith("file://"):
            return self.in_place(weights)
        key = weights.digest.removeprefix("sha256:") if weights.digest else f"rev-{weights.revision}"
        folder = self.root / key
        wanted = weights.digest or self.noted(key)
        if folder.is_dir():
            found = digest_of(folder, kind)
            if found == wanted:
                self.say(f"{weights.name}: already here")
                return Content(folder, found)
            self.say(f"{weights.name}: the copy in the store was altered; fetching it again")
            shutil.rmtree(folder)
        return self.fetch(weights, kind, key)

    def in_place(self, weights: Weights) -> Content:
        """A model of this machine stays where it is: a copy would cost gigabytes."""
        folder = Path(weights.source.removeprefix("file://"))
        local.list_folder(folder, sources.MODEL)
        found = digest_of(folder, sources.MODEL)
        check(weights, found)
        return Content(folder, found)

    def fetch(self, weights: Weights, kind: str, key: str) -> Content:
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
                # another server with the same store was faster: its copy is as good, for the name is the content
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        except OSError as error:
            space = "free some disk space" if error.errno == errno.ENOSPC else "check the disk and the modes"
            raise ServingError(
                f"{weights.name} could not be stored under {self.root}: {error.strerror or error}", space
            ) from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self.say(f"{weights.name}: fetched and checked, {found[:19]}")
        return Content(self.root / key, found)

    def noted(self, key: str) -> str | None:
        try:
            return (self.root / f"{key}.digest").read_text(encoding="ascii").strip()
        except OSError:
            return None


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
        )
