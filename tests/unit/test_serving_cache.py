"""handlers.serving.cache, fetch and check: content is whole, checked and independent of its source, or not there."""

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from handlers.serving import check, fetch, sources
from handlers.serving.cache import Cache
from handlers.serving.errors import ServingError, StopRequestedError
from handlers.serving.manifest import Version, Weights
from tests.unit.serving_kit import make_adapter, make_model, safetensors_bytes


def new_cache(root: Path) -> Cache:
    cache = Cache(root, lambda line: None)
    cache.prepare()
    return cache


def adapter_at(folder: Path, digest: str, name: str = "easycontract") -> Version:
    return Version(name, f"file://{folder}", None, digest)


def nothing() -> None:
    pass


def left_over(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


def test_an_adapter_is_copied_and_later_edits_change_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    spec = adapter_at(source, make_adapter(source))
    content = new_cache(tmp_path / "cache").get(spec, sources.ADAPTER)
    assert content.folder.name == str(spec.digest).removeprefix("sha256:")
    before = (content.folder / "adapter_model.safetensors").read_bytes()
    make_adapter(source, b"\x09")
    assert (content.folder / "adapter_model.safetensors").read_bytes() == before
    assert left_over(tmp_path / "cache") == [content.folder.name]


def test_a_second_start_uses_the_copy_even_when_the_source_is_gone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    spec = adapter_at(source, make_adapter(source))
    new_cache(tmp_path / "cache").get(spec, sources.ADAPTER)
    source.rename(tmp_path / "elsewhere")
    content = new_cache(tmp_path / "cache").get(spec, sources.ADAPTER)
    assert content.digest == spec.digest


def test_an_altered_copy_is_fetched_again(tmp_path: Path) -> None:
    source = tmp_path / "source"
    spec = adapter_at(source, make_adapter(source))
    first = new_cache(tmp_path / "cache").get(spec, sources.ADAPTER)
    (first.folder / "adapter_model.safetensors").write_bytes(b"rotten")
    second = new_cache(tmp_path / "cache").get(spec, sources.ADAPTER)
    assert (second.folder / "adapter_model.safetensors").read_bytes() != b"rotten"


def test_a_wrong_digest_leaves_nothing(tmp_path: Path) -> None:
    make_adapter(tmp_path / "source")
    spec = adapter_at(tmp_path / "source", "sha256:" + "0" * 64)
    with pytest.raises(ServingError, match="not sha256:000") as caught:
        new_cache(tmp_path / "cache").get(spec, sources.ADAPTER)
    assert "declare the new digest" in caught.value.next_step
    assert left_over(tmp_path / "cache") == []


def test_what_an_ended_launcher_left_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / f".{'a' * 64}.999999999.partial").mkdir(parents=True)
    (cache / f".{'b' * 64}.1.partial").mkdir()
    new_cache(cache)
    assert left_over(cache) == [f".{'b' * 64}.1.partial"]


def test_a_model_on_this_machine_is_used_in_place_and_checked(tmp_path: Path) -> None:
    digest = make_model(tmp_path / "base")
    cache = new_cache(tmp_path / "cache")
    good = Weights("base", f"file://{tmp_path}/base", None, digest)
    assert cache.get(good, sources.MODEL).folder == tmp_path / "base"
    bad = Weights("base", f"file://{tmp_path}/base", None, "sha256:" + "0" * 64)
    with pytest.raises(ServingError, match="have the digest"):
        cache.get(bad, sources.MODEL)


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
        new_cache(tmp_path / "cache").get(spec, sources.ADAPTER)
    assert left_over(tmp_path / "cache") == []


def test_a_pickled_model_is_refused(tmp_path: Path) -> None:
    make_model(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    spec = Weights("base", f"file://{tmp_path}", None, "sha256:" + "0" * 64)
    with pytest.raises(ServingError, match=r"as a pickle \(pytorch_model.bin\)"):
        new_cache(tmp_path / "cache").get(spec, sources.MODEL)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"r": 32}, "r = 32, above this server's engine.maxLoraRank 16"),
        ({"r": None}, "r = None"),
        ({"r": True}, "r = True"),
        ({"r": 0}, "r = 0"),
        ({"lora_alpha": 1e39}, "lora_alpha = 1e"),
        ({"lora_alpha": float("nan")}, "lora_alpha = nan"),
        ({"lora_alpha": "16"}, "lora_alpha = '16'"),
        ({"modules_to_save": ["lm_head"]}, "has modules_to_save"),
        ({"use_dora": True}, "DoRA"),
    ],
)
def test_adapters_that_vllm_cannot_serve(tmp_path: Path, config: dict[str, Any], expected: str) -> None:
    spec = adapter_at(tmp_path / "source", make_adapter(tmp_path / "source", **config))
    with pytest.raises(ServingError, match=expected):
        fetch.fetch_adapter(spec, new_cache(tmp_path / "cache"), 16)


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
        check.check_safetensors("x", path)


