"""The launch file (docs/architecture.md) of servers that run in containers of an image, on whatever platform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi

from lorafleet.plan import Plan, PlannedTarget
from providers.kit.program import without_none
from providers.stack import refuse

PORT = 8000
# Where images may keep what was fetched, and where they write what is of now (docs/images.md).
OWN_FOLDER = "/var/lib/lorafleet"
_STATE_FILE = "/run/lorafleet/state.json"


# What a stack may know for containers outside of Google: {its configuration key: their variable}.
_OPTIONAL = {"hfToken": "HF_TOKEN", "googleCredentials": "LORAFLEET_GOOGLE_CREDENTIALS"}


def check(fleet: Plan, name: str, image: str | None, platform: str) -> str:
    """The image that the target `name` runs.

    Ends the program with one error if there is none, or if the platform, whose name for people is `platform`, could not
    read what is served.
    """
    for field, url in (("store", fleet.store), ("baseModel.source", fleet.base.source)):
        if url.startswith("file://"):
            refuse(
                f"target '{name}' runs on {platform}, which cannot read {field}: a folder of this machine\n"
                "  allowed: gs://bucket/folder, and hf://owner/repository for the base model\n"
                f"  next:    change serving:fleet.{field}; `lorafleet model mirror` and `adapter push` copy there"
            )
    if image is None:
        refuse(
            f"target '{name}' runs an image, and the stack file names none\n  next:    set serving:fleet.release.image"
        )
    return image


def variables(launch: dict[str, Any]) -> dict[str, pulumi.Output[str]]:
    """The secret variables of a container: its launch file, and those credentials that the stack has."""
    config = pulumi.Config()
    found = {variable: config.get_secret(key) for key, variable in _OPTIONAL.items()}
    values = {"LORAFLEET_CONFIG": pulumi.Output.json_dumps(launch), **found}
    return {name: value for name, value in values.items() if value is not None}


def launch_file(
    fleet: Plan,
    planned: PlannedTarget,
    *,
    key_digests: Sequence[pulumi.Output[str]],
    start_timeout_s: int,
    drain_timeout_s: int,
    cache: str = OWN_FOLDER,
    host: str = "0.0.0.0",
    port: int = PORT,
    target: str | None = None,
) -> dict[str, Any]:
    """A launch file. Each replica names itself by its host.

    key_digests: SHA-256 of the keys that it takes; target: where a target has servers of two sorts, the name of these.
    """
    return {
        "version": 2,
        "store": fleet.store,
        "environment": fleet.environment,
        "target": target or planned.name,
        "replica": None,
        "baseModel": without_none(fleet.base_model()),
        "cache": cache,
        "host": host,
        "port": port,
        "apiKeySha256": list(key_digests),
        "stateFile": _STATE_FILE,
        "engine": planned.engine.launch(),
        "startTimeoutS": start_timeout_s,
        "drainTimeoutS": drain_timeout_s,
    }
