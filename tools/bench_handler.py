"""`make bench-handler`: the Vertex handler's two engines against what they compete with, on this machine's CPU.

(a) Engine peft against a handler of the usual kind (set_adapter and generate, one request after the other), both under
    hf-serve, asked by 16 clients for the base model and two adapters. The model is the demo's, made larger
    (bench_handler_model.py) so that the model's own work matters: its answers stay the demo's, and are checked.
(b) Engine vllm under hf-serve against vLLM's own server with the same flags, with the demo model as it is. One of the
    two runs at a time, in the order: bare, handler, handler, bare.

Rounds take turns, and medians are compared. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from handlers.serving import digest, flags
from handlers.serving.config import parse_engine
from handlers.serving.hardware import detect
from tests.e2e.launcher_kit import BASE, DEMO, MODELS, Store, base_model, questions, wait_until
from tests.fakes.hf_toolkit.kit import ENV, NEWER, PREDICT, PYTHON, Handler
from tests.support.ports import free_port
from tools.setup import paths

AT_ONCE = 16
ADAPTERS = [name for name in MODELS if name != BASE]
ENGINE = {
    "device": "cpu", "dtype": "float32", "maxModelLen": 512, "maxNumSeqs": 32, "kvCacheMib": 128, "maxLoraRank": 16,
    "extraArgs": [],
}  # fmt: skip
SERIAL = paths.ROOT / "tests" / "fakes" / "hf_toolkit" / "serial_handler.py"
START_S = 300.0


class WrongAnswerError(Exception):
    pass


async def measure(send: Callable[[httpx.AsyncClient, str, dict[str, Any]], Any], count: int) -> float:
    """Requests a second, 16 at a time; every answer is checked."""
    known = questions()
    gate = asyncio.Semaphore(AT_ONCE)
    draw = random.Random(count)
    wanted = [(list(MODELS)[number % 3], draw.choice(list(known))) for number in range(count)]
    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=AT_ONCE)) as client:

        async def one(model: str, question: str) -> None:
            body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 64}
            async with gate:
                text = await send(client, model, body)
            if text != known[question][MODELS[model]]:
                raise WrongAnswerError(f"{model}, asked {question!r}, answered {text!r}")

        began = time.perf_counter()
        await asyncio.gather(*(one(model, question) for model, question in wanted))
        return count / (time.perf_counter() - began)


def chat(url: str) -> Callable[[httpx.AsyncClient, str, dict[str, Any]], Any]:
    async def send(client: httpx.AsyncClient, model: str, body: dict[str, Any]) -> str:
        answer = await client.post(f"{url}/v1/chat/completions", json={**body, "model": model})
        answer.raise_for_status()
        return str(answer.json()["choices"][0]["message"]["content"])

    return send


def predict(url: str) -> Callable[[httpx.AsyncClient, str, dict[str, Any]], Any]:
    async def send(client: httpx.AsyncClient, model: str, body: dict[str, Any]) -> str:
        answer = await client.post(url, json={"instances": [{**body, "model": model}]})
        answer.raise_for_status()
        return str(answer.json()["predictions"][0]["choices"][0]["message"]["content"])

    return send


def handler(folder: Path, engine: str, large: Path | None = None) -> Handler:
    """A handler of the demo's adapters that is being started; of the larger ones in `large`."""
    store = Store(folder / "store")
    base = base_model()
    if large is None:
        store.serve()
    else:
        base = {**base, "source": f"file://{large / 'base'}", "digest": digest.of_model(large / "base")}
        store.write({name: store.add(name, large / name) for name in ADAPTERS}, base)
    running = Handler(folder, NEWER, engine, store, engine=ENGINE, baseModel=base)
    running.start()
    return running


