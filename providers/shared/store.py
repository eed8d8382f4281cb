"""The artifact store's bucket (docs/architecture.md, "Store"): what it deletes by itself, and who may touch it."""

from __future__ import annotations

import pulumi
from pulumi_gcp.storage._inputs import BucketIAMMemberConditionArgsDict, BucketLifecycleRuleArgsDict
from pulumi_gcp.storage.bucket import Bucket
from pulumi_gcp.storage.bucket_iam_member import BucketIAMMember

from .declaration import StoreSettings
from .grants import Grant
from .identities import Identities, short_role
from .project import Project

_DAY_S = 24 * 60 * 60
_ABANDONED_UPLOAD_DAYS = 7
STATUS = "status/"


class Store(pulumi.ComponentResource):
    """The bucket, closed to the public, with what was overwritten or deleted kept for a while.

    url: `gs://bucket`, what an environment declares as its `store`.
    """

    url: str

    def __init__(
        self, name: str, project: Project, identities: Identities, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("lorafleet:shared:Store", name, None, opts)
        settings = project.settings
        self.url = f"gs://{settings.store.bucket}"
        bucket = Bucket(
            name,
            name=settings.store.bucket,
            project=settings.project,
            location=settings.region.upper(),  # as Google gives it back
            storage_class="STANDARD",
            uniform_bucket_level_access=True,
            public_access_prevention="enforced",
            versioning={"enabled": True},
            soft_delete_policy={"retention_duration_seconds": settings.store.keep_deleted_days * _DAY_S},
            lifecycle_rules=lifecycle_rules(settings.store),
            force_destroy=False,
            opts=project.child(self, protect=True),
        )
        for key, grant in identities.granted("store"):
            BucketIAMMember(
                "-".join(filter(None, [name, key, short_role(grant.role), grant.below.strip("/")])),
                bucket=bucket.name,
                role=grant.role,
                member=identities.member(key),
                condition=_condition(grant, settings.store.bucket),
                opts=project.child(self, after=[identities.accounts[key]]),
            )
        self.register_outputs({"url": self.url})


def lifecycle_rules(settings: StoreSettings) -> list[BucketLifecycleRuleArgsDict]:
    """What the bucket deletes by itself: nothing that is current, except the last words of servers that are gone."""
    return [
        {
            "action": {"type": "Delete"},
            "condition": {"days_since_noncurrent_time": settings.keep_replaced_days, "with_state": "ARCHIVED"},
        },
        {
            # A server writes its status every few seconds, and each time the former one is kept as a version.
            "action": {"type": "Delete"},
            "condition": {"days_since_noncurrent_time": 1, "with_state": "ARCHIVED", "matches_prefixes": [STATUS]},
        },
        {
            "action": {"type": "Delete"},
            "condition": {"age": settings.keep_status_days, "with_state": "LIVE", "matches_prefixes": [STATUS]},
        },
        {
            "action": {"type": "AbortIncompleteMultipartUpload"},
            "condition": {"age": _ABANDONED_UPLOAD_DAYS},
        },
    ]


def _condition(grant: Grant, bucket: str) -> BucketIAMMemberConditionArgsDict | None:
    if not grant.below:
        return None
    return {
        "title": f"only below {grant.below}",
        "expression": f'resource.name.startsWith("projects/_/buckets/{bucket}/objects/{grant.below}")',
    }
