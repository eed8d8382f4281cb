"""The base model's pin where two environments take the model from different places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lorafleet.declaration import Fleet
from lorafleet.load import load_fleet
from providers.artifacts.folder_store import FolderStore
from providers.artifacts.release_base import promoted_pin
from providers.artifacts.release_reasons import Reasons
from providers.artifacts.versions import FileFacts, Metadata, metadata_path
from tests.unit.release_kit import DIGESTS, V1

REVISION, OTHER_REVISION = "a" * 40, "b" * 40
DIGEST = "sha256:" + "c" * 64
HUB = "hf://someone/tiny"
BUCKET = "gs://our-bucket/models/tiny/sha256-" + "c" * 64


def fleet(environment: str, source: str, root: Path, **pin: str) -> Fleet:
    config: dict[str, Any] = {
        "baseModel": {"name": "tiny", "source": source, "license": "none needed"},
        "adapters": {name: {} for name in V1},
        "targets": {"server": {"kind": "local", "port": 8101}},
        "router": {"port": 8100, "metricsPort": 8102},
        "release": {"baseModel": pin, "adapters": V1},
    }
    return load_fleet(config, environment=environment, root=root)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """With a mirror of the hub's model at REVISION, whose content is DIGEST."""
    store = FolderStore(tmp_path / "store")
    metadata = Metadata(
        kind="model",
        name="tiny",
        digest=DIGEST,
        files={"config.json": FileFacts(bytes=2, sha256="0" * 64)},
        revision=REVISION,
        source=HUB,
        created_at="2026-01-01T00:00:00Z",
        created_by="user@host",
    )
    store.write(metadata_path("model", "tiny", DIGEST), metadata.to_bytes())
    return store


def promoted(source: Fleet, target: Fleet, store: FolderStore) -> tuple[object, list[str]]:
    reasons = Reasons()
    pin = promoted_pin(source, target, store, store, reasons)
    return pin, [f"{error.what}\n{error.next_action}" for error in reasons.found]


def test_the_same_repository_of_the_hub(tmp_path: Path, store: FolderStore) -> None:
    mine, theirs = fleet("dev", HUB, tmp_path, revision=REVISION), fleet("prod", HUB, tmp_path, revision=OTHER_REVISION)
    assert promoted(mine, theirs, store) == ({"revision": REVISION}, [])
    mine = fleet("dev", HUB, tmp_path, revision=REVISION, digest=DIGEST)
    assert promoted(mine, theirs, store) == ({"revision": REVISION, "digest": DIGEST}, [])


def test_another_repository_of_the_hub(tmp_path: Path, store: FolderStore) -> None:
    mine = fleet("dev", HUB, tmp_path, revision=REVISION)
    pin, reasons = promoted(mine, fleet("prod", f"{HUB}-two", tmp_path, revision=REVISION), store)
    assert pin is None and "prod takes another base model than dev" in reasons[0]


def test_from_the_hub_to_its_mirror_in_the_store(tmp_path: Path, store: FolderStore) -> None:
    mine = fleet("dev", HUB, tmp_path, revision=REVISION)
    assert promoted(mine, fleet("prod", BUCKET, tmp_path, digest=DIGEST), store) == ({"digest": DIGEST}, [])


def test_from_the_hub_without_a_mirror(tmp_path: Path, store: FolderStore) -> None:
    mine = fleet("dev", HUB, tmp_path, revision=OTHER_REVISION)
    pin, reasons = promoted(mine, fleet("prod", BUCKET, tmp_path, digest=DIGEST), store)
    assert pin is None and len(reasons) == 1
    assert "has no mirror of the base model at the revision that is promoted" in reasons[0]
    assert f"lorafleet model mirror {HUB} --revision {OTHER_REVISION} --name tiny --store file://" in reasons[0]


def test_a_mirror_that_its_source_names_otherwise(tmp_path: Path, store: FolderStore) -> None:
    mine = fleet("dev", HUB, tmp_path, revision=REVISION)
    pin, reasons = promoted(mine, fleet("prod", BUCKET.replace("c" * 64, "d" * 64), tmp_path, digest=DIGEST), store)
    assert pin == {"digest": DIGEST} and "names another version of the base model" in reasons[0]
    assert f"source: gs://our-bucket/models/tiny/sha256-{'c' * 64}" in reasons[0]


def test_from_a_mirror_to_the_hub(tmp_path: Path, store: FolderStore) -> None:
    mine, theirs = fleet("dev", BUCKET, tmp_path, digest=DIGEST), fleet("prod", HUB, tmp_path, revision=OTHER_REVISION)
    assert promoted(mine, theirs, store) == ({"revision": REVISION}, [])
    unknown = fleet("dev", BUCKET, tmp_path, digest="sha256:" + "e" * 64)
    assert "prod takes another base model than dev" in promoted(unknown, theirs, store)[1][0]
    longer = fleet("prod", f"{HUB}-two", tmp_path, revision=REVISION)
    assert "prod takes another base model than dev" in promoted(mine, longer, store)[1][0]


def test_a_folder_is_looked_into(tmp_path: Path, store: FolderStore) -> None:
    (tmp_path / "demo").symlink_to(Path(__file__).parents[2] / "demo")
    mine = fleet("dev", BUCKET, tmp_path, digest=DIGESTS["base"])
    theirs = fleet("prod", "file://demo/base", tmp_path, digest=DIGEST)
    assert promoted(mine, theirs, store) == ({"digest": DIGESTS["base"]}, [])
    _, reasons = promoted(fleet("dev", BUCKET, tmp_path, digest=DIGEST), theirs, store)
    assert "the base model of prod is not the one that the release pins" in reasons[0]
    missing = fleet("prod", "file://nowhere", tmp_path, digest=DIGEST)
    assert "is not the one that the release pins" in promoted(mine, missing, store)[1][0]


def test_another_architecture(tmp_path: Path, store: FolderStore) -> None:
    mine, theirs = fleet("dev", HUB, tmp_path, revision=REVISION), fleet("prod", HUB, tmp_path, revision=REVISION)
    # Only one can be declared so far, so a declaration can't be had by reading one.
    other = theirs.model_copy(
        update={"base_model": theirs.base_model.model_copy(update={"architecture": "LlamaForCausalLM"})}
    )
    pin, reasons = promoted(mine, other, store)
    assert pin is None and "declares a base model of another architecture than dev" in reasons[0]
