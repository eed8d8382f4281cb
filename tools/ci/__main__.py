"""`python -m tools.ci STEP`: what a step of a workflow does, here or on GitHub (docs/ci.md)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lorafleet.errors import LorafleetError


def main(arguments: list[str] | None = None) -> int:
    """Runs one step; returns the exit status."""
    options = _parser().parse_args(arguments)
    # Imported when asked for: `stacks` runs on a bare Python, before anything is installed.
    try:
        match options.step:
            case "stacks":
                from tools.ci import stacks

                return stacks.tell(options.only)
            case "check":
                from tools.ci import stacks

                return stacks.check()
            case "preview":
                from tools.ci import preview

                return preview.run(options.stack, options.out)
            case "comment":
                from tools.ci import preview

                return preview.comment_on(options.stack, options.out)
            case "plan":
                from tools.ci import deploy

                return deploy.plan(options.only, options.out)
            case "deploy":
                from tools.ci import deploy

                return deploy.deploy(options.stack, options.out)
            case "drift":
                from tools.ci import drift

                return drift.run(options.stack, options.out)
            case "promote":
                from tools.ci import promote

                return promote.run(options.source, options.target)
            case _:
                from tools.ci import images

                return images.run(options.out)
    except LorafleetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.ci", description="The steps of the workflows.")
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")

    def step(name: str, about: str, *, stack: bool = False, only: bool = False, out: bool = False) -> None:
        added = steps.add_parser(name, help=about)
        if stack:
            added.add_argument("--stack", required=True)
        if only:
            added.add_argument("--only", default="", help="this stack alone")
        if out:
            added.add_argument("--out", type=Path, default=Path(".lorafleet/ci"), help="folder for what is handed on")

    step("stacks", "say which stacks there are", only=True)
    step("check", "check every stack's declaration, without any account")
    step("preview", "preview one stack", stack=True, out=True)
    step("comment", "write what the preview found to the pull request", stack=True, out=True)
    step("plan", "preview every stack and save its plan", only=True, out=True)
    step("deploy", "do what the saved plan says", stack=True, out=True)
    step("drift", "compare a stack with the world and keep one issue about it", stack=True, out=True)
    step("images", "build the images and push them", out=True)
    promote = steps.add_parser("promote", help="propose one environment's release to another")
    promote.add_argument("--from", dest="source", required=True)
    promote.add_argument("--to", dest="target", required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
