"""Places for secrets in Secret Manager, and who may read them."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
from pulumi_gcp.secretmanager.secret import Secret
from pulumi_gcp.secretmanager.secret_iam_member import SecretIamMember
from pulumi_gcp.secretmanager.secret_version import SecretVersion

from .identities import Identities
from .project import Project


class Secrets(pulumi.ComponentResource):
    """The secrets of the settings. A value comes from `values`, or later from `gcloud secrets versions add`.

    names: by the name in the settings, `projects/PROJECT/secrets/NAME`, what a reader asks for.
    """

    names: dict[str, str]

    def __init__(
        self,
        name: str,
        project: Project,
        identities: Identities,
        values: Mapping[str, pulumi.Output[str]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("lorafleet:shared:Secrets", name, None, opts)
        settings = project.settings
        self.names = {key: f"projects/{settings.project}/secrets/{key}" for key in settings.secrets}
        for key, declared in settings.secrets.items():
            secret = Secret(
                f"{name}-{key}",
                secret_id=key,
                project=settings.project,
                # Not `auto`, which lets Google choose where the value lies.
                replication={"user_managed": {"replicas": [{"location": settings.region}]}},
                opts=project.child(self, protect=True),
            )
            if key in values:
                SecretVersion(
                    f"{name}-{key}",
                    secret=self.names[key],
                    secret_data=values[key],
                    opts=project.child(self, after=[secret]),
                )
            for reader in declared.readers:
                SecretIamMember(
                    f"{name}-{key}-{reader}",
                    project=settings.project,
                    secret_id=secret.secret_id,
                    role="roles/secretmanager.secretAccessor",
                    member=identities.member(reader),
                    opts=project.child(self, after=[identities.accounts[reader]]),
                )
        self.register_outputs({})
