"""From configuration to a checked `Fleet`: every mistake is named with its place, none is mended silently."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel as PydanticModel
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lorafleet import stackfile
from lorafleet.checks import check
from lorafleet.declaration import Declaration, Fleet
from lorafleet.errors import LorafleetError, listed, looks_secret_name, nearest, shown, shown_key
from lorafleet.origin import CONFIG_KEY, PROJECT, Origin, Report, shown_path
from lorafleet.sources import ALLOWED as SOURCES
from lorafleet.sources import Source
from lorafleet.stackfile import FieldPath
from lorafleet.targets import TargetSpec, kinds, spec_of
from lorafleet.values import ERROR_TYPE

M = TypeVar("M", bound=PydanticModel)

ENVIRONMENT_PATTERN = r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?"


def load_fleet(config: Mapping[str, object], *, environment: str, root: Path, stack_file: Path | None = None) -> Fleet:
    """Check a declaration that was read already, as `pulumi.Config().require_object("fleet")` returns it.

    Args:
        config: the declaration, with camelCase keys.
        environment: name of the stack.
        root: the project's root, which `file://` paths start from.
        stack_file: the file that the configuration came from. It is read only to name lines in errors.

    Raises:
        LorafleetError: the declaration is wrong (`DeclarationErrors` when in more than one place).
    """
    report = Report(Origin(environment, root.absolute(), stack_file.absolute() if stack_file else None))
    if not re.fullmatch(ENVIRONMENT_PATTERN, environment):
        report.add(
            (),
            "the stack's name does not have the form that is needed",
            found=shown(environment),
            allowed="lower-case letters, digits and inner hyphens, at most 40 characters",
            next_action="Use a stack such as local, dev, staging or prod.",
        )
    targets = _targets(config, report)
    plain = dict(config) if isinstance(config, Mapping) else config
    declaration = validated(Declaration, {**plain, "targets": targets} if targets else plain, (), report)
    report.finish()
    assert declaration is not None  # finish() raised otherwise
    check(declaration, report)
    report.finish()
    fields = {name: getattr(declaration, name) for name in Declaration.model_fields}
    return Fleet(origin=report.origin, **fields)


def load_stack(root: Path, environment: str) -> Fleet:
    """Read `stacks/Pulumi.<environment>.yaml` under the project's root, without Pulumi, and check it.

    Raises:
        LorafleetError: as `load_fleet`; also when there is no such stack, or its file is not valid YAML.
    """
    root = root.absolute()
    path = root / "stacks" / f"Pulumi.{environment}.yaml"
    name = shown_path(path, root)
    valid = stacks(root)
    if environment not in valid:
        near = nearest(environment, valid)
        raise LorafleetError(
            "there is no such stack",
            where=shown_path(root / "stacks", root),
            found=shown(environment),
            allowed=listed(valid) if valid else "a stack with a file stacks/Pulumi.<stack>.yaml",
            next_action=f"Did you mean {near}?" if near else "Name one of these, or write its file.",
        )
    content = stackfile.read(path, name)
    key = f"{PROJECT}:{CONFIG_KEY}"
    config = content.value.get("config") if isinstance(content.value, dict) else None
    if not isinstance(config, dict) or key not in config:
        have = [str(other) for other in config] if isinstance(config, dict) else []
        near = nearest(key, have)
        raise LorafleetError(
            f"the stack's configuration has no {key}",
            where=f"{name}:{content.line(('config',)) or 1}",
            field=key,
            allowed=f"`config:` with `{key}:` in it, which holds the declaration",
            next_action=f"Did you mean to write {key} instead of {shown_key(near)}?"
            if near
            else "Copy the block from stacks/Pulumi.local.yaml.",
        )
    return load_fleet(config[key], environment=environment, root=root, stack_file=path)


def stacks(root: Path) -> list[str]:
    """The environments that have a file, sorted."""
    return sorted(path.name[len("Pulumi.") : -len(".yaml")] for path in (root / "stacks").glob("Pulumi.*.yaml"))


def _targets(config: Mapping[str, object], report: Report) -> dict[str, object]:
    """The declared targets, each checked by its own platform; as found where it can't be.

    They are done first and one by one, because only `kind` says which model checks a target.
    """
    declared = config.get("targets") if isinstance(config, Mapping) else None
    if not isinstance(declared, Mapping):
        return {}
    result: dict[str, object] = {}
    for name, value in declared.items():
        path: FieldPath = ("targets", name)
        if not isinstance(value, Mapping):
            result[name] = value
            continue
        spec = _spec(value, path, report)
        result[name] = (spec and validated(spec, value, path, report)) or _PLACEHOLDER
    return result


# Stands in for a target whose own mistakes are noted already, so that its place is not reported a second
# time.
_PLACEHOLDER = TargetSpec(kind="")


def _spec(value: Mapping[str, object], path: FieldPath, report: Report) -> type[TargetSpec] | None:
    valid = kinds()
    kind = value.get("kind")
    if "kind" not in value:
        report.add(
            path,
            "the target does not say its kind",
            allowed=f"kind: {listed(valid)}",
            next_action="Add the key `kind`.",
        )
    elif not isinstance(kind, str) or kind not in valid:
        near = nearest(kind, valid) if isinstance(kind, str) else None
        report.value(
            (*path, "kind"),
            "there is no platform of this kind",
            kind,
            allowed=listed(valid),
            next_action=f"Did you mean {near}?"
            if near
            else "Name one of these; a new platform is a new folder in providers/.",
        )
    else:
        return spec_of(kind)
    return None


def validated(model: type[M], value: object, path: FieldPath, report: Report) -> M | None:
    """`value`, which stands at `path` of the declaration, as a model; None after its mistakes were noted."""
    try:
        return model.model_validate(value, by_alias=True, by_name=False)
    except ValidationError as error:
        found = error.errors(include_url=False)
        misspelt = {
            (*details["loc"][:-1], _meant(details["loc"], model))
            for details in found
            if details["type"] == "extra_forbidden"
        }
        for details in found:
            # A misspelt key is one mistake: that the right one is missing goes without saying.
            if not (details["type"] == "missing" and details["loc"] in misspelt):
                _note(details, model, path, report)
    return None


def _meant(inner: FieldPath, model: type[PydanticModel]) -> str | None:
    """The key that an unknown one was probably meant to be."""
    owner = _owner(model, inner[:-1])
    return nearest(str(inner[-1]), _keys(owner)) if owner else None


def _note(details: ErrorDetails, model: type[PydanticModel], prefix: FieldPath, report: Report) -> None:
    """Turn one of pydantic's findings into one of ours."""
    is_key = details["loc"][-1:] == ("[key]",)
    inner = details["loc"][:-1] if is_key else details["loc"]
    path = (*prefix, *inner)
    context: dict[str, Any] = details.get("ctx", {})
    match details["type"]:
        case "missing":
            report.add(
                path,
                "this key is missing",
                allowed=_meaning(model, inner),
                next_action=f"Add the key `{path[-1]}`.",
            )
        case "extra_forbidden" | "invalid_key":
            _note_unknown(path, inner, model, report)
        case kind if kind == ERROR_TYPE:
            # A bad name of an adapter or a target is a key, and stands in the path already.
            found = shown_key(details["input"]) if is_key else _found(details["input"], path)
            report.add(
                path,
                context["what"],
                found=found,
                allowed=context["allowed"],
                next_action=context["next_action"],
            )
        case "model_type" | "dict_type" | "mapping_type" | "model_attributes_type":
            report.value(
                path,
                "a mapping is needed here",
                details["input"],
                allowed=_meaning(model, inner),
                next_action="Write the keys below it, indented.",
            )
        case "tuple_type" | "list_type":
            report.value(
                path,
                "a list is needed here",
                details["input"],
                allowed="a list of texts",
                next_action="Write one item a line, each after a hyphen, or [in, brackets].",
            )
        case _:
            report.value(
                path,
                details["msg"][:1].lower() + details["msg"][1:],
                details["input"],
                allowed=_meaning(model, inner),
                next_action="Mend the value.",
            )


