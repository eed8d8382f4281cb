"""What must hold of everything that the stack `shared` plans, whatever is added to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

Plan = list[dict[str, Any]]

# Service accounts, images, adapters, secrets' values, trust: what can't be made again as it was.
PROTECTED = {
    "gcp:artifactregistry/repository:Repository",
    "gcp:iam/workloadIdentityPool:WorkloadIdentityPool",
    "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider",
    "gcp:secretmanager/secret:Secret",
    "gcp:serviceaccount/account:Account",
    "gcp:storage/bucket:Bucket",
}
STATE_BUCKET = "fleet-123-pulumi"
_READS = {"roles/storage.objectViewer", "roles/storage.legacyBucketReader"}
_WRITES = {"roles/storage.objectUser", "roles/storage.objectCreator"}
# What a server writes, and what a deployment writes (docs/architecture.md, "Store").
_PREFIXES = {"status/", "served/", "manifests/", "releases/", "blocks/"}


def faults(plan: Plan) -> Iterator[str]:
    """What is wrong with a plan, one text each. `plan` is a list of resources as a preview has them."""
    for resource in plan:
        for rule in RULES:
            for fault in rule(resource):
                yield f"{resource['urn'].rpartition('::')[2]}: {fault}"


def _nobody_outside(resource: dict[str, Any]) -> Iterator[str]:
    text = json.dumps(resource["inputs"])
    for everybody in ("allUsers", "allAuthenticatedUsers"):
        if everybody in text:
            yield f"open to {everybody}"


def _no_wide_role(resource: dict[str, Any]) -> Iterator[str]:
    role = resource["inputs"].get("role", "")
    if role in ("roles/owner", "roles/editor", "roles/viewer") or "admin" in role.lower():
        yield f"{role} is too wide"
    if resource["type"].startswith("gcp:projects/") and role.startswith(("roles/storage.", "roles/artifactregistry.")):
        yield f"{role} belongs on the one bucket or repository"
    if resource["type"].startswith("gcp:projects/") and role == "roles/secretmanager.secretAccessor":
        yield f"{role} belongs on the one secret"


def _adds_to_policies(resource: dict[str, Any]) -> Iterator[str]:
    """A policy or a binding takes away what others have granted; a member only adds."""
    if resource["type"].lower().endswith(("iampolicy", "iambinding")):
        yield "overwrites what others have granted"


def _no_keys(resource: dict[str, Any]) -> Iterator[str]:
    if resource["type"] == "gcp:serviceaccount/key:Key":
        yield "a key that would lie in the state"


def _writes_below_a_prefix(resource: dict[str, Any]) -> Iterator[str]:
    if resource["type"] != "gcp:storage/bucketIAMMember:BucketIAMMember":
        return
    inputs = resource["inputs"]
    if inputs["bucket"] == STATE_BUCKET:
        if not any(f"lorafleet-{key}@" in inputs["member"] for key in ("ci-preview", "ci-deploy")):
            yield f"Pulumi's state is open to {inputs['member']}"
        return
    condition = (inputs.get("condition") or {}).get("expression")
    allowed = {
        f'resource.name.startsWith("projects/_/buckets/{inputs["bucket"]}/objects/{prefix}")' for prefix in _PREFIXES
    }
    if inputs["role"] in _WRITES:
        if condition not in allowed:
            yield f"{inputs['role']} without a condition on a prefix"
    elif inputs["role"] not in _READS:
        yield f"{inputs['role']} is none of the roles that the store knows"


def _bucket_is_closed(resource: dict[str, Any]) -> Iterator[str]:
    if resource["type"] != "gcp:storage/bucket:Bucket":
        return
    inputs = resource["inputs"]
    if inputs.get("uniformBucketLevelAccess") is not True:
        yield "access lists of single objects count"
    if inputs.get("publicAccessPrevention") != "enforced":
        yield "can be made public"
    if inputs.get("versioning") != {"enabled": True}:
        yield "what is overwritten is lost"
    if inputs.get("softDeletePolicy", {}).get("retentionDurationSeconds", 0) < 7 * 86400:
        yield "what is deleted is lost"
    if inputs.get("forceDestroy") is not False:
        yield "is deleted with all that is in it"


def _bucket_keeps_what_is_current(resource: dict[str, Any]) -> Iterator[str]:
    for rule in resource["inputs"].get("lifecycleRules", []):
        condition = rule["condition"]
        if rule["action"]["type"] == "AbortIncompleteMultipartUpload":
            continue
        only_former = condition.get("withState") == "ARCHIVED" and "daysSinceNoncurrentTime" in condition
        only_status = condition.get("matchesPrefixes") == ["status/"]
        if not only_former and not only_status:
            yield f"a rule deletes what is current: {json.dumps(rule)}"


def _images_in_use_stay(resource: dict[str, Any]) -> Iterator[str]:
    if resource["type"] != "gcp:artifactregistry/repository:Repository":
        return
    inputs = resource["inputs"]
    if inputs.get("dockerConfig") != {"immutableTags": True}:
        yield "a tag can be moved"
    policies = inputs.get("cleanupPolicies", [])
    if not any(p["action"] == "KEEP" and p.get("condition") == {"tagState": "TAGGED"} for p in policies):
        yield "tagged images are not kept"
    for policy in policies:
        if policy["action"] == "DELETE" and policy["condition"].get("tagState") != "UNTAGGED":
            yield f"{policy['id']} deletes tagged images"


def _protected(resource: dict[str, Any]) -> Iterator[str]:
    if resource["type"] in PROTECTED and resource.get("protect") is not True:
        yield "is not protected"


def _apis_stay(resource: dict[str, Any]) -> Iterator[str]:
    if resource["type"] == "gcp:projects/service:Service" and resource["inputs"].get("disableOnDestroy") is not False:
        yield "is switched off for everybody in the project when the stack goes"


def _github_is_checked(resource: dict[str, Any]) -> Iterator[str]:
    inputs = resource["inputs"]
    if resource["type"] == "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider":
        for claim in ("assertion.repository_owner_id == ", "assertion.repository_id == "):
            if claim not in inputs.get("attributeCondition", ""):
                yield f"takes tokens without {claim}"
    if inputs.get("role") == "roles/iam.workloadIdentityUser" and inputs["member"].endswith("*"):
        yield "the whole pool may become this identity"


RULES: tuple[Callable[[dict[str, Any]], Iterator[str]], ...] = (
    _nobody_outside,
    _no_wide_role,
    _adds_to_policies,
    _no_keys,
    _writes_below_a_prefix,
    _bucket_is_closed,
    _bucket_keeps_what_is_current,
    _images_in_use_stay,
    _protected,
    _apis_stay,
    _github_is_checked,
)
