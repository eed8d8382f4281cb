"""Contract cases of the manifest: in a store that is a folder, and in a bucket of the real fake-gcs-server."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from providers.kit.testing import Case, Place

from . import layout
from .resources import Manifest
from .store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_OLD, _NEW = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
_BASE = {"name": "base", "source": "file:///nowhere", "digest": f"sha256:{'0' * 64}"}
_BUCKET = "contract-tests"


def cases() -> list[Case]:
    return [_case(_folder, _with_folder, "Manifest"), _case(_bucket, _with_bucket, "Manifest in a bucket")]


def _case(url: Callable[[Place, str], str], platform: Any, name: str) -> Case:
    return Case(Manifest, partial(_inputs, url), partial(_changes, url), _vanish, partial(platform, url), name=name)


def _folder(place: Place, store: str) -> str:
    return f"file://{place.folder / store}"


def _bucket(_place: Place, store: str) -> str:
    return f"gs://{_BUCKET}/{store}"


@contextmanager
def _with_folder(url: Callable[[Place, str], str], place: Place) -> Iterator[None]:
    _fill(url, place)
    yield


@contextmanager
def _with_bucket(url: Callable[[Place, str], str], place: Place) -> Iterator[None]:
    """The plugin, which the test starts after this, finds the server by its environment."""
    from tests.support.artifacts_kit import fake_gcs

    with fake_gcs(place.folder / "gcs", _BUCKET) as address:
        former = os.environ.get("STORAGE_EMULATOR_HOST")
        os.environ["STORAGE_EMULATOR_HOST"] = address
        try:
            _fill(url, place)
            yield
        finally:
            os.environ.pop("STORAGE_EMULATOR_HOST")
            if former is not None:
                os.environ["STORAGE_EMULATOR_HOST"] = former


def _fill(url: Callable[[Place, str], str], place: Place) -> None:
    """Both stores get the versions that the cases name; what is in them is of no matter here."""
    for name in ("store", "other"):
        store = open_store(url(place, name))
        for digest in (_OLD, _NEW):
            store.write(f"{layout.adapter('a', digest)}/{layout.METADATA}", b"{}")


def _inputs(url: Callable[[Place, str], str], place: Place) -> dict[str, Any]:
    return {
        "store": url(place, "store"),
        "environment": "test",
        "baseModel": _BASE,
        "adapters": {"a": _OLD},
    }


def _changes(url: Callable[[Place, str], str], place: Place) -> dict[str, Any]:
    return {
        "store": url(place, "other"),
        "environment": "other",
        "baseModel": {**_BASE, "digest": f"sha256:{'3' * 64}"},
        "adapters": {"a": _NEW},
        "canaries": {"a": {"digest": _NEW, "weight": 10}},
        "elsewhere": {"a": {"source": "hf://owner/a", "revision": "4" * 40}},
        "image": f"registry.example/serving@sha256:{'5' * 64}",
        "followTimeoutS": 10,
        "licenceAccepted": "exaone-nc",
    }


def _vanish(_place: Place, resource_id: str) -> None:
    store, _, path = resource_id.rpartition("/manifests/")
    assert open_store(store).delete(f"manifests/{path}")
