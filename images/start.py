"""`python -m images.start serving|runpod|router`: the first thing that a container runs; becomes the server itself.

The servers read their configuration from a file. A container gets it as it can:

- `LORAFLEET_CONFIG`: the launch file (serving, runpod) or router file (router) of docs/architecture.md, as JSON text or
  as the absolute path of a mounted file. Without it: `/etc/lorafleet/launch.json` or `/etc/lorafleet/router.json`.
- `LORAFLEET_TARGET_KEYS` (router): the keys file, as JSON text or, better, as the path of a mounted secret. It goes to
  a file that only this user can read, and is not handed on to the server. (Text stays where the platform has put it: in
  the environment of the container's first process, and in the platform's own description of the container.)
- `LORAFLEET_GOOGLE_CREDENTIALS` (serving, runpod): a service account's key as JSON text, for platforms outside of
  Google, which have no identity of their own there. It goes to a file that only this user can read, named by
  GOOGLE_APPLICATION_CREDENTIALS, and is not handed on.
- `AIP_HTTP_PORT` (Vertex AI) or `PORT` (RunPod, Cloud Run): the port on which the platform expects the server; takes
  the place of the one in the file.

What is changed or comes as text is written to `LORAFLEET_RUN_DIR` (`/run/lorafleet`), mode 0600. A mounted file that
needs no change is used where it lies. Exit status 2: the configuration can't be used; one line says why.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOUNTED = {
    "serving": Path("/etc/lorafleet/launch.json"),
    "runpod": Path("/etc/lorafleet/launch.json"),
    "router": Path("/etc/lorafleet/router.json"),
}
RUN_DIR = Path("/run/lorafleet")
OWN_VARIABLES = ("LORAFLEET_CONFIG", "LORAFLEET_TARGET_KEYS", "LORAFLEET_GOOGLE_CREDENTIALS")
# What the server answers (handlers/serving), for Vertex AI, which is told two of its paths.
PREDICT_ROUTES = ("/v1/chat/completions", "/v1/completions")
HEALTH_ROUTES = ("/ready", "/health")


class StartError(Exception):
    """The container's configuration can't be used. The text says what, where, what is allowed and what to do."""

    def __init__(self, what: str, next_step: str) -> None:
        super().__init__(f"{what}\n  next: {next_step}")


@dataclass(frozen=True)
class Settled:
    """The configuration that counts: `document` as it is to be read, and the file that holds exactly it, if any."""

    document: dict[str, Any]
    file: Path | None


def settle(kind: str, environ: Mapping[str, str]) -> Settled:
    """Reads the configuration and puts the platform's port into it. Changes nothing. Raises StartError."""
    given = environ.get("LORAFLEET_CONFIG", "").strip()
    text, file, where = read(
        given or str(MOUNTED[kind]), "LORAFLEET_CONFIG" if given else "LORAFLEET_CONFIG is not set"
    )
    document = parse(text, where)
    port = platform_port(environ)
    if kind == "serving":
        check_platform_routes(environ)
    if port is not None:
        place = document.get("listen") if kind == "router" else document
        if isinstance(place, dict) and place.get("port") != port:
            place["port"] = port
            file = None
    return Settled(document, file)


def read(given: str, name: str) -> tuple[str, Path | None, str]:
    """The text of a variable that holds JSON or a path: (text, the file if it is one, its name for errors)."""
    if given.startswith("{"):
        return given, None, name
    path = Path(given)
    if not path.is_absolute():
        raise StartError(
            f"{name} is neither a JSON object nor an absolute path", "give it {...} or the path of a mounted file"
        )
    try:
        return path.read_text(encoding="utf-8"), path, str(path)
    except OSError as error:
        reason = error.strerror
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    raise StartError(
        f"{name}: the file {path} can't be read: {reason}",
        "mount it so that the container's user can read it, or give LORAFLEET_CONFIG as JSON text",
    )


