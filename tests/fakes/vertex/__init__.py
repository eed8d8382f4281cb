"""A stand-in for Vertex AI's REST API, on this machine.

Every request and every answer is checked against the discovery documents that Google's own Python client ships with
(`discovery.py`). It refuses what the real one is documented to refuse, answers as proto3 does (what is empty is left
out, the project stands as its number), and can be told to misbehave (`tests/fakes/runpod/faults.py`).

    with running(free_port(), TOKEN) as fake:
        fake.cloud.endpoints ...
"""

from tests.fakes.runpod.faults import Fault

from .cloud import Cloud
from .server import Fake, running

__all__ = ["Cloud", "Fake", "Fault", "running"]
