"""Whatever may be declared comes back as declared: no declaration shows a change again and again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("modal", reason="the package `modal` is not installed")

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from providers.modal.resources import App, Secret, Volume
from tests.fakes.modal import FakeModal
from tests.fakes.modal.cloud import CLOUDS, GPUS, REGIONS, ROUTING_REGIONS
from tests.fakes.modal.kit import NAME
from tests.fakes.modal.life import Life, modal_here

# Without shrinking, which would take minutes of calls to the stand-in: the first example that fails is shown.
EXAMPLES = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

_digests = st.integers(0, 16**64 - 1).map(lambda number: f"{number:064x}")
_images = st.builds(
    lambda host, folder, digest: f"{host}/{folder}@sha256:{digest}",
    st.sampled_from(["registry.example.com", "localhost:5000", "europe-west4-docker.pkg.dev"]),
    st.from_regex(r"[a-z0-9._-]{1,30}(/[a-z0-9._-]{1,30}){0,3}", fullmatch=True),
    _digests,
)
_gpus = st.builds(
    lambda kind, count: kind if count == 1 else f"{kind}:{count}", st.sampled_from(GPUS), st.integers(1, 8)
)
_segments = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,10}", fullmatch=True)
_paths = st.lists(_segments, min_size=1, max_size=3).map(lambda parts: "/mnt/" + "/".join(parts))
_volumes = st.fixed_dictionaries(
    {"volume": st.sampled_from(["weights", "more"])},
    optional={"readOnly": st.booleans(), "subPath": st.lists(_segments, max_size=3).map("/".join)},
)
_buckets = st.fixed_dictionaries(
    {"bucket": st.from_regex(r"[a-z0-9][a-z0-9.-]{1,40}[a-z0-9]", fullmatch=True)},
    optional={
        "readOnly": st.booleans(),
        "prefix": st.lists(_segments, max_size=3).map(lambda parts: "".join(f"{part}/" for part in parts)),
        "secret": st.sampled_from(["", "hmac"]),
        "endpoint": st.sampled_from(["https://storage.googleapis.com", "https://acct.r2.cloudflarestorage.com", ""]),
    },
)
_secrets = st.sampled_from(["hub", "hmac", "registry"])


@st.composite
def apps(draw: st.DrawFn) -> dict[str, Any]:
    """The inputs of an app, on the wire; each field is there or not."""
    most = draw(st.integers(1, 20))
    concurrency = draw(st.floats(0, 10_000))
    optional = {
        "registrySecret": st.sampled_from(["", "registry"]),
        "secrets": st.lists(_secrets, max_size=3),
        "cpu": st.floats(0.001, 256),
        "memoryMib": st.integers(1, 2**20),
        "maxContainers": st.just(most),
        "bufferContainers": st.integers(0, 10_000),
        "scaledownWindowS": st.integers(2, 3600),
        "targetConcurrency": st.just(concurrency),
        "maxConcurrency": st.integers(max(1, min(10_000, int(concurrency) + 1)), 10_000),
        "port": st.integers(1, 65535),
        "routingRegion": st.sampled_from(ROUTING_REGIONS),
        "computeRegions": st.lists(st.sampled_from(REGIONS), max_size=3),
        "cloud": st.sampled_from(CLOUDS),
        "nonpreemptible": st.booleans(),
        "proxyAuth": st.booleans(),
        "startupTimeoutS": st.integers(1, 86_400),
        "exitGracePeriodS": st.integers(1, 3600),
        "gpuSnapshot": st.booleans(),
        "volumes": st.dictionaries(_paths, _volumes, max_size=1),
        "buckets": st.dictionaries(_paths.map(lambda path: f"{path}/b"), _buckets, max_size=2),
    }
    fixed = {
        "environment": st.sampled_from(["main", "other"]),
        "name": st.just(NAME),
        "image": _images,
        "gpus": st.lists(_gpus, max_size=3),
    }
    inputs: dict[str, Any] = draw(st.fixed_dictionaries(fixed, optional=optional))
    if "targetConcurrency" not in inputs and "maxConcurrency" in inputs:
        inputs["targetConcurrency"] = 1
    if "maxContainers" in inputs and draw(st.booleans()):
        inputs["minContainers"] = draw(st.integers(0, most))
    return inputs


_values = st.dictionaries(
    st.from_regex(r"[A-Z_][A-Z0-9_]{0,20}", fullmatch=True), st.text(max_size=40), min_size=1, max_size=4
)
_secret_inputs = st.fixed_dictionaries({"environment": st.sampled_from(["main", "other"]), "values": _values})
_volume_inputs = st.fixed_dictionaries({"environment": st.sampled_from(["main", "other"])})


@pytest.fixture(scope="module")
def modal() -> Iterator[FakeModal]:
    with modal_here() as running:
        running.cloud.environments.add("other")
        for environment in ("main", "other"):
            running.put_secret(environment, "hub", HF_TOKEN="hf-0123456789")
            running.put_secret(environment, "registry", SERVICE_ACCOUNT_JSON="{}")
            keys = ("GOOGLE_ACCESS_KEY_ID", "GOOGLE_ACCESS_KEY_SECRET", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
            running.put_secret(environment, "hmac", **dict.fromkeys(keys, "0123456789"))
            for name in ("weights", "more"):
                running.put_volume(environment, name)
        yield running


def settles(life: Life, first: dict[str, Any], then: dict[str, Any]) -> None:
    for declared in (first, then):
        life.up(declared)
        assert life.up(declared) == [], "a change is shown that is none"
        assert life.refresh() == set(), "what was deployed reads back as something else"
        assert life.up(declared) == [], "a refresh brings a change"
    life.destroy()


@EXAMPLES
@given(first=apps(), then=apps())
def test_an_app(modal: FakeModal, first: dict[str, Any], then: dict[str, Any]) -> None:
    settles(Life(modal, App), first, then)
    assert modal.cloud.living() == []


@EXAMPLES
@given(first=_secret_inputs, then=_secret_inputs)
def test_a_secret(modal: FakeModal, first: dict[str, Any], then: dict[str, Any]) -> None:
    settles(Life(modal, Secret), first, then)
    assert len(modal.cloud.secrets) == 6


@EXAMPLES
@given(first=_volume_inputs, then=_volume_inputs)
def test_a_volume(modal: FakeModal, first: dict[str, Any], then: dict[str, Any]) -> None:
    settles(Life(modal, Volume), first, then)
    assert len(modal.cloud.volumes) == 4
