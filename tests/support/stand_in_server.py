#!/usr/bin/env python3
"""Stands in for the serving environment's interpreter where a test is about processes, not about answers.

It takes the same arguments (`-m handlers.serving --config FILE`), keeps the same state file and status object, passes
through the same phases, listens on the same port, follows the manifest, drains at SIGTERM and has a child, as the real
launcher has. What it does slowly or wrongly is told by a file `behaviour.json` beside itself, read again and again:
{"phaseS": 0.2, "failAt": "loading", "refuse": "sha256:…", "followS": 0.1, "deaf": true}.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PHASES = ("starting", "fetching", "launching", "loading", "probing")
HEARTBEAT_S = 1.0


def behaviour() -> dict[str, Any]:
    told = Path(__file__).parent / "behaviour.json"
    return json.loads(told.read_text()) if told.exists() else {}


def digest_of(manifest: dict[str, Any]) -> str:
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def write(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    temporary.write_text(json.dumps(document))
    temporary.replace(path)


class Launcher:
    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.lock = threading.RLock()
        self.phase, self.error = "starting", None
        store = Path(config["store"].removeprefix("file://"))
        self.manifest_file = store / "manifests" / f"{config['environment']}.json"
        self.status_file = store / "status" / config["environment"] / config["target"] / f"{config['replica']}.json"
        self.served_folder = store / "served" / config["environment"]
        self.served: dict[str, Any] = json.loads(self.manifest_file.read_text())
        self.wanted = self.served
        self.refusal: dict[str, Any] | None = None
        self.since, self.seen = now(), 0
        self.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])

    def say(self, phase: str, error: Any = None) -> None:
        with self.lock:
            self.phase, self.error = phase, error
            self.write()
        print(f"phase {phase}", flush=True)

    def write(self) -> None:
        with self.lock:
            document = self.document()
            for each in document["adapters"]:
                mark = self.served_folder / each["name"] / f"{each['digest'].replace(':', '-')}.json"
                if not mark.exists():
                    write(mark, {"version": 1, "name": each["name"], "digest": each["digest"], "at": now()})
            write(Path(self.config["stateFile"]), document)
            if self.phase == "stopped":
                self.status_file.unlink(missing_ok=True)
            else:
                write(self.status_file, document)

    def document(self) -> dict[str, Any]:
        ready, base = self.phase in ("ready", "draining"), self.config["baseModel"]
        wanted = {each["name"]: each for each in self.wanted["adapters"]}
        adapters = []
        for each in self.served["adapters"] if ready else []:
            want = wanted.get(each["name"], each)["digest"]
            refused = self.refusal is not None and want == self.refusal["digest"]
            adapters.append(
                {
                    "name": each["name"],
                    "servedName": f"{each['name']}@{each['digest'].replace(':', '-')[:23]}",
                    "digest": each["digest"],
                    "wanted": want,
                    "canary": None,
                    "state": "failed" if refused else "serving",
                    "since": now(),
                    "error": self.refusal["error"] if refused and self.refusal else None,
                }
            )
        return {
            "version": 2,
            "phase": self.phase,
            "detail": f"{self.phase} (stand-in)",
            "error": self.error,
            "pid": os.getpid(),
            "enginePid": self.child.pid,
            "updatedAt": now(),
            "heartbeatS": HEARTBEAT_S,
            "port": self.config["port"],
            **{key: self.config[key] for key in ("environment", "target", "replica")},
            "baseModel": {key: base.get(key) for key in ("name", "revision", "digest")},
            "manifestDigest": digest_of(self.served) if ready else None,
            "manifest": {
                "digest": digest_of(self.wanted),
                "state": "refused" if self.refusal else "serving",
                "since": self.since,
                "error": None,
            },
            "adapters": adapters,
            "draining": [],
        }

    def follow(self) -> None:
        """One look at the manifest."""
        told = behaviour()
        try:
            written = self.manifest_file.stat().st_mtime_ns
            found = json.loads(self.manifest_file.read_text())
        except (OSError, ValueError):
            return
        if told.get("deaf") or (found == self.wanted and written == self.seen):
            return
        self.seen = written
        time.sleep(told.get("followS", 0.05))
        bad = next((each for each in found["adapters"] if each["digest"] == told.get("refuse")), None)
        with self.lock:
            self.wanted, self.refusal, self.since = found, None, now()
            if bad:
                error = {
                    "reason": "probe_failed",
                    "what": "it answers garbage (stand-in)",
                    "next": "x",
                    "retrying": False,
                }
                self.refusal = {"digest": bad["digest"], "error": error}
            else:
                self.served = found
            self.write()

    def stop(self, *_: object) -> None:
        self.say("draining")
        self.child.kill()
        self.child.wait()
        self.say("stopped")
        os._exit(0)


def main() -> None:
    if sys.argv[1:4] != ["-m", "handlers.serving", "--config"]:
        sys.exit(f"unexpected arguments: {sys.argv[1:]}")
    config = json.loads(Path(sys.argv[4]).read_text())
    launcher = Launcher(config)
    signal.signal(signal.SIGTERM, launcher.stop)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            return None

        def do_GET(self) -> None:
            ready = launcher.phase == "ready"
            document: Any = {"phase": launcher.phase}
            if self.path == "/lorafleet/state":
                document = {"inFlight": {}, "done": {}, "status": launcher.document()}
            body = json.dumps(document).encode()
            self.send_response(200 if ready or self.path == "/health" else 503)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = json.dumps(
                {
                    "id": "x",
                    "object": "chat.completion",
                    "created": 0,
                    "model": asked["model"],
                    "choices": [
                        {
                            "index": 0,
                            "finish_reason": "stop",
                            "message": {"role": "assistant", "content": f"{asked['model']} answers"},
                        }
                    ],
                }
            ).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    launcher.say("starting")
    server = ThreadingHTTPServer((config["host"], config["port"]), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for phase in PHASES:
        told = behaviour()
        if told.get("failAt") == phase:
            launcher.say("failed", {"what": f"{phase} failed as it was told to", "next": "tell it otherwise"})
            launcher.child.kill()
            sys.exit(1)
        launcher.say(phase)
        time.sleep(told.get("phaseS", 0.05))
    launcher.say("ready")
    beat = time.monotonic()
    while launcher.child.poll() is None:
        time.sleep(0.05)
        launcher.follow()
        if time.monotonic() - beat > HEARTBEAT_S:
            beat = time.monotonic()
            launcher.write()
    launcher.say("failed", {"what": "the engine died", "next": "read the log"})
    sys.exit(1)


if __name__ == "__main__":
    main()
