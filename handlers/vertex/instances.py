"""Vertex AI's `{"instances": […], "parameters": {…}}` as requests in OpenAI's shape, and their answers as predictions.

An instance is `{"messages": […]}`, `{"prompt": "…"}` (also `inputs`), or a text alone, which is a prompt; all other
fields are OpenAI's. `parameters` holds for those that do not say otherwise. `model` (also `adapter`) names the base
model or an adapter; without it, it is the base model. A prediction is the OpenAI answer, with `adapter`: what
x-lorafleet-adapter says; or `{"error": {…, "status": 400}}`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_INSTANCES = 128
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
SAME = {"adapter": "model", "inputs": "prompt", "max_new_tokens": "max_tokens", "maxTokens": "max_tokens"}
# Vertex AI reads whole numbers of `instances` and `parameters` as floats.
WHOLE = frozenset({
    "max_tokens", "max_completion_tokens", "min_tokens", "n", "best_of", "seed", "top_k", "logprobs", "top_logprobs",
    "truncate_prompt_tokens", "stop_token_ids", "prompt", "priority",
})  # fmt: skip


class InstancesError(Exception):
    """The body as a whole cannot be taken."""


@dataclass(frozen=True)
class Result:
    """What became of one instance: `status` and headers of the answer, its body."""

    status: int
    body: bytes
    headers: Mapping[str, str]


def requests_of(body: Mapping[str, Any], base: str) -> list[tuple[str, dict[str, Any]]]:
    """(path, request) of each instance. Raises InstancesError."""
    instances, parameters = body.get("instances"), body.get("parameters")
    parameters = {} if parameters is None else parameters
    if not isinstance(instances, list) or not 1 <= len(instances) <= MAX_INSTANCES:
        raise InstancesError(f"instances is a list of 1 to {MAX_INSTANCES}")
    if not isinstance(parameters, dict):
        raise InstancesError("parameters is an object")
    found: list[tuple[str, dict[str, Any]]] = []
    for position, instance in enumerate(instances):
        if isinstance(instance, str):
            instance = {"prompt": instance}
        if not isinstance(instance, dict):
            raise InstancesError(f"instances[{position}] is an object with messages or prompt, or a text")
        request = {**named(parameters), **named(instance)}
        if request.get("stream"):
            raise InstancesError("predictions come as a whole; to stream, send OpenAI's body without instances")
        request.pop("stream", None)
        request.setdefault("model", base)
        if ("messages" in request) == ("prompt" in request):
            raise InstancesError(f"instances[{position}] needs either messages or prompt")
        found.append((CHAT if "messages" in request else TEXT, request))
    return found


def named(given: Mapping[str, Any]) -> dict[str, Any]:
    """With OpenAI's names, and whole numbers whole again. Keys that begin with @ are Vertex's own."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        name = SAME.get(name, name)
        if not name.startswith("@"):
            found[name] = whole(value) if name in WHOLE else value
    return found


def whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [whole(each) for each in value] if isinstance(value, list) else value


def prediction(result: Result) -> dict[str, Any]:
    try:
        document = json.loads(result.body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {"error": {"message": "the engine gave no answer", "type": "server_error", "code": "engine_failed"}}
    if result.status != 200:
        error = document.get("error")
        inner = error if isinstance(error, dict) else {"message": str(document)[:500]}
        return {"error": {**inner, "status": result.status}}
    return {**document, "adapter": result.headers.get("x-lorafleet-adapter")}


def status_of(results: Sequence[Result]) -> int:
    """200 when there is an answer among them; else what all were refused with, the mildest of several."""
    return min((result.status for result in results), key=lambda status: (status != 200, status))
