"""Requests and answers checked against RunPod's OpenAPI description."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator

_FILE = Path(__file__).resolve().parents[1] / "specs" / "runpod-v2.openapi.json"


@cache
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(_FILE.read_text())
    return loaded


@cache
def _paths() -> list[tuple[re.Pattern[str], str]]:
    # Fixed paths go before ones with a parameter.
    ordered = sorted(document()["paths"], key=lambda path: path.count("{"))
    return [(re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path)), path) for path in ordered]


def template(path: str) -> str | None:
    """The path as the description has it, such as `/v2/pods/{id}`; None if it has none such."""
    return next((described for pattern, described in _paths() if pattern.fullmatch(path)), None)


def operation(method: str, path: str) -> dict[str, Any] | None:
    """The description of what a request asks for, None if there is no such operation."""
    described = template(path)
    if described is None:
        return None
    found: dict[str, Any] | None = document()["paths"][described].get(method.lower())
    return found


@cache
def _validator(pointer: str) -> Validator:
    """For the schema at a JSON pointer of the document."""
    return Draft202012Validator(
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": f"#{pointer}", **_roots()}
    )


@cache
def _roots() -> dict[str, Any]:
    return {key: document()[key] for key in ("components", "paths")}


def _faults(schema: dict[str, Any], value: Any) -> list[str]:
    # All schemas of the operations in use are references.
    errors = _validator(schema["$ref"].removeprefix("#")).iter_errors(value)
    return [f"{error.json_path}: {error.message[:200]}" for error in errors]


def request_faults(described: dict[str, Any], body: object, *, has_body: bool) -> list[str]:
    """What is wrong with a request's body."""
    if "requestBody" not in described:
        return ["a body is not expected"] if has_body else []
    if not has_body:
        return ["a body is needed"]
    return _faults(described["requestBody"]["content"]["application/json"]["schema"], body)


def answer_faults(described: dict[str, Any], status: int, media_type: str, body: object) -> list[str]:
    """What is wrong with an answer."""
    responses = described["responses"]
    answer = responses.get(str(status), responses.get("default"))
    if answer is None:
        return [f"the status {status} is not described"]
    if "$ref" in answer:
        answer = document()["components"]["responses"][answer["$ref"].rsplit("/", 1)[-1]]
    content = answer.get("content")
    if content is None:
        return [] if body is None else [f"{status} has no body"]
    if media_type not in content:
        return [f"{status} is not {media_type}"]
    return _faults(content[media_type]["schema"], body)
