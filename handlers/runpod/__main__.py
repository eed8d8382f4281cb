"""`python -m handlers.runpod --config launch.json [--sdk-python PYTHON] [-- arguments of RunPod's SDK]`"""

import argparse
import sys
from pathlib import Path

from handlers.runpod.supervisor import SDK_PYTHON, Supervisor
from handlers.serving import state
from handlers.serving.errors import ServingError


def main(arguments: list[str] | None = None) -> int:
    """0: stopped on request; 1: the server or the worker ended; 2: the launch file or the environment is not usable."""
    parser = argparse.ArgumentParser(
        prog="python -m handlers.runpod", description="Serves a fleet to RunPod's queue endpoints."
    )
    parser.add_argument("--config", required=True, type=Path, help="the launch file (docs/architecture.md)")
    parser.add_argument("--sdk-python", type=Path, default=SDK_PYTHON, help="of the environment with RunPod's SDK")
    parser.add_argument("sdk", nargs="*", help="arguments of RunPod's SDK, such as --rp_serve_api, after --")
    options = parser.parse_args(arguments)
    try:
        supervisor = Supervisor(options.config, options.sdk_python, options.sdk)
        return supervisor.run()
    except ServingError as error:
        sys.stderr.write(f"error: {error}\n")
        state.write_refusal(options.config, error)
        return 2


if __name__ == "__main__":
    sys.exit(main())