class Process:
    """A server that is no Handler; ready when `health` answers 200."""

    def __init__(self, folder: Path, command: list[str], environment: dict[str, str], health: str) -> None:
        self.log = folder / "log"
        folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=folder
            )
        self.health = health

    def wait(self) -> None:
        def well() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended\n{self.told()}")
            try:
                return httpx.get(self.health, timeout=5).status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(well, START_S, self.told, 0.5)

    def told(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def serial(folder: Path, large: Path) -> tuple[Process, str]:
    """The handler of the usual kind under the same server; its address for requests."""
    from handlers.vertex import bundle

    port = free_port()
    bundle.write(folder / "model")
    (folder / "model" / "handler.py").write_bytes(SERIAL.read_bytes())
    places = {"base": str(large / "base"), "adapters": {name: str(large / name) for name in ADAPTERS}}
    (folder / "model" / "places.json").write_text(json.dumps(places))
    environment = {
        **os.environ, "MODEL_DIR": str(folder / "model"), "TASK": "custom", "TRUST_REMOTE_CODE": "1",
        "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    environment.pop("PYTHONPATH", None)
    command = [str(ENV / "bin" / "hf-serve"), "--host", "127.0.0.1", "--port", str(port)]
    return Process(folder, command, environment, f"http://127.0.0.1:{port}/health"), f"http://127.0.0.1:{port}/predict"


def bare_vllm(folder: Path) -> tuple[Process, str]:
    """vLLM's own server with the handler's flags, without anything of ours but the plugins that vLLM needs here."""
    port = free_port()
    command = flags.engine_command(
        parse_engine(ENGINE), detect("cpu"), model=DEMO / "base", base_name=BASE, adapters=len(ADAPTERS),
        host="127.0.0.1", port=port,
    )  # fmt: skip
    arguments = list(command.arguments)
    place = arguments.index("--middleware")
    del arguments[place : place + 2]
    arguments += ["--lora-modules", *(f"{name}={DEMO / 'adapters' / name}" for name in ADAPTERS)]
    environment = {**flags.inherited(os.environ), **command.environment}
    program = [str(PYTHON), "-P", "-m", "vllm.entrypoints.openai.api_server"]
    url = f"http://127.0.0.1:{port}"
    return Process(folder, [*program, *arguments], environment, f"{url}/health"), url


def against_serial(folder: Path, rounds: int, count: int) -> float:
    large = folder / "large"
    subprocess.run([str(PYTHON), "-m", "tools.bench_handler_model", str(large)], cwd=paths.ROOT, check=True)
    ours = handler(folder / "ours", "peft", large)
    try:
        ours.wait_until_ready()
        usual, address = serial(folder / "serial", large)
        try:
            usual.wait()
            found: dict[str, list[float]] = {"peft": [], "serial": []}
            asyncio.run(measure(predict(ours.url + PREDICT), AT_ONCE))
            asyncio.run(measure(predict(address), 3))
            for number in range(rounds):
                found["peft"].append(asyncio.run(measure(predict(ours.url + PREDICT), count)))
                # one after the other: fewer say as much
                found["serial"].append(asyncio.run(measure(predict(address), max(3, count // 3))))
                tell(f"round {number + 1} of {rounds}", found)
        finally:
            usual.close()
    finally:
        ours.close()
    return ratio(found, "peft", "serial")


def against_bare(folder: Path, rounds: int, count: int) -> float:
    found: dict[str, list[float]] = {"vllm": [], "bare": []}
    for block, name in enumerate(("bare", "vllm", "vllm", "bare")):
        place = folder / f"{block}-{name}"
        if name == "vllm":
            running = handler(place, "vllm")
            url, close = running.url, running.close
            wait = running.wait_until_ready
        else:
            process, url = bare_vllm(place)
            wait, close = process.wait, process.close
        try:
            wait()
            asyncio.run(measure(chat(url), 2 * AT_ONCE))
            for _ in range(rounds):
                found[name].append(asyncio.run(measure(chat(url), count)))
            tell(f"block {block + 1} of 4, {name}", found)
        finally:
            close()
    return ratio(found, "vllm", "bare")


def tell(what: str, found: dict[str, list[float]]) -> None:
    rates = "; ".join(f"{name} {', '.join(f'{rate:.2f}' for rate in rates)}" for name, rates in found.items())
    print(f"{what}: requests a second: {rates}", flush=True)


def ratio(found: dict[str, list[float]], ours: str, other: str) -> float:
    middle = {name: statistics.median(rates) for name, rates in found.items()}
    print(f"medians: {ours} {middle[ours]:.2f}, {other} {middle[other]:.2f} requests a second", flush=True)
    return middle[ours] / middle[other]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench_handler", description="See the top of the file.")
    parser.add_argument("--only", choices=("peft", "vllm"), help="one of the two comparisons")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (a), and rounds for each of the blocks (b)")
    parser.add_argument("--requests", type=int, help="of each round (48 and 320)")
    options = parser.parse_args()
    if not (ENV / "lorafleet.stamp").exists():
        print("error: the environment of the Vertex handler is missing\n  next: make setup", file=sys.stderr)
        return 1
    result: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="bench-handler-") as scratch:
        if options.only != "vllm":
            found = against_serial(Path(scratch), options.rounds, options.requests or 48)
            result["peft_vs_serial"] = round(found, 2)
        if options.only != "peft":
            found = against_bare(Path(scratch), options.rounds, options.requests or 320)
            result["vllm_vs_bare"] = round(found, 3)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
