"""What the supervisor tells the worker, over its standard input: so the key is in no environment and on no disk."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    url: str
    """of the server, on the loopback interface"""
    key: str
    """that the server asks for; made at each start"""
    concurrency: int
    """jobs at once: what vLLM works on at once"""
    state_file: str
    """the server's (docs/architecture.md)"""
    start_timeout_s: float
    job_timeout_s: float
    """after which a job ends that RunPod has not ended"""

    def text(self) -> str:
        return json.dumps(asdict(self))


def read(text: str) -> Settings:
    return Settings(**json.loads(text))


def state_of(file: str) -> dict[str, object]:
    """What the server says of itself; empty while it has said nothing."""
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def failure(state: dict[str, object]) -> str | None:
    """Why the server failed, with what to do next; None when it did not."""
    error = state.get("error")
    if state.get("phase") != "failed" or not isinstance(error, dict):
        return None
    return f"{error.get('what')}\n  next: {error.get('next')}"
