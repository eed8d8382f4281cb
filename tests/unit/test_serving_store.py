"""handlers.serving.store and fetch: content is whole, checked and independent of its source, or not there at all."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from handlers.serving import fetch, sources
from handlers.serving.config import AdapterSpec, Manifest, Weights
from handlers.serving.errors import ServingError, StopRequestedError
from handlers.serving.store import Store
from tests.unit.serving_kit import make_adapter, make_model


def new_store(root: Path) -> Store:
    store = Store(root, lambda line: None)
    store.prepare()
    return store


def adapter_at(folder: Path, digest: str, rank: int = 8) -> AdapterSpec:
    return AdapterSpec("easycontract", f"file://{folder}", None, digest, rank)


def left_over(store: Path) -> list[str]:
    return sorted(path.name for path in store.iterdir())


def test_an_adapter_is_copied_and_later_edits_change_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    spec = adapter_at(source, make_adapter(source))
    content = new_store(tmp_path / "store").get(spec, sources.ADAPTER)
    assert content.folder.name == str(spec.digest).removeprefix("sha256:")
    before = (content.folder / "adapter_model.safetensors").read_bytes()
    make_adapter(source, b"\x09")
    assert (content.folder / "adapter_model.safetensors").read_bytes() == before
    assert left_over(tmp_path / "store") == [content.folder.name]


def test_a_second_start_uses_the_copy_even_when_the_source_is_gone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    spec = adapter_at(source, make_adapter(source))
    new_store(tmp_path / "store").get(spec, sources.ADAPTER)
    source.rename(tmp_path / "elsewhere")
    content = new_store(tmp_path / "store").get(spec, sources.ADAPTER)
    assert content.digest == spec.digest


def test_an_altered_copy_is_fetched_again(tmp_path: Path) -> None:
    source = tmp_path / "source"
    spec = adapter_at(source, make_adapter(source))
    first = new_store(tmp_path / "store").get(spec, sources.ADAPTER)
    (first.folder / "adapter_model.safetensors").write_bytes(b"rotten")
    second = new_store(tmp_path / "store").get(spec, sources.ADAPTER)
    assert (second.folder / "adapter_model.safetensors").read_bytes() != b"rotten"


def test_a_wrong_digest_leaves_nothing(tmp_path: Path) -> None:
    make_adapter(tmp_path / "source")
    spec = adapter_at(tmp_path / "source", "sha256:" + "0" * 64)
    with pytest.raises(ServingError, match="not sha256:000") as caught:
        new_store(tmp_path / "store").get(spec, sources.ADAPTER)
    assert "declare the new digest" in caught.value.next_step
    assert left_over(tmp_path / "store") == []


def test_what_an_ended_launcher_left_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / f".{'a' * 64}.999999999.partial").mkdir(parents=True)
    (store / f".{'b' * 64}.1.partial").mkdir()
    new_store(store)
    assert left_over(store) == [f".{'b' * 64}.1.partial"]


def test_a_model_on_this_machine_is_used_in_place_and_checked(tmp_path: Path) -> None:
    digest = make_model(tmp_path / "base")
    store = new_store(tmp_path / "store")
    good = Weights("base", f"file://{tmp_path}/base", None, digest)
    assert store.get(good, sources.MODEL).folder == tmp_path / "base"
    bad = Weights("base", f"file://{tmp_path}/base", None, "sha256:" + "0" * 64)
    with pytest.raises(ServingError, match="have the digest"):
        store.get(bad, sources.MODEL)


def break_pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def break_config(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def break_all(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [(break_pickle, "as a pickle"), (break_config, "lacks adapter_config.json"), (break_all, "is not a folder")],
)
def test_sources_that_cannot_be_served(tmp_path: Path, damage: Callable[[Path], None], expected: str) -> None:
    spec = adapter_at(tmp_path / "source", make_adapter(tmp_path / "source"))
    damage(tmp_path / "source")
    with pytest.raises(ServingError, match=expected):
        new_store(tmp_path / "store").get(spec, sources.ADAPTER)
    assert left_over(tmp_path / "store") == []


def test_a_pickled_model_is_refused(tmp_path: Path) -> None:
    make_model(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    spec = Weights("base", f"file://{tmp_path}", None, "sha256:" + "0" * 64)
    with pytest.raises(ServingError, match=r"as a pickle \(pytorch_model.bin\)"):
        new_store(tmp_path / "store").get(spec, sources.MODEL)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"r": 16}, "r = 16, but the manifest says rank 8"),
        ({"modules_to_save": ["lm_head"]}, "has modules_to_save"),
        ({"use_dora": True}, "DoRA"),
    ],
)
def test_adapters_that_vllm_cannot_serve(tmp_path: Path, config: dict[str, Any], expected: str) -> None:
    spec = adapter_at(tmp_path / "source", make_adapter(tmp_path / "source", **config))
    with pytest.raises(ServingError, match=expected):
        fetch.fetch_adapter(spec, new_store(tmp_path / "store"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x80\x02}q\x00.", "not a safetensors file"),
        (b"", "not a safetensors file"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00[]", "not a safetensors file"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{}and more", "cut off or has bytes too many"),
    ],
)
def test_a_file_that_only_has_the_name_of_safetensors(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ServingError, match=expected):
        fetch.check_safetensors("x", path)


def test_two_names_with_the_same_content_are_fetched_side_by_side(tmp_path: Path) -> None:
    base = Weights("base", f"file://{tmp_path}/base", None, make_model(tmp_path / "base"))
    digest = make_adapter(tmp_path / "one")
    make_adapter(tmp_path / "two")
    names = [("a", "one"), ("b", "two"), ("c", "one")]
    specs = tuple(AdapterSpec(name, f"file://{tmp_path}/{folder}", None, digest, 8) for name, folder in names)
    found = fetch.fetch_all(Manifest(base, specs, "x"), new_store(tmp_path / "store"), threading.Event())
    assert {adapter.folder for adapter in found.adapters} == {tmp_path / "store" / digest[7:]}
    assert left_over(tmp_path / "store") == [digest[7:]]


def test_everything_is_fetched_and_named(tmp_path: Path) -> None:
    base = Weights("base", f"file://{tmp_path}/base", None, make_model(tmp_path / "base"))
    one = adapter_at(tmp_path / "one", make_adapter(tmp_path / "one"))
    found = fetch.fetch_all(Manifest(base, (one,), "x"), new_store(tmp_path / "store"), threading.Event())
    assert found.base.folder == tmp_path / "base"
    assert found.adapters[0].served_name == f"easycontract@sha256-{str(one.digest)[7:23]}"


def test_a_stop_ends_the_fetching(tmp_path: Path) -> None:
    base = Weights("base", f"file://{tmp_path}/base", None, make_model(tmp_path / "base"))
    stop = threading.Event()
    stop.set()
    with pytest.raises(StopRequestedError):
        fetch.fetch_all(Manifest(base, (), "x"), new_store(tmp_path / "store"), stop)
