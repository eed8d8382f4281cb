"""A job's input becomes one call of the server's OpenAI API."""

import difflib
import json
from dataclasses import dataclass
from typing import Any

from handlers.runpod.errors import JobError

CHAT, COMPLETIONS, RESPONSES, MODELS = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/models"
ASKED = (CHAT, COMPLETIONS, RESPONSES)
OPENAI_KEYS = ("openai_route", "openai_input")
SHAPES = (
    'either {"model", "messages" or "prompt", ...}, which is the body of /v1/chat/completions or /v1/completions, or '
    '{"openai_route": "/v1/...", "openai_input": {...}}'
)
# Of RunPod's vLLM worker: the server would ignore them, and give an answer that nobody asked for.
ELSEWHERE = {
    "sampling_params": "put its fields (temperature, max_tokens, ...) beside model",
    "route": "use openai_route",
    "body": "use openai_input",
}


@dataclass(frozen=True)
class Call:
    """One request to the server."""

    method: str
    path: str
    body: bytes | None
    stream: bool


def read(given: object) -> Call:
    """The call that a job's `input` asks for. Raises JobError; the text says what is allowed."""
    if not isinstance(given, dict) or not given:
        raise JobError(f"the job's input is {shown(given)}; give {SHAPES}", "invalid_input")
    for key in given:
        if not isinstance(key, str):
            raise JobError(f"the job's input has the key {shown(key)}, which is no text", "invalid_input")
    if any(key in given for key in OPENAI_KEYS):
        return of_openai_address(given)
    for key, step in ELSEWHERE.items():
        if key in given:
            raise JobError(
                f"input.{key} is not a field of this worker: {step}; give {SHAPES}", "unknown_field", param=key
            )
    has = [key for key in ("messages", "prompt") if given.get(key) is not None]
    if len(has) != 1:
        what = "has both messages and prompt" if has else "has neither messages nor prompt"
        near = "" if has else nearest(given, ("messages", "prompt"))
        raise JobError(f"the job's input {what}{near}; give {SHAPES}", "invalid_input")
    return post(CHAT if has == ["messages"] else COMPLETIONS, given)


def of_openai_address(given: dict[str, Any]) -> Call:
    """What RunPod makes of a request to https://api.runpod.ai/v2/<endpoint>/openai/v1/...: the path and the body."""
    for key in given:
        if key not in OPENAI_KEYS:
            raise JobError(
                f"input.{key} stands beside {' and '.join(k for k in OPENAI_KEYS if k in given)}; give {SHAPES}",
                "unknown_field",
                param=key,
            )
    body = given.get("openai_input")
    route = given.get("openai_route")
    if route is None:
        route = CHAT if isinstance(body, dict) and "messages" in body else COMPLETIONS
    if not isinstance(route, str):
        raise unknown_route(route)
    path = "/" + route.strip("/")
    if path == MODELS or path.startswith(f"{MODELS}/"):
        # Names hold neither of these; a path with them would not be the one that is looked at here.
        if body or any(sign in path for sign in "?#%\\") or ".." in path or not path.isascii():
            raise unknown_route(route)
        return Call("GET", path, None, stream=False)
    if path not in ASKED:
        raise unknown_route(route)
    if not isinstance(body, dict):
        raise JobError(
            f"openai_input is {shown(body)}; give the body of POST {path}", "invalid_input", param="openai_input"
        )
    return post(path, body)


def post(path: str, body: dict[str, Any]) -> Call:
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise JobError(f"stream is {shown(stream)}; give true or false", "invalid_input", param="stream")
    return Call("POST", path, json.dumps(body).encode(), stream=stream is True)


def unknown_route(route: object) -> JobError:
    allowed = ", ".join((*ASKED, MODELS, f"{MODELS}/NAME"))
    return JobError(
        f"openai_route is {shown(route)}; there are {allowed}", "unknown_route", param="openai_route", status=404
    )


def nearest(given: dict[str, Any], wanted: tuple[str, ...]) -> str:
    for key in given:
        near = difflib.get_close_matches(key, wanted, n=1)
        if near:
            return f" (did you mean {near[0]} by {shown(key)}?)"
    return ""


def shown(value: object) -> str:
    """As JSON, cut to 80 characters. What is longer than that is a prompt, of which no more belongs into an error."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."
