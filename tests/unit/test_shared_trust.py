"""Which of GitHub's tokens may become which identity: the rules themselves, run by an implementation of CEL."""

from __future__ import annotations

from typing import Any

import pytest

from providers.shared.declaration import GitHubSettings
from providers.shared.github import PURPOSES, condition, purpose
from providers.shared.grants import IDENTITIES

MAIN = "refs/heads/main"
GITHUB = GitHubSettings(repository="our-team/serving", owner_id=1001, repository_id=2002)


def evaluate(expression: str, claims: dict[str, str]) -> Any:
    celpy = pytest.importorskip("celpy")
    environment = celpy.Environment()
    return environment.program(environment.compile(expression)).evaluate({"assertion": celpy.json_to_cel(claims)})


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"event_name": "pull_request", "ref": "refs/pull/7/merge"}, "preview"),
        ({"event_name": "schedule", "ref": MAIN}, "preview"),
        ({"event_name": "push", "ref": MAIN}, "preview"),
        ({"event_name": "workflow_dispatch", "ref": MAIN}, "preview"),
        ({"event_name": "push", "ref": MAIN, "environment": "prod"}, "deploy"),
        ({"event_name": "workflow_dispatch", "ref": MAIN, "environment": "dev"}, "deploy"),
        # Not these: another branch, a tag, an environment that is not declared, a pull request that names one.
        ({"event_name": "push", "ref": "refs/heads/topic"}, "none"),
        ({"event_name": "push", "ref": "refs/heads/topic", "environment": "prod"}, "none"),
        ({"event_name": "push", "ref": "refs/tags/main", "environment": "prod"}, "none"),
        ({"event_name": "push", "ref": MAIN, "environment": "production"}, "none"),
        ({"event_name": "push", "ref": MAIN, "environment": ""}, "none"),
        ({"event_name": "pull_request", "ref": "refs/pull/7/merge", "environment": "prod"}, "none"),
        # These run on the branch, but what they do can be steered from a fork.
        ({"event_name": "pull_request_target", "ref": MAIN}, "none"),
        ({"event_name": "issue_comment", "ref": MAIN}, "none"),
        ({"event_name": "workflow_run", "ref": MAIN}, "none"),
    ],
)
def test_what_a_token_is_for(claims: dict[str, str], expected: str) -> None:
    assert evaluate(purpose(GITHUB), claims) == expected


@pytest.mark.parametrize(
    ("owner", "repository", "taken"),
    [("1001", "2002", True), ("1001", "2003", False), ("1002", "2002", False), ("2002", "1001", False)],
)
def test_only_this_repository_gets_in(owner: str, repository: str, taken: bool) -> None:
    # The name is the same each time: somebody else may have taken it.
    claims = {
        "repository_owner_id": owner,
        "repository_id": repository,
        "repository": "our-team/serving",
        "sub": "repo:our-team/serving:environment:prod",
    }
    assert bool(evaluate(condition(GITHUB), claims)) is taken


def test_another_branch_and_other_environments() -> None:
    github = GITHUB.model_copy(update={"branch": "release/1.0", "environments": ("live",)})
    there = {"event_name": "push", "ref": "refs/heads/release/1.0", "environment": "live"}
    assert evaluate(purpose(github), there) == "deploy"
    assert evaluate(purpose(github), {**there, "ref": MAIN}) == "none"
    assert evaluate(purpose(github), {**there, "environment": "prod"}) == "none"


def test_a_preview_can_change_nothing() -> None:
    """Anybody who may open a pull request in the repository runs code as this identity."""
    identity = IDENTITIES[PURPOSES["preview"]]
    assert identity.acts_as == ()
    assert {grant.role for grant in identity.grants} == {
        "roles/artifactregistry.reader",
        "roles/iam.securityReviewer",
        "roles/iam.serviceAccountViewer",
        "roles/iam.workloadIdentityPoolViewer",
        "roles/secretmanager.viewer",
        "roles/serviceusage.serviceUsageViewer",
        "roles/storage.legacyBucketReader",
        "roles/storage.objectViewer",
    }


def test_google_takes_rules_of_this_length() -> None:
    # 2048 characters for a mapping, 4096 for the condition: https://cloud.google.com/iam/docs/reference/rest/v1/
    # projects.locations.workloadIdentityPools.providers
    longest = GITHUB.model_copy(update={"environments": tuple(f"{n:050}" for n in range(20)), "branch": "b" * 60})
    assert len(purpose(longest)) <= 2048
    assert len(condition(longest)) <= 4096
