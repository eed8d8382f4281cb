"""What a VM does by itself: its cloud-init document, made of the files in `on_vm/`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lorafleet.plan import Plan

from .spec import STOP_S, GceTarget

FILES = Path(__file__).parent / "on_vm"
# The user of the serving image (docs/images.md).
IMAGE_USER = "10001:10001"
# Between the container's end and systemd's own.
_GRACE_S = 2
UNITS = ("lorafleet-serving.service", "lorafleet-observe.service")
_PROGRAMS = {
    "prepare": "prepare.sh",
    "configure": "configure.py",
    "run": "run.sh",
    "stop": "stop.sh",
    "observe": "observe.sh",
}


@dataclass(frozen=True, slots=True)
class Host:
    """A VM as its files see it. The defaults are a real one; a test lays it out elsewhere.

    image: the serving image by digest. drain_timeout_s: longest wait for requests in flight.
    home, units, config, cache: absolute folders for programs, systemd's units, what the container is told, and what it
        fetches. owner: user and group of the cache, as numbers. metadata, secrets: where Google answers. retry_s: first
        pause before something is tried again.
    """

    image: str
    drain_timeout_s: int
    observed: bool = True
    home: str = "/opt/lorafleet"
    units: str = "/etc/systemd/system"
    config: str = "/run/lorafleet-config"
    cache: str = "/var/lib/lorafleet"
    owner: str = IMAGE_USER
    metadata: str = "http://metadata.google.internal"
    secrets: str = "https://secretmanager.googleapis.com"
    retry_s: int = 5

    @property
    def stop_s(self) -> int:
        """From the signal to the server until its container must be gone, in seconds."""
        return self.drain_timeout_s + STOP_S

    def settings(self) -> str:
        """What the programs of `on_vm/` read, as a shell does; no value has a quote in it."""
        values = {
            "IMAGE": self.image,
            "CONTAINER": "lorafleet-serving",
            "CONFIG": self.config,
            "CACHE": self.cache,
            "OWNER": self.owner,
            "DRAIN_S": self.drain_timeout_s,
            "STOP_S": self.stop_s,
            "RETRY_S": self.retry_s,
            "METADATA": self.metadata,
            "SECRETS": self.secrets,
        }
        return "".join(f"{name}='{value}'\n" for name, value in values.items())

    def files(self) -> dict[str, tuple[str, str]]:
        """{absolute path: (content, mode)} of what a VM gets."""
        made = {f"{self.home}/settings": (self.settings(), "0644")}
        for name, source in _PROGRAMS.items():
            made[f"{self.home}/{name}"] = (_text(source), "0755")
        made[f"{self.home}/ops-agent.yaml"] = (_text("ops-agent.yaml"), "0644")
        for unit in self.services():
            content = _text(unit).replace("@HOME@", self.home)
            made[f"{self.units}/{unit}"] = (content.replace("@STOP_TIMEOUT_S@", str(self.stop_s + _GRACE_S)), "0644")
        return made

    def services(self) -> tuple[str, ...]:
        return UNITS if self.observed else UNITS[:1]

    def user_data(self) -> str:
        """The cloud-init document: files, then the services are started, now and at each boot."""
        document = {
            "write_files": [
                {"path": path, "permissions": mode, "content": content}
                for path, (content, mode) in self.files().items()
            ],
            "runcmd": [
                ["systemctl", "daemon-reload"],
                # cloud-init does not wait for the server, which takes minutes.
                ["systemctl", "enable", "--now", "--no-block", *self.services()],
            ],
        }
        return "#cloud-config\n" + yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def of_target(spec: GceTarget, image: str) -> Host:
    return Host(image=image, drain_timeout_s=spec.drain_timeout_s, observed=spec.ops_agent)


def launch_file(name: str, plan: Plan, spec: GceTarget) -> str:
    """The launch file (docs/architecture.md) without its keys, which come from Secret Manager; as JSON.

    The replica is null: each VM has a name of its own.
    """
    engine = plan.target(name).engine.launch()
    if engine["device"] == "auto":
        # A container that does not get the VM's GPU says so, instead of trying its luck on the CPU.
        engine["device"] = "cuda"
    document: dict[str, Any] = {
        "version": 2,
        "store": plan.store,
        "environment": plan.environment,
        "target": name,
        "replica": None,
        "baseModel": plan.base_model(),
        "cache": "/var/lib/lorafleet/cache",
        "host": "0.0.0.0",
        "port": spec.port,
        "stateFile": "/run/lorafleet/state.json",
        "engine": engine,
        "startTimeoutS": spec.start_timeout_s,
        "drainTimeoutS": spec.drain_timeout_s,
    }
    return json.dumps(document, indent=1, sort_keys=True)


@cache
def _text(name: str) -> str:
    return (FILES / name).read_text(encoding="utf-8")


class _Dumper(yaml.SafeDumper):
    """Programs as they are, line by line, so that people can read a difference."""


def _block(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _block)
