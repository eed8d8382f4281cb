"""One request as the engine's thread sees it, and what it hands back, token by token."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sampling:
    max_tokens: int
    temperature: float = 1.0
    """0: the most probable token"""
    top_p: float = 1.0
    top_k: int = 0
    """0: all"""
    seed: int | None = None
    logprobs: int | None = None
    """None: none are asked for; else that many of the most probable tokens, 0 to 20"""
    ignore_eos: bool = False


@dataclass(frozen=True)
class Token:
    """One token of an answer. `top`: the most probable tokens with their log-probabilities, the likeliest first."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class End:
    """The last thing that a job hands back. `reason`: "stop" or "length"; `error`: what went wrong instead."""

    reason: str = "stop"
    error: str | None = None


@dataclass(eq=False)
class Job:
    """`deliver` is called from the engine's thread with each Token and once with an End."""

    adapter: str | None
    """served name; None: the base model"""
    prompt: list[int]
    sampling: Sampling
    deliver: Callable[[Token | End], None]
    cancelled: threading.Event = field(default_factory=threading.Event)
    count: int = 0
    """tokens made so far"""
    generator: Any = None
    """torch's random numbers of this request, when it has a seed"""
