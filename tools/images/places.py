"""Where the images' files lie, and the one form in which checks say what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout, which is the build context of every image."""

IMAGES = ROOT / "images"
BAKE = IMAGES / "docker-bake.hcl"
BASES = IMAGES / "bases.json"


class ImagesError(Exception):
    """Something that keeps a command from doing its work; the text says what and what to do next."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a file.

    Attributes:
        where: file and line, such as "images/router/Dockerfile:12".
        what: what was found there.
        next_step: what is allowed instead.
    """

    where: str
    what: str
    next_step: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}\n  next: {self.next_step}"
