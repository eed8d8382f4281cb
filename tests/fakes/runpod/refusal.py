"""A refusal, as a problem document says it."""

from __future__ import annotations

_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    422: "Unprocessable Entity",
    429: "Too Many Requests",
}


class RefusedError(Exception):
    def __init__(self, status: int, detail: str, errors: list[str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors = status, detail, errors

    def document(self) -> dict[str, object]:
        title = _TITLES.get(self.status, "Internal Server Error")
        problem: dict[str, object] = {"title": title, "status": self.status, "detail": self.detail}
        return problem if self.errors is None else {**problem, "errors": self.errors}