@pytest.mark.parametrize(
    ("fill", "dtype", "good"),
    [
        (struct.pack("<f", -0.5), "F32", True),
        (struct.pack("<f", 65504), "F32", True),
        (struct.pack("<f", -65600), "F32", False),
        (struct.pack("<f", float("nan")), "F32", False),
        (struct.pack("<f", float("-inf")), "F32", False),
        (struct.pack("<e", 0.25), "F16", True),
        (b"\x00\x7c", "F16", False),  # infinite
        (b"\x80\x3f", "BF16", True),  # 1.0
        (b"\xc0\x7f", "BF16", False),  # NaN
        (struct.pack("<d", float("nan")), "F64", False),
        (b"\xff", "U8", True),
    ],
)
def test_weights_that_are_no_numbers(tmp_path: Path, fill: bytes, dtype: str, good: bool) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(safetensors_bytes(fill, dtype))
    header = check.check_safetensors("x", path)
    if good:
        check.check_weights("x", path, *header)
    else:
        with pytest.raises(ServingError, match="NaN, infinite or huge"):
            check.check_weights("x", path, *header)


def test_what_alpha_makes_huge(tmp_path: Path) -> None:
    make_adapter(tmp_path, lora_alpha=800)
    (tmp_path / "adapter_model.safetensors").write_bytes(safetensors_bytes(struct.pack("<f", 700), "F32"))
    with pytest.raises(ServingError, match=r"above 655\.04"):
        check.check_adapter("x", tmp_path, 16)


def test_half_a_number(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(safetensors_bytes(b"\x00", "F64"))
    with pytest.raises(ServingError, match="half a number"):
        check.check_weights("x", path, *check.check_safetensors("x", path))


def test_two_names_with_the_same_content_are_fetched_side_by_side(tmp_path: Path) -> None:
    digest = make_adapter(tmp_path / "one")
    make_adapter(tmp_path / "two")
    names = [("a", "one"), ("b", "two"), ("c", "one")]
    versions = [adapter_at(tmp_path / folder, digest, name) for name, folder in names]
    found = fetch.fetch_all(None, versions, new_cache(tmp_path / "cache"), 16, nothing)
    assert {adapter.folder for adapter in found.adapters} == {tmp_path / "cache" / digest[7:]}
    assert left_over(tmp_path / "cache") == [digest[7:]]


def test_everything_is_fetched_and_each_fault_is_told(tmp_path: Path) -> None:
    base = Weights("base", f"file://{tmp_path}/base", None, make_model(tmp_path / "base"))
    good = adapter_at(tmp_path / "one", make_adapter(tmp_path / "one"))
    wrong = adapter_at(tmp_path / "one", "sha256:" + "0" * 64, "wrong")
    gone = adapter_at(tmp_path / "gone", "sha256:" + "1" * 64, "gone")
    found = fetch.fetch_all(base, [wrong, good, gone], new_cache(tmp_path / "cache"), 16, nothing)
    assert found.base is not None
    assert found.base.folder == tmp_path / "base"
    assert [(adapter.served_name, adapter.rank) for adapter in found.adapters] == [
        (f"easycontract@sha256-{good.digest[7:23]}", 8)
    ]
    assert [(version.name, error.reason) for version, error in found.errors] == [
        ("wrong", "digest_differs"),
        ("gone", "fetch_failed"),
    ]


def test_a_stop_ends_the_fetching(tmp_path: Path) -> None:
    def stop() -> None:
        raise StopRequestedError

    with pytest.raises(StopRequestedError):
        fetch.fetch_all(None, [], new_cache(tmp_path / "cache"), 16, stop)


# another server with the same cache: holds what it is told until its input ends
HOLDER = """
import sys
from pathlib import Path
from handlers.serving.cache import Cache
cache = Cache(Path(sys.argv[1]).parent, print)
print(cache.hold(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def test_a_sweep_leaves_what_is_needed_and_what_another_server_uses(tmp_path: Path) -> None:
    cache = new_cache(tmp_path / "cache")
    folders = []
    for name in ("a", "b", "c"):
        digest = make_adapter(tmp_path / name, name.encode())
        folders.append(cache.get(adapter_at(tmp_path / name, digest), sources.ADAPTER).folder)
    model = tmp_path / "cache" / ("d" * 64)
    make_model(model)
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folders[1])], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"True\n"
        assert cache.sweep(lambda: {folders[0]}) == [folders[2].name]
        assert left_over(tmp_path / "cache") == sorted([folders[0].name, folders[1].name, model.name])
        other.kill()
    assert cache.sweep(lambda: {folders[0]}) == [folders[1].name]
    # what was swept is fetched again
    spec = adapter_at(tmp_path / "c", "sha256:" + folders[2].name)
    assert cache.get(spec, sources.ADAPTER).folder == folders[2]
