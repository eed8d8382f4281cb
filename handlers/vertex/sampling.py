"""Chooses the next token of each row; rows may differ in temperature and all else."""

import math
from collections.abc import Sequence
from typing import Any

from handlers.vertex.jobs import Job, Sampling, Token


def next_tokens(torch: Any, jobs: Sequence[Job], logits: Any) -> list[Token]:
    """`logits`: float32 [rows, vocabulary]."""
    best = logits.argmax(-1).tolist()
    found: list[Token] = []
    for row, job in enumerate(jobs):
        sampling = job.sampling
        chosen = best[row] if sampling.temperature == 0 else drawn(torch, logits[row], job)
        found.append(Token(chosen) if sampling.logprobs is None else scored(torch, logits[row], chosen, sampling))
    return found


def drawn(torch: Any, logits: Any, job: Job) -> int:
    sampling = job.sampling
    if sampling.seed is not None and job.generator is None:
        job.generator = torch.Generator(device=logits.device).manual_seed(sampling.seed)
    scores = logits / sampling.temperature
    if 0 < sampling.top_k < scores.shape[0]:
        scores = scores.masked_fill(scores < scores.topk(sampling.top_k).values[-1], -math.inf)
    chances = scores.softmax(-1)
    if not bool(torch.isfinite(chances).all()):
        return int(logits.argmax())  # NaN weights: nothing can be drawn; the probe finds such adapters
    if sampling.top_p < 1:
        ordered, places = chances.sort(descending=True)
        # the token that passes the limit still counts, and the first one always does
        beyond = ordered.cumsum(-1) - ordered >= sampling.top_p
        beyond[0] = False
        chances = chances.index_fill(0, places[beyond], 0.0)
    return int(torch.multinomial(chances, 1, generator=job.generator))


def scored(torch: Any, logits: Any, chosen: int, sampling: Sampling) -> Token:
    scores = logits.log_softmax(-1)
    values, places = scores.topk(max(1, sampling.logprobs or 0))
    pairs = zip(places.tolist(), values.tolist(), strict=True)
    top = tuple(pairs) if sampling.logprobs else ()
    return Token(chosen, float(scores[chosen]), top)
