"""GitHub's workflows log in to Google Cloud with the tokens that GitHub signs for them; there is no key to lose."""

from __future__ import annotations

import json

import pulumi
from pulumi_gcp.iam.workload_identity_pool import WorkloadIdentityPool
from pulumi_gcp.iam.workload_identity_pool_provider import WorkloadIdentityPoolProvider
from pulumi_gcp.serviceaccount.iam_member import IAMMember as AccountMember

from .declaration import GitHubSettings
from .identities import Identities
from .project import Project

ISSUER = "https://token.actions.githubusercontent.com"
POOL = "lorafleet-github"
PROVIDER = "github-actions"
# Which purpose of a workflow makes it which identity.
PURPOSES = {"preview": "ci-preview", "deploy": "ci-deploy"}


class GitHub(pulumi.ComponentResource):
    """Workload Identity Federation for one repository.

    Pull requests may become `ci-preview`, which only looks; a job in one of the declared environments, on the declared
    branch, may become `ci-deploy`. Nothing else of the repository, and no other repository, gets in.

    provider: full name of the identity provider, what `google-github-actions/auth` asks for. Unknown until it is made,
        because the project's number is in it.
    """

    provider: pulumi.Output[str]

    def __init__(
        self, name: str, project: Project, identities: Identities, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("lorafleet:shared:GitHub", name, None, opts)
        settings = project.settings
        pool = WorkloadIdentityPool(
            name,
            workload_identity_pool_id=POOL,
            project=settings.project,
            display_name="GitHub Actions",
            description=f"lorafleet: workflows of {settings.github.repository}",
            # A deleted pool keeps its name for 30 days, so another can't be made in its place.
            opts=project.child(self, protect=True),
        )
        provider = WorkloadIdentityPoolProvider(
            name,
            workload_identity_pool_id=pool.workload_identity_pool_id,
            workload_identity_pool_provider_id=PROVIDER,
            project=settings.project,
            display_name="GitHub Actions",
            attribute_condition=condition(settings.github),
            attribute_mapping={
                "google.subject": "assertion.sub",  # stands in Google's audit log
                "attribute.purpose": purpose(settings.github),
            },
            oidc={"issuer_uri": ISSUER},
            opts=project.child(self, protect=True),
        )
        for which, key in PURPOSES.items():
            AccountMember(
                f"{name}-{key}",
                service_account_id=identities.resource_name(key),
                role="roles/iam.workloadIdentityUser",
                member=pulumi.Output.concat(
                    "principalSet://iam.googleapis.com/", pool.name, "/attribute.purpose/", which
                ),
                opts=project.child(self, after=[identities.accounts[key], provider]),
            )
        self.provider = provider.name
        self.register_outputs({"provider": self.provider})


def condition(github: GitHubSettings) -> str:
    """Whose tokens are taken at all, in CEL.

    By number: names can be given up and taken by somebody else, and what GitHub writes into `sub` differs between
    repositories (those made since June 2026 have the numbers in it).
    https://docs.github.com/en/actions/reference/openid-connect-reference#immutable-subject-claims
    """
    return (
        f'assertion.repository_owner_id == "{github.owner_id}" && assertion.repository_id == "{github.repository_id}"'
    )


def purpose(github: GitHubSettings) -> str:
    """What a token is for, in CEL: `deploy`, `preview` or `none`.

    An event is asked for by name where there is no environment: `pull_request_target` runs on the branch too, and what
    it does can be steered from a fork.
    """
    branch = json.dumps(f"refs/heads/{github.branch}")
    environments = json.dumps(list(github.environments))
    return (
        f"has(assertion.environment) ? "
        f'(assertion.environment in {environments} && assertion.ref == {branch} ? "deploy" : "none") : '
        f'assertion.event_name == "pull_request" ? "preview" : '
        f'(assertion.event_name in ["push", "schedule", "workflow_dispatch"] && assertion.ref == {branch} '
        f'? "preview" : "none")'
    )
