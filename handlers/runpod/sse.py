"""Server-sent events, cut where an event ends: a chunk of the network may end within one, or within a character."""

import json
from typing import Any

END = b"\n\n"
DONE = b"[DONE]"
MAX_EVENT_BYTES = 16 * 1024 * 1024


class Events:
    """Collects the bytes of one stream and gives whole events."""

    def __init__(self) -> None:
        self.rest = b""
        self.done = False
        """whether `data: [DONE]` came"""
        self.error: dict[str, Any] | None = None
        """the error that the server told in the middle of its answer"""

    def feed(self, chunk: bytes) -> str:
        """The events that are whole now, as they came, one after the other; empty when there is none yet.
        Raises ValueError when an event has no end."""
        self.rest += chunk
        whole, end, rest = self.rest.rpartition(END)
        if not end:
            if len(rest) > MAX_EVENT_BYTES:
                raise ValueError("an event of the stream has no end")
            return ""
        self.rest = rest
        for event in whole.split(END):
            self.look_at(event)
        return (whole + END).decode("utf-8", "replace")

    def look_at(self, event: bytes) -> None:
        data = event.partition(b"data:")[2].strip()
        if data == DONE:
            self.done = True
        elif b'"error"' in data and self.error is None:
            try:
                found = json.loads(data)
            except (ValueError, RecursionError):
                return
            if isinstance(found, dict) and isinstance(found.get("error"), dict):
                self.error = found["error"]
