"""What a client may ask of the engine peft, read from a body in OpenAI's shape. Every fault is a RefusedError."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handlers.vertex.jobs import Sampling

TOP_LOGPROBS = 20
MAX_STOPS = 16
# What would change the answer and is not there: refused, not ignored. The value that changes nothing is allowed.
ABSENT: dict[str, Any] = {
    "n": 1, "best_of": 1, "echo": False, "suffix": None, "presence_penalty": 0, "frequency_penalty": 0,
    "repetition_penalty": 1, "logit_bias": None, "tools": None, "functions": None, "response_format": None,
    "structured_outputs": None, "min_p": 0, "min_tokens": 0, "use_beam_search": False, "prompt_logprobs": None,
    "bad_words": None, "stop_token_ids": None, "truncate_prompt_tokens": None, "length_penalty": 1,
    "guided_json": None, "guided_regex": None, "guided_choice": None, "guided_grammar": None,
    "allowed_token_ids": None, "logits_processors": None, "prompt_embeds": None, "include_stop_str_in_output": False,
    "skip_special_tokens": True, "spaces_between_special_tokens": True, "add_generation_prompt": True,
    "continue_final_message": False, "chat_template": None, "chat_template_kwargs": None, "documents": None,
    "modalities": ["text"], "audio": None, "reasoning_effort": "none", "do_sample": True, "num_beams": 1,
    "typical_p": 1, "return_full_text": False, "return_token_ids": False, "return_tokens_as_token_ids": False,
}  # fmt: skip
EMPTY: tuple[Any, ...] = (None, [], {}, {"type": "text"})


class RefusedError(Exception):
    """What the client did wrong; `param` is the field."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.message, self.param, self.status, self.code = message, param, status, code


@dataclass(frozen=True)
class Asked:
    model: str
    stream: bool
    include_usage: bool
    stops: tuple[str, ...]
    sampling: Sampling
    """its max_tokens is what was asked for, 0 where nothing was"""


def parse(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise RefusedError("the body is not JSON", code="invalid_json") from None
    if not isinstance(body, dict):
        raise RefusedError("the body is not a JSON object", code="invalid_json")
    return body


def read(body: Mapping[str, Any], chat: bool) -> Asked:
    for name, neutral in ABSENT.items():
        value = body.get(name)
        if value not in EMPTY and value != neutral:
            raise RefusedError(f"{name} is not available with this engine; leave it out", name, code="unsupported")
    name = "max_completion_tokens" if chat and body.get("max_completion_tokens") is not None else "max_tokens"
    options = body.get("stream_options") or {}
    return Asked(
        model=str(body.get("model")),
        stream=flag(body, "stream"),
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        stops=stops(body.get("stop")),
        sampling=Sampling(
            max_tokens=whole(body, name, 1, 1 << 20, 0),
            temperature=number(body, "temperature", 0, 100, 1.0),
            top_p=number(body, "top_p", 0, 1, 1.0),
            top_k=max(0, whole(body, "top_k", -1, 1 << 20, 0)),
            seed=whole(body, "seed", -(1 << 62), 1 << 62, 0) if body.get("seed") is not None else None,
            logprobs=logprobs(body, chat),
            ignore_eos=flag(body, "ignore_eos"),
        ),
    )


def logprobs(body: Mapping[str, Any], chat: bool) -> int | None:
    """Completions ask for a number, chats for true and a number."""
    if not chat:
        return None if body.get("logprobs") is None else whole(body, "logprobs", 0, TOP_LOGPROBS, 0)
    if not flag(body, "logprobs"):
        return None
    return whole(body, "top_logprobs", 0, TOP_LOGPROBS, 0)


def stops(value: Any) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value or []
    if not isinstance(found, list) or len(found) > MAX_STOPS or not all(isinstance(s, str) and s for s in found):
        raise RefusedError(f"stop is a text, or a list of up to {MAX_STOPS} texts that are not empty", "stop")
    return tuple(found)


def flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise RefusedError(f"{name} is true or false", name)
    return bool(value)


def whole(body: Mapping[str, Any], name: str, low: int, high: int, default: int) -> int:
    """A whole number; 16.0 is one too, as Vertex AI turns whole numbers into such."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise RefusedError(f"{name} is a whole number from {low} to {high}", name)
    return value


def number(body: Mapping[str, Any], name: str, low: float, high: float, default: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise RefusedError(f"{name} is a number from {low:g} to {high:g}", name)
    return float(value)


def messages(body: Mapping[str, Any]) -> list[dict[str, str]]:
    """The chat, its contents as plain text."""
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise RefusedError("messages is a list of at least one {role, content}", "messages")
    found: list[dict[str, str]] = []
    for position, message in enumerate(given):
        where = f"messages[{position}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "developer", "user", "assistant"):
            raise RefusedError(f"{where}.role is system, user or assistant", where)
        found.append({"role": "system" if role == "developer" else role, "content": text(message, where)})
    return found


def text(message: Mapping[str, Any], where: str) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts: list[Any] = content if isinstance(content, list) else []
    if not parts or not all(
        isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in parts
    ):
        raise RefusedError(f"{where}.content is a text, or a list of {{type: text, text}}", where)
    return "".join(part["text"] for part in parts)
