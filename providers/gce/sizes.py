"""How large things are: a VM's disk, and the names of what is made."""

from __future__ import annotations

# The accelerator image with its driver and CUDA, and the packages that are added to it.
_SYSTEM_BYTES = 20 * 10**9
# The serving image has 8.6 GB of packages (docs/images.md); while it is pulled, its compressed layers lie beside them.
_IMAGE_BYTES = 16 * 10**9
# Logs, vLLM's compiled kernels, swap of nothing: what grows.
_HEADROOM_BYTES = 10 * 10**9
# Where the model's size is not known before (hf://, gs://). EXAONE 2.4B has 9 GB in the hub.
_UNKNOWN_BYTES = 20 * 10**9
# A disk's speed grows with its size, and everything is read from it at the start.
_SMALLEST_GB = 100

# https://cloud.google.com/compute/docs/reference/rest/v1/instanceGroupManagers: a group puts five characters behind.
LONGEST_BASE_NAME = 58


def disk_needed_gb(content_bytes: int | None) -> int:
    """What a disk must have at least, in GB. Content is there twice while a release changes the base model."""
    content = _UNKNOWN_BYTES if content_bytes is None else 2 * content_bytes
    return -(-(_SYSTEM_BYTES + _IMAGE_BYTES + _HEADROOM_BYTES + content) // 10**9)


def disk_gb(declared: int | None, content_bytes: int | None) -> int:
    """The disk that a VM gets, in GB."""
    return declared or max(_SMALLEST_GB, disk_needed_gb(content_bytes))


def base_name(environment: str, target: str, *, spot: bool = False) -> str:
    """What the VMs' names begin with."""
    return f"lorafleet-{environment}-{target}{'-spot' if spot else ''}"