def _found(value: object, path: FieldPath) -> str:
    return shown(value, key=next((str(part) for part in reversed(path) if isinstance(part, str)), ""))


def _note_unknown(path: FieldPath, inner: FieldPath, model: type[PydanticModel], report: Report) -> None:
    key = str(path[-1])
    owner = _owner(model, inner[:-1])
    valid = _keys(owner) if owner else []
    near = _meant(inner, model)
    if near:
        hint = f"Did you mean `{near}`?"
    elif looks_secret_name(key) or key == "secure":
        hint = "Take it away: a declaration holds no secrets. If the key was real, revoke it and make a new one."
    else:
        hint = f"Take the key away, or use one of these: {listed(valid)}."
    # The value of an unknown key is never shown: it may be a secret in a wrong place.
    report.add(
        path,
        "there is no such key here",
        found=f"key {shown_key(key)}",
        allowed=listed(valid),
        next_action=hint,
    )


def _annotation(model: type[PydanticModel], inner: FieldPath) -> tuple[Any, Sequence[Any]]:
    """The type that is declared for a place inside a model, and the checks that come with it."""
    current: Any = model
    checks: Sequence[Any] = ()
    for part in inner:
        if isinstance(current, type) and issubclass(current, PydanticModel):
            fields = [field for field in current.model_fields.values() if field.alias == part]
            current, checks = (fields[0].annotation, fields[0].metadata) if fields else (None, ())
        else:  # inside a mapping: its values' type
            current = get_args(current)[-1] if get_args(current) else None
        while get_origin(current) is Annotated:
            current, *more = get_args(current)
            checks = (*checks, *more)
    return current, checks


def _owner(model: type[PydanticModel], inner: FieldPath) -> type[PydanticModel] | None:
    """The model that stands at a place inside another, or None where something else stands."""
    here, _ = _annotation(model, inner)
    return here if isinstance(here, type) and issubclass(here, PydanticModel) else None


def _keys(model: type[PydanticModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _meaning(model: type[PydanticModel], inner: FieldPath) -> str:
    """What belongs at a place inside a model, in words."""
    here, checks = _annotation(model, inner)
    if isinstance(here, type) and issubclass(here, PydanticModel):
        return f"a mapping with the keys {listed(_keys(here), 'and')}"
    if here is Source:
        return SOURCES
    if get_origin(here) is Mapping:
        values = get_args(here)[-1]
        entry = _owner(model, (*inner, ""))
        if entry is not None:
            return f"a mapping of names; below each of them {listed(_keys(entry), 'and')}"
        described = [check.allowed for check in getattr(values, "__metadata__", ()) if hasattr(check, "allowed")]
        return f"a mapping of names, each with {' '.join(described) or 'a value'}"
    return " ".join(check.allowed for check in checks if hasattr(check, "allowed")) or "a value that fits this key"
