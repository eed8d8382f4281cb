"""A store in a bucket of Google Cloud Storage.

Credentials are the machine's (Application Default Credentials). STORAGE_EMULATOR_HOST is honoured by the client, and
then none are needed. Every change that must not replace anything carries a generation precondition, so that it may be
repeated after an answer that was lost; what such a repeat finds in its way is looked at before it is called a conflict.

An object's SHA-256 stands in its custom metadata `sha256`: the service itself only knows CRC32C. `Store.sha256` reads
the real content.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
import threading
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
from google.api_core import exceptions
from google.auth import exceptions as auth
from google.cloud import storage  # type: ignore[import-untyped]
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse  # type: ignore[import-untyped]
from google.cloud.storage.retry import DEFAULT_RETRY  # type: ignore[import-untyped]
from requests.exceptions import RequestException

from .store import (
    Blob,
    DeniedError,
    Entry,
    Progress,
    StoreError,
    UnreachableError,
    changed_file,
    changed_object,
    check_path,
    other_content,
)

_CHUNK_BYTES = 1 << 20
# A resumable upload sends this much at once and goes on after the last such piece that arrived.
_UPLOAD_CHUNK_BYTES = 16 << 20
_TIMEOUT_S = (10.0, 60.0)  # to connect; between two pieces of an answer
_SHA256 = "sha256"
_WRITE = "lorafleet-write"
_NO_BUCKET = "bucket does not exist"


class GcsStore:
    """A store in a bucket, below `prefix` (may be empty). See `providers.artifacts.store.Store`.

    Nothing is asked of the network before the first call. `retry_s`: how long one call is tried again while the service
    does not answer or answers with an error of its own.
    """

    def __init__(self, bucket: str, prefix: str = "", *, retry_s: float = 60.0) -> None:
        self._name = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._retry = DEFAULT_RETRY.with_timeout(retry_s)
        self._lock = threading.Lock()
        self._client: Any = None

    @property
    def url(self) -> str:
        return f"gs://{self._name}/{self._prefix}".rstrip("/")

    def read(self, path: str) -> Blob | None:
        with self._errors(path), _missing():
            blob = self._blob(path)
            data = blob.download_as_bytes(raw_download=True, timeout=_TIMEOUT_S, retry=self._retry)
            return Blob(data, str(blob.generation))
        return None

    def write(self, path: str, data: bytes, *, expected: str | None = None) -> str:
        mark = secrets.token_hex(16)
        condition = None if expected is None else int(expected or 0)
        with self._errors(path):
            blob = self._blob(path)
            blob.metadata = {_SHA256: hashlib.sha256(data).hexdigest(), _WRITE: mark}
            try:
                blob.upload_from_string(
                    data,
                    content_type="application/json" if path.endswith(".json") else "application/octet-stream",
                    if_generation_match=condition,
                    checksum="crc32c",
                    timeout=_TIMEOUT_S,
                    retry=self._retry,  # without a condition, a repeat replaces its own first try by the same content
                )
            except (exceptions.PreconditionFailed, exceptions.NotFound) as error:
                if isinstance(error, exceptions.NotFound) and not condition:
                    raise  # nothing but the bucket can be missing when an object is made
                there = self._look(path)
                if there is None or (there.metadata or {}).get(_WRITE) != mark:
                    raise changed_object(self.url, path) from None
                blob = there  # this very write, whose answer was lost
            return str(blob.generation)

    def upload(self, path: str, file: Path, *, sha256: str, progress: Progress | None = None) -> bool:
        with self._errors(path):
            size, found, crc32c = _sums(file)
            if found != sha256:
                raise changed_file(file)
            if (there := self._look(path)) is not None:
                self._check_same(there, path, size, sha256, crc32c)
                return False
            blob = self._blob(path)
            blob.chunk_size = _UPLOAD_CHUNK_BYTES
            blob.metadata = {_SHA256: sha256}
            with file.open("rb") as source:
                try:
                    blob.upload_from_file(
                        _Source(source, progress),
                        size=size,
                        content_type="application/octet-stream",
                        if_generation_match=0,
                        # Sent along: the service refuses other bytes, before there is an object.
                        crc32c_checksum_value=crc32c,
                        checksum="crc32c",
                        timeout=_TIMEOUT_S,
                        retry=self._retry,
                    )
                except exceptions.PreconditionFailed:
                    there = self._look(path)
                    if there is None:
                        raise changed_object(self.url, path) from None
                    self._check_same(there, path, size, sha256, crc32c)
                    return False
            if blob.crc32c != crc32c or blob.size != size:
                with contextlib.suppress(exceptions.GoogleAPICallError):
                    blob.delete(if_generation_match=blob.generation, timeout=_TIMEOUT_S, retry=self._retry)
                raise changed_file(file)
        return True

    def download(self, path: str, file: Path, *, progress: Progress | None = None) -> str | None:
        with file.open("xb") as target:
            return self._read_through(path, target, progress)

    def sha256(self, path: str, *, progress: Progress | None = None) -> str | None:
        return self._read_through(path, None, progress)

    def list(self, prefix: str) -> Iterator[Entry]:
        if prefix:
            check_path(prefix.rstrip("/"))
        found = []
        with self._errors(prefix):
            blobs = self._bucket().list_blobs(
                prefix=self._prefix + prefix,
                fields="items(name,size,generation,updated,metadata),nextPageToken",
                timeout=_TIMEOUT_S,
                retry=self._retry,
            )
            for blob in blobs:
                path = str(blob.name).removeprefix(self._prefix)
                if path.endswith("/"):  # what some tools make to show a folder
                    continue
                sha256 = (blob.metadata or {}).get(_SHA256)
                found.append(Entry(path, int(blob.size or 0), str(blob.generation), blob.updated, sha256))
        return iter(sorted(found, key=lambda entry: entry.path.encode()))

    def renew(self, path: str, *, expected: str) -> str:
        with self._errors(path):
            there = self._look(path)
            if there is None or str(there.generation) != expected:
                raise changed_object(self.url, path)
            token: str | None = None
            try:
                while True:  # more than once only where the bucket's settings make the service copy the bytes
                    token, _, _ = there.rewrite(
                        there,
                        token=token,
                        if_generation_match=int(expected),
                        if_source_generation_match=int(expected),
                        timeout=_TIMEOUT_S,
                        retry=self._retry,
                    )
                    if token is None:
                        break
            except (exceptions.PreconditionFailed, exceptions.NotFound):
                raise changed_object(self.url, path) from None
            return str(there.generation)

    def delete(self, path: str, *, expected: str | None = None) -> bool:
        with self._errors(path):
            there = self._look(path)
            if there is None:
                return False
            if expected is not None and str(there.generation) != expected:
                raise changed_object(self.url, path)
            try:
                there.delete(if_generation_match=there.generation, timeout=_TIMEOUT_S, retry=self._retry)
            except exceptions.NotFound:  # a repeat after an answer that was lost, or somebody else
                return True
            except exceptions.PreconditionFailed:
                raise changed_object(self.url, path) from None
        return True

    def _bucket(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = storage.Client(project=None)
            return self._client.bucket(self._name)

    def _blob(self, path: str) -> Any:
        check_path(path)
        return self._bucket().blob(self._prefix + path)

    def _look(self, path: str) -> Any:
        """The object with its metadata; None if it does not exist."""
        with _missing():
            blob = self._blob(path)
            blob.reload(timeout=_TIMEOUT_S, retry=self._retry)
            return blob
        return None

    def _check_same(self, blob: Any, path: str, size: int, sha256: str, crc32c: str) -> None:
        if blob.size == size and blob.crc32c == crc32c:
            said = (blob.metadata or {}).get(_SHA256)
            # Without the metadata, somebody copied the object here with another tool.
            if said == sha256 or (said is None and self.sha256(path) == sha256):
                return
        raise other_content(self.url, path)

    def _read_through(self, path: str, target: BinaryIO | None, progress: Progress | None) -> str | None:
        with self._errors(path), _missing():
            sink = _Sink(target, progress)
            # The client compares CRC32C at the end, and goes on where it was after a short failure.
            self._blob(path).download_to_file(
                sink, raw_download=True, checksum="crc32c", timeout=_TIMEOUT_S, retry=self._retry
            )
            return sink.summed.hexdigest()
        return None

    @contextlib.contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except (StoreError, OSError) as error:
            if isinstance(error, RequestException | ConnectionError | TimeoutError):
                raise self._unreachable(path, error) from None
            raise
        except auth.TransportError as error:
            raise self._unreachable(path, error) from None
        except auth.GoogleAuthError as error:
            raise DeniedError(
                "there are no Google credentials that work",
                where=f"{self.url}/{path}",
                found=type(error).__name__,
                allowed="Application Default Credentials of an account that may use the bucket",
                next_action="Run `gcloud auth application-default login`; give a server or CI a service account.",
            ) from None
        except (exceptions.Forbidden, exceptions.Unauthorized) as error:
            raise DeniedError(
                "this account may not do that in the bucket",
                where=f"{self.url}/{path}",
                found=f"HTTP {error.code}",
                allowed="roles/storage.objectViewer to read, roles/storage.objectUser to write",
                next_action=f"Ask the owner of gs://{self._name} for the role, or log in with another account.",
            ) from None
        except exceptions.NotFound:
            raise StoreError(
                "the bucket does not exist",
                where=f"gs://{self._name}",
                found="HTTP 404",
                allowed="a bucket that was made before (the stack `shared` makes one)",
                next_action="Look at the name in the key `store` or the option --store.",
            ) from None
        except (DataCorruption, exceptions.BadRequest) as error:
            raise StoreError(
                "the bytes that arrived are not those that were sent",
                where=f"{self.url}/{path}",
                found=type(error).__name__,
                allowed="the same CRC32C on both sides",
                next_action="Run the command again; if it stays, look at proxies between here and the bucket.",
            ) from None
        except (exceptions.GoogleAPIError, InvalidResponse, HTTPException) as error:
            raise self._unreachable(path, error) from None

    def _unreachable(self, path: str, error: Exception) -> UnreachableError:
        code = getattr(error, "code", None)
        return UnreachableError(
            "the bucket does not answer",
            where=f"{self.url}/{path}",
            # Not the error's own text: it can hold an address with a signature in it.
            found=f"{type(error).__name__}{f', HTTP {int(code)}' if isinstance(code, int) else ''}",
            allowed="an answer of Google Cloud Storage, or of STORAGE_EMULATOR_HOST where that is set",
            next_action="Look at the network and at STORAGE_EMULATOR_HOST, then run the command again.",
        )


@contextlib.contextmanager
def _missing() -> Iterator[None]:
    """Ends the block quietly when the object is missing; not when it is the bucket."""
    try:
        yield
    except exceptions.NotFound as error:
        if _NO_BUCKET in str(error):
            raise


class _Source:
    """A file that tells the progress of what is read from it for the first time."""

    def __init__(self, file: BinaryIO, progress: Progress | None) -> None:
        self._file, self._progress, self._told = file, progress, 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        position = self._file.tell()
        if self._progress is not None and position > self._told:
            self._progress(position - self._told)
            self._told = position
        return data

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, *where: int) -> int:
        return self._file.seek(*where)


class _Sink:
    """Sums what is written to it, and hands it on to a file where there is one."""

    def __init__(self, file: BinaryIO | None, progress: Progress | None) -> None:
        self.summed = hashlib.sha256()
        self._file, self._progress = file, progress

    def write(self, data: bytes) -> int:
        self.summed.update(data)
        if self._file is not None:
            self._file.write(data)
        if self._progress is not None:
            self._progress(len(data))
        return len(data)


def _sums(file: Path) -> tuple[int, str, str]:
    """Size, SHA-256 in hexadecimal digits and CRC32C in base64, as the service writes it."""
    summed, crc32c, size = hashlib.sha256(), google_crc32c.Checksum(), 0  # type: ignore[no-untyped-call]
    with file.open("rb") as source:
        while chunk := source.read(_CHUNK_BYTES):
            summed.update(chunk)
            crc32c.update(chunk)  # type: ignore[no-untyped-call]
            size += len(chunk)
    return size, summed.hexdigest(), base64.b64encode(crc32c.digest()).decode()  # type: ignore[no-untyped-call]
