"""Asks a server how it is, as a platform's prober does: `python -m tests.fakes.hf_toolkit.prober HOST:PORT PATH`.

A process of its own, so that the test's own work does not count; and in turn with each question it asks a server that
does nothing (the control), so that what the machine's load costs can be told from what the handler costs. Ends when
its standard input does, and prints {"statuses": {"200": 7}, "times": [seconds], "control": [seconds]}.
"""

import asyncio
import http.client
import json
import select
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[3]
EVERY_S = 0.05
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"


class HealthWatch:
    """Probes `url` + `path` from its beginning to its end. Times are in seconds, those of the control too."""

    def __init__(self, url: str, path: str) -> None:
        self.command = [sys.executable, "-m", "tests.fakes.hf_toolkit.prober", url.removeprefix("http://"), path]
        self.times: list[float] = []
        self.control: list[float] = []
        self.statuses: dict[str, int] = {}

    def __enter__(self) -> "HealthWatch":
        self.process = subprocess.Popen(self.command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        told, _ = self.process.communicate(timeout=120)
        if kind is None:
            found = json.loads(told)
            self.times, self.control, self.statuses = found["times"], found["control"], found["statuses"]


async def do_nothing() -> None:
    """The control: prints its port, answers until it is ended."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def ask(address: str, path: str) -> tuple[int, float]:
    """Over a new connection. (httpx would spend more time on its own start than the answer takes.)"""
    began = time.perf_counter()
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status, time.perf_counter() - began


def main(address: str, path: str) -> None:
    with subprocess.Popen([sys.executable, "-m", "tests.fakes.hf_toolkit.prober"], stdout=subprocess.PIPE) as control:
        assert control.stdout is not None
        beside = f"127.0.0.1:{int(control.stdout.readline())}"
        statuses: Counter[int] = Counter()
        times, others = [], []
        while not select.select([sys.stdin], [], [], EVERY_S)[0]:
            status, took = ask(address, path)
            statuses[status] += 1
            times.append(took)
            others.append(ask(beside, "/")[1])
        control.kill()
    print(json.dumps({"statuses": statuses, "times": times, "control": others}))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        asyncio.run(do_nothing())
    else:
        main(*sys.argv[1:])
