"""Files of the Hugging Face hub at a pinned commit. HF_ENDPOINT, HF_TOKEN and HF_HOME are honoured."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lorafleet.errors import LorafleetError

from .staging import Staged
from .store import Progress, UnreachableError

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class HubFile:
    """What the hub says of a file: its size in bytes, and a sum of its content; None where it does not say."""

    name: str
    size: int | None
    sha256: str | None
    git_sha1: str | None


def list_files(repository: str, revision: str) -> dict[str, HubFile]:
    """All files of a repository at a commit, by path. Raises `LorafleetError`."""
    with _errors(repository, revision):
        import huggingface_hub

        info = huggingface_hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
        return {
            file.rfilename: HubFile(file.rfilename, file.size, file.lfs.sha256 if file.lfs else None, file.blob_id)
            for file in info.siblings or []
        }


def fetch(repository: str, revision: str, file: HubFile, into: Path, progress: Progress | None = None) -> Staged:
    """Download one file into a folder, going on where an earlier try in the same folder ended.

    Raises:
        LorafleetError: it can't be had, or is not what the hub says it is.
    """
    with _errors(repository, revision):
        import huggingface_hub

        path = Path(huggingface_hub.hf_hub_download(repository, file.name, revision=revision, local_dir=into))
    size, sha256, git_sha1 = _sums(path)
    if (
        (file.size is not None and file.size != size)
        or (file.sha256 is not None and file.sha256 != sha256)
        or (file.sha256 is None and file.git_sha1 is not None and file.git_sha1 != git_sha1)
    ):
        path.unlink()
        raise LorafleetError(
            f"{file.name} did not arrive as the hub has it",
            where=f"hf://{repository}@{revision}",
            found=f"{size} bytes with the SHA-256 {sha256}",
            allowed=f"{file.size} bytes with the sum {file.sha256 or file.git_sha1}",
            next_action="Run the command again; if it stays, look at proxies between here and the hub.",
        )
    if progress is not None:
        progress(size)
    return Staged(path, sha256, size)


def forget_notes(folder: Path) -> None:
    """Remove what the hub's client notes about its downloads beside the files."""
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def _sums(path: Path) -> tuple[int, str, str]:
    """Size, SHA-256, and the SHA-1 by which git names this content."""
    size = path.stat().st_size
    sha256, git_sha1 = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha256.update(chunk)
            git_sha1.update(chunk)
    return size, sha256.hexdigest(), git_sha1.hexdigest()


@contextmanager
def _errors(repository: str, revision: str) -> Iterator[None]:
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # the commands show their own
    from huggingface_hub import errors

    where = f"hf://{repository}@{revision}"
    try:
        yield
    except errors.GatedRepoError:
        raise LorafleetError(
            "the repository asks for an agreement to its terms",
            where=where,
            found="a gated repository",
            allowed="an account that has agreed",
            next_action=f"Agree on https://huggingface.co/{repository}, make a token that may read, and set HF_TOKEN.",
        ) from None
    except errors.RevisionNotFoundError:
        raise LorafleetError(
            "the repository has no such commit",
            where=where,
            found="HTTP 404, RevisionNotFound",
            allowed="the 40 hexadecimal digits of a commit of this repository",
            next_action='Copy it from the repository\'s page ("Files and versions", "History").',
        ) from None
    except errors.RepositoryNotFoundError:
        raise LorafleetError(
            "the hub has no such repository, or it is private",
            where=where,
            found="HTTP 401 or 404, RepositoryNotFound",
            allowed="hf://owner/repository of a model repository",
            next_action="Look at owner and name; for a private one set HF_TOKEN to a token that may read it.",
        ) from None
    except errors.EntryNotFoundError:
        raise LorafleetError(
            "a file that the repository lists is not there",
            where=where,
            found="HTTP 404, EntryNotFound",
            allowed="a complete repository",
            next_action="Look at the repository's page; was it changed this moment?",
        ) from None
    except LorafleetError:
        raise
    except Exception as error:  # the client passes on the errors of its HTTP library, whichever it uses
        if isinstance(error, OSError) and error.errno == 28:
            reason, next_action = "no space left on the disk", "Free some space, then run the command again."
        else:
            reason = type(error).__name__
            next_action = "Look at the network (and HF_ENDPOINT, if set), then run the command again: it goes on there."
        raise UnreachableError(
            "the hub's files could not be fetched",
            where=where,
            found=reason,  # not its text: an address in it can carry a signature
            allowed="an answer of the hub",
            next_action=next_action,
        ) from None
