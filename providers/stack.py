"""What every stack program begins and ends with: the fleet from its stack file, and the stack's outputs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pulumi
from pulumi.runtime import is_dry_run
from pulumi.runtime.config import is_config_secret

from lorafleet.errors import LorafleetError, nearest
from lorafleet.load import load_fleet
from lorafleet.plan import Plan, PlannedTarget, resolve
from lorafleet.targets import module_of
from providers.kit.endpoint import Target
from providers.kit.program import Declared

if TYPE_CHECKING:
    from providers.routing import Router

# Tells the language host that the reason was shown; any other status adds an "unhandled error" of its own to it.
_REASON_WAS_SHOWN = 32


def refuse(message: str) -> NoReturn:
    """Ends the program with this one error, without a traceback."""
    pulumi.log.error(message)
    sys.exit(_REASON_WAS_SHOWN)


def fleet() -> Plan:
    """The resolved plan of this stack's declaration, `serving:fleet` in `stacks/Pulumi.<stack>.yaml`.

    Ends the program with every mistake, each with file and line.
    """
    config = pulumi.Config()
    stack_file = root() / "stacks" / f"Pulumi.{pulumi.get_stack()}.yaml"
    if is_config_secret(config.full_key("fleet")):
        refuse(
            f"{stack_file.name}: serving:fleet holds a secret value\n"
            "  allowed: plain values; nothing in a declaration is secret\n"
            "  next:    take it out; a key for clients goes to `pulumi config set --secret apiKey`"
        )
    declaration = config.get_object("fleet")
    if declaration is None:
        refuse(
            f"{stack_file.name}: the stack has no configuration serving:fleet\n"
            "  next:    copy the block `serving:fleet:` from stacks/Pulumi.local.yaml and adapt it"
        )
    try:
        found = load_fleet(declaration, environment=pulumi.get_stack(), root=root(), stack_file=stack_file)
        plan = resolve(found)
    except LorafleetError as error:
        refuse(f"the fleet's declaration is wrong\n{error}")
    _ask_for_secrets(plan)
    return plan


def _ask_for_secrets(plan: Plan) -> None:
    """Says all at once which secrets the targets need and the stack has not: before anything is made."""
    config = pulumi.Config()
    wanted: dict[str, str] = {}
    by: dict[str, list[str]] = {}
    for planned in plan.targets:
        for key, what in planned.spec.stack_secrets().items():
            wanted[key] = what
            by.setdefault(key, []).append(planned.name)
    lines = [
        f"  {key}: {what}; for {', '.join(by[key])}\n    next: pulumi config set --secret {key}"
        for key, what in wanted.items()
        if config.get_secret(key) is None
    ]
    if not lines:
        return
    if is_dry_run():
        pulumi.log.warn("\n".join(["`pulumi up` will need secrets that this stack does not have yet", *lines]))
    else:
        refuse("\n".join(["the targets need secrets that this stack does not have; nothing was made", *lines]))


def target(plan: Plan, name: str, kind: str) -> PlannedTarget:
    """The target that a component called `name` stands for.

    Ends the program with one error if none of that name and kind is declared.
    """
    declared = {each.name: each for each in plan.targets}
    if name not in declared:
        close = nearest(name, declared)
        hint = f"did you mean '{close}'? " if close else ""
        refuse(
            f"the program has a target '{name}', the stack file declares none of that name\n"
            f"  allowed: {', '.join(declared)}\n"
            f"  next:    {hint}declare it under serving:fleet.targets, or rename it in the program"
        )
    if declared[name].kind != kind:
        refuse(
            f"the program makes target '{name}' of kind '{kind}', the stack file declares kind "
            f"'{declared[name].kind}'\n  next:    make both the same"
        )
    return declared[name]


def targets(plan: Plan, manifest: Declared, *, leave_out: Container[str] = ()) -> list[Target]:
    """Every target that the stack file declares, made by the component of its kind.

    manifest: what they all follow; leave_out: names of targets that the program makes by itself. Of kinds that the
    stack file does not name, nothing is imported.
    """
    made = []
    for planned in plan.targets:
        if planned.name not in leave_out:
            component: Callable[[str, Plan, Declared], Target] = importlib.import_module(
                module_of(planned.kind, "target")
            ).TARGET
            made.append(component(planned.name, plan, manifest))
    return made


def router(name: str, plan: Plan, targets: Sequence[Target]) -> Router:
    """The one address in front of `targets`, where `router.runs` of the stack file says."""
    if plan.router.runs == "here":
        from providers import local

        return local.Router(name, plan, targets)
    from providers.routing import RouterElsewhere

    return RouterElsewhere(name, plan, targets)


def export(plan: Plan, *, targets: Sequence[Target], router: Router) -> None:
    """The outputs that every stack has: `models`, `targets` and those of its router."""
    unused = {each.name for each in plan.targets} - {each.endpoint.name for each in targets}
    if unused and is_dry_run():
        pulumi.log.warn(f"declared but not used by this stack's program: {', '.join(sorted(unused))}")
    for name, value in router.outputs.items():
        pulumi.export(name, value)
    pulumi.export("models", list(plan.router.models))
    pulumi.export(
        "targets",
        {
            each.endpoint.name: {
                "kind": each.endpoint.kind,
                "url": each.endpoint.url,
                "adapters": each.endpoint.served,
            }
            for each in targets
        },
    )


def root() -> Path:
    """The folder of Pulumi.yaml; the program runs in it or in `main:` below it."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "Pulumi.yaml").is_file()), here)
