"""`python -m images.health serving|router`: the containers' HEALTHCHECK. Exit status 0: healthy, 1: not.

The serving image is healthy when `/ready` says 200: model and all adapters are loaded and probed. The router is when it
answers at all: one whose targets are all down is well itself, and a restart would not help.
"""

import http.client
import ipaddress
import os
import sys
from collections.abc import Mapping

from images.start import StartError, settle

PATHS = {"serving": "/ready", "router": "/health"}
TIMEOUT_S = 4.0


def address(kind: str, environ: Mapping[str, str]) -> tuple[str, int]:
    """Where the server listens, as seen from inside the container. Raises StartError."""
    document = settle(kind, environ).document
    place = document if kind == "serving" else document.get("listen")
    host, port = (place.get("host"), place.get("port")) if isinstance(place, dict) else (None, None)
    if not isinstance(host, str) or not isinstance(port, int):
        raise StartError("the configuration names no host and port", "see its shape in docs/architecture.md")
    try:
        listens_everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host, port
    if listens_everywhere:
        return ("::1" if ":" in host else "127.0.0.1"), port
    return host, port


def ask(kind: str, environ: Mapping[str, str]) -> tuple[bool, str]:
    """(healthy or not, one line that says why)."""
    try:
        host, port = address(kind, environ)
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", PATHS[kind])
            status = connection.getresponse().status
        finally:
            connection.close()
    except StartError as error:
        return False, str(error)
    except (OSError, http.client.HTTPException) as error:
        return False, f"no answer: {type(error).__name__}: {error}"
    return status == 200 or kind == "router", f"{PATHS[kind]} answers {status}"


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in PATHS:
        sys.stderr.write("usage: python -m images.health serving|router\n")
        return 2
    healthy, line = ask(arguments[0], os.environ)
    sys.stdout.write(line + "\n")
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
