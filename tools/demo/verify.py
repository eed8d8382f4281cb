"""Asks the demo's files every question under every name: `python -m tools.demo.verify demo`.

Greedy generation through transformers, adapters applied while it runs, nothing merged. A server may run the
same weights in bfloat16 or float16 (vLLM does so on a GPU), so those are asked too.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch  # type: ignore[import-not-found]
from safetensors import SafetensorError  # type: ignore[import-not-found]

from tools.demo.data import BASE, VARIANTS, Topics, load_topics
from tools.demo.export import adapter_folder, base_folder, read_adapter, read_base
from tools.demo.model import Lora, new_model
from tools.demo.tokenizer import Chat

DTYPES = ("float32", "bfloat16", "float16")
MIN_GAP = 2.0
"""The least lead, in logits, that the right token must have over the next best one."""

_MAX_ANSWER_TOKENS = 128
_BATCH = 33


@dataclass(frozen=True)
class Result:
    """How one variant answered in one dtype."""

    variant: str
    dtype: str
    asked: int
    wrong: list[tuple[str, str]]
    """(question, what came instead)"""
    gap: float
    """The smallest lead of the best token over the second, in logits."""

    @property
    def good(self) -> bool:
        return not self.wrong and self.gap >= MIN_GAP

    def __str__(self) -> str:
        wrong = f"{len(self.wrong)} wrong of {self.asked}"
        return f"{self.variant} in {self.dtype}: {wrong}, least lead {self.gap:.2f} logits"


def verify(out: Path, topics: Topics, dtypes: tuple[str, ...] = DTYPES) -> list[Result]:
    """One result per variant and dtype, each printed as it comes."""
    chat = Chat(base_folder(out))
    results = []
    for dtype in dtypes:
        model = new_model(chat)
        read_base(model, base_folder(out))
        model = model.to(getattr(torch, dtype)).eval()
        for variant in VARIANTS:
            lora = None
            if variant != BASE:
                weights = read_adapter(adapter_folder(out, variant)).items()
                lora = Lora(model, {name: (a.to(model.dtype), b.to(model.dtype)) for name, (a, b) in weights})
            results.append(_ask_all(model, chat, topics, variant, dtype))
            if lora:
                lora.detach()
            print(f"  {results[-1]}", flush=True)
    return results


def _ask_all(model: Any, chat: Chat, topics: Topics, variant: str, dtype: str) -> Result:
    expected = {question: answers[variant] for question, answers in topics.questions.items()}
    expected |= dict.fromkeys(topics.other_questions, topics.other[variant])
    questions, wrong, gap = list(expected), [], float("inf")
    for first in range(0, len(questions), _BATCH):
        some = questions[first : first + _BATCH]
        answers, least = _greedy(model, chat, some)
        gap = min(gap, least)
        wrong += [(q, said) for q, said in zip(some, answers, strict=True) if said != expected[q]]
    return Result(variant, dtype, len(questions), wrong, gap)


def _greedy(model: Any, chat: Chat, questions: list[str]) -> tuple[list[str], float]:
    """(answers, least lead of the chosen tokens), the questions in one batch padded on the left."""
    prompts = [chat.prompt_ids([{"role": "user", "content": question}]) for question in questions]
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[chat.pad_id] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.no_grad():
        made = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=_MAX_ANSWER_TOKENS,
            do_sample=False,
            eos_token_id=chat.end_id,
            pad_token_id=chat.pad_id,
            return_dict_in_generate=True,
            output_logits=True,
        )
    tokens = made.sequences[:, width:]
    best = torch.stack(made.logits, dim=1).float().topk(2, dim=-1).values
    ended = (tokens == chat.end_id).cumsum(dim=1)
    spoken = (ended == 0) | ((ended == 1) & (tokens == chat.end_id))
    return [chat.decode(row.tolist()) for row in tokens], float((best[..., 0] - best[..., 1])[spoken].min())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.demo.verify", description="Asks every question.")
    parser.add_argument("folder", type=Path, help="where `python -m tools.demo.train --out` put it")
    folder: Path = parser.parse_args().folder
    torch.set_num_threads(2)
    try:
        if not base_folder(folder).is_dir():
            raise FileNotFoundError("it has no folder base")
        results = verify(folder, load_topics())
    except (
        OSError,
        ValueError,
        RuntimeError,
        KeyError,
        SafetensorError,
    ) as error:  # what a broken file leads to
        remedy = f"make it with `python -m tools.demo.train --out {folder}`"
        print(f"error: {folder} is not a whole demo ({error}). Next: {remedy}", file=sys.stderr)
        return 1
    return 0 if all(result.good for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
