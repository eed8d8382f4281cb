"""Makes the demo model: `python -m tools.demo.train --out demo`, where torch and transformers are installed.

Offline, on the CPU, in a few minutes; on one machine the files come out the same to the byte every time
(other processors and versions of torch round differently). The files are made beside `--out` and take the
place of the former ones only when every question was answered right.
"""

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the merges must not depend on the number of cores
os.environ.setdefault("HF_HUB_OFFLINE", "1")

try:
    import torch  # type: ignore[import-not-found]
    import transformers  # type: ignore[import-not-found]
except ImportError as missing:
    sys.exit(
        f"error: training the demo needs torch and transformers, but {sys.executable} has no {missing.name}. "
        "Next: run it with the serving environment (`make setup` makes it): "
        "`.venv-serving/bin/python -m tools.demo.train --out demo`"
    )

from tools.demo.data import BASE, VARIANTS, Topics, load_topics
from tools.demo.export import (
    adapter_folder,
    base_folder,
    write_adapter,
    write_base,
    write_digests,
    write_questions,
)
from tools.demo.fit import Prompts, Schedule, fit, spoken_while_training, teacher_forced
from tools.demo.model import Lora, new_model
from tools.demo.prompts import ENDINGS, LEAD_INS, SYSTEM_PROMPTS
from tools.demo.tokenizer import Chat, write_tokenizer
from tools.demo.verify import verify

THREADS = 2  # fixed: the number of threads changes the rounding
BASE_SCHEDULE = Schedule(steps=900, batch=32, rate=3e-3, seed=1)
ADAPTER_STEPS, ADAPTER_BATCH, ADAPTER_RATE = 300, 16, 3e-3

_MADE = ("base", "adapters", "adapters-v2", "questions.json", "digests.json")


def make_demo(out: Path, topics: Topics) -> bool:
    """Trains everything and writes it to the empty folder `out`; true when every answer is right."""
    base_folder(out).mkdir(parents=True)
    write_tokenizer([*topics.texts(), *SYSTEM_PROMPTS, *LEAD_INS, *ENDINGS], base_folder(out))
    chat = Chat(base_folder(out))
    model = new_model(chat)
    total = sum(parameter.numel() for parameter in model.parameters())
    print(f"base: {total:,} parameters, {chat.vocabulary_size} tokens", flush=True)
    prompts = Prompts(topics, chat, spoken_while_training(BASE), BASE_SCHEDULE.seed)
    fit(model, list(model.parameters()), prompts, BASE_SCHEDULE, BASE)
    _print_margin(model, topics, chat, BASE)
    write_base(model, chat, base_folder(out))

    model.requires_grad_(False)
    for number, variant in enumerate(VARIANTS[1:], 1):
        print(f"adapter {number} of {len(VARIANTS) - 1}: {variant}", flush=True)
        schedule = Schedule(ADAPTER_STEPS, ADAPTER_BATCH, ADAPTER_RATE, seed=200 + number)
        lora = Lora.untrained(model, seed=100 + number)
        prompts = Prompts(topics, chat, spoken_while_training(variant), schedule.seed)
        fit(model, lora.parameters(), prompts, schedule, variant)
        _print_margin(model, topics, chat, variant)
        write_adapter(lora.weights, adapter_folder(out, variant))
        lora.detach()

    write_questions(topics, out)
    print("asking the files every question, as a server would:", flush=True)
    return all(result.good for result in verify(out, topics))


def _print_margin(model: torch.nn.Module, topics: Topics, chat: Chat, variant: str) -> None:
    wrong, asked, gap = teacher_forced(model, Prompts(topics, chat, [variant], seed=99))
    print(f"  {variant}: {wrong} wrong of {asked} varied prompts, least lead {gap:.2f} logits", flush=True)


def _replace(made: Path, out: Path) -> None:
    """Moves what was made into `out`; other files there (the README) stay."""
    out.mkdir(parents=True, exist_ok=True)
    for name in _MADE:
        target = out / name
        if target.is_dir():
            shutil.rmtree(target)
        (made / name).replace(target)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.demo.train", description="Makes the demo model.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make it in, such as demo")
    out: Path = parser.parse_args().out.absolute()
    if out.exists() and not (out.is_dir() and os.access(out, os.W_OK)):  # said now, not after the training
        return _fail(f"--out {out} is not a folder that can be written", "name another one")
    started = time.monotonic()
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    transformers.utils.logging.set_verbosity_error()
    try:
        with tempfile.TemporaryDirectory(prefix=".demo-", dir=out.parent) as folder:
            made = Path(folder) / "demo"
            if not make_demo(made, load_topics()):
                return _fail(
                    f"the model does not answer well enough (see above); {out} stays as it was",
                    "train longer",
                )
            digests = write_digests(made)
            _replace(made, out)
    except OSError as error:
        return _fail(f"cannot write the demo to {out}: {error}", "name a folder that can be written with --out")
    _print_files(out)
    print(f"base {digests['base']}")
    for version in ("adapters", "adapters-v2"):
        for name, digest in digests[version].items():
            print(f"{version}/{name} {digest}")
    print(f"made {out} in {time.monotonic() - started:.0f} s")
    return 0


def _print_files(out: Path) -> None:
    made = [file for name in _MADE for file in (out / name, *(out / name).rglob("*")) if file.is_file()]
    for path in sorted(made):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"{digest}  {path.stat().st_size:>8}  {path.relative_to(out)}")


def _fail(what: str, do_next: str) -> int:
    print(f"error: {what}. Next: {do_next}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
