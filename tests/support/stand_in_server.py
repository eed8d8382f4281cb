#!/usr/bin/env python3
"""Stands in for the serving environment's interpreter where a test is about processes, not about answers.

It takes the same arguments (`-m handlers.serving --config FILE`), keeps the same state file, passes through the
same phases, listens on the same port, drains at SIGTERM and has a child, as the real launcher has. What it
does slowly or wrongly is told by a file `behaviour.json` beside itself: {"phaseS": 0.2, "failAt": "loading"}.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PHASES = ("starting", "fetching", "launching", "loading", "probing")


class Launcher:
    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.phase = "starting"
        self.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])

    def say(self, phase: str, error: dict[str, str] | None = None) -> None:
        self.phase = phase
        manifest = self.config["manifest"]
        adapters = [
            {
                "name": each["name"],
                "servedName": f"{each['name']}@{each['digest'].replace(':', '-')[:23]}",
                "digest": each["digest"],
            }
            for each in manifest["adapters"]
        ]
        state = {
            "version": 1,
            "phase": phase,
            "detail": f"{phase} (stand-in)",
            "error": error,
            "pid": os.getpid(),
            "enginePid": self.child.pid,
            "updatedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "port": self.config["port"],
            "baseModel": manifest["baseModel"]["name"],
            "manifestDigest": hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest(),
            "adapters": adapters if phase == "ready" else [],
        }
        path = Path(self.config["stateFile"])
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(state))
        temporary.replace(path)
        print(f"phase {phase}", flush=True)

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
    told = Path(__file__).parent / "behaviour.json"
    behaviour = json.loads(told.read_text()) if told.exists() else {}
    launcher = Launcher(config)
    signal.signal(signal.SIGTERM, launcher.stop)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            return None

        def do_GET(self) -> None:
            ready = launcher.phase == "ready"
            body = json.dumps({"phase": launcher.phase}).encode()
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
        if behaviour.get("failAt") == phase:
            launcher.say("failed", {"what": f"{phase} failed as it was told to", "next": "tell it otherwise"})
            launcher.child.kill()
            sys.exit(1)
        launcher.say(phase)
        time.sleep(behaviour.get("phaseS", 0.05))
    launcher.say("ready")
    while launcher.child.poll() is None:
        time.sleep(0.1)
    launcher.say("failed", {"what": "the engine died", "next": "read the log"})
    sys.exit(1)


if __name__ == "__main__":
    main()
