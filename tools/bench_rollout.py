"""`make bench-rollout`: releases forward and back by `pulumi up`, on the real local stack under steady mixed load.

A scratch copy of the `local` stack (vLLM, HAProxy) answers 16 requests at a time for the base and two adapters. Every
answer must come, its header must name a digest that may answer at that moment (the old or the new one while a release
is taken over, else the one that is served), and its text must be that version's. The time of a release is from the
manifest's write to the server's word that it serves it. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.stack_project import ROOT, StackProject

BASE, ADAPTERS = "exaone-3.5-2.4b", ("easycontract", "checklist")
VERSIONS = ("adapters", "adapters-v2")
QUESTIONS: dict[str, dict[str, str]] = json.loads((ROOT / "demo" / "questions.json").read_text())["questions"]
AT_ONCE = 16
FOLLOW_TIMEOUT_S = 120.0
LIMIT_S = 2.0


@dataclass
class Load:
    """Steady requests through the router until it is told to stop."""

    url: str
    key: str
    base_digest: str
    version_of: dict[tuple[str, str], str]
    """{(adapter, digest): version}, to know which text is right"""
    allowed: dict[str, frozenset[str]]
    """{adapter: digests that may answer a request that begins or ends now}"""
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    stop: bool = False

    async def run(self) -> None:
        limits = httpx.Limits(max_connections=AT_ONCE)
        async with httpx.AsyncClient(limits=limits, timeout=120) as client:
            await asyncio.gather(*(self._worker(client, random.Random(number)) for number in range(AT_ONCE)))

    async def _worker(self, client: httpx.AsyncClient, chance: random.Random) -> None:
        while not self.stop:
            model, question = chance.choice((BASE, *ADAPTERS)), chance.choice(list(QUESTIONS))
            before = self.allowed.get(model, frozenset())
            self.counts["requests"] += 1
            try:
                answer = await client.post(
                    f"{self.url}/chat/completions",
                    headers={"authorization": f"Bearer {self.key}"},
                    json={
                        "model": model,
                        "messages": [{"role": "user", "content": question}],
                        "temperature": 0,
                        "max_tokens": 128,
                    },
                )
                answer.raise_for_status()
                text = answer.json()["choices"][0]["message"]["content"]
            except (httpx.HTTPError, ValueError, LookupError) as error:
                self.counts["failed"] += 1
                self.faults.append(f"{model}: {type(error).__name__}: {error}")
                continue
            may_answer = before | self.allowed.get(model, frozenset())
            if fault := self._fault(model, question, text, answer.headers.get("x-lorafleet-adapter", ""), may_answer):
                self.counts["wrong"] += 1
                self.faults.append(fault)

    def _fault(self, model: str, question: str, text: str, header: str, may_answer: frozenset[str]) -> str:
        name, _, digest = header.partition("@")
        if name != model:
            return f"{model}: the header says {header!r}"
        if model == BASE:
            right = QUESTIONS[question]["base"]
            return "" if (text, digest) == (right, self.base_digest) else f"{model}: {header} said {text!r}"
        if digest not in may_answer:
            return f"{model}: {digest} answered, which is neither the old nor the new version"
        suffix = "-v2" if self.version_of[model, digest] == VERSIONS[1] else ""
        return "" if text == QUESTIONS[question][f"{model}{suffix}"] else f"{model}: {header} said {text!r}"


def main() -> int:
    """Runs the benchmark; gives the exit status: 0 if no request failed or was wrong and the median is at most 2 s."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_rollout", description="Releases under load.")
    parser.add_argument("--rollouts", type=int, default=20, help="releases, forward and back in turns (default 20)")
    rollouts = parser.parse_args().rollouts
    if rollouts < 1:
        parser.error("--rollouts must be 1 or more")
    folder = Path(tempfile.mkdtemp(prefix="lorafleet-bench-"))
    project = StackProject(folder / "project", real=True)
    try:
        print("bringing up the local stack in a scratch folder", flush=True)
        project.up().ok()
        return asyncio.run(bench(project, rollouts))
    except AssertionError as error:
        print(f"error: a command of Pulumi failed. Next: read what it says\n{error}", file=sys.stderr)
        return 1
    finally:
        project.kill_everything()
        shutil.rmtree(folder, ignore_errors=True)


async def bench(project: StackProject, rollouts: int) -> int:
    """The releases, one after the other, while the load goes on."""
    digests = project.digests
    load = Load(
        url=f"http://127.0.0.1:{project.ports['router']}/v1",
        key=await asyncio.to_thread(project.output, "apiKey"),
        base_digest=project.manifest()["baseModel"]["digest"],
        version_of={(name, digest): version for (version, name), digest in digests.items()},
        allowed={name: frozenset({digests[VERSIONS[0], name]}) for name in ADAPTERS},
    )
    running = asyncio.create_task(load.run())
    taken: list[float] = []
    try:
        await asyncio.sleep(2)
        for number in range(1, rollouts + 1):
            version = VERSIONS[number % 2]
            took_s = await release(project, load, version)
            taken.append(took_s)
            print(
                f"release {number:>2} of {rollouts}: {version:<11} served after {took_s:.3f} s  "
                f"({load.counts['requests']} requests, {load.counts['failed']} failed, {load.counts['wrong']} wrong)",
                flush=True,
            )
            await asyncio.sleep(1)
    finally:
        load.stop = True
        await running
    for fault in load.faults[:10]:
        print(f"fault: {fault}", flush=True)
    figures = {
        "rollouts": len(taken),
        "requests": load.counts["requests"],
        "failed": load.counts["failed"],
        "wrong": load.counts["wrong"],
        "median_s": round(statistics.median(taken), 3),
        "p95_s": round(sorted(taken)[max(0, -(-len(taken) * 95 // 100) - 1)], 3),
    }
    print(json.dumps(figures), flush=True)
    return 1 if load.faults or figures["median_s"] > LIMIT_S else 0


async def release(project: StackProject, load: Load, version: str) -> float:
    """One `pulumi up`; gives the seconds from the manifest's write until the server says that it serves it."""
    pins = {name: project.digests[version, name] for name in ADAPTERS}
    for name, digest in pins.items():
        load.allowed[name] |= {digest}
    project.change(lambda fleet: fleet["release"]["adapters"].update(pins))
    file = project.store / "manifests" / f"{project.stack}.json"
    former = file.stat().st_mtime_ns
    served = asyncio.create_task(_served(project, former))
    ran = await asyncio.to_thread(project.up)
    ran.ok()
    took_s = await served
    for name, digest in pins.items():
        load.allowed[name] = frozenset({digest})
    return took_s


async def _served(project: StackProject, former: int) -> float:
    """Watches the manifest and the server's status from the side."""
    file = project.store / "manifests" / f"{project.stack}.json"
    status = project.store / "status" / project.stack / "server" / "0.json"
    deadline = time.monotonic() + FOLLOW_TIMEOUT_S
    while time.monotonic() < deadline:
        written = file.stat().st_mtime_ns
        if written != former:
            wanted = {each["name"]: each["digest"] for each in project.manifest()["adapters"]}
            found: dict[str, Any] = json.loads(status.read_text())
            if {each["name"]: each["digest"] for each in found["adapters"]} == wanted:
                return time.time() - written / 1e9
        await asyncio.sleep(0.005)
    raise AssertionError(
        f"the server did not take the release over within {FOLLOW_TIMEOUT_S:g} s: {status.read_text()}"
    )


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
