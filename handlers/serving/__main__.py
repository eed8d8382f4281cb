"""`python -m handlers.serving --config launch.json`"""

import argparse
import sys
from pathlib import Path

from handlers.serving import config, state
from handlers.serving.errors import ServingError
from handlers.serving.launcher import Launcher


def main(arguments: list[str] | None = None) -> int:
    """0: stopped on request; 1: failed, the state file says why; 2: the launch file is not usable."""
    parser = argparse.ArgumentParser(prog="python -m handlers.serving", description="Serves a fleet with vLLM.")
    parser.add_argument("--config", required=True, type=Path, help="the launch file (docs/architecture.md)")
    options = parser.parse_args(arguments)
    try:
        settings = config.load(options.config)
    except ServingError as error:
        sys.stderr.write(f"error: {error}\n")
        state.write_refusal(options.config, error)
        return 2
    return Launcher(settings).run()


if __name__ == "__main__":
    sys.exit(main())
