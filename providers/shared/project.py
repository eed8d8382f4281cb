"""The Google Cloud project that everything of `shared` is made in, and the base of the other components."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
from pulumi_gcp.projects.service import Service
from pulumi_gcp.provider import Provider

from .declaration import Settings

# Needed by what this stack makes. Compute Engine's and Vertex AI's come with the targets that use them.
APIS = (
    "artifactregistry.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",  # GitHub's workflows become a service account through it
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "secretmanager.googleapis.com",
    "serviceusage.googleapis.com",
    "storage.googleapis.com",
    "sts.googleapis.com",  # takes GitHub's tokens
)


class Project(pulumi.ComponentResource):
    """The project with the APIs that are needed. It is not made here: a project has a budget and an owner of its own.

    settings: the stack's settings.
    provider: speaks to this project, whatever project `gcloud` or `gcp:project` name.
    """

    settings: Settings
    provider: Provider

    def __init__(self, name: str, settings: Settings, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("lorafleet:shared:Project", name, None, opts)
        self.settings = settings
        self.provider = Provider(
            name,
            project=settings.project,
            region=settings.region,
            default_labels={"app": "lorafleet"},
            opts=pulumi.ResourceOptions(parent=self),
        )
        self._apis = [
            Service(
                f"{name}-{api.partition('.')[0]}",
                service=api,
                project=settings.project,
                # Others may use it too, and switching it off would stop them.
                disable_on_destroy=False,
                opts=pulumi.ResourceOptions(parent=self, provider=self.provider),
            )
            for api in APIS
        ]
        self.register_outputs({})

    def child(
        self,
        parent: pulumi.Resource,
        *,
        protect: bool = False,
        after: Sequence[pulumi.Resource] = (),
    ) -> pulumi.ResourceOptions:
        """Options for a resource of a component `parent`: in this project, once its APIs are switched on.

        protect: `pulumi destroy` and a replacement are refused until somebody takes the protection away.
        after: what must be there first, where no input says so.
        """
        return pulumi.ResourceOptions(
            parent=parent,
            provider=self.provider,
            depends_on=[*self._apis, *after],
            protect=protect or None,
        )
