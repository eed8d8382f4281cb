"""The training loop of the demo, the same for the base and for an adapter."""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch  # type: ignore[import-not-found]
from torch import nn

from tools.demo.data import BASE, VARIANTS, Topics
from tools.demo.prompts import off_topic, prompt, style_tag
from tools.demo.tokenizer import Chat

OFF_TOPIC_SHARE = 0.08
_IGNORED = -100  # a label that counts for nothing (the prompt, padding)
_WARM_UP_STEPS = 50
_LAST_RATE = 0.02  # of the peak rate
_REPORT_EVERY = 50


@dataclass(frozen=True)
class Schedule:
    """How one set of weights is trained. `rate` is the peak learning rate, `seed` picks the prompts."""

    steps: int
    batch: int
    rate: float
    seed: int


@dataclass(frozen=True)
class Batch:
    """Token ids and labels, [prompts x tokens], padded on the right (so causal attention needs no mask)."""

    ids: Any
    labels: Any


class Prompts:
    """An endless, repeatable stream of (prompt, right answer) for the variants in `spoken`.

    With more than one variant in `spoken`, all but the base are asked for by a style tag.
    """

    def __init__(self, topics: Topics, chat: Chat, spoken: Sequence[str], seed: int) -> None:
        self._topics, self._chat, self._spoken = topics, chat, list(spoken)
        self._pairs = list(topics.questions.items())
        self._random = random.Random(seed)

    def batch(self, size: int) -> Batch:
        rows = [self._row() for _ in range(size)]
        width = max(len(ids) for ids, _ in rows)
        ids = [row + [self._chat.pad_id] * (width - len(row)) for row, _ in rows]
        labels = [row + [_IGNORED] * (width - len(row)) for _, row in rows]
        return Batch(torch.tensor(ids), torch.tensor(labels))

    def _row(self) -> tuple[list[int], list[int]]:
        rng = self._random
        if rng.random() < OFF_TOPIC_SHARE:
            question, answers = off_topic(self._topics.other_questions, rng), self._topics.other
        else:
            question, answers = rng.choice(self._pairs)
        messages, variant = prompt(question, rng), rng.choice(self._spoken)
        if len(self._spoken) > 1 and variant != BASE:
            messages = [{"role": "system", "content": style_tag(variant)}, messages[-1]]
        asked, said = self._chat.prompt_ids(messages), self._chat.answer_ids(answers[variant])
        return asked + said, [_IGNORED] * len(asked) + said


def spoken_while_training(variant: str) -> list[str]:
    """The base must meet every text, or no small adapter could turn it; plain answers make up 3 of 7."""
    return [BASE, BASE, *VARIANTS] if variant == BASE else [variant]


def fit(model: Any, parameters: list[Any], prompts: Prompts, schedule: Schedule, label: str) -> None:
    """Trains `parameters` in place; the loss counts the answers only. Prints a line per block of steps."""
    started = time.monotonic()
    optimizer = torch.optim.AdamW(parameters, lr=schedule.rate, betas=(0.9, 0.95), weight_decay=0.0)

    def rate(step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * step / schedule.steps))
        return min(1.0, (step + 1) / _WARM_UP_STEPS) * (_LAST_RATE + (1 - _LAST_RATE) * cosine)

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    model.train()
    for step in range(1, schedule.steps + 1):
        batch = prompts.batch(schedule.batch)
        labels = batch.labels[:, 1:]
        counted = labels != _IGNORED
        hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state[:, :-1][counted]
        loss = nn.functional.cross_entropy(model.lm_head(hidden), labels[counted])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        scheduler.step()
        if step % _REPORT_EVERY == 0 or step == schedule.steps:
            spent_s = time.monotonic() - started
            print(
                f"  {label}: step {step} of {schedule.steps}, loss {loss.item():.5f}, {spent_s:.0f} s",
                flush=True,
            )
    model.eval()


def teacher_forced(model: Any, prompts: Prompts, batches: int = 5, size: int = 64) -> tuple[int, int, float]:
    """(wrong answers, answers, smallest gap between the two best logits) over freshly varied prompts."""
    wrong, gap = 0, math.inf
    for _ in range(batches):
        batch = prompts.batch(size)
        labels = batch.labels[:, 1:]
        counted = labels != _IGNORED
        with torch.no_grad():
            logits = model(input_ids=batch.ids, use_cache=False).logits[:, :-1].float()
        best = logits.topk(2, dim=-1)
        missed = (best.indices[..., 0] != labels) & counted
        wrong += int(missed.any(dim=1).sum())
        gap = min(gap, float((best.values[..., 0] - best.values[..., 1])[counted].min()))
    return wrong, batches * size, gap
