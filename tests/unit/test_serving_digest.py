"""handlers.serving.digest: the content digest is the one that sha256sum and sort give."""

import json
import subprocess
from pathlib import Path

import pytest

from handlers.serving import digest
from tests.unit.serving_kit import make_adapter, make_model

ROOT = Path(__file__).resolve().parents[2]


def by_hand(folder: Path, files: list[str]) -> str:
    line = 'sha256sum "$@" | LC_ALL=C sort -k2 | sha256sum'
    done = subprocess.run(["sh", "-c", line, "sh", *files], cwd=folder, capture_output=True, text=True, check=True)
    return "sha256:" + done.stdout.split()[0]


def test_adapter_digest_is_what_the_shell_gives(tmp_path: Path) -> None:
    found = make_adapter(tmp_path)
    (tmp_path / "README.md").write_text("not part of it")
    assert (
        digest.of_adapter(tmp_path) == found == by_hand(tmp_path, ["adapter_model.safetensors", "adapter_config.json"])
    )


def test_model_digest_takes_its_files_only(tmp_path: Path) -> None:
    found = make_model(tmp_path)
    (tmp_path / "original").mkdir()
    (tmp_path / "original" / "model.safetensors").write_bytes(b"a folder is not looked into")
    names = ["config.json", "model.safetensors", "tokenizer.json"]
    assert digest.model_files(tmp_path) == names
    assert digest.of_model(tmp_path) == found == by_hand(tmp_path, names)


def test_one_byte_changes_it(tmp_path: Path) -> None:
    first = make_adapter(tmp_path, b"\x01")
    assert make_adapter(tmp_path, b"\x02") != first


def test_served_name() -> None:
    assert digest.served_name("easycontract", "sha256:" + "ab" * 32) == "easycontract@sha256-abababababababab"


def test_demo_digests_are_those_on_record() -> None:
    record = ROOT / "demo" / "digests.json"
    if not record.exists():
        pytest.skip("the demo model is not there")
    known = json.loads(record.read_text())
    assert digest.of_model(ROOT / "demo" / "base") == known["base"]
    for name, expected in known["adapters"].items():
        assert digest.of_adapter(ROOT / "demo" / "adapters" / name) == expected


def test_an_unreadable_file_is_an_error_not_another_digest(tmp_path: Path) -> None:
    make_adapter(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(OSError, match=r"adapter_config\.json"):
        digest.of_adapter(tmp_path)
