"""How a thing on RunPod says which resource made it: by the end of its name.

Names are the one thing that all kinds (endpoints, pods, volumes, credentials) let us write and show in lists. Names on
RunPod need not be unique, so a mark there collides with nothing.
"""

from __future__ import annotations

import hashlib
import re

# The type of the component around a pod, which is a part of the pod's URN.
POD_TARGET = "lorafleet:runpod:PodTarget"
_END = re.compile(r"-lf[0-9a-f]{12}$")
_ANYWHERE = re.compile(r"-lf[0-9a-f]{12}")
# RunPod puts it behind the name of an endpoint with FlashBoot.
_FLASHBOOT = " -fb"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


def of(urn: str) -> str:
    """The mark of a resource."""
    return f"-lf{hashlib.sha256(urn.encode()).hexdigest()[:12]}"


def name(given: str, urn: str) -> str:
    """The name on RunPod of what is called `given` (unique by its nonce) in the program."""
    return f"{given}{of(urn)}"


def pod_urn(stack: str, project: str, target: str) -> str:
    """The URN of the pod that the component of a target makes, where that stands at the top of a stack's program."""
    return f"urn:pulumi:{stack}::{project}::{POD_TARGET}$lorafleet:runpod:Pod::{target}"


def bare(shown: str) -> str:
    """A name on RunPod without what RunPod itself adds."""
    return shown.removesuffix(_FLASHBOOT)


def plain(shown: str) -> str:
    """The name in the program of what is called `shown` on RunPod; what is no such name is made one."""
    given = _END.sub("", bare(shown))
    if _NAME.fullmatch(given):
        return given
    safe = re.sub(r"[^a-z0-9]+", "-", given.lower()).strip("-")[:60]
    return safe if safe[:1].isalpha() else f"r-{safe}".rstrip("-")


def is_marked(shown: str, urn: str) -> bool:
    return bare(shown).endswith(of(urn))


def may_be_ours(shown: str) -> bool:
    """Whether some resource's mark is anywhere in the name, as it is in that of an endpoint's hidden template."""
    return _ANYWHERE.search(shown) is not None


def is_named(shown: str, given: str, urn: str) -> bool:
    return bare(shown) == name(given, urn)


def same(shown: str, wanted: str) -> bool:
    """Whether RunPod has the name that was asked for."""
    return bare(shown) == wanted
