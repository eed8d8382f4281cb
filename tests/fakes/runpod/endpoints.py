"""Serverless endpoints as RunPod keeps them."""

from __future__ import annotations

import copy
from typing import Any

from .refusal import RefusedError

Thing = dict[str, Any]


def create(body: Thing, new: str, gpus: list[Thing]) -> Thing:
    if ("gpu" in body) == ("cpu" in body):
        raise RefusedError(400, "exactly one of gpu and cpu is needed")
    if "cpu" in body or "templateId" in body:
        raise RefusedError(400, "the stand-in has neither CPU endpoints nor templates to begin from")
    made: Thing = {
        "args": "",
        "disk": 20,
        "env": {},
        "ports": [],
        "registry": None,
        "workers": {},
        "dataCenterIds": [],
        "networkVolumes": [],
        "timeout": 300000,
        "flashboot": "OFF",
        **copy.deepcopy(body),
        "id": new,
    }
    _check_cuda(made["gpu"])
    made["gpu"] = {"count": 1, "allowedCudaVersions": [], "minCudaVersion": None, **made["gpu"]}
    asked = made["workers"]
    made["workers"] = {"min": 0, "max": 3, "idleTimeout": 10, **asked}
    _check(made, gpus, asked)
    return made


def change(endpoint: Thing, body: Thing, gpus: list[Thing]) -> None:
    """Only what is named, except that `env` and the selection of GPUs are replaced as a whole."""
    if "cpu" in body:
        raise RefusedError(400, "the endpoint runs on GPUs")
    changed = copy.deepcopy(endpoint)
    for key, value in body.items():
        if key == "gpu":
            _check_cuda(value)
            if "pools" in value:
                changed["gpu"].pop("excludedTypes", None)
            changed["gpu"] |= value
            changed["gpu"]["minCudaVersion"] = changed["gpu"]["minCudaVersion"] or None
        elif key == "workers":
            changed["workers"] |= value
        else:
            changed[key] = copy.deepcopy(value)
    _check(changed, gpus, body.get("workers", {}))
    endpoint.clear()
    endpoint.update(changed)


def _check_cuda(gpu: Thing) -> None:
    if gpu.get("allowedCudaVersions") and gpu.get("minCudaVersion"):
        raise RefusedError(400, "allowedCudaVersions and minCudaVersion are mutually exclusive")


def _check(endpoint: Thing, gpus: list[Thing], asked_workers: Thing) -> None:
    kind, scaling, gpu = endpoint["type"], endpoint["scaling"]["type"], endpoint["gpu"]
    if kind == "LOAD_BALANCER" and scaling != "REQUEST_COUNT":
        raise RefusedError(422, "load-balancing endpoints scale on REQUEST_COUNT")
    if kind == "QUEUE" and scaling == "REQUEST_COUNT" and "idleTimeout" in asked_workers:
        raise RefusedError(400, "idleTimeout is not applicable")
    if endpoint["workers"]["min"] > endpoint["workers"]["max"]:
        raise RefusedError(400, "workers.min exceeds workers.max")
    _check_cuda(gpu)
    in_pools = {each["id"] for each in gpus if each["pool"] in gpu["pools"]}
    unknown = set(gpu["pools"]) - {each["pool"] for each in gpus}
    if unknown:
        raise RefusedError(400, f"unknown pools: {sorted(unknown)}")
    excluded = {each.strip() for each in gpu.get("excludedTypes", [])}
    if excluded - in_pools:
        raise RefusedError(400, f"not in the pools: {sorted(excluded - in_pools)}")
    if not in_pools - excluded:
        raise RefusedError(400, "no GPU type is left")


def shown(endpoint: Thing) -> Thing:
    """An endpoint as an answer has it."""
    if endpoint["type"] == "QUEUE" and endpoint["scaling"]["type"] == "REQUEST_COUNT":
        endpoint["workers"].pop("idleTimeout", None)
    if endpoint["flashboot"] != "OFF":
        endpoint["name"] = f"{endpoint['name']} -fb"
    here = endpoint["id"]
    if endpoint["type"] == "LOAD_BALANCER":
        base = f"https://{here}.api.runpod.ai"
        health = endpoint["env"].get("HEALTH_CHECK_PATH", "/ping")
        return {**endpoint, "requestUrls": {"base": base, "health": f"{base}{health}"}}
    base = f"https://api.runpod.ai/v2/{here}"
    plain = {"run": "run", "runSync": "runsync", "purgeQueue": "purge-queue", "health": "health"}
    of_job = {name: f"{base}/{name}/{{job_id}}" for name in ("status", "stream", "cancel", "retry")}
    return {**endpoint, "requestUrls": {**{key: f"{base}/{path}" for key, path in plain.items()}, **of_job}}


def template(endpoint: Thing, new: str) -> Thing:
    """The hidden template that an endpoint has."""
    same = ("image", "args", "disk", "ports", "env", "registry")
    return {
        **{key: copy.deepcopy(endpoint[key]) for key in same},
        "id": new,
        "name": f"{endpoint['name']}__template__{new}",
        "mounts": {},
        "serverless": True,
        "public": False,
        "category": "NVIDIA",
        "startSsh": True,
        "startJupyter": True,
        "allowedCudaVersions": [],
    }
