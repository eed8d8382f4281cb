"""What the stack `shared` plans: all of it as text, and the rules of safety, each with a plan that breaks it."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from providers.kit.values import UNKNOWN_SENTINEL
from providers.shared.grants import IDENTITIES
from tests.support.shared_project import SharedProject
from tests.support.shared_rules import PROTECTED, STATE_BUCKET, Plan, faults

GOLDEN = Path(__file__).parent / "golden" / "shared-plan.txt"

BUCKET = "gcp:storage/bucket:Bucket"
BUCKET_MEMBER = "gcp:storage/bucketIAMMember:BucketIAMMember"
PROJECT_MEMBER = "gcp:projects/iAMMember:IAMMember"
REPOSITORY = "gcp:artifactregistry/repository:Repository"
TRUST = "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider"


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return SharedProject(tmp_path_factory.mktemp("shared") / "project").planned()


def as_text(plan: Plan) -> str:
    """The grants as one line each, the rest with every input."""
    lines: list[str] = []
    for resource in sorted(plan, key=lambda each: (each["urn"].split("::")[2:], each["urn"])):
        kind, name, inputs = resource["type"], resource["urn"].rpartition("::")[2], resource["inputs"]
        if "role" in inputs:
            on = next(
                inputs[k] for k in ("bucket", "repository", "secretId", "serviceAccountId", "project") if k in inputs
            )
            condition = f" if {inputs['condition']['expression']}" if "condition" in inputs else ""
            member = inputs["member"].replace(UNKNOWN_SENTINEL, "(known when it is made)")
            lines.append(f"{kind} {name}: {inputs['role']} on {on} to {member}{condition}")
            continue
        lines.append(f"{kind} {name}{' (protected)' if resource.get('protect') else ''}")
        lines += [f"    {key}: {json.dumps(value, sort_keys=True)}" for key, value in sorted(inputs.items())]
    return "\n".join(lines) + "\n"


def test_the_whole_plan(plan: Plan) -> None:
    text = as_text(plan)
    if os.environ.get("LORAFLEET_WRITE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "if this is meant: LORAFLEET_WRITE_GOLDEN=1, and review the difference"


def test_all_is_known_before_it_is_made(plan: Plan) -> None:
    """Only the project's number is not, which the names of GitHub's identities have in them."""
    unknown = {each["urn"].rpartition("::")[2] for each in plan if UNKNOWN_SENTINEL in json.dumps(each["inputs"])}
    assert unknown == {"github-ci-preview", "github-ci-deploy"}


def test_it_is_safe(plan: Plan) -> None:
    assert list(faults(plan)) == []
    assert {each["type"] for each in plan} >= PROTECTED, "a rule without anything to look at proves nothing"


def first(kind: str, role: str = "") -> Callable[[Plan], dict[str, Any]]:
    return lambda plan: next(
        each
        for each in plan
        if each["type"] == kind
        and each["inputs"].get("role", "").endswith(role)
        and each["inputs"].get("bucket") != STATE_BUCKET
    )


def input_of(kind: str, key: str, value: object, role: str = "") -> Callable[[Plan], object]:
    return lambda plan: first(kind, role)(plan)["inputs"].update({key: value})


def without(kind: str, key: str, role: str = "") -> Callable[[Plan], object]:
    return lambda plan: first(kind, role)(plan)["inputs"].pop(key)


def rule(**condition: object) -> Callable[[Plan], object]:
    return lambda plan: first(BUCKET)(plan)["inputs"]["lifecycleRules"].append(
        {"action": {"type": "Delete"}, "condition": condition}
    )


def another(kind: str) -> Callable[[Plan], object]:
    return lambda plan: plan.append({"urn": "a::b::c::added", "type": kind, "inputs": {}})


def unprotected(kind: str) -> Callable[[Plan], object]:
    return lambda plan: first(kind)(plan).pop("protect")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (input_of(BUCKET_MEMBER, "member", "allUsers"), "allUsers"),
        (input_of(PROJECT_MEMBER, "member", "allAuthenticatedUsers"), "allAuthenticatedUsers"),
        (input_of(PROJECT_MEMBER, "role", "roles/editor"), "too wide"),
        (input_of(PROJECT_MEMBER, "role", "roles/viewer"), "too wide"),
        (input_of(BUCKET_MEMBER, "role", "roles/storage.admin"), "too wide"),
        (input_of(BUCKET_MEMBER, "role", "roles/storage.objectAdmin"), "too wide"),
        (input_of(PROJECT_MEMBER, "role", "roles/storage.objectViewer"), "belongs on the one"),
        (input_of(PROJECT_MEMBER, "role", "roles/secretmanager.secretAccessor"), "belongs on the one secret"),
        (another("gcp:storage/bucketIAMPolicy:BucketIAMPolicy"), "overwrites"),
        (another("gcp:projects/iAMBinding:IAMBinding"), "overwrites"),
        (another("gcp:serviceaccount/key:Key"), "in the state"),
        (without(BUCKET_MEMBER, "condition", "objectUser"), "without a condition"),
        (without(BUCKET_MEMBER, "condition", "objectCreator"), "without a condition"),
        (input_of(BUCKET_MEMBER, "condition", {"expression": "true"}, "objectUser"), "without a condition"),
        (
            lambda p: next(e for e in p if e["inputs"].get("bucket") == STATE_BUCKET)["inputs"].update(
                member="user:a@b.c"
            ),
            "state is open",
        ),
        (input_of(BUCKET, "uniformBucketLevelAccess", False), "access lists"),
        (without(BUCKET, "publicAccessPrevention"), "public"),
        (input_of(BUCKET, "versioning", {"enabled": False}), "overwritten"),
        (without(BUCKET, "softDeletePolicy"), "deleted is lost"),
        (input_of(BUCKET, "forceDestroy", True), "all that is in it"),
        (rule(age=365), "current"),
        (rule(age=365, matchesPrefixes=["adapters/"], withState="LIVE"), "current"),
        (rule(numNewerVersions=3), "current"),
        (rule(age=30, matchesPrefixes=["status/", "releases/"]), "current"),
        (input_of(REPOSITORY, "dockerConfig", {"immutableTags": False}), "moved"),
        (lambda p: first(REPOSITORY)(p)["inputs"]["cleanupPolicies"].pop(2), "not kept"),
        (lambda p: first(REPOSITORY)(p)["inputs"]["cleanupPolicies"][0]["condition"].update(tagState="ANY"), "tagged"),
        *((unprotected(kind), "not protected") for kind in sorted(PROTECTED)),
        (input_of("gcp:projects/service:Service", "disableOnDestroy", True), "switched off"),
        (input_of(TRUST, "attributeCondition", 'assertion.repository == "our-team/serving"'), "repository_id"),
        (
            input_of("gcp:serviceaccount/iAMMember:IAMMember", "member", "principalSet://x/*", "workloadIdentityUser"),
            "whole pool",
        ),
    ],
)
def test_each_rule_can_fail(plan: Plan, change: Callable[[Plan], object], says: str) -> None:
    broken = copy.deepcopy(plan)
    change(broken)
    assert any(says in fault for fault in faults(broken)), list(faults(broken))


def grants(plan: Plan, identity: str) -> set[tuple[str, str]]:
    """(role, on what) of an identity: what is planned, not what the table says."""
    member = f"serviceAccount:lorafleet-{identity}@fleet-123.iam.gserviceaccount.com"
    found = set()
    for inputs in (each["inputs"] for each in plan if each["inputs"].get("member") == member):
        on = next(inputs[k] for k in ("bucket", "repository", "secretId", "serviceAccountId", "project") if k in inputs)
        below = inputs.get("condition", {}).get("title", "").removeprefix("only below ")
        found.add((inputs["role"].removeprefix("roles/"), f"{on}/{below}" if below else on))
    return found


STORE, IMAGES, PROJECT = "fleet-123-lorafleet", "lorafleet", "fleet-123"
SERVER = {
    ("storage.objectViewer", STORE),
    ("storage.objectUser", f"{STORE}/status/"),
    ("storage.objectCreator", f"{STORE}/served/"),
    ("artifactregistry.reader", IMAGES),
}
OBSERVED = {("logging.logWriter", PROJECT), ("monitoring.metricWriter", PROJECT)}


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        ("gce", SERVER | OBSERVED | {("secretmanager.secretAccessor", "router-keys")}),
        ("vertex", SERVER | OBSERVED),
        ("runpod", SERVER),
        ("modal", SERVER),
        (
            "router",
            {("artifactregistry.reader", IMAGES), ("secretmanager.secretAccessor", "router-keys")} | OBSERVED,
        ),
    ],
)
def test_what_runs_may_do_no_more_than_it_needs(plan: Plan, identity: str, expected: set[tuple[str, str]]) -> None:
    assert grants(plan, identity) == expected


def test_every_identity_is_made_and_looked_at(plan: Plan) -> None:
    made = {e["inputs"]["accountId"] for e in plan if e["type"] == "gcp:serviceaccount/account:Account"}
    assert made == {f"lorafleet-{key}" for key in IDENTITIES}
    previews = {(role, on) for role, on in grants(plan, "ci-preview") if role.startswith("storage.")}
    assert previews == {
        ("storage.legacyBucketReader", STORE),
        ("storage.objectViewer", STORE),
        ("storage.objectViewer", STATE_BUCKET),
    }
    writes = grants(plan, "ci-deploy") - grants(plan, "ci-preview")
    assert writes == {
        ("storage.objectUser", f"{STORE}/manifests/"),
        ("storage.objectUser", f"{STORE}/status/"),
        ("storage.objectCreator", f"{STORE}/blocks/"),
        ("storage.objectCreator", f"{STORE}/releases/"),
        ("artifactregistry.writer", IMAGES),
        ("storage.objectUser", STATE_BUCKET),
        ("secretmanager.secretAccessor", "runpod-api-key"),
        *(
            (
                "iam.serviceAccountUser",
                f"projects/fleet-123/serviceAccounts/lorafleet-{k}@fleet-123.iam.gserviceaccount.com",
            )
            for k in ("gce", "vertex", "router")
        ),
    }
