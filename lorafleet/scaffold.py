"""Writes the skeleton of a platform, `providers/NAME/`: its contract tests pass from the start.

The templates lie in `templates/platform/`. In them `%%name%%` stands for the platform's name, `%%Name%%` for its form
in class names and `%%NAME%%` for its form in environment variables.
"""

from __future__ import annotations

import contextlib
import fcntl
import keyword
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from lorafleet.errors import LorafleetError, shown

TEMPLATES = Path(__file__).parent / "templates" / "platform"
SUFFIX = ".tmpl"
MAX_NAME_CHARACTERS = 30
_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_ALLOWED = (
    f"a lower-case Python identifier of at most {MAX_NAME_CHARACTERS} characters: letters, digits and single "
    "underscores between them, as in my_cloud"
)
# `providers/kit` and `providers/stack.py` are what all platforms share.
_TAKEN = ("kit", "stack")
_UNFINISHED = ".new-platform-"


def new_platform(root: Path, name: str) -> Path:
    """Write the skeleton of the platform `name` into the project at `root`; returns its folder.

    The folder appears with all its files or not at all.

    Raises:
        LorafleetError: the name can't be used, `root` has no `providers` folder, or it can't be written.
    """
    check_name(name)
    providers = root / "providers"
    if not (providers / "kit").is_dir():
        raise LorafleetError(
            "there is no place for a platform here",
            where=str(root),
            found="no folder providers/kit",
            allowed="a checkout of lorafleet",
            next_action="Change into the checkout and run the command again.",
        )
    folder = providers / name
    check_free(folder)
    try:
        with _alone(providers):
            _write(folder, contents(name))
    except OSError as error:
        check_free(folder)
        raise LorafleetError(
            f"the folder providers/{name} can't be written",
            where=str(root),
            found=error.strerror or "an error of the disk",
            allowed="a folder `providers` that this user can write, on a disk with room",
            next_action="Mend that and run the command again; nothing was left behind.",
        ) from None
    return folder


def check_name(name: str) -> None:
    """Raise LorafleetError unless a platform may be called `name`."""
    if len(name) > MAX_NAME_CHARACTERS or not _NAME.fullmatch(name):
        raise LorafleetError(
            "this can't be the name of a platform",
            found=shown(name),
            allowed=_ALLOWED,
            next_action="Choose such a name; it becomes the folder's name and the `kind` of targets.",
        )
    if keyword.iskeyword(name):
        raise LorafleetError(
            "this word belongs to Python, so no module can have it as its name",
            found=shown(name),
            allowed=_ALLOWED,
            next_action=f"Choose another name, such as {name}_cloud.",
        )
    if name in _TAKEN:
        raise LorafleetError(
            "this name belongs to what all platforms share",
            found=shown(name),
            allowed=f"a name other than {' and '.join(_TAKEN)}",
            next_action="Choose another name.",
        )


def check_free(folder: Path) -> None:
    """Raise LorafleetError if there is a platform, or anything else, at `folder`."""
    for path in (folder, folder.with_suffix(".py")):
        if os.path.lexists(path):
            raise LorafleetError(
                f"there is a providers/{path.name} already",
                allowed="a name that is not taken",
                next_action="Choose another name, or remove what is there if it is not needed.",
            )


def contents(name: str) -> dict[str, str]:
    """{file name: text} of the skeleton."""
    camel = "".join(part.capitalize() for part in name.split("_"))
    texts = {path.name.removesuffix(SUFFIX): path.read_text("utf-8") for path in sorted(TEMPLATES.glob(f"*{SUFFIX}"))}
    return {
        file: text.replace("%%name%%", name).replace("%%Name%%", camel).replace("%%NAME%%", name.upper())
        for file, text in texts.items()
    }


@contextlib.contextmanager
def _alone(providers: Path) -> Iterator[None]:
    """One at a time: so what is unfinished here was left by a run that was killed, and goes."""
    handle = os.open(providers, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for left in providers.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left)
        yield
    finally:
        os.close(handle)


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    # The dot in front keeps an unfinished folder from being found as a platform.
    unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder.parent))
    try:
        for file, text in texts.items():
            (unfinished / file).write_text(text, "utf-8")
        unfinished.chmod(folder.parent.stat().st_mode & 0o777)  # mkdtemp makes it private
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
