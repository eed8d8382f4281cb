"""A folder in the place of a VM's disk, and what cloud-init and systemd do there."""

from __future__ import annotations

import configparser
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from providers.gce.host import Host

HERE = Path(__file__).parent


class Sandbox:
    """The disk of a VM in `folder`.

    environment: of what runs there: programs of this package come first on its PATH.
    """

    def __init__(self, folder: Path, **docker: Any) -> None:
        self.folder = folder
        self.programs = folder / "bin"
        self.docker_home = folder / "docker"
        for made in (self.programs, self.docker_home, folder / "tmp"):
            made.mkdir(parents=True)
        self.program("docker", f'exec {shlex.quote(sys.executable)} {shlex.quote(str(HERE / "docker.py"))} "$@"')
        self.program("nvidia-smi", "echo 'GPU 0: NVIDIA L4'")
        self.program("nvidia-ctk", "exit 1")  # it is there, and nothing is to be done with it
        self.program("apt-get", "echo 'nothing is to be installed' >&2; exit 1")
        self.program("systemctl", f'echo "$@" >>{shlex.quote(str(folder / "systemctl"))}')
        (self.docker_home / "config.json").write_text(json.dumps(docker))
        self.environment = {
            "PATH": f"{self.programs}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
            "FAKE_DOCKER": str(self.docker_home),
        }

    def program(self, name: str, text: str) -> None:
        file = self.programs / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def host(self, image: str, url: str, **more: Any) -> Host:
        """A VM whose files lie here; `url` is where Google answers."""
        return Host(
            image=image,
            home=str(self.folder / "opt"),
            units=str(self.folder / "units"),
            config=str(self.folder / "config"),
            cache=str(self.folder / "cache"),
            owner=f"{os.getuid()}:{os.getgid()}",
            metadata=url,
            secrets=url,
            **{"retry_s": 0, "drain_timeout_s": 20, **more},
        )

    def cloud_init(self, user_data: str) -> None:
        """What cloud-init does at a VM's first boot: files, then commands."""
        assert user_data.startswith("#cloud-config\n")
        document = yaml.safe_load(user_data)
        assert set(document) == {"write_files", "runcmd"}, "this reads no more than that"
        for file in document["write_files"]:
            path = Path(file["path"])
            assert path.is_relative_to(self.folder), path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file["content"])
            path.chmod(int(file["permissions"], 8))
        for command in document["runcmd"]:
            subprocess.run(command, env=self.environment, check=True)

    def enabled(self) -> list[str]:
        """The units that were started and will be at each boot."""
        words = [line.split() for line in (self.folder / "systemctl").read_text().splitlines()]
        return [unit for line in words if line[:2] == ["enable", "--now"] for unit in line if unit.endswith(".service")]

    def calls(self) -> list[list[str]]:
        """Every call of `docker`."""
        file = self.docker_home / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def service(self, unit: str) -> Service:
        return Service(self, self.folder / "units" / unit)


class Service:
    """A unit of systemd, by the settings that stand in it."""

    def __init__(self, sandbox: Sandbox, file: Path) -> None:
        self.sandbox = sandbox
        found = configparser.ConfigParser(interpolation=None, strict=False)
        found.optionxform = str  # type: ignore[assignment,method-assign]
        found.read(file)
        self.settings = dict(found["Service"])
        self.log = sandbox.folder / f"{file.name}.log"
        self.main: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """ExecStartPre, then ExecStart. Raises CalledProcessError."""
        self.run("ExecStartPre")
        with self.log.open("ab") as log:
            self.main = subprocess.Popen(
                shlex.split(self.settings["ExecStart"]),
                env=self.sandbox.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def run(self, name: str) -> None:
        with self.log.open("ab") as log:
            command = shlex.split(self.settings[name])
            subprocess.run(command, env=self.sandbox.environment, stdout=log, stderr=subprocess.STDOUT, check=True)

    def stop(self) -> float:
        """ExecStop, SIGTERM to what is left, and SIGKILL after TimeoutStopSec; gives the seconds that it took."""
        assert self.main is not None
        began = time.monotonic()
        limit = float(self.settings["TimeoutStopSec"])
        self.run("ExecStop")
        if self.main.poll() is None:
            self.main.send_signal(signal.SIGTERM)
        try:
            self.main.wait(timeout=max(0.1, limit - (time.monotonic() - began)))
        except subprocess.TimeoutExpired:
            self.main.kill()
            self.main.wait()
        return time.monotonic() - began

    def text(self) -> str:
        return self.log.read_text(errors="replace")
