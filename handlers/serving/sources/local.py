"""file:// - a folder of this machine."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from handlers.serving import sources
from handlers.serving.errors import ServingError


def download(folder: Path, kind: str, into: Path) -> None:
    """Copies the files. Not as links: the store must not change when someone trains again in that folder."""
    names = list_folder(folder, kind)
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda name: shutil.copyfile(folder / name, into / name), names))


def list_folder(folder: Path, kind: str) -> list[str]:
    """The names of the files of `kind` in the folder."""
    where = f"file://{folder}"
    if not folder.is_dir():
        raise ServingError(f"{where} is not a folder", "check the path on the machine that serves")
    try:
        names = [path.name for path in folder.iterdir() if path.is_file()]
    except OSError as error:
        raise ServingError(f"{where} cannot be read: {error.strerror}", "check its mode and owner") from None
    return sources.choose(names, kind, where)
