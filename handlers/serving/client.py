"""The launcher's requests to its engine, over the engine's own port and with the launcher's token."""

import http.client
import json
from typing import Any

from handlers.serving.errors import ServingError
from handlers.serving.routes import ADMIN_HEADER

SEE_LOG = "see the lines of vLLM in the server's log"


class EngineClient:
    """One connection per request: a pooled one may be closed by the server just when the next request is sent."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self.host = "127.0.0.1" if host in ("0.0.0.0", "") else "::1" if host == "::" else host
        self.port = port
        self.token = token

    def request(
        self, method: str, path: str, document: Any = None, timeout_s: float = 120
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers. Raises OSError or http.client.HTTPException when there is no answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        try:
            body = None if document is None else json.dumps(document).encode()
            headers = {ADMIN_HEADER: self.token, "content-type": "application/json", "connection": "close"}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
        finally:
            connection.close()

    def healthy(self) -> bool:
        try:
            return self.request("GET", "/health", timeout_s=5)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def refuses(self) -> bool:
        """True when the API server says that its core is dead, or takes no connection. One that does not answer in
        time may be busy."""
        try:
            return self.request("GET", "/health", timeout_s=5)[0] == 503
        except ConnectionRefusedError:
            return True
        except (OSError, http.client.HTTPException):
            return False

    def call(
        self, method: str, path: str, document: Any, doing: str, timeout_s: float = 120, also: tuple[int, ...] = ()
    ) -> bytes:
        """The body of a 200, or of a status in `also`. Raises ServingError that starts with `doing` otherwise."""
        try:
            status, body, _ = self.request(method, path, document, timeout_s)
        except (OSError, http.client.HTTPException) as error:
            raise ServingError(f"{doing}: the engine does not answer ({error!r})", SEE_LOG, transient=True) from None
        if status != 200 and status not in also:
            raise ServingError(f"{doing}: the engine answered {status}: {message_of(body)}", SEE_LOG)
        return body

    def in_flight(self) -> dict[str, int]:
        """Requests in flight per served name."""
        state = json.loads(self.call("GET", "/lorafleet/state", None, "asking for the requests in flight"))
        return dict(state["inFlight"])

    def complete(
        self, model: str, prompt: str, max_tokens: int, doing: str, timeout_s: float = 120, **more: Any
    ) -> dict[str, Any]:
        """The answer of /v1/completions at temperature 0."""
        document = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, **more}
        answer: dict[str, Any] = json.loads(self.call("POST", "/v1/completions", document, doing, timeout_s))
        return answer


def message_of(body: bytes) -> str:
    """The message in an error answer of vLLM, one line, at most 500 characters."""
    try:
        document = json.loads(body)
        error = document.get("error", document)
        text = str(error.get("message", error))
    except (ValueError, AttributeError):
        text = body.decode("utf-8", "replace")
    return " ".join(text.split())[:500]