def parse(text: str, where: str) -> dict[str, Any]:
    """A JSON object. The error holds a place, never content: it may be secret."""
    try:
        document = json.loads(text)
    except ValueError as error:
        place = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise StartError(f"{where}: is not JSON{place}", "see the file's shape in docs/architecture.md") from None
    except RecursionError:
        raise StartError(f"{where}: is nested too deeply", "see the file's shape in docs/architecture.md") from None
    if not isinstance(document, dict):
        raise StartError(f"{where}: is not a JSON object", "see the file's shape in docs/architecture.md")
    return document


def platform_port(environ: Mapping[str, str]) -> int | None:
    """The port that the platform asks for, 1 to 65535; None when it does not say."""
    name = "AIP_HTTP_PORT" if environ.get("AIP_HTTP_PORT") else "PORT"
    value = environ.get(name, "")
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= 65535):
        raise StartError(f"{name} is {value[:20]!r}", "give a port, 1 to 65535, or take the variable away")
    health = environ.get("PORT_HEALTH", "")
    if name == "PORT" and health not in ("", value):
        raise StartError(
            f"PORT_HEALTH is {health[:20]!r} and PORT is {value}", "give them one value: one server answers on one port"
        )
    return int(value)


def check_platform_routes(environ: Mapping[str, str]) -> None:
    """Vertex AI is told the server's paths when the model is uploaded; a wrong one would fail there without a word."""
    for name, routes, setting in (
        ("AIP_PREDICT_ROUTE", PREDICT_ROUTES, "predict route"),
        ("AIP_HEALTH_ROUTE", HEALTH_ROUTES, "health route"),
    ):
        value = environ.get(name)
        if value and value not in routes:
            raise StartError(
                f"{name} is {value[:80]!r}, which this server does not have; allowed: {', '.join(routes)}",
                f"upload the model with one of these as its {setting}",
            )


def write_private(path: Path, document: Mapping[str, Any]) -> Path:
    """Writes a JSON file that only this user can read, whole or not at all. Raises StartError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, ensure_ascii=False)
        fresh.replace(path)
    except OSError as error:
        raise StartError(
            f"{path} can't be written: {error.strerror}",
            "give the container's user a writable folder there, or name another one in LORAFLEET_RUN_DIR",
        ) from None
    return path


def run_folder(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("LORAFLEET_RUN_DIR", RUN_DIR))


def prepare(kind: str, environ: Mapping[str, str]) -> Path:
    """The configuration file to start the server with, written if need be. Raises StartError."""
    settled = settle(kind, environ)
    run_dir = run_folder(environ)
    document, file = settled.document, settled.file
    keys = environ.get("LORAFLEET_TARGET_KEYS", "").strip()
    if kind == "router" and keys:
        text, _, where = read(keys, "LORAFLEET_TARGET_KEYS")
        # Copied even when it is a file: platforms mount secrets with modes that the router refuses.
        document = document | {"keysFile": str(write_private(run_dir / "keys.json", parse(text, where)))}
        file = None
    return file or write_private(run_dir / MOUNTED[kind].name, document)


def google_key(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """The service account's key, if one was given. Raises StartError."""
    text = environ.get("LORAFLEET_GOOGLE_CREDENTIALS", "").strip()
    return parse(text, "LORAFLEET_GOOGLE_CREDENTIALS") if text else None


def main(arguments: list[str]) -> int:
    """Gives an exit status only when the server could not be started."""
    if len(arguments) != 1 or arguments[0] not in MOUNTED:
        sys.stderr.write("usage: python -m images.start serving|runpod|router\n")
        return 2
    kind = arguments[0]
    environment = {name: value for name, value in os.environ.items() if name not in OWN_VARIABLES}
    try:
        google = google_key(os.environ) if kind != "router" else None
        config = prepare(kind, os.environ)
        if google is not None:
            environment["GOOGLE_APPLICATION_CREDENTIALS"] = str(
                write_private(run_folder(os.environ) / "google.json", google)
            )
    except StartError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stderr.flush()
    # -P: the current folder stays out of the module path.
    command = [sys.executable, "-P", "-m", f"handlers.{kind}", "--config", str(config)]
    try:
        # Becomes the server, which so gets the container's signals.
        os.execve(command[0], command, environment)
    except OSError as error:
        sys.stderr.write(f"error: {command[0]} can't be started: {error.strerror}\n  next: build the image anew\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
