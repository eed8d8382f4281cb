"""For the router's tests: a server that answers like vLLM's, as a process that can be killed, and a running router.

What a request asks for stands in the first message's content, as JSON: {"wait_s": 2} waits before the first byte,
{"chunks": 5, "gap_s": 0.2} sets the pace of a stream, {"break_off": true} closes the connection without an answer.
What it says of itself at /lorafleet/state is what was last posted to /set/status.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
CLIENT_KEY = "sk-client-4a1f93c07be25d68"
BASE = "exaone-3.5-2.4b"


def free_ports(count: int) -> list[int]:
    return [free_port() for _ in range(count)]


def status_document(adapter: str = "easycontract", **changed: Any) -> dict[str, Any]:
    """What a server says that serves one adapter, with fields of that adapter `changed`."""
    digest = "sha256:" + hashlib.sha256(adapter.encode()).hexdigest()
    since = "2026-01-01T00:00:00.500Z"
    served: dict[str, Any] = {
        "name": adapter,
        "servedName": f"{adapter}@{digest[:23].replace(':', '-')}",
        "digest": digest,
    }
    served |= {"wanted": digest, "canary": None, "state": "serving", "since": since, "error": None}
    manifest = {"digest": "ab" * 32, "state": "serving", "since": since, "error": None}
    return {
        "inFlight": {served["servedName"]: 3, BASE: 0},
        "done": {BASE: 12},
        "status": {
            "version": 2,
            "phase": "ready",
            "updatedAt": since,
            "heartbeatS": 2,
            "manifestDigest": "ab" * 32,
            "manifest": manifest,
            "adapters": [served | changed],
            "draining": [],
        },
    }


class Upstream:
    """The server inside its own process: `python -m tests.e2e.router_kit PORT NAME KEY`."""

    def __init__(self, name: str, key: str) -> None:
        self.name = name
        self.key = key
        self.ready = True
        self.status = json.dumps(status_document()).encode()
        self.status_wait_s = 0.0
        self.seen: dict[str, Any] = {"requests": 0, "in_flight": 0, "most_in_flight": 0, "hung_up": 0, "headers": {}}

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            while True:
                # vLLM's server (uvicorn) forgets a connection that was idle for 5 s.
                head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode()
                first, *lines = head.split("\r\n")
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                await self.answer(first.split(" ")[0], first.split(" ")[1], headers, body, reader, writer)
        writer.close()

    async def answer(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if path == "/ready":
            self.plain(writer, 200 if self.ready else 503, {"ready": self.ready})
        elif path == "/seen":
            self.plain(writer, 200, self.seen)
        elif path in ("/set/ready", "/set/unready"):
            self.ready = path == "/set/ready"
            self.plain(writer, 200, {})
        elif path == "/set/status":
            self.status, self.status_wait_s = body, float(headers["x-wait-s"])
            self.plain(writer, 200, {})
        elif headers.get("authorization") != f"Bearer {self.key}":
            self.plain(writer, 401, {"error": {"message": f"{self.name}: bad key"}})
        elif path == "/lorafleet/state":
            await asyncio.sleep(self.status_wait_s)
            writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(self.status)}\r\n\r\n".encode() + self.status)
        else:
            self.seen["requests"] += 1
            self.seen["in_flight"] += 1
            self.seen["most_in_flight"] = max(self.seen["most_in_flight"], self.seen["in_flight"])
            self.seen["headers"] = headers
            self.seen["path"] = path
            # As vLLM does: a client that hangs up ends the generation.
            hung_up = asyncio.create_task(reader.read(1))
            work = asyncio.create_task(self.generate(json.loads(body), writer))
            await asyncio.wait((hung_up, work), return_when=asyncio.FIRST_COMPLETED)
            self.seen["in_flight"] -= 1
            if not work.done():
                work.cancel()
                self.seen["hung_up"] += 1
                raise ConnectionError
            hung_up.cancel()
            await asyncio.wait((hung_up,))
            work.result()
        await writer.drain()

    def plain(self, writer: asyncio.StreamWriter, status: int, value: object, more: str = "") -> None:
        content = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n{more}\r\n"
        writer.write(head.encode() + content)

    async def generate(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        content = request["messages"][0]["content"] if "messages" in request else request.get("prompt", "{}")
        wanted = json.loads(content) if content.startswith("{") else {}
        await asyncio.sleep(wanted.get("wait_s", 0))
        if wanted.get("break_off"):
            writer.transport.abort()
            raise ConnectionError
        more = f"x-lorafleet-adapter: {request['model']}@sha256-00\r\n"
        text = f"{self.name} as {request['model']}"
        if not request.get("stream"):
            self.plain(writer, 200, self.completion(request["model"], "message", text, "chat.completion"), more)
            return
        writer.write(
            f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{more}transfer-encoding: chunked\r\n\r\n".encode()
        )
        for index in range(wanted.get("chunks", 3)):
            await asyncio.sleep(wanted.get("gap_s", 0) if index else 0)
            part = self.completion(request["model"], "delta", f"{index} ", "chat.completion.chunk")
            self.chunk(writer, f"data: {json.dumps(part)}\n\n")
            await writer.drain()
        self.chunk(writer, "data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")

    def chunk(self, writer: asyncio.StreamWriter, text: str) -> None:
        writer.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())

    def completion(self, model: str, part: str, text: str, kind: str) -> dict[str, Any]:
        choice = {"index": 0, part: {"role": "assistant", "content": text}, "text": text, "finish_reason": None}
        return {"id": "x", "object": kind, "created": 0, "model": model, "choices": [choice]}


class UpstreamProcess:
    """An Upstream in a process of its own."""

    def __init__(self, name: str, key: str = "sk-target") -> None:
        self.name = name
        self.key = key
        [self.port] = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        # As a module: a script finds an installed package called `tests` before this one.
        program = [sys.executable, "-m", "tests.e2e.router_kit"]
        self.process = subprocess.Popen([*program, str(self.port), self.name, self.key], cwd=ROOT)
        wait_for(self.answers, f"the upstream {self.name}")

    def answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/seen").is_success
        return False

    def seen(self) -> dict[str, Any]:
        value: dict[str, Any] = httpx.get(f"{self.url}/seen").json()
        return value

    def set_ready(self, ready: bool) -> None:
        httpx.get(f"{self.url}/set/{'ready' if ready else 'unready'}").raise_for_status()

    def set_status(self, content: bytes | dict[str, Any], wait_s: float = 0) -> None:
        """What it answers from now on to the question for its status, and how long that takes."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        httpx.post(f"{self.url}/set/status", content=body, headers={"x-wait-s": str(wait_s)}).raise_for_status()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class RouterProcess:
    """A router in a folder of its own. `file` is its router file as a dict; `write` brings it to disk."""

    def __init__(self, folder: Path, upstreams: dict[str, UpstreamProcess], models: dict[str, list[str]]) -> None:
        """`models`: model name -> names of the targets that serve it."""
        self.folder = folder
        self.path = folder / "router.json"
        self.state_path = folder / "state.json"
        self.log_path = folder / "router.log"
        self.notices_path = folder / "router.err"
        self.keys: dict[str, Any] = {name: upstream.key for name, upstream in upstreams.items()}
        self.keys_path = folder / "keys.json"
        self.port, self.metrics_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.file: dict[str, Any] = {
            "version": 1,
            "listen": {"host": "127.0.0.1", "port": self.port},
            "metrics": {"host": "127.0.0.1", "port": self.metrics_port},
            "clientKeysSha256": [hashlib.sha256(CLIENT_KEY.encode()).hexdigest()],
            "baseModel": BASE,
            "models": [{"name": name} for name in models],
            "targets": [
                {
                    "name": name,
                    "kind": "local",
                    "url": upstream.url,
                    "models": [model for model, targets in models.items() if name in targets],
                    "healthPath": "/ready",
                    "statusPath": "/lorafleet/state",
                    "maxInFlight": 32,
                    "maxQueue": 64,
                }
                for name, upstream in upstreams.items()
            ],
            "keysFile": str(self.keys_path),
            "limits": {"maxBodyKib": 512, "maxTokens": 4096, "queueTimeoutS": 10, "responseTimeoutS": 60},
            "runDir": str(folder / "run"),
            "stateFile": str(self.state_path),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def write(self) -> None:
        self.path.write_text(json.dumps(self.file))
        self.keys_path.write_text(json.dumps(self.keys))
        self.keys_path.chmod(0o600)

    def launch(self) -> subprocess.Popen[bytes]:
        """Starts the process and waits for nothing."""
        self.write()
        with self.log_path.open("ab") as log, self.notices_path.open("ab") as notices:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "handlers.router", "--config", str(self.path)],
                cwd=ROOT,
                stdout=log,
                stderr=notices,
            )
        return self.process

    def start(self) -> None:
        self.launch()
        wait_for(lambda: self.state().get("phase") in ("ready", "failed"), "the router's start")
        assert self.state()["phase"] == "ready", self.state()

    def state(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError):
            value: dict[str, Any] = json.loads(self.state_path.read_text())
            return value
        return {}

    def reload(self) -> dict[str, Any]:
        """Writes the file, reloads, and gives the state when that is over."""
        self.write()
        before = self.state_path.stat().st_mtime_ns
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda: self.state_path.stat().st_mtime_ns != before and self.state()["phase"] != "reloading", "the reload"
        )
        return self.state()

    def headers(self, key: str = CLIENT_KEY) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"}

    def chat(self, model: str = BASE, **wanted: Any) -> dict[str, Any]:
        """The body of a chat request."""
        return {"model": model, "messages": [{"role": "user", "content": json.dumps(wanted)}]}

    def post(self, body: object, **more: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, headers=self.headers(), timeout=30, **more)

    def metrics(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics").text

    def fleet(self) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics/fleet")

    def fleet_samples(self) -> dict[str, float]:
        """What the router knows of its targets: `name{label="value",…}`, as it stands there -> the value."""
        lines = [line for line in self.fleet().text.splitlines() if not line.startswith("#")]
        return {sample: float(value) for sample, value in (line.rsplit(" ", 1) for line in lines)}

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in self.metrics().splitlines() if line.startswith(name + "{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(one in line for one in wanted))

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]

    def processes(self) -> list[int]:
        """The supervisor's descendants, HAProxy's master and workers."""
        found: list[int] = []
        ask = [self.process.pid] if self.process else []
        while ask:
            pid = ask.pop()
            children = Path(f"/proc/{pid}/task/{pid}/children")
            kids = [int(kid) for kid in children.read_text().split()] if children.exists() else []
            found += kids
            ask += kids
        return found

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def wait_for(true: Any, what: str, timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def _serve(port: int, name: str, key: str) -> None:
    server = await asyncio.start_server(Upstream(name, key).connection, "127.0.0.1", port)
    # It ends with the test that started it, also when that is killed.
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 (nothing tells of a parent's end)
        await asyncio.sleep(0.5)
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
