"""The history of an environment: one record in the store for each release that it was told to serve."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Mapping
from typing import Any

from lorafleet.manifest import digest_of

from . import layout
from .store import NOT_THERE, ConflictError, Store
from .versions import who


def record(store: Store, environment: str, release: Mapping[str, Any], manifest_digest: str) -> None:
    """Notes a release, unless the newest record is of the same. Raises StoreError.

    release: the release block as plain data (docs/architecture.md, "Store").
    """
    digest = digest_of(release)
    if newest_digest(store, environment) == digest:
        return
    now = datetime.datetime.now(datetime.UTC)
    document = {
        "version": 1,
        "environment": environment,
        "at": f"{now:%Y-%m-%dT%H:%M:%S.%fZ}",
        "by": who(),
        "release": release,
        "releaseDigest": digest,
        "manifestDigest": manifest_digest,
    }
    data = (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode()
    with contextlib.suppress(ConflictError):  # in the same microsecond: the other one said the same
        store.write(layout.release(environment, now, digest), data, expected=NOT_THERE)


def newest_digest(store: Store, environment: str) -> str | None:
    """The release digest of the newest record; None without one (or with one that can't be read)."""
    folder = layout.releases(environment)
    # Records lie right in the folder and their names sort by time; what lies deeper is something else.
    paths = [entry.path for entry in store.list(folder) if "/" not in entry.path.removeprefix(folder)]
    blob = store.read(paths[-1]) if paths else None
    try:
        return str(json.loads(blob.data)["releaseDigest"]) if blob else None
    except (ValueError, LookupError, TypeError):
        return None
