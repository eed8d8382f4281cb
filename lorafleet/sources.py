"""Where weights come from: `file://`, `gs://` or `hf://`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema

from lorafleet.errors import Problem, nearest
from lorafleet.values import parsed_by

Scheme = Literal["file", "gs", "hf"]
ALLOWED = "hf://owner/repository, gs://bucket/folder or file://folder (from the project's root, or absolute)"
_SCHEMES: dict[str, Scheme] = {"file": "file", "gs": "gs", "hf": "hf"}
_HF_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"


@dataclass(frozen=True, slots=True)
class Source:
    """A place that holds a model's or an adapter's files.

    `address` is what stands after `scheme://`: `owner/repository` of the Hugging Face hub, `bucket/folder` of
    Google Cloud Storage, or a folder of this machine, from the project's root or absolute.
    """

    scheme: Scheme
    address: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}"

    @classmethod
    def parse(cls, value: object) -> Source:
        """Read a source as it stands in a declaration. Raises `Problem`."""
        if isinstance(value, Source):
            return value
        if not isinstance(value, str):
            raise _problem("a text is needed here", f"Write {ALLOWED}.")
        scheme, separator, address = value.partition("://")
        if not separator:
            raise _problem("the source has no scheme", f"Write {ALLOWED}.")
        known = _SCHEMES.get(scheme)
        if known is None:
            raise _problem("the scheme of the source is unknown", _hint(scheme, address))
        if known == "hf":
            _check_hub(address)
        elif known == "gs":
            _check_bucket(address)
        elif not address.strip() or address.startswith("~") or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", address):
            raise _problem(
                "the path is empty, starts with ~ or has a control character in it",
                "Write file://demo/base for a folder of the project, or file:///data/base.",
            )
        return cls(known, address)

    def folder(self, root: Path) -> Path:
        """The folder of a `file://` source: absolute, symbolic links not followed.

        Raises:
            ValueError: the source is of another scheme.
        """
        if self.scheme != "file":
            raise ValueError(f"{self} is not a file:// source")
        # Not Path.resolve(): it would follow links, and the declared name is what people look for.
        joined = root / self.address
        parts: list[str] = []
        for part in joined.absolute().parts[1:]:
            if part == "..":
                parts = parts[:-1]
            else:
                parts.append(part)
        return Path("/", *parts)

    def absolute(self, root: Path) -> str:
        """The source as a manifest states it: a `file://` path made absolute, others as declared."""
        return f"file://{self.folder(root)}" if self.scheme == "file" else str(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return parsed_by(cls.parse)


def _problem(what: str, next_action: str) -> Problem:
    return Problem(what, allowed=ALLOWED, next_action=next_action)


def _hint(scheme: str, address: str) -> str:
    hub = re.fullmatch(rf"(?:www\.)?huggingface\.co/({_HF_PART}/{_HF_PART})(?:/.*)?", address)
    if hub:
        return f"Write hf://{hub.group(1)}."
    if scheme == "s3":
        return "Copy the files to a gs:// bucket, or publish them on the hub (hf://)."
    near = nearest(scheme, _SCHEMES)
    return f"Did you mean {near}://?" if near else f"Write {ALLOWED}."


def _check_hub(address: str) -> None:
    if "@" in address:
        raise _problem("a revision does not belong into the source", "Write the commit under the key `revision`.")
    if not re.fullmatch(f"{_HF_PART}/{_HF_PART}", address):
        raise _problem(
            "this does not name a repository of the hub",
            "Write hf://owner/repository, as in hf://LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct.",
        )


def _check_bucket(address: str) -> None:
    bucket, _, prefix = address.partition("/")
    parts = prefix.rstrip("/").split("/")
    good_bucket = re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", bucket)
    if (
        not good_bucket
        or any(part in ("", ".", "..") for part in parts)
        or re.search(r"[\x00-\x1f\x7f\ud800-\udfff*?\[\]#]", prefix)
    ):
        raise _problem(
            "this does not name a folder of a bucket",
            "Write gs://bucket/folder, as in gs://our-models/exaone-3.5-2.4b.",
        )
