"""In the place of `docker` on the sandbox's PATH: an image is a folder with its files, a container is a process.

Takes the options that `providers/gce/on_vm` uses, and refuses every other one. FAKE_DOCKER names a folder:
config.json {"python", "tree", "images": what can be pulled, "token": what a login must show, "variables"},
pulled.json, calls.jsonl, login, and NAME.pid of each container.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HOME = Path(os.environ["FAKE_DOCKER"])
CONFIG: dict[str, Any] = json.loads((HOME / "config.json").read_text())
WITH_VALUE = {
    "--name", "--network", "--gpus", "--shm-size", "--cap-drop", "--security-opt", "--log-driver", "--stop-timeout",
    "--env-file", "--volume", "--time", "-u",
}  # fmt: skip
FLAGS = {"--rm", "--force", "--quiet", "--password-stdin"}


def parse(words: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Options with their values, and what is none."""
    options: dict[str, list[str]] = {}
    plain: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in WITH_VALUE:
            options.setdefault(word, []).append(next(rest))
        elif word in FLAGS:
            options.setdefault(word, [])
        elif word.startswith("-"):
            sys.exit(f"unknown flag: {word}")
        else:
            plain.append(word)
    return options, plain


def pulled() -> list[str]:
    file = HOME / "pulled.json"
    found: list[str] = json.loads(file.read_text()) if file.exists() else []
    return found


def login(options: dict[str, list[str]], plain: list[str]) -> int:
    if options["-u"] != ["oauth2accesstoken"] or sys.stdin.read() != CONFIG["token"]:
        sys.stderr.write("unauthorized\n")
        return 1
    folder = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"))
    (folder / "config.json").write_text(json.dumps({"auths": {plain[0]: {}}}))
    return 0


def pull(_options: dict[str, list[str]], plain: list[str]) -> int:
    if plain[0] not in CONFIG["images"] or not (Path(os.environ["DOCKER_CONFIG"]) / "config.json").exists():
        sys.stderr.write("denied\n")
        return 1
    (HOME / "pulled.json").write_text(json.dumps([*pulled(), plain[0]]))
    return 0


def image(_options: dict[str, list[str]], plain: list[str]) -> int:
    assert plain[0] == "inspect", plain
    return 0 if plain[1] in pulled() else 1


def run(options: dict[str, list[str]], plain: list[str]) -> int:
    """Stays in front, hands signals on, as the real one does."""
    name = options["--name"][0]
    if plain[0] not in pulled() or (HOME / f"{name}.pid").exists():
        sys.stderr.write("no such image, or the name is taken\n")
        return 125
    volumes = {inside: outside for outside, inside in (each.split(":")[:2] for each in options["--volume"])}
    for outside in volumes.values():
        if not Path(outside).exists():
            sys.stderr.write(f"{outside}: the real one would make a folder of it\n")
            return 125
    # A container sees its own paths, and the VM's GPU. Here is none, and paths are put in the place of those.
    launch = json.loads(Path(volumes["/etc/lorafleet/launch.json"]).read_text())
    assert launch["engine"]["device"] == "cuda", launch["engine"]
    launch["engine"]["device"] = "cpu"
    launch["cache"] = launch["cache"].replace("/var/lib/lorafleet", volumes["/var/lib/lorafleet"], 1)
    run_dir = HOME / name
    run_dir.mkdir(exist_ok=True)
    launch["stateFile"] = launch["stateFile"].replace("/run/lorafleet", str(run_dir), 1)
    settled = run_dir / "mounted.json"
    settled.write_text(json.dumps(launch))
    lines = [line for file in options.get("--env-file", []) for line in Path(file).read_text().splitlines() if line]
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(run_dir),
        "PYTHONPATH": str(Path(CONFIG["tree"]) / "opt" / "lorafleet"),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LORAFLEET_RUN_DIR": str(run_dir),
        "LORAFLEET_CONFIG": str(settled),
        **CONFIG["variables"],
        **dict(line.split("=", 1) for line in lines),
    }
    child = subprocess.Popen([CONFIG["python"], "-m", "images.start", "serving"], env=environment, cwd=run_dir)
    (HOME / f"{name}.pid").write_text(str(child.pid))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: child.send_signal(number))
    try:
        return child.wait()
    finally:
        (HOME / f"{name}.pid").unlink(missing_ok=True)


def stop(options: dict[str, list[str]], plain: list[str]) -> int:
    file = HOME / f"{plain[0]}.pid"
    if not file.exists():
        return 1
    pid = int(file.read_text())
    end = time.monotonic() + float(options["--time"][0])
    os.kill(pid, signal.SIGTERM)
    while file.exists():
        if time.monotonic() > end:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return 0


def rm(_options: dict[str, list[str]], plain: list[str]) -> int:
    file = HOME / f"{plain[0]}.pid"
    if file.exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(file.read_text()), signal.SIGKILL)
        file.unlink()
    return 0


if __name__ == "__main__":
    with (HOME / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    sys.exit({"login": login, "pull": pull, "image": image, "run": run, "stop": stop, "rm": rm}[sys.argv[1]](
        *parse(sys.argv[2:])
    ))  # fmt: skip
