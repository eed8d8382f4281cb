"""The `lorafleet` command: look at declarations, keep adapters and models in the store, move releases.

Exit codes: 0 all is well, 1 the declaration, a file or a name is wrong, 2 the command line is wrong.

`adapter`, `model` and `release` work with the store and live in `providers/artifacts`; a platform that has commands of
its own has them in `providers/<platform>/commands.py`, as a click command of its name. All are found by name when they
are asked for, so that this package imports no platform.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from lorafleet.errors import LorafleetError, Problem

# {command: (module, name of its click command, help)}
_ALWAYS = {
    "adapter": ("providers.artifacts.adapter_commands", "adapter", "Keep adapters in the store."),
    "model": ("providers.artifacts.model_commands", "model", "Keep base models in the store."),
    "prices": ("lorafleet.prices.commands", "prices", "Show, check and refresh what GPUs cost."),
    "release": ("providers.artifacts.release_commands", "release", "Show, promote and roll back releases."),
}


def _elsewhere() -> dict[str, tuple[str, str, str]]:
    """As `_ALWAYS`, with the platforms that have commands of their own."""
    from lorafleet.targets import folders_with

    found = folders_with("commands.py")
    return _ALWAYS | {
        name: (f"providers.{name}.commands", name, f"What only targets on {name} need.") for name in found
    }


class _Commands(click.Group):
    """The commands of this module and, imported only when asked for, those elsewhere."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_elsewhere()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in _elsewhere():
            return own
        module, name, _ = _elsewhere()[cmd_name]
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = {name: command.get_short_help_str(90) for name, command in self.commands.items()}
        rows = own | {name: text for name, (_, _, text) in _elsewhere().items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows.items()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        code = cli.main(
            args=None if arguments is None else list(arguments), prog_name="lorafleet", standalone_mode=False
        )
        return code if isinstance(code, int) else 0
    except LorafleetError as error:
        click.echo(str(error), err=True)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
    return 1


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Look at a fleet's declaration, keep its adapters and models in the store, move releases between environments."""


@cli.command()
@click.option("--stack", default="local", show_default=True, help="name of the stack")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def plan(stack: str, as_json: bool) -> None:
    """Print what a stack's declaration resolves to."""
    from lorafleet.load import load_stack
    from lorafleet.plan import resolve

    resolved = resolve(load_stack(find_root(Path.cwd()), stack))
    click.echo(resolved.to_json() if as_json else resolved.render(), nl=as_json)


@cli.command()
@click.option("--stack", default="local", show_default=True, help="name of the stack")
def check(stack: str) -> None:
    """Only say whether a stack's declaration is right."""
    from lorafleet.load import load_stack
    from lorafleet.plan import resolve

    resolved = resolve(load_stack(find_root(Path.cwd()), stack))
    click.echo(f"stack {stack}: right, with {len(resolved.adapters)} adapters and {len(resolved.targets)} targets")


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--kind",
    type=click.Choice(("adapter", "model")),
    help="which files count (default: adapter if it looks like one)",
)
def digest(folder: Path, kind: str | None) -> None:
    """Print the content digest of a model's or an adapter's folder."""
    from lorafleet.digest import ADAPTER_FILES, content_digest
    from lorafleet.digest_cache import Cache

    is_adapter = kind == "adapter" if kind else (folder / ADAPTER_FILES[0]).exists()
    try:
        click.echo(content_digest(folder, "adapter" if is_adapter else "model", cache=Cache()))
    except Problem as problem:
        raise LorafleetError(
            problem.what,
            where=str(folder),
            found=problem.found,
            allowed=problem.allowed,
            next_action=problem.next_action,
        ) from None


@cli.command("new-platform")
@click.argument("name")
def new_platform(name: str) -> None:
    """Write the skeleton of a platform's folder, providers/NAME/ (the `kind` of targets, as in my_cloud)."""
    from lorafleet import scaffold

    folder = scaffold.new_platform(find_root(Path.cwd()), name)
    click.echo(f"providers/{name}/ has {', '.join(sorted(path.name for path in folder.iterdir()))}")
    click.echo(f"  test:    python -m pytest tests/contract -k {name}.Deployment")
    click.echo(f"  next:    follow providers/{name}/README.md; the skeleton talks to a stand-in until you replace it")


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
