"""How a thing on Vertex AI says which resource made it, and names that are chosen here.

Models and endpoints get an id of our choice: `lf<mark>-<nonce>`. Vertex AI refuses a second thing of the same id, so
what is asked for twice is made once; and the id stands in the name of the operation that makes it, so what a killed
run has begun is found before it is there. A deployed model's id may only have ten digits; its display name has the
mark.
"""

from __future__ import annotations

import hashlib
import re

_END = re.compile(r"-lf[0-9a-f]{12}$")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


def of(urn: str) -> str:
    """The mark of a resource."""
    return hashlib.sha256(urn.encode()).hexdigest()[:12]


def new_id(given: str, urn: str) -> str:
    """The id of what is called `given` (unique by its nonce) in the program."""
    return f"lf{of(urn)}-{hashlib.sha256(given.encode()).hexdigest()[:8]}"


def is_marked(thing_id: str, urn: str) -> bool:
    """Whether an id, or a resource name that ends in one, was made for this resource."""
    return last(thing_id).startswith(f"lf{of(urn)}-")


def deployed_id(given: str, urn: str) -> str:
    """Ten digits for a deployed model; unique within its endpoint is enough."""
    number = int(hashlib.sha256(f"{urn}\0{given}".encode()).hexdigest(), 16)
    return str(10**9 + number % (9 * 10**9))


def deployed_name(given: str, urn: str) -> str:
    """The display name of a deployed model."""
    return f"{given}-lf{of(urn)}"


def is_deployed_for(shown: str, urn: str) -> bool:
    return shown.endswith(f"-lf{of(urn)}")


def is_ours(shown: str) -> bool:
    """Whether a deployed model of this display name was made by this project, whichever resource it was."""
    return _END.search(shown) is not None


def plain(shown: str) -> str:
    """The name in the program of what is called `shown` on Vertex AI; what is no such name is made one."""
    given = _END.sub("", shown)
    if _NAME.fullmatch(given):
        return given
    safe = re.sub(r"[^a-z0-9]+", "-", given.lower()).strip("-")[:60]
    return safe if safe[:1].isalpha() else f"r-{safe}".rstrip("-")


def last(name: str) -> str:
    """The last part of a resource name."""
    return name.rsplit("/", 1)[-1]
