"""Checks of the engine peft in its own environment: `python -m tests.fakes.hf_toolkit.engine_checks NAME…`.

Prints what each found as one JSON object by name, which tests/e2e/test_vertex_handler_engine.py looks at.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from handlers.serving.errors import ServingError
from handlers.vertex import batcher
from handlers.vertex.batcher import Batcher
from handlers.vertex.jobs import End, Job, Sampling, Token
from handlers.vertex.mixed_model import Adapter, MixedModel, Tokens

DEMO = Path(__file__).resolve().parents[3] / "demo"
NAMES = ("checklist", "easycontract")


class Asked:
    def __init__(self, adapter: str | None, prompt: list[int], **sampling: Any) -> None:
        self.ids: list[int] = []
        self.ended = threading.Event()
        self.end: End | None = None
        self.first = threading.Event()
        self.job = Job(adapter, prompt, Sampling(**{"max_tokens": 40, "temperature": 0, **sampling}), self.take)

    def take(self, item: Token | End) -> None:
        if isinstance(item, End):
            self.end = item
            self.ended.set()
        else:
            self.ids.append(item.id)
        self.first.set()

    def wait(self) -> list[int]:
        assert self.ended.wait(120)
        return self.ids


class World:
    def __init__(self, adapters: tuple[str, ...] = NAMES, rows: int = 16) -> None:
        self.tokens = Tokens(DEMO / "base")
        self.model = MixedModel(DEMO / "base", "cpu", "float32")
        for name in adapters:
            self.model.load(name, Adapter(name, DEMO / "adapters" / name))
        self.batcher = Batcher(self.model, self.tokens.ends, rows)
        questions = list(json.loads((DEMO / "questions.json").read_text())["questions"])
        self.prompts = [self.encoded(question) for question in questions]

    def encoded(self, question: str) -> list[int]:
        chat = [{"role": "user", "content": question}]
        text = self.tokens.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        found: list[int] = self.tokens.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def ask(self, adapter: str | None, prompt: list[int], **sampling: Any) -> Asked:
        asked = Asked(adapter, prompt, **sampling)
        self.batcher.submit(asked.job)
        return asked


def same_as_peft_alone() -> dict[str, Any]:
    """Rows of different lengths and adapters, joining one after the other, against PEFT's generate for each alone."""
    import torch  # type: ignore[import-not-found]

    world = World(rows=5)
    wanted: list[list[int]] = []
    cases = [((None, *NAMES)[number % 3], prompt) for number, prompt in enumerate(world.prompts[:24])]
    for adapter, prompt in cases:
        ids = torch.tensor([prompt])
        made = world.model.peft.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False,
            adapter_names=["__base__" if adapter is None else world.model.slots[adapter]], pad_token_id=0,
            eos_token_id=list(world.tokens.ends),
        )[0, len(prompt) :].tolist()  # fmt: skip
        wanted.append([token for token in made if token not in world.tokens.ends])
    world.batcher.start()
    found = [world.ask(adapter, prompt) for adapter, prompt in cases]
    wrong = sum(asked.wait() != expected for asked, expected in zip(found, wanted, strict=True))
    return {"wrong": wrong, "of": len(cases), "differ": len({tuple(each) for each in wanted})}


def leaving_frees_the_row() -> dict[str, Any]:
    world = World(rows=1)
    world.batcher.start()
    first = world.ask("checklist", world.prompts[0], max_tokens=100_000, ignore_eos=True)
    second = world.ask(None, world.prompts[0])
    assert first.first.wait(60)
    waited = not second.ended.is_set()
    first.job.cancelled.set()
    second.wait()
    behind = world.ask(None, world.prompts[0], max_tokens=100_000, ignore_eos=True)
    assert behind.first.wait(60)
    gone = [world.ask(None, world.prompts[0]) for _ in range(50)]
    for each in gone:
        each.job.cancelled.set()
    # they go although the row is taken
    emptied = soon(lambda: not world.batcher.waiting)
    behind.job.cancelled.set()
    return {
        "waited": waited, "first": first.ended.is_set(), "gone": emptied, "rows": soon(lambda: not world.batcher.rows),
    }  # fmt: skip


def soon(true: Callable[[], bool]) -> bool:
    for _ in range(6000):
        if true():
            return True
        threading.Event().wait(0.01)
    return False


def adapters_come_and_go() -> dict[str, Any]:
    """While a request is at work; the last adapter too, and again one after it."""
    world = World(adapters=())
    world.batcher.start()
    base = world.ask(None, world.prompts[0]).wait()
    long = world.ask(None, world.prompts[0], max_tokens=100_000, ignore_eos=True)
    told: dict[str, Any] = {"same": [], "unknown": None}
    for _ in range(2):
        for name in NAMES:
            adapter = Adapter(name, DEMO / "adapters" / name)
            world.batcher.call(lambda name=name, adapter=adapter: world.model.load(name, adapter)).result(60)  # type: ignore[misc]
        answers = [world.ask(name, world.prompts[0]).wait() for name in NAMES]
        told["different"] = len({tuple(each) for each in (base, *answers)})
        for name in NAMES:
            assert world.batcher.call(lambda name=name: world.model.unload(name)).result(60)  # type: ignore[misc]
        told["same"].append(world.ask(None, world.prompts[0]).wait() == base)
        unknown = world.ask("checklist", world.prompts[0])
        unknown.wait()
        told["unknown"] = unknown.end.error if unknown.end else None
    told["long goes on"] = not long.ended.is_set()
    told["peft"] = world.model.peft is None
    long.job.cancelled.set()
    return told


