"""Answers that the router gives itself, in the shapes of OpenAI's API."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus

from handlers.router.config import RouterFile

RETRY_SOON_S = 2
"""Retry-After when nothing is up or everything is busy: a health check sees a change in about that time."""


@dataclass(frozen=True)
class Answer:
    """An error in OpenAI's shape. `headers` come on top of Content-Type."""

    status: int
    message: str
    kind: str
    code: str
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def body(self) -> str:
        error = {"message": self.message, "type": self.kind, "param": None, "code": self.code}
        return json.dumps({"error": error})


def _retry(status: int, message: str, code: str) -> Answer:
    return Answer(status, message, "server_error", code, (("Retry-After", str(RETRY_SOON_S)),))


BAD_KEY = Answer(
    401,
    "No valid API key: send the header 'Authorization: Bearer KEY' with a key of this router.",
    "invalid_request_error",
    "invalid_api_key",
    (("WWW-Authenticate", 'Bearer realm="lorafleet"'),),
)
NO_PATH = Answer(
    404,
    "No such path. This router serves POST /v1/chat/completions, POST /v1/completions, GET /v1/models and GET /health.",
    "invalid_request_error",
    "unknown_url",
)
WANTS_GET = Answer(405, "This path takes GET only.", "invalid_request_error", "method_not_allowed", (("Allow", "GET"),))
WANTS_POST = Answer(
    405, "This path takes POST only.", "invalid_request_error", "method_not_allowed", (("Allow", "POST"),)
)
NO_METRICS_PATH = Answer(
    404, "No such path. Here are GET /metrics and GET /metrics/fleet.", "invalid_request_error", "unknown_url"
)
NO_MODEL = Answer(
    400,
    "The body must be a JSON object with the name of a model, as text, in the field 'model'.",
    "invalid_request_error",
    "model_missing",
)
HEADERS_TOO_LARGE = Answer(431, "The request's headers are over 16 KiB.", "invalid_request_error", "headers_too_large")
BUSY = Answer(
    429,
    "Every place that serves this model is busy and its queue is full. Try again in a few seconds.",
    "overloaded_error",
    "overloaded",
    (("Retry-After", str(RETRY_SOON_S)),),
)
NOT_UP = _retry(503, "No target that serves this model is up now.", "no_target_up")


def refused_by(target: str) -> Answer:
    """To the client it is as a target that is down: its own key was right, that of the router is not."""
    message = (
        f"The target {target} takes neither the router's key nor its token; whoever runs the router must mend that."
    )
    return Answer(503, message, "server_error", "target_refuses_router", (("x-lorafleet-target", target),))


FROM_HAPROXY = (
    Answer(400, "The request is not valid HTTP.", "invalid_request_error", "bad_request"),
    Answer(408, "The request's body did not come in time.", "invalid_request_error", "request_timeout"),
    Answer(500, "The router failed inside.", "server_error", "router_error"),
    _retry(502, "The target broke off before it answered.", "target_broke_off"),
    NOT_UP,
    Answer(504, "The target did not answer in time.", "server_error", "target_timeout"),
)
"""What HAProxy says by itself, one file for each status."""


_WHERE_DIGESTS_ARE = "Which content answered stands in each answer's header x-lorafleet-adapter, as NAME@DIGEST."


def body_too_large(max_body_kib: int) -> Answer:
    return Answer(413, f"The body is over {max_body_kib} KiB.", "invalid_request_error", "body_too_large")


def too_many_tokens(max_tokens: int) -> Answer:
    return Answer(
        400,
        f"max_tokens and max_completion_tokens may be {max_tokens} at most here.",
        "invalid_request_error",
        "max_tokens_too_large",
    )


def unknown_model(router: RouterFile, shown_name: str) -> Answer:
    """`shown_name` stands inside the message: a HAProxy expression that yields text escaped for JSON."""
    names = ", ".join(model.name for model in router.models)
    return Answer(
        404,
        f"The model '{shown_name}' does not exist. Models here: {names}.",
        "invalid_request_error",
        "model_not_found",
    )


def raw_http(answer: Answer) -> str:
    """The answer as HTTP/1.1 text, as HAProxy's `errorfile` wants it."""
    lines = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(answer.body.encode())}",
        "Cache-Control: no-cache",
        *(f"{name}: {value}" for name, value in answer.headers),
    ]
    return "\r\n".join(lines) + "\r\n\r\n" + answer.body


def model_list(router: RouterFile) -> str:
    """The body of GET /v1/models: names, which stay when a release changes what answers to them."""
    cards = [_card(router, index) for index in range(len(router.models))]
    return json.dumps({"object": "list", "data": cards, "note": _WHERE_DIGESTS_ARE})


def model_card(router: RouterFile, index: int) -> str:
    """The body of GET /v1/models/NAME."""
    return json.dumps(_card(router, index))


def _card(router: RouterFile, index: int) -> dict[str, object]:
    model = router.models[index]
    base = model.name == router.base_model
    return {
        "id": model.name,
        "object": "model",
        "created": 0,  # not known here; the field must be there for OpenAI's clients
        "owned_by": "lorafleet",
        "root": model.name if base else router.base_model,
        "parent": None if base else router.base_model,
    }
