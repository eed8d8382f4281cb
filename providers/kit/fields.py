"""What a resource's fields can say about themselves, as marks in `Annotated[...]`.

class Inputs(kit.Inputs):
    name: kit.AutoName                          # made in check, unique, kept for the resource's life
    size: kit.Replaced[str]                     # a change needs a new resource
    token: kit.Secret[str]                      # never shown, encrypted in the state
    image: Annotated[str, kit.Normalised(f)]    # equal when f(old) == f(new)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

T = TypeVar("T")


@dataclass(frozen=True)
class Mark:
    """A mark without a value."""

    name: str


replaces = Mark("replaces")
secret = Mark("secret")
auto_name = Mark("auto_name")


@dataclass(frozen=True)
class Normalised:
    """Two values are the same when `to_canonical` maps them to the same one (what a platform rewrites)."""

    to_canonical: Callable[[Any], Any]


@dataclass(frozen=True)
class Expected:
    """The value that an output has while all is well; another one shows as a change that `update` mends."""

    value: Any


Secret = Annotated[T, secret]
Replaced = Annotated[T, replaces]
AutoName = Annotated[str, auto_name, replaces, Field(default="", max_length=63, pattern=r"^([a-z][a-z0-9-]*)?$")]


class Model(BaseModel):
    """Base of everything that crosses the wire: camelCase outside, no unknown keys, no silent conversion."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        allow_inf_nan=False,
        # An error must not carry what it was about: secrets are taken out of messages by the kit.
        hide_input_in_errors=True,
        # A plugin run uses a few of the models that it imports; the others need not be compiled.
        defer_build=True,
    )


class Inputs(Model):
    """What a program declares."""


class Outputs(Model):
    """What only the platform knows. Inputs are outputs too; they need not be repeated here."""


def has(field: FieldInfo, mark: Mark) -> bool:
    """Whether a field carries a mark, also one inside `X | None` or `list[X]`."""
    return mark in field.metadata or _inside(field.annotation, mark)


def _inside(annotation: Any, mark: Mark) -> bool:
    if get_origin(annotation) is Annotated and mark in get_args(annotation)[1:]:
        return True
    return any(_inside(argument, mark) for argument in get_args(annotation) if argument is not ...)


def normaliser(field: FieldInfo) -> Callable[[Any], Any] | None:
    for entry in field.metadata:
        if isinstance(entry, Normalised):
            return entry.to_canonical
    return None


def expected(field: FieldInfo) -> Expected | None:
    return next((entry for entry in field.metadata if isinstance(entry, Expected)), None)


def alias(model: type[BaseModel], name: str) -> str:
    """The wire name of a field."""
    return model.model_fields[name].alias or name


def by_alias(model: type[BaseModel]) -> dict[str, tuple[str, FieldInfo]]:
    """{wire name: (Python name, field)}"""
    return {field.alias or name: (name, field) for name, field in model.model_fields.items()}


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation mentions: in unions, lists and dicts too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


def secret_paths(model: type[BaseModel], value: Any, at: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """Where `value`, shaped like `model`, holds a field that is marked secret."""
    found: set[tuple[str | int, ...]] = set()
    if not isinstance(value, dict):
        return found
    for name, (_, field) in by_alias(model).items():
        if value.get(name) is None:
            continue
        here = (*at, name)
        found |= {here} if has(field, secret) else _secrets_below(field.annotation, value[name], here)
    return found


def _secrets_below(annotation: Any, value: Any, at: tuple[str | int, ...]) -> set[tuple[str | int, ...]]:
    """Follows the annotation, not the looks of the value: a dictionary's keys can be named like fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return secret_paths(annotation, value, at)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (list, tuple) and isinstance(value, list):
        return {path for i, item in enumerate(value) for path in _secrets_below(arguments[0], item, (*at, i))}
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, dict):
        return {path for key, item in value.items() for path in _secrets_below(arguments[1], item, (*at, key))}
    # Unions and Annotated: whatever a member would find.
    return {path for each in arguments for path in _secrets_below(each, value, at)}
