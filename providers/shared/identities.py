"""The service accounts, and what they may do on the project and on what is not made here."""

from __future__ import annotations

from collections.abc import Iterator

import pulumi
from pulumi_gcp.projects.iam_member import IAMMember as ProjectMember
from pulumi_gcp.serviceaccount.account import Account
from pulumi_gcp.serviceaccount.iam_member import IAMMember as AccountMember
from pulumi_gcp.storage.bucket_iam_member import BucketIAMMember

from .declaration import account_id
from .grants import IDENTITIES, Grant, On
from .project import Project


class Identities(pulumi.ComponentResource):
    """One service account for each kind of target, the router and GitHub's workflows (`grants.IDENTITIES`).

    No key of them is made here: it would lie in the state. Google's own machines need none, GitHub logs in without.

    accounts: by name, as in `grants.IDENTITIES`.
    """

    accounts: dict[str, Account]

    def __init__(self, name: str, project: Project, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("lorafleet:shared:Identities", name, None, opts)
        self._project = project
        settings = project.settings
        self.accounts = {
            key: Account(
                f"{name}-{key}",
                account_id=account_id(key),
                project=settings.project,
                display_name=f"lorafleet: {identity.what}",
                # One that is made anew is another one to Google: what it may do elsewhere is lost.
                opts=project.child(self, protect=True),
            )
            for key, identity in IDENTITIES.items()
        }
        for key, grant in self.granted("project"):
            ProjectMember(
                f"{name}-{key}-{short_role(grant.role)}",
                project=settings.project,
                role=grant.role,
                member=self.member(key),
                opts=project.child(self, after=[self.accounts[key]]),
            )
        for key, grant in self.granted("state") if settings.state_bucket else ():
            BucketIAMMember(
                f"{name}-{key}-state",
                bucket=settings.state_bucket,
                role=grant.role,
                member=self.member(key),
                opts=project.child(self, after=[self.accounts[key]]),
            )
        for key, identity in IDENTITIES.items():
            for other in identity.acts_as:
                AccountMember(
                    f"{name}-{key}-as-{other}",
                    service_account_id=self.resource_name(other),
                    role="roles/iam.serviceAccountUser",
                    member=self.member(key),
                    opts=project.child(self, after=[self.accounts[key], self.accounts[other]]),
                )
        self.register_outputs({})

    def granted(self, on: On) -> Iterator[tuple[str, Grant]]:
        """Each identity's name with each of its grants on this kind of thing."""
        for key, identity in IDENTITIES.items():
            for grant in identity.grants:
                if grant.on == on:
                    yield key, grant

    def member(self, key: str) -> str:
        """As policies name it. Known before it is made, so that a preview shows whole policies."""
        return f"serviceAccount:{self._project.settings.email(key)}"

    def resource_name(self, key: str) -> str:
        settings = self._project.settings
        return f"projects/{settings.project}/serviceAccounts/{settings.email(key)}"


def short_role(role: str) -> str:
    """`roles/storage.objectViewer` as a part of a resource's name: `storage-objectViewer`."""
    return role.removeprefix("roles/").replace(".", "-")
