"""Content digests of adapters and models, as docs/architecture.md defines them.

`sha256:` + hex SHA-256 of one line `<sha256 hex of the file>  <path>` per file, sorted by path. To check by hand:
`cd DIR && sha256sum FILES... | LC_ALL=C sort -k2 | sha256sum`.
"""

import fnmatch
import hashlib
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def is_model_file(name: str) -> bool:
    """True for a top-level file name that belongs to a model's digest (and so is fetched)."""
    return "/" not in name and any(fnmatch.fnmatchcase(name, pattern) for pattern in MODEL_PATTERNS)


def model_files(folder: Path) -> list[str]:
    """The names of the files in `folder` that make up the model, sorted."""
    return sorted(p.name for p in folder.iterdir() if p.is_file() and is_model_file(p.name))


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def of_files(folder: Path, names: Iterable[str]) -> str:
    """The content digest of these files of `folder`. Raises OSError when one cannot be read."""
    ordered = sorted(names, key=lambda name: name.encode())
    # hashlib gives the interpreter free while it works: shards of a large model are read side by side
    with ThreadPoolExecutor(max_workers=4) as pool:
        sums = list(pool.map(lambda name: file_sha256(folder / name), ordered))
    lines = "".join(f"{total}  {name}\n" for total, name in zip(sums, ordered, strict=True))
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def of_adapter(folder: Path) -> str:
    return of_files(folder, ADAPTER_FILES)


def of_model(folder: Path) -> str:
    return of_files(folder, model_files(folder))


def served_name(name: str, digest: str) -> str:
    """The immutable name under which an adapter is loaded: `<name>@sha256-<first 16 hex digits>`."""
    return f"{name}@{digest[:23].replace(':', '-')}"
