"""`lorafleet adapter pull`: a stored version back into a folder."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from lorafleet.errors import LorafleetError

from .parallel import run_all
from .push import Phase, no_progress
from .staging import check_room
from .store import Store
from .versions import Metadata, Version


def pull(store: Store, version: Version, metadata: Metadata, folder: Path, *, phase: Phase = no_progress) -> Path:
    """Copy a version's files into a new folder, whole or not at all; returns it, absolute.

    Raises:
        LorafleetError: the folder is there and not empty, the disk is full, or a file is missing or damaged.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LorafleetError(
            "the folder is not empty",
            where=str(folder),
            found="a file" if not folder.is_dir() else "files in it",
            allowed="a new or an empty folder",
            next_action="Name another folder.",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    check_room(folder.parent, metadata.size_bytes)
    temporary = folder.parent / f".{folder.name}.{secrets.token_hex(4)}"
    temporary.mkdir()
    progress = phase("fetching", metadata.size_bytes)

    def get(name: str) -> None:
        found = store.download(f"{version.folder}/{name}", temporary / name, progress=progress)
        if found != metadata.files[name].sha256:
            raise LorafleetError(
                "a file of this version is missing in the store" if found is None else "a file of it is damaged",
                where=f"{store.url}/{version.folder}/{name}",
                found="no file" if found is None else f"SHA-256 {found}",
                allowed=f"SHA-256 {metadata.files[name].sha256}",
                next_action=f"`lorafleet {version.kind} verify {version.name}` shows all faults.",
            )

    try:
        run_all(get, metadata.files)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder
