"""The local stack's commands, run by the Makefile in the environment that env.sh makes."""

from __future__ import annotations

import argparse
import sys

from tools.stack.commands import StackError, down, preview, up


def main() -> int:
    """Runs `up`, `preview` or `down`; gives the exit status (Pulumi's own where Pulumi failed)."""
    parser = argparse.ArgumentParser(prog="python -m tools.stack", description="The local stack.")
    parser.add_argument("command", choices=["up", "preview", "down"])
    command = {"up": up, "preview": preview, "down": down}[parser.parse_args().command]
    try:
        return command()
    except StackError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Pulumi got the interrupt too and has said what it did about it.
        return 130


if __name__ == "__main__":
    sys.exit(main())
