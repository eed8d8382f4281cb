"""A refusal, as Google's services say it."""

from __future__ import annotations

_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
}
CODES = {"INVALID_ARGUMENT": 3, "NOT_FOUND": 5, "ALREADY_EXISTS": 6, "RESOURCE_EXHAUSTED": 8, "FAILED_PRECONDITION": 9}


class RefusedError(Exception):
    """reason: Google's name of it; status: of HTTP, where it is not the usual one."""

    def __init__(self, reason: str, message: str, *, status: int = 0, violations: list[str] | None = None) -> None:
        super().__init__(message)
        self.reason, self.message, self.violations = reason, message, violations or []
        self.status = status or _STATUS[reason]

    def document(self) -> dict[str, object]:
        error: dict[str, object] = {"code": self.status, "message": self.message, "status": self.reason}
        if self.violations:
            error["details"] = [
                {
                    "@type": "type.googleapis.com/google.rpc.BadRequest",
                    "fieldViolations": [{"field": "body", "description": each} for each in self.violations],
                }
            ]
        return {"error": error}
