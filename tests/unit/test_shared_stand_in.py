"""The stand-in for Google Cloud knows what pulumi-gcp knows: types, properties, what is required."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from providers.kit.values import UNKNOWN, Sealed
from tests.fakes.gcp import sdk
from tests.fakes.gcp.cloud import REPLACED, Cloud, CloudError

BUCKET = "gcp:storage/bucket:Bucket"


def problems(kind: str, inputs: dict[str, Any]) -> list[str]:
    return [f"{path}: {why}" for path, why in sdk.problems(sdk.kind(kind).args, inputs)]


@pytest.mark.parametrize(
    ("kind", "inputs", "says"),
    [
        (BUCKET, {"locatoin": "EU", "location": "EU"}, "locatoin: no such property; did you mean location?"),
        (BUCKET, {}, "location: missing required property"),
        (BUCKET, {"location": "EU", "versioning": {"enabled": True, "on": True}}, "versioning.on: no such property"),
        (BUCKET, {"location": "EU", "versioning": {}}, "versioning.enabled: missing"),
        (BUCKET, {"location": "EU", "forceDestroy": "no"}, "forceDestroy: must be a bool, found a str"),
        (BUCKET, {"location": 7}, "location: must be a str"),
        (BUCKET, {"location": "EU", "labels": {"a": 1}}, "labels.a: must be a str"),
        (BUCKET, {"location": "EU", "labels": "a"}, "labels: must be a mapping"),
        (BUCKET, {"location": "EU", "lifecycleRules": {}}, "lifecycleRules: must be a list"),
        (
            BUCKET,
            {"location": "EU", "lifecycleRules": [{"action": {"type": "Delete"}, "condition": {"age": "3"}}]},
            "lifecycleRules[0].condition.age: must be a int",
        ),
        (
            "gcp:compute/instance:Instance",
            {"machineType": "g2-standard-4", "networkInterfaces": [{}], "bootDisk": {"initializeParams": {"sise": 5}}},
            "bootDisk.initializeParams.sise: no such property; did you mean size?",
        ),
        ("gcp:vertex/aiEndpoint:AiEndpoint", {"displayName": "x", "location": "y", "nam": "z"}, "did you mean name?"),
    ],
)
def test_what_is_wrong_is_named(kind: str, inputs: dict[str, Any], says: str) -> None:
    found = problems(kind, inputs)
    assert len(found) == 1
    assert says in found[0]


@pytest.mark.parametrize("location", ["EU", UNKNOWN, Sealed("EU")])
def test_what_is_right_is_taken(location: object) -> None:
    rule = {"action": {"type": "Delete"}, "condition": {"age": 3, "matchesPrefixes": ["status/"]}}
    assert problems(BUCKET, {"location": location, "lifecycleRules": [rule], "labels": {"a": "b"}}) == []


@pytest.mark.parametrize("kind", ["gcp:storage/bukcet:Bucket", "gcp:storage/bucket:Bukcet", "aws:s3/bucket:Bucket", ""])
def test_a_type_that_is_not_there(kind: str) -> None:
    with pytest.raises(KeyError):
        sdk.kind(kind)


def test_the_table_of_replacements_names_only_what_is_there() -> None:
    for kind, names in REPLACED.items():
        found = sdk.kind(kind)
        usual = {"name", "project", "location", "region", "zone"}
        assert set(names) - set(found.inputs) - usual == set(), kind


def test_what_was_made_is_there_once(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path / "cloud.json")
    outputs = sdk.kind(BUCKET).outputs
    made, values = cloud.create(BUCKET, {"name": "b", "location": "EU"}, outputs, "p")
    assert values["url"] == "gs://b"
    with pytest.raises(CloudError, match="409"):
        cloud.create(BUCKET, {"name": "b", "location": "EU"}, outputs, "p")
    assert cloud.update(BUCKET, made, {"name": "b", "location": "EU", "storageClass": "STANDARD"})["url"] == "gs://b"
    cloud.delete(BUCKET, made)
    assert cloud.read(made) is None
    with pytest.raises(CloudError, match="404"):
        cloud.update(BUCKET, made, {})
