"""handlers.serving.manifest: what a manifest may hold; all else is one error that names the place."""

import hashlib
import json
from typing import Any

import pytest

from handlers.serving import manifest as manifests
from handlers.serving.errors import ServingError
from handlers.serving.follow import check_room, check_same_base
from tests.unit.serving_kit import BASE, HEX, MISSING, manifest

BAD: list[tuple[str, Any, str, str]] = [
    ("version", "1", 'version is "1"', "version 1"),
    ("version", True, "version is true", "version 1"),
    ("baseModel", None, "baseModel is null", "give an object"),
    ("baseModel.source", "s3://bucket/x", "baseModel.source is", "hf://owner/repo"),
    ("baseModel.source", "file://relative", "baseModel.source is", "file:///abs/folder"),
    ("baseModel.digest", "sha1:aa", "baseModel.digest is", "sha256:"),
    ("baseModel.source", "hf://owner/repo", "baseModel.revision is missing", "40 hex digits"),
    ("baseModel.revision", "main", "baseModel.revision is", "40 hex digits"),
    ("adapters", {}, "adapters is {}", "a list"),
    ("adapters", [7], "adapters[0] is 7", "give an object"),
    ("adapters.0.rank", 8, "adapters[0].rank is not a known key", "known are name"),
    ("adapters.0.digests", "x", "adapters[0].digests is not a known key", "did you mean digest?"),
    ("adapters.0.digest", MISSING, "adapters[0].digest is missing", "content digest"),
    ("adapters.0.name", "exaone-3.5-2.4b", "is there twice", "a name of its own"),
    ("adapters.0.name", "a/../b", "adapters[0].name is", "lower-case letters"),
    ("adapters.0.canary", [], "adapters[0].canary is []", "give an object"),
    ("adapters.0.canary.weight", 0, "adapters[0].canary.weight is 0", "from 1 to 99"),
    ("adapters.0.canary.weight", 100, "adapters[0].canary.weight is 100", "from 1 to 99"),
    ("adapters.0.canary.weight", 12.5, "adapters[0].canary.weight is 12.5", "whole number"),
    ("adapters.0.canary.name", "x", "adapters[0].canary.name is not a known key", "known are"),
    ("adapters.0.canary.digest", f"sha256:{HEX}", "the digest of easycontract itself", "take the canary out"),
]


@pytest.mark.parametrize(("path", "value", "what", "step"), BAD, ids=lambda item: str(item)[:40])
def test_each_bad_value_gives_one_error_that_names_the_place(path: str, value: Any, what: str, step: str) -> None:
    with pytest.raises(ServingError) as caught:
        manifests.read(json.dumps(manifest(path, value)).encode())
    assert what in caught.value.what
    assert step in caught.value.next_step
    assert caught.value.reason == "manifest_invalid"


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"", "is not JSON"),
        (b"\xff", "is not UTF-8 (byte 0)"),
        (b"[" * 500_000, "too deeply nested"),
        (b" " * (1024 * 1024 + 1), "larger than 1048576 bytes"),
        (b'{"version": 1, "version": 1}', 'the key "version" is there twice'),
        (b'{"version": NaN}', "NaN is not a JSON value"),
        (b'{"version": 1' + b"0" * 5000 + b"}", "is not JSON"),
        (b'"\\ud800"', "not an object"),
    ],
    ids=lambda item: str(item)[:30],
)
def test_what_is_no_manifest_at_all(raw: bytes, what: str) -> None:
    with pytest.raises(ServingError) as caught:
        manifests.read(raw)
    assert what in caught.value.what
    assert len(caught.value.what) < 500
    assert caught.value.reason == "manifest_invalid"


def test_a_good_one_is_read_whole() -> None:
    found = manifests.read(json.dumps(manifest()).encode())
    (adapter,) = found.adapters
    assert [version.digest for version in adapter.versions] == [f"sha256:{HEX}", "sha256:" + "c" * 64]
    assert adapter.canary is not None
    assert (adapter.canary.weight, adapter.canary.version.served_name) == (10, "easycontract@sha256-" + "c" * 16)
    assert manifests.read(json.dumps(manifest("adapters.0.canary")).encode()).adapters[0].canary is None


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    turned = dict(reversed(list(manifest().items())))
    found = {manifests.read(json.dumps(each, indent=3).encode()).digest for each in (manifest(), turned)}
    canonical = json.dumps(manifest(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert found == {hashlib.sha256(canonical.encode()).hexdigest()}
    text = json.dumps({"a": ["월세", 1]}, separators=(",", ":"), ensure_ascii=False)
    assert manifests.manifest_digest({"a": ["월세", 1]}) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"source": "gs://elsewhere/base"}, True),  # the digest pins the content
        ({"name": "other"}, False),
        ({"digest": "sha256:" + "0" * 64}, False),
        ({"digest": None, "source": "hf://a/b", "revision": "e" * 40}, False),
    ],
)
def test_the_base_must_be_the_servers(change: dict[str, Any], same: bool) -> None:
    own, wanted = manifests.weights(BASE, "baseModel"), manifests.weights(BASE | change, "baseModel")
    if same:
        check_same_base(own, wanted)
    else:
        with pytest.raises(ServingError, match="but this server has") as caught:
            check_same_base(own, wanted)
        assert caught.value.reason == "base_differs"


def test_room_is_for_old_and_new_versions_together() -> None:
    def with_digests(*digits: str) -> manifests.Manifest:
        adapters = [
            {"name": f"a{number}", "source": "file:///x", "digest": "sha256:" + digit * 64}
            for number, digit in enumerate(digits)
        ]
        return manifests.parse(manifest("adapters", adapters))

    check_room(with_digests("1", "2"), with_digests("3", "4"), 4)
    check_room(with_digests("1", "2"), with_digests("1", "4"), 3)
    with pytest.raises(ServingError, match="needs 4 versions") as caught:
        check_room(with_digests("1", "2"), with_digests("3", "4"), 3)
    assert caught.value.reason == "too_many_adapters"
