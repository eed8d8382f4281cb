"""Load on a server whose adapters change meanwhile, and adapters that are broken in different ways."""

import json
import random
import shutil
import struct
import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from tests.e2e.launcher_kit import BASE, DEMO, KEY, base_model, column, demo_digest, questions

HEADERS = {"authorization": f"Bearer {KEY}"}
HEADER = "x-lorafleet-adapter"
# Making a client takes 30 ms for the TLS that is not used here. No connection is kept: the server may close one that is
# idle at the moment in which the next request is sent.
CLIENT = httpx.Client(verify=False, limits=httpx.Limits(max_keepalive_connections=0), headers=HEADERS, timeout=120)
ADAPTERS = ("easycontract", "checklist")


def columns() -> dict[str, str]:
    """Header of an answer -> the column of questions.json with the right texts."""
    found = {f"{name}@{demo_digest(name, version)}": column(name, version) for name in ADAPTERS for version in (1, 2)}
    return found | {f"{BASE}@{base_model()['digest']}": "base"}


def chat(url: str, model: str, question: str, **headers: str) -> httpx.Response:
    body = {
        "model": model, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 96,
    }  # fmt: skip
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return CLIENT.post(f"{url}/v1/chat/completions", json=body, headers=given)


def text_of(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])


class Load:
    """So many requests in flight, for base and adapters mixed, as long as the block runs. Each text is compared with
    what the version that its header names must say."""

    def __init__(self, url: str, in_flight: int = 16, models: tuple[str, ...] = (BASE, *ADAPTERS)) -> None:
        self.url = url
        self.models = models
        self.known = questions()
        self.columns = columns()
        self.answers: Counter[str] = Counter()
        self.faults: list[str] = []
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.work, args=(seed,)) for seed in range(in_flight)]

    def work(self, seed: int) -> None:
        choice = random.Random(seed)
        while not self.ended.is_set():
            model, question = choice.choice(self.models), choice.choice(list(self.known))
            try:
                answer = chat(self.url, model, question)
                header = answer.headers.get(HEADER, "")
                wanted = self.known[question][self.columns[header]]
                if answer.status_code != 200 or not header.startswith(f"{model}@") or text_of(answer) != wanted:
                    self.faults.append(f"{model} {header} {answer.status_code} {answer.text[:300]}")
                self.answers[header] += 1
            except (httpx.HTTPError, KeyError, ValueError) as error:
                self.faults.append(f"{model}: {error!r}")
                self.ended.wait(0.1)  # a server that is gone refuses at once

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()


def wrong_answers(url: str, versions: dict[str, int], number: int = 3) -> list[str]:
    """Asks base and adapters; what is not as these versions (name -> 1 or 2) say it."""
    faults = []
    for question, wanted in list(questions().items())[:number]:
        for model in (BASE, *versions):
            answer = chat(url, model, question)
            right = wanted["base" if model == BASE else column(model, versions[model])]
            if answer.status_code != 200 or text_of(answer) != right:
                faults.append(f"{model}: {answer.status_code} {answer.text[:200]}")
    return faults


def tensors(path: Path) -> tuple[dict[str, Any], bytearray]:
    """Header and data of a safetensors file."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), bytearray(raw[8 + length :])


def altered(folder: Path, kind: str) -> Path:
    """A copy of the demo's first easycontract in `folder`, broken as `kind` says."""
    shutil.copytree(DEMO / "adapters" / "easycontract", folder)
    path = folder / "adapter_model.safetensors"
    header, data = tensors(path)
    numbers = list(struct.unpack(f"<{len(data) // 4}f", data))
    noise = random.Random(5)
    if kind == "NaN weights":
        numbers[len(numbers) // 2] = float("nan")
    elif kind == "infinite weights":
        numbers[-1] = float("inf")
    elif kind.startswith("times "):
        numbers = [number * float(kind.split()[1]) for number in numbers]
    elif kind.startswith("noise "):
        numbers = [noise.gauss(0, float(kind.split()[1])) for _ in numbers]
    data[:] = struct.pack(f"<{len(numbers)}f", *numbers)
    if kind == "other shapes":
        for name, entry in header.items():
            if name != "__metadata__" and "lora_A" in name:
                entry["shape"] = list(reversed(entry["shape"]))
    if kind == "other names":
        header = {name.replace("c_proj", "down_proj"): entry for name, entry in header.items()}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    config = folder / "adapter_config.json"
    document = json.loads(config.read_text())
    if kind == "rank 32":
        config.write_text(json.dumps(document | {"r": 32}))
    if kind == "modules_to_save":
        config.write_text(json.dumps(document | {"modules_to_save": ["lm_head"]}))
    if kind == "no JSON":
        config.write_text("{")
    return folder
