"""Modal's parts that need no platform: marks, the declaration, the prices."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from lorafleet.gpus import find
from lorafleet.prices import cheapest, load_book
from lorafleet.targets import Site, spec_of
from providers.modal import marks, spec

IMAGE = f"europe-west4-docker.pkg.dev:443/a-project/{'long-' * 20}name/serving@sha256:{'0123456789abcdef' * 4}"


def test_the_image_comes_back_from_the_tags_whatever_its_length() -> None:
    for image in (IMAGE, IMAGE.replace("long-", ""), f"a/b@sha256:{'f' * 64}"):
        tags = marks.tags("urn:pulumi:dev::serving::x::spill", image, "registry")
        assert marks.image(tags) == image
        assert marks.registry_secret(tags) == "registry"
        for text in (*tags, *tags.values()):
            assert 0 < len(text) <= 63
            assert all(c.isascii() and (c.isalnum() or c in "._-") for c in text)
    assert marks.image({}) is None
    assert marks.registry_secret({}) == ""


def test_names_keep_their_nonce_and_fit() -> None:
    for name in ("key-0123abcd", f"{'a' * 50}-0123abcd", "0123abcd"):
        full = marks.full_name("urn:one", name)
        assert full.startswith(marks.prefix("urn:one"))
        assert full.endswith("0123abcd")
        assert len(full) <= 63
    assert marks.prefix("urn:one") != marks.prefix("urn:two")


@pytest.mark.parametrize("wrong", ["", "main", "/name", "main/", "a/b/c"])
def test_an_id_that_is_none_is_refused_with_an_example(wrong: str) -> None:
    with pytest.raises(Exception, match="give ENVIRONMENT/NAME"):
        marks.parse_id(wrong)


def site(target: str = "spill", environment: str = "dev") -> Site:
    return Site(Path("/nowhere"), environment, target, None)


def declared(**more: object) -> spec.ModalTarget:
    return spec.ModalTarget.model_validate({"kind": "modal", "gpus": ["L4"], **more})


def test_a_plain_declaration_is_enough() -> None:
    assert spec_of("modal") is spec.ModalTarget
    plain = declared()
    assert list(plain.problems(site())) == []
    assert plain.min_containers == 0, "nothing must be paid for while nobody asks"
    assert plain.app_name("dev", "spill") == "lorafleet-dev-spill"
    assert plain.proxy_auth, "nobody else must be able to start what is paid for"
    assert set(plain.stack_secrets()) == {"modalProxyTokenId", "modalProxyTokenSecret"}
    assert declared(proxyAuth=False).stack_secrets() == {}


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"minContainers": 3}, ("minContainers",)),
        ({"engine": {"device": "cpu"}}, ("engine", "device")),
        ({"gpus": ["T4"], "engine": {"dtype": "bfloat16"}}, ("engine", "dtype")),
    ],
)
def test_what_can_be_seen_here_is_refused_here(more: dict[str, object], field: tuple[str, ...]) -> None:
    [(where, problem)] = declared(**more).problems(site())
    assert where == field
    assert problem.allowed
    assert problem.next_action


def test_a_name_that_modal_would_not_take_is_refused() -> None:
    [(where, _)] = declared().problems(site("t" * 40, "e" * 40))
    assert where == ("app",)
    assert list(declared(app="short").problems(site("t" * 40, "e" * 40))) == []


@pytest.mark.parametrize("gpus", [[], ["L5"], ["l4"], "L4"])
def test_a_gpu_that_modal_does_not_have_is_refused(gpus: object) -> None:
    with pytest.raises(ValidationError):
        declared(gpus=gpus)


def test_every_gpu_is_known_and_has_a_price() -> None:
    book = load_book("modal")
    for name in spec.GPUS:
        assert cheapest(book, gpu=name).name == name
        assert find(name).servable
