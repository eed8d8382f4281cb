"""The package schema, made from the resources' models (pulumi.com/docs: package schema)."""

from __future__ import annotations

import inspect
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from . import fields, registry
from .resource import Resource

_PLAIN: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def package_schema(version: str) -> dict[str, Any]:
    """Schema of all resources of all platforms (imports every platform's resources, no SDK)."""
    nested: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for platform in registry.platforms():
        for resource in registry.resources(platform).values():
            found[registry.token_of(resource)] = _resource(resource, platform, nested)
    return {
        "name": registry.PROVIDER,
        "version": version,
        "description": "Serving one base model with LoRA adapters on many platforms.",
        "resources": found,
        "types": nested,
    }


def _resource(resource: type[Resource[Any, Any]], platform: str, nested: dict[str, Any]) -> dict[str, Any]:
    inputs, outputs = resource.inputs_model(), resource.outputs_model()
    given, made = _properties(inputs, platform, nested), _properties(outputs, platform, nested)
    required = _required(inputs)
    return {
        "description": inspect.getdoc(resource) or "",
        "inputProperties": given,
        "requiredInputs": required,
        "properties": {**given, **made},
        "required": sorted({*required, *_required(outputs)}),
    }


def _required(model: type[BaseModel]) -> list[str]:
    return sorted(info.alias or name for name, info in model.model_fields.items() if info.is_required())


def _properties(model: type[BaseModel], platform: str, nested: dict[str, Any]) -> dict[str, Any]:
    return {wire: _property(info, platform, nested) for wire, (_, info) in fields.by_alias(model).items()}


def _property(info: FieldInfo, platform: str, nested: dict[str, Any]) -> dict[str, Any]:
    spec = _type(info.annotation, platform, nested)
    if info.description:
        spec["description"] = info.description
    if fields.has(info, fields.secret):
        spec["secret"] = True
    if fields.has(info, fields.replaces):
        spec["replaceOnChanges"] = True
    if isinstance(info.default, str | int | float | bool) and info.default != "":
        spec["default"] = info.default
    return spec


def _type(annotation: Any, platform: str, nested: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0], platform, nested)
    if origin in (Union, types.UnionType):
        members = [each for each in arguments if each is not type(None)]
        if len(members) == 1:
            return _type(members[0], platform, nested)
        return {"oneOf": [_type(each, platform, nested) for each in members]}
    if origin is Literal:
        return {"type": _PLAIN.get(type(arguments[0]), "string")}
    if origin in (list, tuple):
        return {"type": "array", "items": _type(arguments[0], platform, nested)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(arguments[1], platform, nested)}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        token = f"{registry.PROVIDER}:{platform}:{annotation.__name__}"
        if token not in nested:
            nested[token] = {}  # a model may mention itself
            nested[token] = {
                "type": "object",
                "description": inspect.getdoc(annotation) or "",
                "properties": _properties(annotation, platform, nested),
                "required": _required(annotation),
            }
        return {"$ref": f"#/types/{token}"}
    return {"type": _PLAIN.get(annotation, "string")}
