"""Checks that the base model's answers are its own, and not those of an adapter.

vLLM's CPU path can answer base requests with an adapter's weights (vllm_plugins/lorafleet_vllm/cpu_lora.py). So the
base is asked before any adapter is loaded, and again afterwards: alone, and mixed with requests to the adapters. After
each change of the adapters it is asked again, among the requests that are there.
Compared are the tokens of the answers and their log-probabilities. An adapter that changes neither could not be told
from the base, but does no harm.

(The log-probabilities of the prompt would be simpler to compare, but asking for them in a batch ends vLLM 0.32 on a CPU
with adapters: its LoRA term for the logits expects one row per request.)
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from handlers.serving.client import EngineClient
from handlers.serving.errors import ServingError
from handlers.serving.probe import PROMPTS, Answer, ask

ANSWER_TOKENS = 8
CANDIDATES = 5  # the most that vLLM's completions give for a token
ROUNDS = 2
# Mean difference of log-probability per token that other requests in the same batch may cause. Measured with the demo
# model on a CPU: 0 in float32, 0.0002 in bfloat16; with an adapter's weights instead of the base's, above 1.
TOLERANCE = {"float32": 0.002}
TOLERANCE_16_BIT = 0.05
OUT_OF_SIGHT = 10.0  # the difference that counts for a token which is not among the candidates any more


def ask_base(client: EngineClient, model: str, prompt: str) -> Answer:
    return ask(client, model, prompt, ANSWER_TOKENS, f"asking {model}", CANDIDATES)


def ask_all(client: EngineClient, model: str) -> list[Answer]:
    """The answers of `model` to PROMPTS, one after the other."""
    return [ask_base(client, model, prompt) for prompt in PROMPTS]


def difference(first: Answer, second: Answer) -> float:
    """Mean absolute difference of the log-probabilities of the first answer's tokens, up to and with the first token
    where the two answers part (after it they have different texts before them)."""
    gaps: list[float] = []
    for position, token in enumerate(first.tokens):
        if position >= len(second.tokens):
            gaps.append(OUT_OF_SIGHT)
            break
        own, other = first.candidates[position].get(token), second.candidates[position].get(token)
        gaps.append(OUT_OF_SIGHT if own is None or other is None else abs(own - other))
        if second.tokens[position] != token:
            break
    return sum(gaps) / len(gaps) if gaps else 0.0


def check_base(client: EngineClient, base: str, before: Sequence[Answer], adapters: Sequence[str], dtype: str) -> float:
    """Compares the base's answers now with those from `before` the adapters. Returns the largest difference seen.

    `adapters` are the served names, asked at the same time. Raises ServingError when the base answers otherwise.
    """
    after = ask_all(client, base)
    worst = compare(before, after, dtype, "asked alone")
    with ThreadPoolExecutor(max_workers=16) as pool:
        for _ in range(ROUNDS):
            others = []
            asked = []
            for position, prompt in enumerate(PROMPTS):
                for name in adapters:
                    others.append(pool.submit(ask_base, client, name, PROMPTS[position - 1]))
                asked.append(pool.submit(ask_base, client, base, prompt))
            mixed = [future.result() for future in asked]
            for future in others:
                future.result()
            worst = max(worst, compare(before, mixed, dtype, "asked together with the adapters"))
    return worst


def check_again(client: EngineClient, base: str, before: Sequence[Answer], dtype: str) -> float:
    """A short check while the server serves: every prompt once, side by side. Raises as check_base does."""
    with ThreadPoolExecutor(max_workers=len(PROMPTS)) as pool:
        after = list(pool.map(lambda prompt: ask_base(client, base, prompt), PROMPTS))
    return compare(before, after, dtype, "asked after a change of the adapters")


def compare(before: Sequence[Answer], after: Sequence[Answer], dtype: str, how: str) -> float:
    tolerance = TOLERANCE.get(dtype, TOLERANCE_16_BIT)
    worst = 0.0
    for prompt, first, second in zip(PROMPTS, before, after, strict=True):
        gap = difference(first, second)
        worst = max(worst, gap)
        # with 16 bits, two tokens of almost the same probability can change places in another batch
        text_differs = dtype == "float32" and first.text != second.text
        if gap > tolerance or text_differs:
            raise ServingError(
                f"the base model, {how}, answers with an adapter's weights: {prompt!r} gave {second.text!r} instead of "
                f"{first.text!r} (difference {gap:.4f} per token, {tolerance:g} is allowed). This is vLLM's CPU LoRA "
                "bug (vLLM issues 48421, 49656): rows without an adapter read the last adapter slot",
                "see in the log that vLLM loaded the plugin lorafleet_cpu_lora, and that this vLLM is the version in "
                "requirements/serving-vllm.lock; with another version, correct the plugin before serving with it",
            )
    return worst


def timed_check(client: EngineClient, base: str, before: Sequence[Answer], adapters: Sequence[str], dtype: str) -> str:
    """check_base, told in one line."""
    start = time.monotonic()
    worst = check_base(client, base, before, adapters, dtype)
    return f"the base answers as before the adapters (difference {worst:.1e}, {time.monotonic() - start:.1f} s)"
