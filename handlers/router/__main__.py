"""`python -m handlers.router --config router.json`: the router, in the foreground.

SIGHUP reads the file again and reloads without losing a request; SIGTERM drains and stops. One JSON line for
each request goes to standard output, everything else to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from handlers.router import supervisor


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m handlers.router", description=__doc__)
    parser.add_argument("--config", required=True, type=Path, metavar="ROUTER_JSON", help="the router file")
    # Absolute, because HAProxy runs in another folder.
    return asyncio.run(supervisor.run(parser.parse_args().config.absolute()))


if __name__ == "__main__":
    sys.exit(main())
