"""Validation of a resource's inputs: every fault named by path, before anything reaches a platform.

Inputs can be unknown at preview, at any depth. Faults that touch an unknown value are not faults yet; the rest
is checked all the same, so that a wrong line is refused at preview wherever it can be known then.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from lorafleet.errors import nearest

from . import fields, values
from .errors import NotKnownYetError, Problem
from .fields import Inputs
from .values import Path


@dataclass
class Checked:
    """The outcome of a check.

    inputs: wire properties, defaults filled in, secrets marked, unknowns kept.
    model: the validated inputs; None while something is unknown or wrong.
    """

    inputs: dict[str, Any]
    model: Inputs | None = None
    problems: list[Problem] = field(default_factory=list)


def check(model: type[Inputs], news: dict[str, Any], olds: dict[str, Any] | None, *, name: str, seed: bytes) -> Checked:
    """Validates `news` for a resource called `name`; `olds` are the inputs in the state, if it has any."""
    plain = {key: value for key, value in values.unseal(news).items() if value is not None}
    _fill_auto_names(model, plain, values.unseal(olds or {}), name=name, seed=seed)
    sealed = values.sealed_paths(news)
    checker = _check_partly_known if values.has_unknown(plain) else _check_known
    result = checker(model, plain, sealed)
    result.inputs = values.reseal(result.inputs, sealed | fields.secret_paths(model, result.inputs))
    return result


def _fill_auto_names(
    model: type[Inputs], plain: dict[str, Any], olds: dict[str, Any], *, name: str, seed: bytes
) -> None:
    """A name that nobody else has, kept as long as the resource lives.

    Its random part comes from the engine's seed, so that `up --plan` makes what the plan showed.
    """
    for wire, (_, info) in fields.by_alias(model).items():
        if fields.has(info, fields.auto_name) and not plain.get(wire):
            nonce = hashlib.sha256(seed + wire.encode()).hexdigest()[:8]
            safe = "".join(c if c.isalnum() and c.isascii() else "-" for c in name.lower()).strip("-")
            if not safe[:1].isalpha():
                safe = f"r-{safe}".rstrip("-")
            plain[wire] = olds.get(wire) or f"{safe[:50]}-{nonce}"


def load(model: type[Inputs], properties: dict[str, Any]) -> Inputs:
    """The inputs of a resource from properties that were checked before (a state, a create request)."""
    known = {key: value for key, value in values.unseal(properties).items() if value is not None}
    return _validate(model, known)


def _validate(model: type[Inputs], plain: dict[str, Any]) -> Inputs:
    # By wire names alone: under another name, a secret's mark would not be found again.
    return model.model_validate(plain, by_alias=True, by_name=False)


class PartlyKnown:
    """Checked inputs at preview: the fields that are known, by their Python names; the others raise."""

    def __init__(self, model: type[Inputs], properties: dict[str, Any]) -> None:
        self._model, self._properties = model, values.unseal(properties)

    def __getattr__(self, name: str) -> Any:
        info = self._model.model_fields[name]
        value = self._properties.get(info.alias or name)
        if values.has_unknown(value):
            raise NotKnownYetError(name)
        if value is None:
            return info.get_default(call_default_factory=True)
        return _adapter(info).validate_python(value)


def _check_known(model: type[Inputs], plain: dict[str, Any], sealed: set[Path]) -> Checked:
    try:
        instance = _validate(model, plain)
    except ValidationError as error:
        return Checked(plain, problems=problems_of(model, plain, error, sealed))
    return Checked(dump(instance), instance)


def dump(instance: BaseModel) -> dict[str, Any]:
    """Wire properties of a model; what is None is left out, as the engine does."""
    dumped: dict[str, Any] = instance.model_dump(mode="json", by_alias=True, exclude_none=True)
    return dumped


def _check_partly_known(model: type[Inputs], plain: dict[str, Any], sealed: set[Path]) -> Checked:
    result = Checked(dict(plain))
    known = fields.by_alias(model)
    unknown = values.unknown_paths(plain)
    for wire in plain:
        if wire not in known:
            result.problems.append(_unknown_key((wire,), list(known)))
    for wire, (_, info) in known.items():
        if wire not in plain:
            if info.is_required():
                result.problems.append(Problem((wire,), "is required", next_action=f"set '{wire}'"))
            else:
                default = _adapter(info).dump_python(
                    info.get_default(call_default_factory=True), mode="json", by_alias=True, exclude_none=True
                )
                if default is not None:
                    result.inputs[wire] = default
            continue
        if plain[wire] is values.UNKNOWN:
            continue
        adapter = _adapter(info)
        try:
            value = adapter.validate_python(plain[wire], by_alias=True, by_name=False)
        except ValidationError as error:
            found = problems_of(model, plain, error, sealed, below=(wire,))
            result.problems += [p for p in found if not any(_touches(p.path, at) for at in unknown)]
            continue
        if not values.has_unknown(plain[wire]):
            result.inputs[wire] = adapter.dump_python(value, mode="json", by_alias=True, exclude_none=True)
    return result


def _adapter(info: FieldInfo) -> TypeAdapter[Any]:
    annotation: Any = info.annotation
    return TypeAdapter(Annotated[annotation, *info.metadata] if info.metadata else annotation)


def _touches(a: Path, b: Path) -> bool:
    length = min(len(a), len(b))
    return a[:length] == b[:length]


def problems_of(
    model: type[BaseModel], plain: dict[str, Any], error: ValidationError, sealed: set[Path], *, below: Path = ()
) -> list[Problem]:
    """One problem per fault that pydantic found.

    Values of secret fields are never shown, nor what the program marked secret (`sealed`), whatever field it is in.
    """
    secret = fields.secret_paths(model, plain) | sealed
    problems: list[Problem] = []
    for fault in error.errors(include_url=False, include_input=False):
        path = _wire_path(plain, (*below, *fault["loc"]))
        kind = fault["type"]
        if kind == "extra_forbidden":
            problems.append(_unknown_key(path, _valid_keys(model, path)))
            continue
        if kind == "missing":
            problems.append(Problem(path, "is required", next_action=f"set '{values.path_text(path)}'"))
            continue
        hidden = any(_touches(path, at) for at in secret)
        found = "a secret value" if hidden else _shown(plain, path)
        context = fault.get("ctx", {})
        allowed = str(context.get("expected", "")) or fault["msg"]
        what = (
            f"has a wrong value (found {found})" if kind != "value_error" else str(context.get("error", fault["msg"]))
        )
        problem = Problem(path, what, "" if kind == "value_error" else allowed, "correct it and run again")
        if problem not in problems:
            problems.append(problem)
    return problems


def _unknown_key(path: Path, valid: list[str]) -> Problem:
    close = nearest(str(path[-1]), valid)
    hint = f"did you mean '{close}'?" if close else "remove it"
    return Problem(path, "is not a property here", ", ".join(sorted(valid)), hint)


def _valid_keys(model: type[BaseModel], path: Path) -> list[str]:
    """The keys allowed where `path` ends."""
    current: list[type[BaseModel]] = [model]
    for part in path[:-1]:
        inner: list[type[BaseModel]] = []
        for candidate in current:
            entry = fields.by_alias(candidate).get(str(part))
            if entry is not None:
                inner += fields.models_in(entry[1].annotation)
        current = inner or current
    return sorted({key for candidate in current for key in fields.by_alias(candidate)})


def _has(value: Any, part: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, dict) and part in value


def _wire_path(plain: Any, loc: tuple[str | int, ...]) -> Path:
    """pydantic's location without the steps that only it knows (union members, function names)."""
    path: list[str | int] = []
    current: Any = plain
    for index, part in enumerate(loc):
        if _has(current, part):
            current = current[part]
        elif index == len(loc) - 1 and isinstance(current, dict) and isinstance(part, str):
            current = None
        else:
            continue
        path.append(part)
    return tuple(path)


def _shown(plain: Any, path: Path) -> str:
    found = [node for at, node in values.walk(plain) if at == path]
    if not found:
        return "nothing"
    current = found[0]
    text = repr(current)
    return text if len(text) <= 80 else f"{text[:77]}..."
