"""Asks a newly loaded adapter a few things, before any user does, and judges whether it is sound.

Caught are: numbers that are not finite, answers that are no text, one word over and over, silence to every prompt, and
words that the adapter itself hardly believes in (weights of noise). What cannot be caught: an adapter that answers
fluently and wrongly - trained on the wrong data, for another purpose, or of which only rare inputs go wrong - as nobody
here knows what it ought to say; and one that changes next to nothing (weights of zero, noise that is faint), which
answers as the base does.
"""

import json
import math
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from handlers.serving.client import SEE_LOG, EngineClient
from handlers.serving.errors import ServingError

# Plain beginnings of texts, and questions in EXAONE's chat format (the last CHATS). An adapter that was trained on
# chats may well end at once, or go round in circles, after a plain beginning.
PROMPTS = (
    "임대차 계약서의 보증금 조항을 쉬운 말로 설명해 주세요.",
    "대한민국의 수도는 어디인가요?",
    "What does the termination clause mean?",
    "1, 2, 3, 4, 5, 6,",
    "[|system|][|endofturn|]\n[|user|]월세는 언제 내나요?\n[|assistant|]",
    "[|system|][|endofturn|]\n[|user|]집을 빌리기 전에 무엇을 확인하나요?\n[|assistant|]",
)
CHATS = 2
TOKENS = 16
TIMEOUT_S = 600.0
"""of one question: under load it waits in vLLM's queue as users' requests do"""
LOOK_S = 0.01
NEVER = -9999.0  # what vLLM writes for a log-probability of minus infinity
# Mean log-probability of the words that the adapter chose itself, and how much less sure than the base it may be. The
# demo model: base and adapters above -0.1, weights of noise (standard deviation 0.2 and more) below -2.
UNSURE = -1.2
LESS_SURE_THAN_BASE = 1.0


@dataclass(frozen=True)
class Answer:
    text: str
    tokens: tuple[str, ...]
    scores: tuple[float, ...]
    """log-probability of each token of the answer; NaN for one that vLLM could not say"""
    candidates: tuple[dict[str, float], ...]
    """for each token of the answer: the most probable tokens and their log-probabilities"""


def ask(client: EngineClient, model: str, prompt: str, tokens: int, doing: str, candidates: int = 1) -> Answer:
    """The answer at temperature 0. Raises ServingError that starts with `doing`."""
    answer = client.complete(model, prompt, tokens, doing, TIMEOUT_S, logprobs=candidates)
    try:
        choice: dict[str, Any] = answer["choices"][0]
        found = choice["logprobs"]
        scores = tuple(math.nan if score is None else float(score) for score in found["token_logprobs"])
        return Answer(choice["text"], tuple(found["tokens"]), scores, tuple(found["top_logprobs"]))
    except (LookupError, TypeError, ValueError):
        raise ServingError(f"{doing}: the engine gave no tokens: {json.dumps(answer)[:200]}", SEE_LOG) from None


def probe(
    client: EngineClient, served: dict[str, str], base: Sequence[Answer], interrupted: Callable[[], None]
) -> dict[str, ServingError]:
    """Asks all these adapters (served name -> public name) side by side. Returns the error of each that is not sound.

    `base` are the base model's own answers to PROMPTS. `interrupted` is called now and then and may raise.
    """
    pool = ThreadPoolExecutor(max_workers=max(1, min(32, len(served) * len(PROMPTS))), thread_name_prefix="probe")
    try:
        asked: dict[str, list[Future[Answer]]] = {
            name: [pool.submit(ask, client, name, prompt, TOKENS, f"probing {public}") for prompt in PROMPTS]
            for name, public in served.items()
        }
        waiting: set[Future[Answer]] = {future for futures in asked.values() for future in futures}
        while waiting:
            waiting = wait(waiting, timeout=LOOK_S).not_done
            interrupted()
        found = {name: judged(served[name], futures, base) for name, futures in asked.items()}
        return {name: error for name, error in found.items() if error is not None}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def judged(public: str, futures: Sequence[Future[Answer]], base: Sequence[Answer]) -> ServingError | None:
    try:
        fault = fault_of([future.result() for future in futures], base)
    except ServingError as error:
        if "Out of range float" not in error.what:
            return error.because("probe_failed")
        fault = "it computes numbers that are not finite (NaN)"  # vLLM could not write them as JSON
    if fault is None:
        return None
    return ServingError(
        f"probing {public}: {fault}",
        f"look at how {public} was trained and saved; then release another version",
        "probe_failed",
    )


def fault_of(answers: Sequence[Answer], base: Sequence[Answer]) -> str | None:
    """What is wrong with an adapter that gave these answers to PROMPTS; None when nothing is seen."""
    scores = [score for answer in answers for score in answer.scores]
    if not all(math.isfinite(score) and score > NEVER for score in scores):
        return "it computes numbers that are not finite (NaN)"
    if not any(answer.text.strip() for answer in answers) and not any(runs(answer) for answer in answers):
        return "it gives an empty answer to every prompt"
    text = "".join(answer.text for answer in answers)
    if 2 * sum(map(is_rubbish, text)) > len(text):
        return f"its answers are no text: {text[:40]!r}"
    repeating = [answer for answer in answers if runs(answer)]
    if 2 * len(repeating) > len(answers) and any(runs(answer) for answer in answers[-CHATS:]):
        return f"it repeats one token without end: {repeating[0].text[:40]!r}"
    own, bases = sureness(answers), sureness(base)
    if own < UNSURE and own < bases - LESS_SURE_THAN_BASE:
        return (
            f"its answers are noise: it gives its own words a mean log-probability of {own:.1f}, the base {bases:.1f}, "
            f"as in {text[:40]!r}"
        )
    return None


def runs(answer: Answer) -> bool:
    """One token as often as it was allowed to speak."""
    return len(answer.tokens) >= TOKENS and len(set(answer.tokens)) == 1


def is_rubbish(character: str) -> bool:
    """No part of any text: a piece of a character (U+FFFD), control characters, characters that are not assigned."""
    return character == "\ufffd" or (
        unicodedata.category(character) in ("Cc", "Cn", "Co") and character not in "\n\t\r"
    )


def sureness(answers: Sequence[Answer]) -> float:
    """Mean log-probability per token; 0 without tokens."""
    scores = [score for answer in answers for score in answer.scores]
    return sum(scores) / len(scores) if scores else 0.0
