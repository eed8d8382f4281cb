"""What several sections of HAProxy's configuration are written with: shared names, quoting, answers at once."""

from __future__ import annotations

from handlers.router.answers import Answer

TARGET_KEYS = "target-keys.map"
TARGET_HEADERS = "target-headers.map"
NO_TOKEN = "none"  # stands in the keys' map for a token that can't be had now

CONNECT_TIMEOUT_S = 1
# Over the internet: TCP and TLS take three or four ways to another continent and back, and a lost packet a second more.
FAR_CONNECT_TIMEOUT_S = 5
UPLOAD_TIMEOUT_S = 30
REASON = "x-lorafleet-reason"


def quoted(text: str) -> str:
    """One argument of HAProxy's configuration, taken as it stands."""
    return "'" + text.replace("'", "'\\''") + "'"


def reply(answer: Answer, condition: str, expression: bool = False, rules: str = "http-request") -> str:
    """A rule that answers at once. `expression`: the body holds a `%[...]`, and no other %."""
    headers = "".join(f" hdr {name} {quoted(value)}" for name, value in answer.headers)
    body = f"{'lf-string' if expression else 'string'} {quoted(answer.body)}"
    return f"{rules} return status {answer.status} content-type application/json{headers} {body} {condition}"
