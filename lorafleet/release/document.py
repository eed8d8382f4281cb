"""One environment's stack file: its declaration, its release block, and the safe replacement of that block."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafleet import stackfile
from lorafleet.declaration import Fleet
from lorafleet.errors import LorafleetError, listed, nearest, shown
from lorafleet.load import load_fleet, stacks
from lorafleet.origin import CONFIG_KEY, PROJECT, shown_path
from lorafleet.release import pins
from lorafleet.release.block import Block, find
from lorafleet.release.edit import edited

_OWN = ".lorafleet"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class StackDocument:
    """What `stacks/Pulumi.<environment>.yaml` held when it was read.

    Fields:
        path: the file, with symbolic links followed.
        raw: its bytes; `text` is them without a byte order mark.
        value: the whole content as plain data.
        block: where the release stands.
    """

    environment: str
    root: Path
    path: Path
    shown_path: str
    raw: bytes
    text: str
    value: Mapping[str, Any]
    block: Block

    @property
    def config(self) -> Mapping[str, Any]:
        """The declaration as plain data, not checked."""
        config: Mapping[str, Any] = self.value["config"][f"{PROJECT}:{CONFIG_KEY}"]
        return config

    @property
    def release(self) -> Mapping[str, Any]:
        """The release block as plain data, not checked."""
        release: Mapping[str, Any] = self.config["release"]
        return release

    @property
    def block_text(self) -> str:
        return self.text[self.block.start : self.block.end]

    def fleet(self, release: Mapping[str, Any] | None = None) -> Fleet:
        """The checked declaration, with another release if one is given.

        Raises:
            LorafleetError: it is wrong (`DeclarationErrors` for several mistakes).
        """
        config = self.config if release is None else {**self.config, "release": release}
        return load_fleet(config, environment=self.environment, root=self.root, stack_file=self.path_in_stacks)

    @property
    def path_in_stacks(self) -> Path:
        """The file under the name that Pulumi uses, which may be a symbolic link."""
        return file_of(self.root, self.environment)

    def fleet_without_release(self) -> Fleet:
        """The checked declaration of everything but the release, which then pins nothing that exists.

        A declaration may name an adapter that only the release to come will pin.
        """
        nothing = "sha256:" + "0" * 64
        base, adapters = self.config.get("baseModel"), self.config.get("adapters")
        source = base.get("source") if isinstance(base, Mapping) else None
        from_hub = isinstance(source, str) and source.startswith("hf://")
        return self.fleet(
            {
                "baseModel": {"revision": "0" * 40} if from_hub else {"digest": nothing},
                "adapters": dict.fromkeys(adapters, nothing) if isinstance(adapters, Mapping) else {},
            }
        )

    def with_release(self, release: Mapping[str, Any]) -> bytes:
        """The file's bytes with this release, as few of them changed as can be.

        Raises:
            LorafleetError: the block is written in a way that can't be edited in place.
        """
        return self._checked(edited(self.text, self.block, self.release, pins.normalised(release)), release)

    def with_block(self, text: str, release: Mapping[str, Any]) -> bytes | None:
        """The file's bytes with this text as its release block; None where that would not give this release."""
        whole = self.text[: self.block.start] + text + self.text[self.block.end :]
        try:
            return self._checked(whole, release)
        except LorafleetError:
            return None

    def write(self, data: bytes) -> None:
        """Replaces the file in one step; mode and owner stay.

        Raises:
            LorafleetError: it has changed since it was read, or can't be written.
        """
        try:
            with _locked(self.path):
                if self.path.read_bytes() != self.raw:
                    raise LorafleetError(
                        "the file was changed by someone else meanwhile; nothing was written",
                        where=self.shown_path,
                        allowed="the content that the change was worked out for",
                        next_action="Run the command again.",
                    )
                _replace(self.path, data)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> LorafleetError:
        return LorafleetError(
            f"the file can't be written: {error.strerror}",
            where=self.shown_path,
            found=str(error.filename or ""),
            allowed="a file and a folder that this user can write, and room on the disk",
            next_action="Look at their rights and at the free disk space, then run the command again.",
        )

    def _checked(self, text: str, release: Mapping[str, Any]) -> bytes:
        """The text as bytes, after reading it again: it must say what is wanted and nothing else."""
        data = (_BOM if self.raw.startswith(_BOM) else b"") + text.encode()
        found: Any = None
        with contextlib.suppress(LorafleetError):  # no YAML any more
            found = stackfile.parse(text, self.shown_path).value
        same = False
        with contextlib.suppress(LookupError, TypeError, AttributeError):
            config = found["config"][f"{PROJECT}:{CONFIG_KEY}"]
            same = pins.normalised(config["release"]) == pins.normalised(release)
            config["release"] = self.release
            same = same and found == self.value
        if not same:
            raise LorafleetError(
                "the release block is written in a way that can't be changed in place; nothing was written",
                where=f"{self.shown_path}:{self.block.line}",
                field="release",
                allowed="plain YAML, as in stacks/Pulumi.local.yaml",
                next_action="Write the block in the style of stacks/Pulumi.local.yaml, then run the command again.",
            )
        return data


def file_of(root: Path, environment: str) -> Path:
    return root.absolute() / "stacks" / f"Pulumi.{environment}.yaml"


def read(root: Path, environment: str) -> StackDocument:
    """Read an environment's stack file.

    Raises:
        LorafleetError: there is no such environment, its file is not valid YAML or has no release block that can be
            edited.
    """
    path = file_of(root, environment)
    name = shown_path(path, root.absolute())
    valid = environments(root)
    if environment not in valid:
        near = nearest(environment, valid)
        raise LorafleetError(
            "there is no such environment",
            where=shown_path(path.parent, root.absolute()),
            found=shown(environment),
            allowed=listed(valid) if valid else "a file stacks/Pulumi.<environment>.yaml",
            next_action=f"Did you mean {near}?" if near else "Name one of these, or write its file.",
        )
    content = stackfile.read(path, name)
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
        again = stackfile.read(path, name)
        real = path.resolve(strict=True)
    except (OSError, UnicodeDecodeError):
        raise _unsteady(name) from None
    if again.value != content.value or path.read_bytes() != raw:
        raise _unsteady(name)
    return StackDocument(environment, root.absolute(), real, name, raw, text, content.value, find(text, name))


def environments(root: Path) -> list[str]:
    """The stacks that serve a fleet; the others, such as `shared`, have no release."""
    found = []
    for name in stacks(root):
        with contextlib.suppress(OSError):
            if f"{PROJECT}:{CONFIG_KEY}".encode() in file_of(root, name).read_bytes():
                found.append(name)
    return found


def _unsteady(name: str) -> LorafleetError:
    return LorafleetError(
        "the file is being changed by someone else",
        where=name,
        allowed="a file that stays as it is while it is read",
        next_action="Run the command again.",
    )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one of several `lorafleet` commands replaces the file at a time; its content is compared under this lock."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _replace(path: Path, data: bytes) -> None:
    status = path.stat()
    if not os.access(path, os.W_OK):
        raise PermissionError(13, "Permission denied")
    for left in path.parent.glob(f".{path.name}.*{_OWN}"):  # by a command that was killed: only one is here at a time
        left.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_OWN, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), status.st_mode & 0o7777)
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                with contextlib.suppress(PermissionError):  # only root may give files away
                    os.fchown(file.fileno(), status.st_uid, status.st_gid)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
