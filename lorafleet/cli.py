"""The `lorafleet` command: look at a declaration without Pulumi and without any platform, begin a new platform.

Exit codes: 0 all is well, 1 the declaration, a file or a name is wrong, 2 the command line is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lorafleet.errors import LorafleetError, Problem

_DESCRIPTION = "Look at a fleet's declaration without Pulumi and without any platform, or begin a new platform."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        match options.command:
            case "plan":
                return _plan(options.stack, as_json=options.json)
            case "check":
                return _check(options.stack)
            case "new-platform":
                return _new_platform(options.name)
            case _:
                return _digest(options.folder, options.kind)
    except LorafleetError as error:
        print(error, file=sys.stderr)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lorafleet", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    plan = commands.add_parser("plan", help="print what a stack's declaration resolves to")
    check = commands.add_parser("check", help="only say whether a stack's declaration is right")
    for command in (plan, check):
        command.add_argument("--stack", default="local", help="name of the stack (default: local)")
    plan.add_argument("--json", action="store_true", help="print JSON")
    digest = commands.add_parser("digest", help="print the content digest of a model's or an adapter's folder")
    digest.add_argument("folder", type=Path, help="the folder with the files")
    digest.add_argument(
        "--kind",
        choices=("adapter", "model"),
        help="which files count (default: adapter if it looks like one)",
    )
    platform = commands.add_parser("new-platform", help="write the skeleton of a platform's folder, providers/NAME/")
    platform.add_argument("name", metavar="NAME", help="the folder's name and the `kind` of targets, as in my_cloud")
    return parser


def _plan(stack: str, *, as_json: bool) -> int:
    from lorafleet.load import load_stack
    from lorafleet.plan import resolve

    plan = resolve(load_stack(find_root(Path.cwd()), stack))
    print(plan.to_json() if as_json else plan.render(), end="\n" if as_json else "")
    return 0


def _check(stack: str) -> int:
    from lorafleet.load import load_stack
    from lorafleet.plan import resolve

    plan = resolve(load_stack(find_root(Path.cwd()), stack))
    print(f"stack {stack}: right, with {len(plan.adapters)} adapters and {len(plan.targets)} targets")
    return 0


def _digest(folder: Path, kind: str | None) -> int:
    from lorafleet.digest import ADAPTER_FILES, content_digest
    from lorafleet.digest_cache import Cache

    adapter = kind == "adapter" if kind else (folder / ADAPTER_FILES[0]).exists()
    try:
        print(content_digest(folder, "adapter" if adapter else "model", cache=Cache()))
    except Problem as problem:
        raise LorafleetError(
            problem.what,
            where=str(folder),
            found=problem.found,
            allowed=problem.allowed,
            next_action=problem.next_action,
        ) from None
    return 0


def _new_platform(name: str) -> int:
    from lorafleet.scaffold import new_platform

    folder = new_platform(find_root(Path.cwd()), name)
    print(f"providers/{name}/ has {', '.join(sorted(path.name for path in folder.iterdir()))}")
    print(f"  test:    python -m pytest tests/contract -k {name}.Deployment")
    print(f"  next:    follow providers/{name}/README.md; the skeleton talks to a stand-in until you replace it")
    return 0


def find_root(start: Path) -> Path:
    """The project's root: the nearest folder, from `start` upwards, with a `stacks` folder in it.

    Raises:
        LorafleetError: there is none.
    """
    for folder in (start, *start.parents):
        if (folder / "stacks").is_dir():
            return folder
    raise LorafleetError(
        "this is not a folder of a lorafleet project",
        where=str(start),
        found="no folder `stacks` here or above",
        allowed="the folder that holds Pulumi.yaml and stacks/, or one below it",
        next_action="Change into the project's folder.",
    )


if __name__ == "__main__":
    sys.exit(main())
