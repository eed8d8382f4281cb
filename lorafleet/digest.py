"""The content digest of an adapter or a model (docs/architecture.md, "Content digest").

`sha256sum FILES... | LC_ALL=C sort -k2 | sha256sum` in the folder prints the same digits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from lorafleet import digest_cache, files
from lorafleet.errors import Problem

Kind = Literal["adapter", "model"]

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
MODEL_PATTERNS = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
)
_ALLOWED = {
    "adapter": f"a folder with {ADAPTER_FILES[0]} and {ADAPTER_FILES[1]}",
    "model": "a folder with config.json, *.safetensors and the tokenizer's files",
}
_CHUNK_BYTES = 1 << 20


def content_files(folder: Path, kind: Kind) -> tuple[str, ...]:
    """The names of the files that make up the content, sorted by their bytes.

    Raises:
        Problem: the folder can't be read, or has none of them.
    """
    allowed = _ALLOWED[kind]
    files.check_folder(folder, "the folder", allowed=allowed)
    if kind == "adapter":
        names = list(ADAPTER_FILES)
    else:
        names = [
            entry.name
            for entry in folder.iterdir()
            if any(fnmatchcase(entry.name, pattern) for pattern in MODEL_PATTERNS) and not entry.is_dir()
        ]
    for name in names:
        files.regular_size(folder / name, name, allowed=allowed)
    if not names:
        raise Problem(
            "the folder has none of the files of a model",
            found="no such file",
            allowed=allowed,
            next_action="Look at the path.",
        )
    return tuple(sorted(names, key=lambda name: name.encode()))


def content_bytes(folder: Path, kind: Kind) -> int:
    """The size of the content, in bytes. Raises `Problem`."""
    return sum((folder / name).stat().st_size for name in content_files(folder, kind))


def content_digest(folder: Path, kind: Kind, *, cache: digest_cache.Cache | None = None) -> str:
    """`sha256:` and 64 hexadecimal digits.

    Args:
        folder: the folder that holds the files.
        kind: which files count.
        cache: remembers the sums of big files between runs; None hashes everything anew.

    Raises:
        Problem: a file is missing or can't be read.
    """
    sums: dict[str, str] = {}
    for name in content_files(folder, kind):
        path = folder / name
        known = cache.get(path) if cache else None
        if known is None:
            before = digest_cache.stamp_of(path)
            known = _file_sum(path, name, kind)
            if cache:
                cache.put(path, before, known)
        sums[name] = known
    if cache:
        cache.save()
    return digest_of_sums(sums)


def digest_of_sums(sums: Mapping[str, str]) -> str:
    """The digest of files whose SHA-256 sums (hexadecimal) are known, by their path in the folder."""
    lines = [f"{sums[name]}  {name}\n" for name in sorted(sums, key=lambda name: name.encode())]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def _file_sum(path: Path, name: str, kind: Kind) -> str:
    summed = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                summed.update(chunk)
    except OSError as error:
        raise files.unreadable(error, path, name, allowed=_ALLOWED[kind]) from None
    return summed.hexdigest()
