"""A stand-in for RunPod's REST API v2, on this machine.

Every request and every answer is checked against RunPod's OpenAPI description (tests/fakes/specs). It refuses what the
real one is documented to refuse, and can be told to misbehave (`faults.py`).

    with running(free_port(), TOKEN) as fake:
        fake.cloud.endpoints ...
"""

from .cloud import Cloud
from .faults import Fault
from .server import Fake, running

__all__ = ["Cloud", "Fake", "Fault", "running"]
