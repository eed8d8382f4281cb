"""What pulumi-gcp says of its resource types: their inputs with types, which are required, and their outputs."""

from __future__ import annotations

import importlib
import inspect
import re
import typing
import warnings
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pulumi
import pulumi_gcp
from pulumi import _types

from lorafleet.errors import listed, nearest
from providers.kit.values import UNKNOWN, Sealed

_FOLDER = Path(pulumi_gcp.__file__).parent


@dataclass(frozen=True)
class Kind:
    """A resource type. `args` is its class of inputs, `outputs` has every output's name."""

    token: str
    args: type
    outputs: tuple[str, ...]

    @property
    def inputs(self) -> dict[str, Any]:
        return _types.input_type_types(self.args)


@cache
def kind(token: str) -> Kind:
    """The resource type of a token such as `gcp:storage/bucket:Bucket`. Raises KeyError when there is none."""
    found = re.fullmatch(r"gcp:([A-Za-z0-9]+)/([A-Za-z0-9]+):([A-Za-z0-9]+)", token)
    if found:
        group, _, name = found.groups()
        # The file's name follows from the token by rules with exceptions; the token itself stands in the file.
        for file in sorted((_FOLDER / group.lower()).glob("*.py")):
            if not file.name.startswith(("_", "get_")) and f"'{token}'" in file.read_text():
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # old names that nobody here uses
                    module = importlib.import_module(f"pulumi_gcp.{group.lower()}.{file.stem}")
                outputs = tuple(_types.resource_types(getattr(module, name)))
                return Kind(token, getattr(module, f"{name}Args"), outputs)
    raise KeyError(token)


@cache
def provider_args() -> type:
    from pulumi_gcp.provider import ProviderArgs

    return ProviderArgs


def problems(args: type, value: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, str]]:
    """(path, what is wrong) for properties as they go over the wire, against a class of inputs."""
    known = _types.input_type_types(args)
    for name in value:
        if name not in known and not name.startswith("__"):
            near = nearest(name, known)
            yield f"{at}{name}", f"no such property; {f'did you mean {near}?' if near else listed(known)}"
    for name in _required(args):
        if value.get(name) is None:
            yield f"{at}{name}", "missing required property"
    for name, expected in known.items():
        if value.get(name) is not None:
            yield from _type_problems(expected, value[name], f"{at}{name}")


@cache
def _required(args: type) -> tuple[str, ...]:
    wire = _types.input_type_py_to_pulumi_names(args)
    parameters = inspect.signature(args.__init__).parameters.values()  # type: ignore[misc]
    return tuple(
        wire[each.name]
        for each in parameters
        if each.kind is inspect.Parameter.KEYWORD_ONLY and each.default is inspect.Parameter.empty
    )


def _type_problems(expected: Any, value: Any, at: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Sealed):
        value = value.value
    if value is UNKNOWN:
        return
    expected = _plain(expected)
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if expected is Any:
        return
    if origin is Mapping or origin is dict:
        if not isinstance(value, dict):
            yield at, _not_a("mapping", value)
            return
        for key, item in value.items():
            yield from _type_problems(arguments[1], item, f"{at}.{key}")
    elif origin is Sequence or origin is list:
        if not isinstance(value, list):
            yield at, _not_a("list", value)
            return
        for index, item in enumerate(value):
            yield from _type_problems(arguments[0], item, f"{at}[{index}]")
    elif _types.is_input_type(expected):
        if not isinstance(value, dict):
            yield at, _not_a("mapping", value)
            return
        yield from problems(expected, value, f"{at}.")
    elif expected in (str, bool, int, float):
        right = type(value) is expected or (expected is float and type(value) is int)
        if not right:
            yield at, _not_a(expected.__name__, value)


def _plain(expected: Any) -> Any:
    """`Union[X, Awaitable[X], Output[X]]` and `Optional[X]` are X here: over the wire goes a plain value."""
    if typing.get_origin(expected) is typing.Union:
        inner = [
            each
            for each in typing.get_args(expected)
            if each is not type(None) and typing.get_origin(each) not in (Awaitable, pulumi.Output)
        ]
        return inner[0] if len(inner) == 1 else Any
    return expected


def _not_a(expected: str, value: Any) -> str:
    return f"must be a {expected}, found a {type(value).__name__}"
