"""images/start.py and images/health.py: what a container does with its environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from images import health, start

LAUNCH = {"version": 2, "host": "0.0.0.0", "port": 8000, "baseModel": {"name": "모델"}}
ROUTER = {"version": 1, "listen": {"host": "0.0.0.0", "port": 8080}, "keysFile": None}
SECRET = "sk-target-5d1c"


def environ(folder: Path, **variables: Any) -> dict[str, str]:
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in variables.items()}
    return {"LORAFLEET_RUN_DIR": str(folder), **texts}


def test_text_becomes_a_private_file(tmp_path: Path) -> None:
    file = start.prepare("serving", environ(tmp_path, LORAFLEET_CONFIG=LAUNCH))
    assert file == tmp_path / "launch.json"
    assert json.loads(file.read_text()) == LAUNCH
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_mounted_file_is_used_where_it_lies(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted.json"
    mounted.write_text(json.dumps(ROUTER))
    assert start.prepare("router", environ(tmp_path / "run", LORAFLEET_CONFIG=str(mounted), PORT="8080")) == mounted


@pytest.mark.parametrize(
    "variables", [{"PORT": "5000"}, {"AIP_HTTP_PORT": "5000"}, {"AIP_HTTP_PORT": "5000", "PORT": "1"}]
)
def test_the_platforms_port_counts(tmp_path: Path, variables: dict[str, str]) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    for kind, document in (("serving", LAUNCH), ("router", ROUTER)):
        mounted = tmp_path / f"{kind}.json"
        mounted.write_text(json.dumps(document))
        file = start.prepare(kind, environ(run_dir, LORAFLEET_CONFIG=str(mounted), **variables))
        assert file.parent == run_dir
        written = json.loads(file.read_text())
        assert (written if kind == "serving" else written["listen"])["port"] == 5000


def test_keys_are_copied_to_a_file_of_their_own(tmp_path: Path) -> None:
    mounted = tmp_path / "secret"
    mounted.write_text(json.dumps({"server": SECRET}))
    mounted.chmod(0o644)
    for given in (mounted.read_text(), str(mounted)):
        file = start.prepare("router", environ(tmp_path, LORAFLEET_CONFIG=ROUTER, LORAFLEET_TARGET_KEYS=given))
        document = json.loads(file.read_text())
        keys = Path(document["keysFile"])
        assert json.loads(keys.read_text()) == {"server": SECRET}
        assert keys.stat().st_mode & 0o777 == 0o600
        assert SECRET not in file.read_text()


def test_googles_key_is_in_a_file_and_no_longer_in_the_environment(tmp_path: Path) -> None:
    code = "import json, os, sys; print(json.dumps(dict(os.environ)))"
    # Instead of the server: a Python that shows what it was given.
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}'\n")
    fake.chmod(0o700)
    program = f"import sys; sys.executable = {str(fake)!r}; from images.start import main; main(['serving'])"
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    given = environ(run_dir, LORAFLEET_CONFIG=LAUNCH, LORAFLEET_GOOGLE_CREDENTIALS={"private_key": SECRET})
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | given, capture_output=True, text=True)
    shown = json.loads(done.stdout)
    assert shown["GOOGLE_APPLICATION_CREDENTIALS"] == str(run_dir / "google.json")
    assert SECRET not in done.stdout + done.stderr
    assert json.loads((run_dir / "google.json").read_text()) == {"private_key": SECRET}
    assert (run_dir / "google.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("kind", "variables", "says"),
    [
        ("serving", {}, "LORAFLEET_CONFIG is not set: the file /etc/lorafleet/launch.json can't be read"),
        ("serving", {"LORAFLEET_CONFIG": "launch.json"}, "neither a JSON object nor an absolute path"),
        ("serving", {"LORAFLEET_CONFIG": "/no/such"}, "/no/such can't be read: No such file"),
        ("serving", {"LORAFLEET_CONFIG": f'{{"a": "{SECRET}"'}, "is not JSON (line 1"),
        ("serving", {"LORAFLEET_CONFIG": LAUNCH, "PORT": "http"}, "PORT is 'http'"),
        ("serving", {"LORAFLEET_CONFIG": LAUNCH, "PORT": "65536"}, "PORT is '65536'"),
        ("serving", {"LORAFLEET_CONFIG": LAUNCH, "LORAFLEET_GOOGLE_CREDENTIALS": SECRET}, "_CREDENTIALS: is not JSON"),
        ("serving", {"LORAFLEET_CONFIG": LAUNCH, "AIP_HTTP_PORT": "０"}, "AIP_HTTP_PORT is"),
        ("serving", {"LORAFLEET_CONFIG": LAUNCH, "PORT": "80", "PORT_HEALTH": "81"}, "PORT_HEALTH is '81' and PORT"),
        ("serving", {"LORAFLEET_CONFIG": LAUNCH, "AIP_PREDICT_ROUTE": "/predict"}, "allowed: /v1/chat/completions"),
        ("serving", {"LORAFLEET_CONFIG": LAUNCH, "AIP_HEALTH_ROUTE": "/healthz"}, "AIP_HEALTH_ROUTE is '/healthz'"),
        ("router", {"LORAFLEET_CONFIG": ROUTER, "LORAFLEET_TARGET_KEYS": f'{{"s": {SECRET}}}'}, "_KEYS: is not JSON"),
        ("router", {"LORAFLEET_CONFIG": ROUTER, "LORAFLEET_TARGET_KEYS": SECRET}, "_KEYS is neither a JSON object nor"),
    ],
)  # fmt: skip
def test_what_can_not_be_used_is_said_in_one_error(
    tmp_path: Path, kind: str, variables: dict[str, Any], says: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "images.start", kind],
        env={**os.environ, **environ(tmp_path, **variables)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert says in done.stderr and "\n  next: " in done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert SECRET not in done.stderr + done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_list_and_a_deep_text_are_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config"
    for text, says in (
        ("[]", "is not a JSON object"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("\ufeff{}", "not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(start.StartError, match=says):
            start.settle("serving", {"LORAFLEET_CONFIG": str(path)})
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(start.StartError, match="not UTF-8"):
        start.settle("serving", {"LORAFLEET_CONFIG": str(path)})


def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(start.StartError, match=r"launch.json can't be written: No such file"):
        start.prepare("serving", environ(tmp_path / "missing", LORAFLEET_CONFIG=LAUNCH))


@pytest.mark.parametrize("arguments", [[], ["proxy"], ["serving", "router"]])
def test_the_command_lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert start.main(arguments) == health.main(arguments) == 2
    assert "usage: " in capsys.readouterr().err


class Answering(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/ready" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_health_asks_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        config = {"LORAFLEET_CONFIG": json.dumps(LAUNCH | {"port": 1}), "PORT": str(server.server_port)}
        assert health.ask("serving", config) == (True, "/ready answers 200")
        Answering.status = 503
        try:
            assert health.ask("serving", config) == (False, "/ready answers 503")
        finally:
            Answering.status = 200
        # A router that has no target up is well itself.
        router = {"LORAFLEET_CONFIG": json.dumps(ROUTER), "PORT": str(server.server_port)}
        assert health.ask("router", router) == (True, "/health answers 503")
        server.shutdown()
    healthy, line = health.ask("serving", config)
    assert not healthy and "ConnectionRefusedError" in line


@pytest.mark.parametrize(
    ("host", "asked"),
    [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("127.0.0.2", "127.0.0.2"), ("localhost", "localhost")],
)
def test_health_finds_the_address(host: str, asked: str) -> None:
    config = {"LORAFLEET_CONFIG": json.dumps(LAUNCH | {"host": host})}
    assert health.address("serving", config) == (asked, 8000)


@pytest.mark.parametrize("document", [{}, {"host": 1, "port": 2}, {"listen": "x"}])
def test_health_of_a_configuration_without_an_address(document: dict[str, Any]) -> None:
    for kind in ("serving", "router"):
        healthy, line = health.ask(kind, {"LORAFLEET_CONFIG": json.dumps(document)})
        assert not healthy and "names no host and port" in line
