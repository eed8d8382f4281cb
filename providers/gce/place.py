"""What everything of a target is made in: the project, its identities, and a provider that speaks to it."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
from pulumi_gcp.projects.service import Service
from pulumi_gcp.provider import Provider

from providers import shared
from providers.shared.declaration import account_id

from .spec import GceTarget

# What `shared` has not switched on already.
APIS = ("compute.googleapis.com",)


class Place:
    """A Google Cloud project and region.

    project: its id. account, router: e-mail addresses of the service accounts that the VMs and the router run as. They
    are made by the stack `shared` (providers/shared/grants.py), with what they need and no more.
    """

    def __init__(self, parent: pulumi.Resource, name: str, spec: GceTarget, labels: dict[str, str]) -> None:
        self.region = spec.region
        self.project = _project(spec)
        self.account = self._email("gce")
        self.router = self._email("router")
        self._parent = parent
        self.provider = Provider(
            name,
            project=self.project,
            region=spec.region,
            default_labels=labels,
            opts=pulumi.ResourceOptions(parent=parent),
        )
        self._apis = [
            Service(
                f"{name}-{api.partition('.')[0]}",
                service=api,
                project=self.project,
                # Others may use it too, and switching it off would stop them.
                disable_on_destroy=False,
                opts=pulumi.ResourceOptions(parent=parent, provider=self.provider),
            )
            for api in APIS
        ]

    def options(self, *, after: Sequence[pulumi.Resource] = ()) -> pulumi.ResourceOptions:
        """For a resource of the target: in this project, once its APIs are switched on and `after` is there."""
        return pulumi.ResourceOptions(parent=self._parent, provider=self.provider, depends_on=[*self._apis, *after])

    def _email(self, identity: str) -> pulumi.Output[str]:
        # As `shared` names it; known even before `shared` was brought up.
        return pulumi.Output.concat(account_id(identity), "@", self.project, ".iam.gserviceaccount.com")


def _project(spec: GceTarget) -> pulumi.Output[str]:
    return pulumi.Output.from_input(spec.project) if spec.project else shared.reference().project
