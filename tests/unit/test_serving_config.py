"""handlers.serving.config: what a launch file may hold, and the errors when it does not."""

import json
from pathlib import Path
from typing import Any

import pytest

from handlers.serving import config
from handlers.serving.__main__ import main
from handlers.serving.errors import ServingError
from tests.unit.serving_kit import HEX, MISSING, launch

BAD: list[tuple[str, Any, str, str]] = [
    ("version", 1, "version is 1", "version 2"),
    ("version", MISSING, "version is missing", "docs/architecture.md"),
    ("port", "8101", 'port is "8101"', "from 1 to 65535"),
    ("port", True, "port is true", "whole number"),
    ("port", 70000, "port is 70000", "from 1 to 65535"),
    ("host", "", 'host is ""', "a text"),
    ("apiKeySha256", ["secret"], 'apiKeySha256[0] is "secret"', "64 hex digits"),
    ("apiKeySha256", HEX, "apiKeySha256 is", "a list"),
    ("startTimeoutS", 0, "startTimeoutS is 0", "from 1 to 86400"),
    ("drainTimeoutS", "30", 'drainTimeoutS is "30"', "seconds"),
    ("statefile", "/x", "statefile is not a known key", "did you mean stateFile?"),
    ("engine", [], "engine is []", "give an object"),
    ("engine.device", "tpu", 'engine.device is "tpu"', "one of auto, cpu, cuda"),
    ("engine.dtype", "int8", 'engine.dtype is "int8"', "float16"),
    ("engine.maxModelLen", 1.5, "engine.maxModelLen is 1.5", "whole number"),
    ("engine.maxNumSeqs", 0, "engine.maxNumSeqs is 0", "from 1"),
    ("engine.kvCacheMib", -1, "engine.kvCacheMib is -1", "from 1"),
    ("engine.maxLoraRank", 1024, "engine.maxLoraRank is 1024", "to 512"),
    ("engine.maxLoraRanks", 8, "engine.maxLoraRanks is not a known key", "did you mean maxLoraRank?"),
    ("engine.extraArgs", "--x", "engine.extraArgs is", "a list"),
    ("engine.extraArgs", ["--api-key", "k"], "--api-key", "take it out"),
    ("engine.extraArgs", ["--served_model_name=x"], "--served-model-name", "take it out"),
    ("manifest", {}, "manifest is not a known key", "known are version, store"),
    ("store", "/abs/folder", 'store is "/abs/folder"', "file:///abs/folder"),
    ("store", "file:///", 'store is "file:///"', "no slash at the end"),
    ("store", "gs://bucket/", "store is", "no slash at the end"),
    ("store", "s3://bucket", "store is", "gs://bucket"),
    ("environment", "a/b", 'environment is "a/b"', "up to 128 letters"),
    ("target", "", 'target is ""', "up to 128 letters"),
    ("target", "..", 'target is ".."', "up to 128 letters"),
    ("replica", 0, "replica is 0", "or null"),
    ("cache", "cache", 'cache is "cache"', "absolute path"),
    ("baseModel", None, "baseModel is null", "give an object"),
    ("baseModel.name", "Exaone 3.5", "baseModel.name is", "lower-case letters"),
    ("baseModel.digest", None, "baseModel.digest is missing", "content digest"),
]


@pytest.mark.parametrize(("path", "value", "what", "step"), BAD, ids=lambda item: str(item)[:40])
def test_each_bad_value_gives_one_error_that_names_the_field(path: str, value: Any, what: str, step: str) -> None:
    with pytest.raises(ServingError) as caught:
        config.parse(launch(path, value))
    assert what in caught.value.what
    assert step in caught.value.next_step


def test_a_good_file_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "launch.json"
    file.write_text(json.dumps(launch()))
    found = config.load(file)
    assert found.port == 8101
    assert (found.store, found.environment, found.target, found.replica) == (
        "gs://bucket/prefix",
        "local",
        "server",
        "0",
    )
    assert found.base.name == "exaone-3.5-2.4b"
    assert found.cache == Path("/var/cache")
    assert found.engine.kv_cache_mib == 128
    assert found.drain_timeout_s == 30.0


def test_null_means_the_engines_own_choice() -> None:
    assert config.parse(launch("engine.maxModelLen", None)).engine.max_model_len is None
    assert config.parse(launch("engine.kvCacheMib", None)).engine.kv_cache_mib is None


def test_an_hf_base_needs_no_digest() -> None:
    document = launch("baseModel.source", "hf://LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct")
    document["baseModel"] |= {"revision": "e" * 40, "digest": None}
    assert config.parse(document).base.revision == "e" * 40


def test_a_replica_without_a_name_is_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "node 7/б.example")
    assert config.parse(launch("replica", None)).replica == "node-7--.example"


@pytest.mark.parametrize(
    ("content", "expected"), [(None, "cannot be read"), ("{", "is not JSON"), ("[]", "not an object")]
)
def test_a_file_that_is_no_launch_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, expected: str
) -> None:
    file = tmp_path / "launch.json"
    if content is not None:
        file.write_text(content)
    assert main(["--config", str(file)]) == 2
    told = capsys.readouterr().err
    assert expected in told
    assert "Traceback" not in told


def test_the_state_file_tells_of_a_launch_file_that_is_refused(tmp_path: Path) -> None:
    file, state = tmp_path / "launch.json", tmp_path / "state.json"
    document = launch("engine.device", "tpu") | {"stateFile": str(state)}
    file.write_text(json.dumps(document))
    assert main(["--config", str(file)]) == 2
    assert json.loads(state.read_text())["error"]["what"] == 'engine.device is "tpu"'
