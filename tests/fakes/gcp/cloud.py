"""What the stand-in has made: one JSON file that a test may read and edit between two commands.

{"resources": {id: {"type", "inputs", "outputs"}},
 "failures": [{"on": "create", "type": "gcp:storage/bucket:Bucket", "message": "...", "times": 1}],
 "calls": [["create", type, id]]}
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT_NUMBER = "123456789012"

# Which inputs can't be changed once the thing is there: Terraform's schema has it as ForceNew, the SDK does not. From
# the resources' pages of the google provider; a type that is not in the table has the usual ones.
_USUAL = ("name", "project", "location", "region", "zone")
_MEMBER = ("role", "member", "condition", "project", "location")
REPLACED: dict[str, tuple[str, ...]] = {
    "gcp:artifactregistry/repository:Repository": ("repositoryId", "format", "mode", "kmsKeyName", *_USUAL),
    "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember": ("repository", *_MEMBER),
    # A template is never changed, and most of a network's parts neither.
    "gcp:compute/address:Address": ("address", "addressType", "network", "purpose", "subnetwork", *_USUAL),
    "gcp:compute/autoscaler:Autoscaler": _USUAL,
    "gcp:compute/firewall:Firewall": ("network", "direction", "name", "project"),
    "gcp:compute/forwardingRule:ForwardingRule": (
        "backendService",
        "ipAddress",
        "ipProtocol",
        "loadBalancingScheme",
        "network",
        "ports",
        "subnetwork",
        *_USUAL,
    ),
    "gcp:compute/instance:Instance": ("bootDisk", "guestAccelerators", *_USUAL),
    "gcp:compute/instanceTemplate:InstanceTemplate": (
        "canIpForward",
        "disks",
        "guestAccelerators",
        "labels",
        "machineType",
        "metadata",
        "networkInterfaces",
        "scheduling",
        "serviceAccount",
        "shieldedInstanceConfig",
        "tags",
        *_USUAL,
    ),
    "gcp:compute/regionBackendService:RegionBackendService": ("loadBalancingScheme", "network", *_USUAL),
    "gcp:compute/regionInstanceGroupManager:RegionInstanceGroupManager": (
        "baseInstanceName",
        "distributionPolicyZones",
        *_USUAL,
    ),
    "gcp:compute/resourcePolicy:ResourcePolicy": ("instanceSchedulePolicy", *_USUAL),
    "gcp:compute/routerNat:RouterNat": ("router", *_USUAL),
    "gcp:compute/subnetwork:Subnetwork": ("network", *_USUAL),
    "gcp:iam/workloadIdentityPool:WorkloadIdentityPool": ("workloadIdentityPoolId", "project"),
    "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider": (
        "workloadIdentityPoolId",
        "workloadIdentityPoolProviderId",
        "project",
    ),
    "gcp:projects/iAMCustomRole:IAMCustomRole": ("roleId", "project"),
    "gcp:projects/iAMMember:IAMMember": _MEMBER,
    "gcp:projects/service:Service": ("service", "project"),
    "gcp:secretmanager/secret:Secret": ("secretId", "replication", "project"),
    "gcp:secretmanager/secretIamMember:SecretIamMember": ("secretId", *_MEMBER),
    "gcp:secretmanager/secretVersion:SecretVersion": ("secret", "secretData", "isSecretDataBase64"),
    "gcp:serviceaccount/account:Account": ("accountId", "project"),
    "gcp:serviceaccount/iAMMember:IAMMember": ("serviceAccountId", *_MEMBER),
    "gcp:storage/bucket:Bucket": ("name", "location", "project", "enableObjectRetention"),
    "gcp:storage/bucketIAMMember:BucketIAMMember": ("bucket", *_MEMBER),
}

# Outputs that other resources need in their true form. The rest are texts that say where they come from.
_COMPUTED: dict[str, dict[str, str]] = {
    "gcp:compute/address:Address": {"address": "10.80.0.7", "selfLink": "{link}"},
    "gcp:compute/instanceTemplate:InstanceTemplate": {"selfLink": "{link}", "selfLinkUnique": "{link}?uniqueId=1"},
    "gcp:compute/regionInstanceGroupManager:RegionInstanceGroupManager": {
        "instanceGroup": "{link}/instanceGroup",
        "selfLink": "{link}",
    },
    "gcp:iam/workloadIdentityPool:WorkloadIdentityPool": {
        "name": "projects/{number}/locations/global/workloadIdentityPools/{workloadIdentityPoolId}"
    },
    "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider": {
        "name": "projects/{number}/locations/global/workloadIdentityPools/{workloadIdentityPoolId}"
        "/providers/{workloadIdentityPoolProviderId}"
    },
    "gcp:projects/iAMCustomRole:IAMCustomRole": {"name": "projects/{project}/roles/{roleId}"},
    "gcp:secretmanager/secret:Secret": {"name": "projects/{number}/secrets/{secretId}"},
    "gcp:secretmanager/secretVersion:SecretVersion": {"name": "{secret}/versions/{version}"},
    "gcp:serviceaccount/account:Account": {
        "email": "{accountId}@{project}.iam.gserviceaccount.com",
        "member": "serviceAccount:{accountId}@{project}.iam.gserviceaccount.com",
        "name": "projects/{project}/serviceAccounts/{accountId}@{project}.iam.gserviceaccount.com",
    },
    "gcp:storage/bucket:Bucket": {"url": "gs://{name}"},
}
# Of these, Google has one for each set of inputs, and a second one with the same is an error.
_MERGED = ("IamMember", "IAMMember", "projects/service:")


class CloudError(Exception):
    """What Google would have answered."""


@dataclass
class Cloud:
    """The file; every call reads and writes it whole, under a lock."""

    file: Path

    @contextmanager
    def _open(self) -> Iterator[dict[str, Any]]:
        with self.file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            content = json.loads(self.file.read_text()) if self.file.exists() else {}
            content = {"resources": {}, "failures": [], "calls": [], **content}
            try:
                yield content
            finally:  # a call that fails is noted, too
                fresh = self.file.with_suffix(".new")
                fresh.write_text(json.dumps(content, indent=1))
                fresh.replace(self.file)

    def create(self, kind: str, inputs: dict[str, Any], outputs: tuple[str, ...], project: str) -> tuple[str, Any]:
        resource_id = _id(kind, inputs)
        with self._open() as content:
            _count(content, "create", kind, resource_id)
            if resource_id in content["resources"] and not any(part in kind for part in _MERGED):
                raise CloudError(f"googleapi: Error 409: {resource_id} already exists")
            known = {
                "project": project,
                "link": f"https://www.googleapis.com/compute/v1/{resource_id}",
                # Google counts a secret's versions; here they are counted over all secrets.
                "version": str(sum(call[:2] == ["create", kind] for call in content["calls"])),
            }
            made = {"type": kind, "inputs": inputs, "outputs": _outputs(kind, inputs, outputs, known)}
            content["resources"][resource_id] = made
            return resource_id, made["outputs"]

    def read(self, resource_id: str) -> dict[str, Any] | None:
        with self._open() as content:
            found: dict[str, Any] | None = content["resources"].get(resource_id)
            return found

    def update(self, kind: str, resource_id: str, inputs: dict[str, Any]) -> dict[str, Any]:
        with self._open() as content:
            _count(content, "update", kind, resource_id)
            if resource_id not in content["resources"]:
                raise CloudError(f"googleapi: Error 404: {resource_id} was not found")
            thing = content["resources"][resource_id]
            gone = set(thing["inputs"]) - set(inputs)
            kept = {key: value for key, value in thing["outputs"].items() if key not in gone}
            thing["inputs"], thing["outputs"] = inputs, {**dict.fromkeys(gone), **kept, **inputs}
            outputs: dict[str, Any] = thing["outputs"]
            return outputs

    def delete(self, kind: str, resource_id: str) -> None:
        with self._open() as content:
            _count(content, "delete", kind, resource_id)
            content["resources"].pop(resource_id, None)


def replaced(kind: str) -> tuple[str, ...]:
    """The inputs of a type whose change needs a new resource."""
    return REPLACED.get(kind, _USUAL)


def _id(kind: str, inputs: dict[str, Any]) -> str:
    parts = {key: inputs[key] for key in replaced(kind) if inputs.get(key) is not None}
    short = kind.removeprefix("gcp:").partition(":")[0]
    words = [value for key, value in parts.items() if isinstance(value, str) and key != "secretData"]
    # The whole of it, in case two things differ only in what is no text (a condition).
    mark = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
    return "/".join([short, *words, mark])


def _outputs(kind: str, inputs: dict[str, Any], names: tuple[str, ...], known: dict[str, str]) -> dict[str, Any]:
    known = {"number": PROJECT_NUMBER, **known, **{k: v for k, v in inputs.items() if isinstance(v, str)}}
    templates = _COMPUTED.get(kind, {})
    made: dict[str, Any] = {}
    for name in names:
        if name in inputs:
            made[name] = inputs[name]
        elif name in templates:
            made[name] = templates[name].format(**known)
        elif name == "project":
            made[name] = known["project"]
    return made


def _count(content: dict[str, Any], action: str, kind: str, resource_id: str) -> None:
    """Notes the call, and fails it if the test asked for that."""
    content["calls"].append([action, kind, resource_id])
    for failure in content["failures"]:
        if failure["on"] == action and failure["type"] == kind and failure.get("times", 1) > 0:
            failure["times"] = failure.get("times", 1) - 1
            raise CloudError(failure["message"])
