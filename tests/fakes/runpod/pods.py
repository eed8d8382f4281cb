"""Pods as RunPod keeps them."""

from __future__ import annotations

import copy
from typing import Any

from .refusal import RefusedError

Thing = dict[str, Any]
_NEXT = {"PROVISIONING": "STARTING", "STARTING": "RUNNING"}
_ACTIONS = {
    "PROVISIONING": ["stop", "terminate"],
    "STARTING": ["stop", "terminate"],
    "RUNNING": ["stop", "restart", "terminate"],
    "EXITED": ["start", "terminate"],
    "ERROR": ["start", "terminate"],
}


def create(body: Thing, new: str, gpus: list[Thing], volumes: dict[str, Thing]) -> Thing:
    if ("gpu" in body) == ("cpu" in body):
        raise RefusedError(400, "exactly one of gpu and cpu is needed")
    gpu = body.get("gpu", {})
    if gpu.get("id") not in {each["id"] for each in gpus}:
        raise RefusedError(400, f"gpu type {gpu.get('id')} does not exist")
    if gpu.get("allowedCudaVersions") and gpu.get("minCudaVersion"):
        raise RefusedError(400, "allowedCudaVersions and minCudaVersion are mutually exclusive")
    mounts = copy.deepcopy(body.get("mounts", {}))
    place = (body.get("dataCenterIds") or ["EU-RO-1"])[0]
    for mount in mounts.get("network", []):
        volume = volumes.get(mount["volumeId"])
        if volume is None:
            raise RefusedError(400, f"network volume {mount['volumeId']} does not exist")
        place = volume["dataCenter"]
    made: Thing = {
        "id": new,
        "name": body["name"],
        "image": body["image"],
        "args": body.get("args", ""),
        "disk": body.get("disk", 20),
        "env": dict(body.get("env", {})),
        "ports": list(body.get("ports", [])),
        "registry": body.get("registry"),
        "gpu": {"id": gpu["id"], "count": gpu.get("count", 1)},
        "cloud": body.get("cloud", "SECURE"),
        "dataCenterId": place,
        "cudaVersion": "13.0",
        "mounts": mounts,
        "ssh": {"proxy": None, "direct": None},
        "template": None,
        "locked": False,
        "runtime": None,
        "startedAt": None,
        "globalNetworking": {"enabled": body.get("globalNetworking", False)},
    }
    become(made, "PROVISIONING")
    return made


def become(pod: Thing, status: str) -> None:
    pod["status"] = status
    pod["actions"] = _ACTIONS[status]
    pod["cost"] = 0.0 if status in ("EXITED", "ERROR") else 0.4
    pod["_looks"] = 0


def proceed(pod: Thing, looks: int) -> None:
    """Somebody has looked; what starts gets on."""
    if pod["status"] not in _NEXT:
        return
    pod["_looks"] += 1
    if pod["_looks"] >= looks:
        become(pod, _NEXT[pod["status"]])


def act(pod: Thing, action: str) -> None:
    if action not in pod["actions"] or action == "terminate":
        raise RefusedError(409, f"{action} is not possible while the pod is {pod['status']}")
    if action == "stop" and pod["locked"]:
        raise RefusedError(409, "pod is locked")
    pod["globalNetworking"] = pod.pop("_networking", pod["globalNetworking"])
    become(pod, "EXITED" if action == "stop" else "STARTING")


def change(pod: Thing, body: Thing) -> None:
    new_mounts = body.get("mounts")
    if new_mounts:
        if set(new_mounts) - set(pod["mounts"]):
            raise RefusedError(400, "the kind of mount is fixed at create")
        for old, new in zip(pod["mounts"].get("network", []), new_mounts.get("network", []), strict=True):
            if old["volumeId"] != new["volumeId"]:
                raise RefusedError(400, "volumeId is immutable")
        pod["mounts"] = copy.deepcopy(new_mounts)
    for key, value in body.items():
        if key == "globalNetworking" and pod["status"] == "RUNNING":
            pod["_networking"] = {"enabled": value}  # takes effect with the next start
        elif key == "globalNetworking":
            pod[key] = {"enabled": value}
        elif key != "mounts":
            pod[key] = copy.deepcopy(value)
