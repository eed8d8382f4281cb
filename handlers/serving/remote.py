"""The store of an environment (file:// or gs://), as far as a server needs it: read the manifest, say how it is.

docs/architecture.md (Store) has the layout. Paths here are relative to the store. Every method raises ServingError;
`transient` says whether it may be over in a moment.
"""

import contextlib
import os
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handlers.serving.errors import ServingError

MAX_BYTES = 1024 * 1024 + 1
"""how much is read at most: a byte more than a manifest may have"""
CONNECT_S, READ_S = 3.0, 5.0
"""time limits of one call to a bucket; whoever calls tries again later"""
SETTLED_NS = 1_000_000_000


@dataclass(frozen=True)
class Found:
    content: bytes
    stamp: object
    """equal for equal content at one path; given back to `read` so that it can say "unchanged" cheaply"""
    write: object
    """which write it comes from: the same content, written or renewed again, has another one"""


class Remote(ABC):
    """A store. `poll_s` is how often the manifest is looked at, `heartbeat_s` how often the status is written,
    `write_gap_s` the least time between two writes of one object. All in seconds."""

    poll_s: float
    heartbeat_s: int
    write_gap_s: float

    def __init__(self, url: str) -> None:
        self.url = url

    def at(self, path: str) -> str:
        return f"{self.url}/{path}"

    @abstractmethod
    def read(self, path: str, stamp: object = None) -> Found | None:
        """What is there, or None when it is still what had this stamp. At most MAX_BYTES are read."""

    @abstractmethod
    def write(self, path: str, content: bytes) -> None: ...

    @abstractmethod
    def create(self, path: str, content: bytes) -> None:
        """Writes it unless something is there already, which is no error."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Nothing there is no error."""


def open_remote(url: str) -> Remote:
    """The store at `url`, checked by config.py. Nothing is asked of it yet."""
    if url.startswith("file://"):
        return Folder(url)
    return Bucket(url)


class Folder(Remote):
    poll_s, heartbeat_s, write_gap_s = 0.2, 2, 0.0

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.root = Path(url.removeprefix("file://"))

    def read(self, path: str, stamp: object = None) -> Found | None:
        place = self.root / path
        try:
            with place.open("rb") as stream:
                status = os.fstat(stream.fileno())
                found = (status.st_mtime_ns, status.st_ino, status.st_size)
                if found == stamp:
                    return None
                # A file that changed a moment ago may change again within the same tick of the file system's clock:
                # it is read once more the next time.
                settled = time.time_ns() - status.st_mtime_ns > SETTLED_NS
                return Found(stream.read(MAX_BYTES), found if settled else None, found)
        except FileNotFoundError:
            raise missing(self.at(path)) from None
        except OSError as error:
            raise ServingError(
                f"{self.at(path)} cannot be read: {error.strerror}", "check the folder, its mode and owner",
                transient=True,
            ) from None  # fmt: skip

    def write(self, path: str, content: bytes) -> None:
        with self.placed(path, content) as (temporary, place):
            temporary.replace(place)

    def create(self, path: str, content: bytes) -> None:
        if (self.root / path).exists():
            return
        with self.placed(path, content) as (temporary, place), contextlib.suppress(FileExistsError):
            os.link(temporary, place)  # unlike a rename, it fails when the name is taken

    def delete(self, path: str) -> None:
        with self.told(path):
            (self.root / path).unlink(missing_ok=True)

    @contextlib.contextmanager
    def placed(self, path: str, content: bytes) -> Any:
        """A temporary file with the content beside its place; it is gone afterwards."""
        place = self.root / path
        temporary = place.with_name(f".{place.name}.{os.getpid()}")
        with self.told(path):
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(content)
                yield temporary, place
            finally:
                temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def told(self, path: str) -> Any:
        try:
            yield
        except OSError as error:
            raise ServingError(
                f"{self.at(path)} cannot be written: {error.strerror}",
                "check the folder, its mode and the free disk space",
                transient=True,
            ) from None


