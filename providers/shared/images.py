"""The registry of container images."""

from __future__ import annotations

import pulumi
from pulumi_gcp.artifactregistry._inputs import RepositoryCleanupPolicyArgsDict
from pulumi_gcp.artifactregistry.repository import Repository
from pulumi_gcp.artifactregistry.repository_iam_member import RepositoryIamMember

from .declaration import ImagesSettings
from .identities import Identities, short_role
from .project import Project

REPOSITORY = "lorafleet"
_DAY_S = 24 * 60 * 60


class Images(pulumi.ComponentResource):
    """A Docker repository of Artifact Registry whose tags can't be moved.

    A release names images by digest. Whoever pushes an image tags it, and what has a tag is never cleaned up, so a
    digest in use stays; a tag that can't be moved can't be taken from it either. Each push needs a new tag, so layers
    that builds keep for each other go to another repository (docs/images.md).

    url: `REGION-docker.pkg.dev/PROJECT/lorafleet`, the first part of each image's name.
    """

    url: str

    def __init__(
        self, name: str, project: Project, identities: Identities, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("lorafleet:shared:Images", name, None, opts)
        settings = project.settings
        self.url = f"{settings.region}-docker.pkg.dev/{settings.project}/{REPOSITORY}"
        repository = Repository(
            name,
            repository_id=REPOSITORY,
            project=settings.project,
            location=settings.region,
            format="DOCKER",
            description="lorafleet: images of the model servers and the router",
            docker_config={"immutable_tags": True},
            cleanup_policies=cleanup_policies(settings.images),
            cleanup_policy_dry_run=False,
            opts=project.child(self, protect=True),
        )
        for key, grant in identities.granted("images"):
            RepositoryIamMember(
                f"{name}-{key}-{short_role(grant.role)}",
                project=settings.project,
                location=settings.region,
                repository=repository.repository_id,
                role=grant.role,
                member=identities.member(key),
                opts=project.child(self, after=[identities.accounts[key]]),
            )
        self.register_outputs({"url": self.url})


def cleanup_policies(settings: ImagesSettings) -> list[RepositoryCleanupPolicyArgsDict]:
    """What is deleted. Where a version fits a rule that keeps and one that deletes, it is kept.

    https://cloud.google.com/artifact-registry/docs/repositories/cleanup-policy
    """
    return [
        {
            "id": "delete-untagged",
            "action": "DELETE",
            # In seconds, as Google gives it back: otherwise each refresh would show a change.
            "condition": {"tag_state": "UNTAGGED", "older_than": f"{settings.delete_untagged_days * _DAY_S}s"},
        },
        {"id": "keep-last", "action": "KEEP", "most_recent_versions": {"keep_count": settings.keep_last}},
        {"id": "keep-tagged", "action": "KEEP", "condition": {"tag_state": "TAGGED"}},
    ]
