#!/usr/bin/python3
"""On the VM: what the server is told, from the VM's metadata and from Secret Manager.

    configure token     prints an access token of the VM's service account (for a pipe)
    configure launch    writes launch.json and container.env, if they differ from what is wanted

The launch file lies in the metadata without its keys; they, and what else is secret, come from Secret Manager, in the
version that the metadata names. Runs with the system's own Python (3.10 or newer) and its standard library alone.
Exit status 1: one line says why.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ATTEMPTS = 6
# Secret's key -> variable of the container. A new line in a value would be a variable of its own.
VARIABLES = {"hfToken": "HF_TOKEN"}


class Trouble(Exception):  # noqa: N818 (it is told to a person, on one line)
    def __init__(self, what: str, next_step: str) -> None:
        super().__init__(f"{what}\n  next: {next_step}")


def settings() -> dict[str, str]:
    """The lines NAME='value' of the settings file."""
    text = (Path(__file__).resolve().parent / "settings").read_text(encoding="utf-8")
    lines = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name: value.strip("'") for name, _, value in lines}


def fetch(url: str, headers: Mapping[str, str], what: str, pause_s: float) -> bytes:
    """What is there; asks again while nobody answers or the service is at fault. Raises Trouble."""
    reason = ""
    for attempt in range(ATTEMPTS):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=20) as answer:
                body: bytes = answer.read()
                return body
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code}"
            # A right that was granted a moment ago is not everywhere yet.
            if error.code < 500 and error.code not in (403, 429):
                break
        except (OSError, ValueError) as error:
            reason = str(getattr(error, "reason", error))
        if attempt + 1 < ATTEMPTS:
            time.sleep(pause_s * 2**attempt)
    raise Trouble(f"{what} can't be read: {reason}", "see the VM's metadata and the rights of its service account")


def metadata(found: Mapping[str, str], path: str) -> bytes:
    url = f"{found['METADATA']}/computeMetadata/v1/instance/{path}"
    return fetch(url, {"Metadata-Flavor": "Google"}, f"the VM's metadata ({path})", float(found["RETRY_S"]))


def token(found: Mapping[str, str]) -> str:
    return str(json.loads(metadata(found, "service-accounts/default/token"))["access_token"])


def secret(found: Mapping[str, str]) -> dict[str, Any]:
    """The secret's document: `apiKeySha256` and maybe more."""
    name = metadata(found, "attributes/lorafleet-secret").decode()
    url = f"{found['SECRETS']}/v1/{name}:access"
    answer = fetch(url, {"Authorization": f"Bearer {token(found)}"}, f"the secret {name}", float(found["RETRY_S"]))
    try:
        document = json.loads(base64.b64decode(json.loads(answer)["payload"]["data"]))
        keys = document["apiKeySha256"]
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise Trouble(f"the secret {name} is not what it should be", "run `pulumi up`: it writes it anew") from None
    # Without a key the server would ask for none.
    if not (isinstance(keys, list) and keys and all(isinstance(key, str) and key for key in keys)):
        raise Trouble(f"the secret {name} holds no key", "run `pulumi up`: it writes it anew")
    return dict(document)


def launch(found: Mapping[str, str]) -> None:
    """Writes the two files that the container is started with."""
    told = secret(found)
    document = json.loads(metadata(found, "attributes/lorafleet-launch"))
    document["apiKeySha256"] = told["apiKeySha256"]
    variables = "".join(
        f"{name}={told[key]}\n" for key, name in VARIABLES.items() if told.get(key) and "\n" not in told[key]
    )
    folder = Path(found["CONFIG"])
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    group = int(found["OWNER"].partition(":")[2])
    changed = [
        name
        for name, text, mode in (
            # Read by the container's user, whose group it is; the other one by Docker alone.
            ("launch.json", json.dumps(document, indent=1, sort_keys=True) + "\n", 0o440),
            ("container.env", variables, 0o400),
        )
        if write(folder / name, text, mode, group)
    ]
    sys.stdout.write(f"configure: {', '.join(changed) or 'nothing'} written\n")


def write(path: Path, text: str, mode: int, group: int) -> bool:
    """Whether the file had to be written; whole or not at all."""
    content = text.encode()
    if path.is_file() and path.read_bytes() == content and path.stat().st_mode & 0o777 == mode:
        return False
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    fresh = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.chown(fresh, -1, group)
        fresh.chmod(mode)
        fresh.replace(path)
    except BaseException:
        fresh.unlink()
        raise
    return True


def main(arguments: list[str]) -> int:
    try:
        found = settings()
        if arguments == ["token"]:
            sys.stdout.write(token(found))
        elif arguments == ["launch"]:
            launch(found)
        else:
            sys.stderr.write("usage: configure token|launch\n")
            return 2
    except Trouble as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except (OSError, ValueError, KeyError) as error:
        # Without the error's own text, which may have a document in it.
        sys.stderr.write(f"error: the configuration can't be written: {type(error).__name__}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