class Bucket(Remote):
    """The credentials are the machine's own; STORAGE_EMULATOR_HOST is honoured by the client itself."""

    poll_s, heartbeat_s, write_gap_s = 2.0, 30, 1.0  # a bucket takes one write a second of one object

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.bucket_name, _, prefix = url.removeprefix("gs://").partition("/")
        self.prefix = f"{prefix}/" if prefix else ""
        self.own = threading.local()
        """a client for each thread: they hold connections, which must not be shared"""

    def blob(self, path: str) -> Any:
        if not hasattr(self.own, "client"):
            # imported here: takes a second, and servers with a folder do without
            from google.cloud import storage  # type: ignore[import-not-found, import-untyped, unused-ignore]

            self.own.client = storage.Client()
        return self.own.client.bucket(self.bucket_name).blob(self.prefix + path)

    def read(self, path: str, stamp: object = None) -> Found | None:
        from google.api_core import exceptions  # type: ignore[import-not-found, import-untyped, unused-ignore]

        with self.told(path, "read", "roles/storage.objectViewer"):
            blob = self.blob(path)
            try:
                # a question about the object's data alone, answered with 304 while the generation is the same
                blob.reload(if_generation_not_match=stamp, retry=None, timeout=(CONNECT_S, READ_S))
            except exceptions.NotModified:
                return None
            if blob.generation == stamp:
                return None
            content = blob.download_as_bytes(
                if_generation_match=blob.generation, end=MAX_BYTES - 1 if (blob.size or 0) > MAX_BYTES else None,
                retry=None, timeout=(CONNECT_S, READ_S),
            )  # fmt: skip
            return Found(content, blob.generation, blob.generation)

    def write(self, path: str, content: bytes, **conditions: Any) -> None:
        with self.told(path, "written", "roles/storage.objectUser"):
            self.blob(path).upload_from_string(
                content, content_type="application/json", retry=None, timeout=(CONNECT_S, READ_S), **conditions
            )

    def create(self, path: str, content: bytes) -> None:
        from google.api_core import exceptions

        with contextlib.suppress(exceptions.PreconditionFailed):
            self.write(path, content, if_generation_match=0)

    def delete(self, path: str) -> None:
        from google.api_core import exceptions

        with self.told(path, "deleted", "roles/storage.objectUser"), contextlib.suppress(exceptions.NotFound):
            self.blob(path).delete(retry=None, timeout=(CONNECT_S, READ_S))

    @contextlib.contextmanager
    def told(self, path: str, done: str, role: str) -> Any:
        """Turns the client's errors into ServingError."""
        from google.api_core import exceptions
        from google.auth import exceptions as auth  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from requests.exceptions import RequestException  # type: ignore[import-untyped, unused-ignore]

        try:
            yield
        except exceptions.PreconditionFailed:
            if done == "read":  # replaced between the two questions
                raise ServingError(f"{self.at(path)} is just being replaced", "wait", transient=True) from None
            raise
        except exceptions.NotFound:
            raise missing(self.at(path)) from None
        except exceptions.Forbidden:
            raise ServingError(
                f"{self.at(path)} may not be {done} with this machine's account", f"give it the role {role}",
                transient=True,
            ) from None  # fmt: skip
        except auth.DefaultCredentialsError:
            raise ServingError(
                f"{self.at(path)} needs Google credentials, and this machine has none",
                "give it a service account, or log in: gcloud auth application-default login",
            ) from None
        except (exceptions.GoogleAPIError, auth.GoogleAuthError, RequestException) as error:
            raise ServingError(
                f"{self.at(path)} cannot be {done}: {type(error).__name__}: {one_line(error)}",
                "check the network and the bucket",
                transient=True,
            ) from None


def missing(where: str) -> ServingError:
    return ServingError(f"there is no {where}", "write it with `pulumi up`, or correct the store", transient=True)


def one_line(error: object) -> str:
    return " ".join(str(error).split())[:300]
