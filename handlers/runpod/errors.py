"""A job's failure, in the shape of the OpenAI API."""

import json
from typing import Any

SHOWN = 500
"""characters of a server's answer that are told when it is no JSON"""


class JobError(Exception):
    """Ends one job as FAILED. `code` is a word for programs, `status` the HTTP status that says the same."""

    def __init__(
        self,
        message: str,
        code: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        status: int = 400,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": code}

    def result(self) -> dict[str, str]:
        """What the handler yields. The SDK makes a text of whatever stands under `error`, a dict in Python's notation;
        so it is one already, that a client can read: `{"message", "type", "param", "code", "status"}` as JSON."""
        return {"error": json.dumps({**self.error, "status": self.status}, ensure_ascii=False)}

    def event(self) -> str:
        """The same for a stream that has begun, where the OpenAI clients look for it."""
        return "data: " + json.dumps({"error": self.error}, ensure_ascii=False) + "\n\n"


def of_server(message: str, code: str) -> JobError:
    """A failure of this worker, not of the job: the same job may succeed on another worker."""
    return JobError(message, code, kind="service_unavailable", status=503)


def of_answer(status: int, body: bytes) -> JobError:
    """What the server answered with a status of 400 or more; its own words where it gave any."""
    try:
        found = json.loads(body)
        told = found["error"] if isinstance(found["error"], dict) else {"message": str(found["error"])}
    except (ValueError, LookupError, TypeError, RecursionError):
        told = {"message": body.decode("utf-8", "replace")[:SHOWN] or f"the server answered with HTTP {status}"}
    kind = "invalid_request_error" if status < 500 else "service_unavailable" if status == 503 else "server_error"
    error = JobError(str(told.get("message")), f"http_{status}", kind=str(told.get("type") or kind), status=status)
    error.error["param"] = told.get("param")
    code = told.get("code")
    if isinstance(code, str) and code:  # vLLM's own code is the HTTP status once more
        error.error["code"] = code
    return error
