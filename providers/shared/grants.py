"""Who may do what: the service accounts and their rights, as data.

Nobody gets a basic role (owner, editor, viewer), and nothing is granted on the whole project that can be granted on one
bucket, repository or secret. Secrets have their readers in the settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

On = Literal["project", "store", "images", "state"]


@dataclass(frozen=True, slots=True)
class Grant:
    """A role on one thing.

    on: the project, the store's bucket, the repository of images, or the bucket of Pulumi's state, if there is one.
    below: for the store: only objects whose names begin so (`status/`); empty means the whole bucket.
    """

    on: On
    role: str
    below: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """A service account.

    what: for people, shown in the console.
    acts_as: other identities that it may attach to a machine or an endpoint that it makes.
    """

    what: str
    grants: tuple[Grant, ...]
    acts_as: tuple[str, ...] = ()


# Listing is checked against the bucket, never against a name, so a condition on names would forbid it: reading is
# granted on the whole bucket, which holds nothing that a server must not see.
_READ_STORE = Grant("store", "roles/storage.objectViewer")
_PULL_IMAGES = Grant("images", "roles/artifactregistry.reader")
# A status is written again and again and removed at the end, so its writer must be able to overwrite and delete.
_WRITE_STATUS = Grant("store", "roles/storage.objectUser", "status/")
# Whoever may only create can't overwrite: a served mark is written once.
_MARK_SERVED = Grant("store", "roles/storage.objectCreator", "served/")
# Whoever changes a release in a stack file keeps the former block's text, once, for rollbacks.
_KEEP_BLOCKS = Grant("store", "roles/storage.objectCreator", "blocks/")
_SERVER = (_READ_STORE, _WRITE_STATUS, _MARK_SERVED, _PULL_IMAGES)
# What a machine's or an endpoint's own agents need to send logs and metrics.
_OBSERVED = (Grant("project", "roles/logging.logWriter"), Grant("project", "roles/monitoring.metricWriter"))
# To see what there is, for previews and for the drift check: settings and policies, no content and no secret's value.
_SEE = (
    Grant("project", "roles/iam.securityReviewer"),
    Grant("project", "roles/iam.serviceAccountViewer"),
    Grant("project", "roles/iam.workloadIdentityPoolViewer"),
    Grant("project", "roles/secretmanager.viewer"),
    Grant("project", "roles/serviceusage.serviceUsageViewer"),
    Grant("store", "roles/storage.legacyBucketReader"),
    _READ_STORE,
    _PULL_IMAGES,
)

IDENTITIES: dict[str, Identity] = {
    "gce": Identity("model servers on Compute Engine", (*_SERVER, *_OBSERVED)),
    "vertex": Identity("model servers on Vertex AI", (*_SERVER, *_OBSERVED)),
    "runpod": Identity("model servers on RunPod", _SERVER),
    "modal": Identity("model servers on Modal", _SERVER),
    "router": Identity("the router", (_PULL_IMAGES, *_OBSERVED)),
    "ci-preview": Identity(
        "GitHub: previews of pull requests, the nightly drift check, promotion",
        # Whoever may open a pull request runs code as this one: it writes nothing. A preview takes no lock; a promotion
        # says that it could not keep the text of the block that it replaces, and goes on.
        (*_SEE, Grant("state", "roles/storage.objectViewer")),
    ),
    "ci-deploy": Identity(
        "GitHub: deployments from a protected environment",
        (
            *_SEE,
            Grant("store", "roles/storage.objectUser", "manifests/"),
            Grant("store", "roles/storage.objectUser", "status/"),  # a destroyed environment's are removed
            Grant("store", "roles/storage.objectCreator", "releases/"),
            _KEEP_BLOCKS,
            Grant("images", "roles/artifactregistry.writer"),
            Grant("state", "roles/storage.objectUser"),
        ),
        acts_as=("gce", "vertex", "router"),
    ),
}
