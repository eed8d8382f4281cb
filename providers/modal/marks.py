"""How this project finds its own things on Modal again: tags of apps, names of secrets and volumes.

A tag's key and value are up to 63 letters, digits, `.`, `_` and `-` (modal 1.6, `check_tag_dict`); a name is up to 64
of them. Neither holds a URN, so a part of its SHA-256 stands for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from providers import kit

OWNER = "lorafleet"
_IMAGE = "lorafleet-image-{}"
_REGISTRY_SECRET = "lorafleet-registry-secret"
_LIMIT = 63
# A reference has lower-case letters only, so capitals can stand for what a tag can't hold.
_ENCODE = str.maketrans({"/": "S", ":": "C", "@": "A"})
_DECODE = str.maketrans({"S": "/", "C": ":", "A": "@"})


def owner(urn: str) -> str:
    """What stands for a resource's URN."""
    return hashlib.sha256(urn.encode()).hexdigest()[:32]


def tags(urn: str, image: str, registry_secret: str) -> dict[str, str]:
    """The tags of an app: whose it is, and what Modal does not tell about it (it knows an image by its own id only)."""
    text = image.translate(_ENCODE)
    parts = [text[start : start + _LIMIT] for start in range(0, len(text), _LIMIT)]
    made = {OWNER: owner(urn), **{_IMAGE.format(number): part for number, part in enumerate(parts, 1)}}
    return made | ({_REGISTRY_SECRET: registry_secret} if registry_secret else {})


def image(found: Mapping[str, str]) -> str | None:
    """The image's reference that an app was deployed with, or None if its tags do not tell."""
    parts: list[str] = []
    while (part := found.get(_IMAGE.format(len(parts) + 1))) is not None:
        parts.append(part)
    return "".join(parts).translate(_DECODE) or None


def registry_secret(found: Mapping[str, str]) -> str:
    return found.get(_REGISTRY_SECRET, "")


def prefix(urn: str) -> str:
    """What the names of a resource's secret or volume begin with."""
    return f"lf-{owner(urn)[:12]}-"


def full_name(urn: str, name: str) -> str:
    """The name of a secret or volume; `name` is the one that the kit made, with its nonce at the end."""
    start, _, nonce = name.rpartition("-")
    room = _LIMIT - len(prefix(urn)) - len(nonce) - 1
    return f"{prefix(urn)}{start[:room]}-{nonce}" if start else f"{prefix(urn)}{nonce}"


def parse_id(resource_id: str) -> tuple[str, str]:
    """(environment, name). Raises kit.ResourceError for a text that is no id of this platform."""
    environment, slash, name = resource_id.partition("/")
    if not (environment and slash and name) or "/" in name:
        raise kit.ResourceError(
            f"'{resource_id}' is not the id of something on Modal",
            next_action="give ENVIRONMENT/NAME, as in main/lorafleet-dev-spill",
        )
    return environment, name
