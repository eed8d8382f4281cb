"""A VM of Compute Engine as far as its start-up goes, without a VM: its metadata and Secret Manager over HTTP, programs
in the place of `docker`, `systemctl` and `nvidia-smi`, and a small reader of systemd's units.

`docker` runs the files that an image has as a process of this machine, so the server itself is real.
"""

from .sandbox import Sandbox, Service
from .site import Site

__all__ = ["Sandbox", "Service", "Site"]