def faults() -> dict[str, Any]:
    """A step that fails ends its rows and no others; adapters that do not fit are refused and leave nothing."""
    world = World()
    world.batcher.start()
    good = world.ask(None, world.prompts[0]).wait()
    whole = world.model.forward
    world.model.forward = broken  # type: ignore[method-assign, assignment]
    failed = world.ask("checklist", world.prompts[0])
    failed.wait()
    world.model.forward = whole  # type: ignore[method-assign]
    after = world.ask(None, world.prompts[0]).wait()
    # of two, the one at work and the one that cannot be put beside it are both told
    at_work = world.ask(None, world.prompts[0], max_tokens=100_000, ignore_eos=True)
    assert at_work.first.wait(60)
    layers, batcher.layers = batcher.layers, broken  # type: ignore[assignment]
    unmerged = world.ask(None, world.prompts[1])
    unmerged.wait()
    at_work.wait()
    batcher.layers = layers
    after_both = world.ask(None, world.prompts[0]).wait()
    refused = None
    narrow = Adapter("narrow", DEMO / "adapters" / "checklist")
    narrow.tensors = {name: tensor[:, :7] if "lora_A" in name else tensor for name, tensor in narrow.tensors.items()}
    try:
        world.model.load("narrow", narrow)
    except ServingError as error:
        refused = error.reason
    world.batcher.stop()
    world.batcher.join(60)
    late = world.ask(None, world.prompts[0])
    late.wait()
    return {
        "failed": failed.end.error if failed.end else None, "well after": after == good, "refused": refused,
        "unmerged": [each.end.error if each.end else None for each in (at_work, unmerged)],
        "well again": after_both == good, "slots": len(world.model.slots), "late": late.end.error if late.end else None,
    }  # fmt: skip


def broken(*_: Any) -> Any:
    raise RuntimeError("made to fail")


def drawing() -> dict[str, Any]:
    """The same seed draws the same; rows with other settings beside it do not matter."""
    world = World()
    world.batcher.start()
    hot = {"temperature": 3.0, "max_tokens": 12, "ignore_eos": True}
    first = world.ask(None, world.prompts[0], seed=7, **hot).wait()
    beside = [world.ask(None, world.prompts[0], **hot), world.ask("checklist", world.prompts[1])]
    again = world.ask(None, world.prompts[0], seed=7, **hot).wait()
    others = {tuple(world.ask(None, world.prompts[0], seed=seed, **hot).wait()) for seed in range(8)}
    greedy = world.ask(None, world.prompts[0]).wait()
    narrow = [
        world.ask(None, world.prompts[0], temperature=3.0, **limit).wait() for limit in ({"top_k": 1}, {"top_p": 0})
    ]
    for each in beside:
        each.wait()
    return {"same": first == again, "others": len(others), "narrow": all(each == greedy for each in narrow)}


def without_a_server() -> dict[str, Any]:
    """The plain contract: made with the model's folder, called with a body. The folder is HF_MODEL_DIR."""
    from handlers.vertex.endpoint import EndpointHandler

    handler = EndpointHandler(os.environ["HF_MODEL_DIR"])
    early = None
    try:
        handler({"instances": ["x"]})
    except RuntimeError as error:
        early = str(error)
    while not handler.launcher.alias.table.document.get("accepting"):
        handler.launcher.alias.table.refresh()
        threading.Event().wait(0.1)
    question, wanted = next(iter(json.loads((DEMO / "questions.json").read_text())["questions"].items()))
    chat = {"messages": [{"role": "user", "content": question}], "temperature": 0.0, "max_tokens": 96.0}
    found = handler({"instances": [{**chat, "model": name} for name in NAMES] + [{"messages": []}]})["predictions"]
    refused = None
    try:
        handler({"instances": [{**chat, "model": "nobody"}]})
    except ValueError as error:
        refused = str(error)
    return {
        "right": [each["choices"][0]["message"]["content"] for each in found[:2]] == [wanted[name] for name in NAMES],
        "error": found[2]["error"]["status"], "early": early, "refused": refused,
    }  # fmt: skip


CHECKS = {
    check.__name__: check
    for check in (
        same_as_peft_alone, leaving_frees_the_row, adapters_come_and_go, faults, drawing, without_a_server,
    )
}  # fmt: skip

if __name__ == "__main__":
    answer = {name: CHECKS[name]() for name in sys.argv[1:]}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()
    os._exit(0)
