"""The metadata server and Secret Manager, as a VM sees them."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.ports import free_port

TOKEN = "ya29" + ".a-token-of-the-vm"


class Site:
    """Answers as Google does for one VM; `calls` has each path with the answer's status.

    metadata: {attribute: value}; secrets: {full name of a version: text}; failing: so many requests are answered 503.
    """

    def __init__(self, metadata: dict[str, str], secrets: dict[str, str]) -> None:
        self.metadata, self.secrets = metadata, secrets
        self.failing = 0
        self.calls: list[tuple[str, int]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = site.answer(self.path, dict(self.headers.items()))
                site.calls.append((self.path, status))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        if self.failing:
            self.failing -= 1
            return 503, b""
        start = "/computeMetadata/v1/instance/"
        if path.startswith(start):
            if headers.get("Metadata-Flavor") != "Google":
                return 403, b""
            name = path.removeprefix(start)
            if name == "service-accounts/default/token":
                return 200, json.dumps({"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"}).encode()
            value = self.metadata.get(name.removeprefix("attributes/"))
            return (404, b"") if value is None else (200, value.encode())
        name = path.removeprefix("/v1/").removesuffix(":access")
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, b""
        if name not in self.secrets:
            return 404, b""
        data = base64.b64encode(self.secrets[name].encode()).decode()
        return 200, json.dumps({"name": name, "payload": {"data": data}}).encode()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
