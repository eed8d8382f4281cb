"""Models with their versions, as Vertex AI keeps them."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

from .operations import now
from .refusal import RefusedError

if TYPE_CHECKING:
    from .cloud import Cloud

Thing = dict[str, Any]
_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
_OF_MODEL = ("displayName", "description", "labels")
_REGISTRIES = re.compile(r"([a-z0-9-]+-docker\.pkg\.dev|([a-z]+\.)?gcr\.io)/.+")


def upload(cloud: Cloud, parent: str, body: Thing, half: bool) -> Thing:
    model = copy.deepcopy(body["model"])
    _check(model, half)
    if "parentModel" in body:
        name = str(body["parentModel"])
        if name not in cloud.models:
            raise RefusedError("NOT_FOUND", f"The Model {name} does not exist.")
        if "modelId" in body:
            raise RefusedError("INVALID_ARGUMENT", "model_id and parent_model exclude each other")
        cloud.operations.refuse_others(name)
    else:
        model_id = body.get("modelId") or str(4000000000000000000 + len(cloud.models))
        if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,62}|[0-9]{19}", model_id):
            raise RefusedError("INVALID_ARGUMENT", f"model_id {model_id} is not valid")
        name = f"{parent}/models/{model_id}"
        if name in cloud.models or cloud.operations.under_way(name):
            raise RefusedError("ALREADY_EXISTS", f"The Model {name} already exists.")

    def effect() -> Thing:
        if name not in cloud.models:
            if "parentModel" in body:
                raise RefusedError("NOT_FOUND", f"The Model {name} does not exist.")
            cloud.made(name)
        versions = cloud.models.setdefault(name, {})
        # The numbers of versions that were deleted do not come back.
        number = str(1 + max((int(each) for each in versions), default=0))
        shared = {key: model[key] for key in _OF_MODEL if key in model}
        created = next((each["createTime"] for each in versions.values()), now())
        versions[number] = {
            **model,
            "name": name,
            "versionId": number,
            "versionAliases": [],
            "createTime": created,
            "versionCreateTime": now(),
        }
        for each in versions.values():
            each.update(copy.deepcopy(shared))
        wanted = model.get("versionAliases", [])
        _give_aliases(versions, number, [*wanted, *(["default"] if len(versions) == 1 else [])])
        return {"model": name, "modelVersionId": number}

    return cloud.operations.begin("UploadModel", name, effect)


def _check(model: Thing, half: bool) -> None:
    spec = model.get("containerSpec")
    if not model.get("displayName") or spec is None:
        raise RefusedError("INVALID_ARGUMENT", "display_name and container_spec are required")
    if not _REGISTRIES.fullmatch(spec.get("imageUri", "")):
        raise RefusedError("INVALID_ARGUMENT", "image_uri must be in Artifact Registry or Container Registry")
    if spec.get("predictRoute") and spec.get("invokeRoutePrefix"):
        raise RefusedError("INVALID_ARGUMENT", "only one of predict_route and invoke_route_prefix can be set")
    names = [each["name"] for each in spec.get("env", [])]
    if len(set(names)) != len(names) or any(name.startswith("AIP_") for name in names):
        raise RefusedError("INVALID_ARGUMENT", "env names must be unique and must not begin with AIP_")
    if float(spec.get("deploymentTimeout", "1s")[:-1]) > 7200:
        raise RefusedError("INVALID_ARGUMENT", "deployment_timeout is at most 2 hours")
    for kind in ("startupProbe", "healthProbe", "livenessProbe"):
        probe = spec.get(kind)
        if probe is not None and ("exec" in probe) == ("httpGet" in probe):
            raise RefusedError("INVALID_ARGUMENT", f"{kind} needs one question")
        if probe is not None and probe.get("timeoutSeconds", 1) > probe.get("periodSeconds", 10):
            raise RefusedError("INVALID_ARGUMENT", f"{kind}: timeout_seconds is more than period_seconds")
    for alias in model.get("versionAliases", []):
        if not _ALIAS.fullmatch(alias):
            raise RefusedError("INVALID_ARGUMENT", f"the version alias {alias} is not valid")
    if half:
        for key in ("labels", "description"):
            model.pop(key, None)


def _give_aliases(versions: dict[str, Thing], number: str, aliases: list[str]) -> None:
    for alias in aliases:
        for each in versions.values():
            each["versionAliases"] = [one for one in each["versionAliases"] if one != alias]
        versions[number]["versionAliases"].append(alias)


def merge_aliases(cloud: Cloud, name: str, aliases: list[str]) -> Thing:
    found = version(cloud, name)
    versions = cloud.models[found["name"]]
    if any(alias.startswith("-") for alias in aliases):
        raise RefusedError("UNIMPLEMENTED", "the stand-in takes no aliases away")
    _give_aliases(versions, found["versionId"], aliases)
    return found


def version(cloud: Cloud, name: str) -> Thing:
    """A version by its number or one of its aliases; without any, the default one."""
    model, _, told = name.partition("@")
    versions = cloud.models.get(model, {})
    for number, each in versions.items():
        if number == told or (told or "default") in each["versionAliases"]:
            return each
    raise RefusedError("NOT_FOUND", f"The Model {name} does not exist.")


def default_version(versions: dict[str, Thing]) -> Thing:
    return next(each for each in versions.values() if "default" in each["versionAliases"])


def change(cloud: Cloud, name: str, body: Thing, mask: list[str], half: bool) -> Thing:
    found = version(cloud, name)
    for key in mask:
        if key not in (*_OF_MODEL, "versionAliases", "versionDescription"):
            raise RefusedError("INVALID_ARGUMENT", f"{key} cannot be changed")
    for key in mask[: len(mask) // 2] if half else mask:
        for each in cloud.models[found["name"]].values():
            each[key] = copy.deepcopy(body.get(key, "" if key != "labels" else {}))
    return found


def delete(cloud: Cloud, name: str) -> Thing:
    if name not in cloud.models:
        raise RefusedError("NOT_FOUND", f"The Model {name} does not exist.")
    cloud.operations.refuse_others(name)
    _refuse_deployed(cloud, name)

    def effect() -> Thing:
        _refuse_deployed(cloud, name)
        cloud.models.pop(name, None)
        return {"@type": "type.googleapis.com/google.protobuf.Empty"}

    return cloud.operations.begin("Delete", name, effect)


def _refuse_deployed(cloud: Cloud, name: str) -> None:
    if any(each["model"] == name for each in cloud.deployed()):
        raise RefusedError(
            "FAILED_PRECONDITION", f"The Model {name} is deployed or being deployed at an endpoint: undeploy it first."
        )
