"""TCP ports for tests."""

from __future__ import annotations

import random
import socket

# Below the range from which the system gives ports to whoever asks for any (32768 on Linux): a port that is free now
# is not handed to another process a moment later.
_RANGE = range(12000, 32000)
_given: set[int] = set()


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nobody listens, a new one at each call."""
    while True:
        port = random.choice(_RANGE)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
