"""The answers that alias.py gives by itself, in the shapes of the OpenAI API."""

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]
KIND = {401: "authentication_error", 503: "service_unavailable"}


async def send_json(send: Send, status: int, document: Any, headers: Sequence[Header] = ()) -> None:
    body = json.dumps(document, ensure_ascii=False).encode()
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})


async def error(
    send: Send, status: int, message: str, code: str, param: str | None = None, headers: Sequence[Header] = ()
) -> None:
    kind = KIND.get(status, "invalid_request_error")
    document = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    await send_json(send, status, document, headers)


def models(table: Mapping[str, Any], created: int) -> list[dict[str, Any]]:
    """Base and adapters by their public names; `digest`, `served_name`, `canary` are fields beyond the OpenAI API."""
    base = table.get("base")
    if base is None:
        return []
    fixed = {"object": "model", "created": created, "owned_by": "lorafleet"}
    found: list[dict[str, Any]] = [{"id": base, **fixed, "digest": table.get("baseVersion"), "served_name": base}]
    for name, entry in table["adapters"].items():
        extra = {"parent": base, "digest": entry["digest"], "served_name": entry["servedName"]}
        if entry["canary"] is not None:
            canary = entry["canary"]
            extra["canary"] = {
                "digest": canary["digest"], "served_name": canary["servedName"], "weight": canary["weight"],
            }  # fmt: skip
        found.append({"id": name, **fixed, **extra})
    return found
