"""What may be declared of the stack `shared`: `serving:shared` in `stacks/Pulumi.shared.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from lorafleet.values import Choice, Model, Text, Whole, refuse

from .grants import IDENTITIES

_PLACEHOLDER = r"\s*<.*>\s*"


@dataclass(frozen=True, slots=True)
class FillIn:
    """A value that everybody must state for themselves: the placeholder that the file ships with is refused.

    `check` is what the value must be otherwise, `how` where it is found.
    """

    inner: Text | Whole
    how: str

    @property
    def allowed(self) -> str:
        return self.inner.allowed

    def check(self, value: object) -> str | int:
        if isinstance(value, str) and re.fullmatch(_PLACEHOLDER, value):
            raise refuse("this is still the placeholder", allowed=self.allowed, next_action=self.how)
        return self.inner.check(value)

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)


# https://cloud.google.com/resource-manager/docs/creating-managing-projects
_PROJECT = Text(
    r"[a-z](?:[a-z0-9-]{4,28})[a-z0-9]",
    "a project's id: 6 to 30 lower-case letters, digits and inner hyphens, beginning with a letter",
    "Write the id, not the name or the number: `gcloud projects list` shows all three.",
)
# By their parts and not as a list, so that a region that opens tomorrow is accepted and a typing mistake is not.
_REGION = Text(
    r"(?:africa|asia|australia|europe|me|northamerica|southamerica|us)-"
    r"(?:north|south|east|west|central|northeast|northwest|southeast|southwest)[1-9][0-9]?",
    "a region of Google Cloud, as in asia-northeast3 (a zone such as asia-northeast3-a is not one)",
    "Write one that `gcloud compute regions list` shows.",
)
# https://cloud.google.com/storage/docs/buckets#naming; names with dots need a domain that is proven to be one's own.
_BUCKET = Text(
    r"(?!goog)(?!.*(?:google|g00gle))[a-z0-9][a-z0-9_-]{1,61}[a-z0-9]",
    "3 to 63 lower-case letters, digits and inner hyphens or underscores, without `google` in it",
    "Choose a name that nobody else in the world has, such as YOUR-PROJECT-lorafleet.",
)
_REPOSITORY = Text(
    r"(?![^/]*--)[A-Za-z0-9](?:[A-Za-z0-9-]{0,37}[A-Za-z0-9])?/(?!\.{1,2}$)(?!.*\.git$)[A-Za-z0-9._-]{1,100}",
    "owner/repository as GitHub spells it, without https:// and .git",
    "Write owner/repository, as in our-team/serving.",
)
_NUMBER = Whole(1, 10**15, "as GitHub's API gives it")
_BRANCH = Text(
    r"(?!/)(?!.*(?://|\.\.|/$))[A-Za-z0-9._/-]{1,100}",
    "a branch: letters, digits, hyphens, dots, underscores and inner slashes, as in main",
)
_ENVIRONMENT = Text(
    r"[A-Za-z0-9][A-Za-z0-9_-]{0,49}",
    "an environment of the repository: letters, digits, hyphens and underscores, at most 50 characters",
)
_IDS = "`gh api repos/OWNER/REPOSITORY --jq '.owner.id, .id'` prints the owner's id and the repository's."

SecretName = Annotated[
    str,
    Text(
        r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?",
        "lower-case letters, digits and inner hyphens, beginning with a letter, at most 63 characters",
    ),
]
Reader = Annotated[str, Choice(tuple(IDENTITIES))]


class StoreSettings(Model):
    """The bucket of the artifact store.

    Fields:
        bucket: its name; unique in the world, and for ever.
        keep_replaced_days: how long what was overwritten or deleted (a manifest, a pruned adapter) can be had back.
        keep_deleted_days: soft delete: how long Google keeps what is gone for good otherwise, the bucket included.
        keep_status_days: how long the last word of a server that did not sign off is kept.
    """

    bucket: Annotated[str, FillIn(_BUCKET, _BUCKET.next_action)]
    keep_replaced_days: Annotated[int, Whole(1, 365, "days")] = 30
    # Google takes 7 to 90 days (or none): https://cloud.google.com/storage/docs/soft-delete
    keep_deleted_days: Annotated[int, Whole(7, 90, "days")] = 7
    keep_status_days: Annotated[int, Whole(1, 90, "days")] = 7


class ImagesSettings(Model):
    """The registry of container images.

    Fields:
        keep_last: so many of the newest versions of each image stay, tagged or not.
        delete_untagged_days: older versions without a tag go. What has a tag stays.
    """

    keep_last: Annotated[int, Whole(1, 1000, "versions of each image")] = 20
    delete_untagged_days: Annotated[int, Whole(1, 365, "days")] = 14


class GitHubSettings(Model):
    """The repository whose workflows may act in the project.

    Fields:
        repository: owner/repository, for people and for the length of what GitHub sends.
        owner_id, repository_id: the numbers that trust goes by. A name can be given up and taken by somebody else.
        branch: deployments and the drift check run from here.
        environments: GitHub's environments that may deploy. Protect each with required reviewers.
    """

    repository: Annotated[str, FillIn(_REPOSITORY, _REPOSITORY.next_action)]
    owner_id: Annotated[int, FillIn(_NUMBER, _IDS)]
    repository_id: Annotated[int, FillIn(_NUMBER, _IDS)]
    branch: Annotated[str, _BRANCH] = "main"
    environments: tuple[Annotated[str, _ENVIRONMENT], ...] = ("dev", "staging", "prod")


class SecretSettings(Model):
    """A place for a secret in Secret Manager. Its value never stands here.

    Fields:
        readers: identities that may read it.
    """

    readers: tuple[Reader, ...]


class Settings(Model):
    """The whole of `serving:shared`.

    Fields:
        project: id of the Google Cloud project.
        region: where the bucket, the images and the secrets lie.
        store, images, github: see there.
        secrets: places for secrets, by name.
        state_bucket: the bucket of Pulumi's state, where GitHub's workflows read and write it; it is not made here.
    """

    project: Annotated[str, FillIn(_PROJECT, _PROJECT.next_action)]
    region: Annotated[str, _REGION]
    store: StoreSettings
    images: ImagesSettings = ImagesSettings()
    github: GitHubSettings
    secrets: Mapping[SecretName, SecretSettings] = {}
    state_bucket: Annotated[str, _BUCKET] | None = None

    def email(self, identity: str) -> str:
        """The address of a service account, known before it is made. `identity` is a key of `IDENTITIES`."""
        return f"{account_id(identity)}@{self.project}.iam.gserviceaccount.com"


def account_id(identity: str) -> str:
    """The service account's id within its project (6 to 30 characters)."""
    return f"lorafleet-{identity}"
