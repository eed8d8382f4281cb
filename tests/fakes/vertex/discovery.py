"""Requests and answers checked against the discovery documents in google-api-python-client."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator

Schema = dict[str, Any]
VERSIONS = ("v1", "v1beta1")


@cache
def document(version: str) -> dict[str, Any]:
    """What Google says of a version of the API."""
    # Found without importing the client, which is large.
    package = importlib.util.find_spec("googleapiclient")
    assert package is not None and package.origin is not None, "google-api-python-client is not installed"
    folder = Path(package.origin).parent / "discovery_cache" / "documents"
    loaded: dict[str, Any] = json.loads((folder / f"aiplatform.{version}.json").read_text())
    return loaded


@dataclass(frozen=True)
class Method:
    """A method of the API: its path, parameters and the names of its schemas (None: no body)."""

    version: str
    id: str
    http: str
    pattern: re.Pattern[str]
    parameters: dict[str, Any]
    request: str | None
    response: str | None


@cache
def methods(version: str) -> tuple[Method, ...]:
    return tuple(_methods(version, document(version)["resources"]))


def _methods(version: str, resources: dict[str, Any]) -> Iterator[Method]:
    for resource in resources.values():
        for each in resource.get("methods", {}).values():
            yield Method(
                version,
                each["id"],
                each["httpMethod"],
                re.compile(_path(each)),
                each.get("parameters", {}),
                each.get("request", {}).get("$ref"),
                each.get("response", {}).get("$ref"),
            )
        yield from _methods(version, resource.get("resources", {}))


def _path(method: dict[str, Any]) -> str:
    """Its path as a regular expression: each parameter by the pattern that Google gives for it."""

    def parameter(match: re.Match[str]) -> str:
        pattern = str(method["parameters"][match[2]].get("pattern", "^.*$" if match[1] else "^[^/]+$"))
        return f"(?:{pattern.removeprefix('^').removesuffix('$')})"

    literal = re.split(r"\{\+?\w+\}", method["path"])
    parameters = [parameter(each) for each in re.finditer(r"\{(\+?)(\w+)\}", method["path"])]
    parts = [re.escape(literal[0])]
    for value, text in zip(parameters, literal[1:], strict=True):
        parts += [value, re.escape(text)]
    return "/" + "".join(parts)


def find(http_method: str, path: str) -> Method | None:
    """What a request asks for; None if there is no such method."""
    version = path.lstrip("/").split("/")[0]
    if version not in VERSIONS:
        return None
    # `projects.locations.models.get` and `…operations.get` have different patterns, so one alone matches.
    found = [each for each in methods(version) if each.http == http_method and each.pattern.fullmatch(path)]
    # A verb behind a colon is no part of an id.
    exact = [each for each in found if (":" in path) == (":" in each.pattern.pattern.replace("(?:", ""))]
    return next(iter(exact), None)


@cache
def _validator(version: str, name: str) -> Validator:
    schemas = document(version)["schemas"]
    needed: dict[str, Schema] = {}
    waiting = [name]
    while waiting:
        each = waiting.pop()
        if each not in needed:
            needed[each] = _converted(schemas[each], waiting)
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": needed})


def _converted(schema: Schema, referred: list[str]) -> Schema:
    """A schema of a discovery document as JSON Schema; the names that it refers to are added to `referred`."""
    if "$ref" in schema:
        referred.append(schema["$ref"])
        return {"$ref": f"#/$defs/{schema['$ref']}"}
    kind = schema.get("type")
    if kind == "any" or kind is None:
        return {}
    converted: Schema = {"type": kind}
    if "enum" in schema:
        converted["enum"] = schema["enum"]
    if schema.get("format") in ("int64", "uint64"):
        converted["pattern"] = r"^-?[0-9]+$"
    if schema.get("format") == "google-duration":
        converted["pattern"] = r"^[0-9]+(\.[0-9]{1,9})?s$"
    if schema.get("format") == "google-fieldmask":
        converted["pattern"] = r"^[a-zA-Z]+(\.[a-zA-Z]+)*(,[a-zA-Z]+(\.[a-zA-Z]+)*)*$"
    if kind == "array":
        converted["items"] = _converted(schema["items"], referred)
    if kind == "object":
        properties = schema.get("properties", {})
        converted["properties"] = {key: _converted(value, referred) for key, value in properties.items()}
        rest = schema.get("additionalProperties")
        converted["additionalProperties"] = False if rest is None else _converted(rest, referred)
    return converted


def body_faults(version: str, name: str, body: Any) -> list[str]:
    """What is wrong with a body of this schema."""
    if name.endswith("HttpBody"):
        return []  # arbitrary content
    errors = _validator(version, name).iter_errors(body)
    return [f"{error.json_path}: {error.message[:200]}" for error in errors]


def request_faults(method: Method, query: dict[str, str], body: object, *, has_body: bool) -> list[str]:
    """What is wrong with a request."""
    faults = [
        f"the parameter {name} is not known"
        for name in query
        if method.parameters.get(name, {}).get("location") != "query"
    ]
    for name, value in query.items():
        if method.parameters.get(name, {}).get("format") == "google-fieldmask" and not re.fullmatch(r"[\w.,]+", value):
            faults.append(f"the parameter {name} is no field mask")
    if method.request is None:
        return faults + (["a body is not expected"] if has_body else [])
    if not has_body:
        return [*faults, "a body is needed"]
    if method.request.endswith(("RawPredictRequest", "InvokeRequest")):
        # Its one field, `httpBody`, is the whole body over HTTP: what the container is to get.
        return faults
    return faults + read_only_faults(method, body) + body_faults(method.version, method.request, body)


def read_only_faults(method: Method, body: object) -> list[str]:
    """Fields that only Google may set."""
    assert method.request is not None
    return list(_read_only(document(method.version)["schemas"], {"$ref": method.request}, body, "$"))


def _read_only(schemas: dict[str, Schema], schema: Schema, value: object, at: str) -> Iterator[str]:
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _read_only(schemas, schema["items"], item, f"{at}[{index}]")
    if isinstance(value, dict):
        for key, item in value.items():
            inner = schema.get("properties", {}).get(key)
            if inner is not None:
                if inner.get("readOnly"):
                    yield f"{at}.{key} is read-only"
                yield from _read_only(schemas, inner, item, f"{at}.{key}")
