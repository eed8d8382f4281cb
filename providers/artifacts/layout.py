"""Where things lie in a store (docs/architecture.md, "Store")."""

from __future__ import annotations

import datetime

from lorafleet.manifest import METADATA as METADATA

# Folders of all environments, with a slash at the end.
MANIFESTS = "manifests/"
STATUSES = "status/"
RELEASES = "releases/"
HOLDS = "holds/"


def _folder(digest: str) -> str:
    return digest.replace(":", "-")


def adapter(name: str, digest: str) -> str:
    """The folder of one version of an adapter, without a slash at the end."""
    return f"adapters/{name}/{_folder(digest)}"


def model(name: str, digest: str) -> str:
    """The folder of one version of a base model."""
    return f"models/{name}/{_folder(digest)}"


def hold(name: str, digest: str) -> str:
    return f"holds/{name}/{_folder(digest)}.json"


def manifest(environment: str) -> str:
    return f"manifests/{environment}.json"


def statuses(environment: str) -> str:
    """The folder of the servers' status documents, with a slash at the end."""
    return f"status/{environment}/"


def served(environment: str, name: str, digest: str) -> str:
    return f"served/{environment}/{name}/{_folder(digest)}.json"


def releases(environment: str) -> str:
    """The folder of the release records, with a slash at the end."""
    return f"releases/{environment}/"


def blocks(environment: str, release_digest: str) -> str:
    """The folder of the kept texts of a release block, with a slash at the end."""
    return f"blocks/{environment}/{release_digest}/"


def release(environment: str, at: datetime.datetime, release_digest: str) -> str:
    """A release record; `release_digest` is hexadecimal. Names sort by time."""
    return f"{releases(environment)}{at.astimezone(datetime.UTC):%Y%m%dT%H%M%S.%fZ}-{release_digest[:12]}.json"
