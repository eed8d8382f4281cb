"""A wrong router file or keys file ends in one error that names the field, what was found and what is allowed."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

from handlers.router import config, files, haproxy
from handlers.router.errors import RouterError
from tests.unit.test_router_render import parsed, router_file

MISSING = object()


def changed(path: str, value: object) -> dict[str, Any]:
    """A good file with one place changed: "targets.0.url"."""
    whole = copy.deepcopy(router_file())
    at: Any = whole
    *parents, last = path.split(".")
    for part in parents:
        at = at[int(part)] if isinstance(at, list) else at[part]
    if value is MISSING:
        del at[last]
    else:
        at[int(last) if isinstance(at, list) else last] = value
    return whole


TARGET = router_file()["targets"][0]

WRONG = [
    ("version", 2, "version is 2; allowed: a whole number from 1 to 1"),
    ("version", True, "version is true"),
    ("version", MISSING, "version is missing"),
    ("listn", {}, 'listn is not a known field (did you mean "listen"?)'),
    ("listen", "127.0.0.1:8100", 'listen is "127.0.0.1:8100", not a JSON object'),
    ("listen.host", "localhost", "listen.host"),
    ("listen.host", 5, "listen.host is 5"),
    ("listen.port", 0, "listen.port is 0; allowed: a whole number from 1 to 65535"),
    ("listen.port", 65536, "listen.port is 65536"),
    ("listen.port", "8100", 'listen.port is "8100"'),
    ("listen.port", 8102, "metrics.port is 8102, which is also listen.port"),
    ("listen.prot", 1, 'listen.prot is not a known field (did you mean "port"?)'),
    ("metrics.host", "0.0.0.0", "loopback"),
    ("clientKeysSha256", [], "clientKeysSha256 is []; allowed: a list with at least one item"),
    ("clientKeysSha256", ["sk-plain-key"], "clientKeysSha256[0]"),
    ("clientKeysSha256", ["AB" * 32], "64 lower-case hex digits"),
    ("clientKeysSha256", ["ab" * 32, "ab" * 32], "clientKeysSha256[1]"),
    ("baseModel", "exaone", "baseModel"),
    ("baseModel", "exaone-3.5-2.4", 'did you mean "exaone-3.5-2.4b"?'),
    ("models", [], "models is []"),
    ("models", {}, "models is {}"),
    ("models.1.name", "easy contract", "models[1].name"),
    ("models.1.name", "a'b", "models[1].name"),
    ("models.1.name", "한글", "models[1].name"),
    ("models.1.name", "a\nb", "models[1].name"),
    ("models.1.name", "exaone-3.5-2.4b", "names must differ"),
    ("models.1.digest", None, "models[1].digest is not a known field"),
    ("models.1.rank", 8, "models[1].rank is not a known field"),
    ("targets", [], "targets is []"),
    ("targets.0", "server", 'targets[0] is "server"'),
    ("targets.0.name", "a b", "targets[0].name"),
    ("targets.0.name", "a\n  bind :80", "targets[0].name"),
    ("targets.0.kind", "Local", "targets[0].kind"),
    ("targets.0.url", "ftp://127.0.0.1", "targets[0].url"),
    ("targets.0.url", "127.0.0.1:8101", "targets[0].url"),
    ("targets.0.url", "http://127.0.0.1:8101/v1", "leave /v1 out"),
    ("targets.0.url", "http://127.0.0.1:8101/a b", "targets[0].url"),
    ("targets.0.url", "http://127.0.0.1:8101/a?b=c", "targets[0].url"),
    ("targets.0.url", "http://127.0.0.1:99999", "targets[0].url"),
    ("targets.0.url", "http://user:pw@127.0.0.1:1", "targets[0].url"),
    ("targets.0.url", "http://a b:1", "targets[0].url"),
    ("targets.0.url", "http://[::1:80", "targets[0].url"),
    ("targets.0.url", None, "targets[0].url is null"),
    ("targets.0.models", ["none"], 'targets[0].models[0] is "none", not one of models'),
    ("targets.0.models", ["exaone-3.5-2.4b"], "which no target serves"),
    ("targets.0.healthPath", "ready", "targets[0].healthPath"),
    ("targets.0.healthPath", "/ready x", "a path such as /ready"),
    ("targets.0.statusPath", "", 'targets[0].statusPath is ""; allowed: a path such as /lorafleet/state, or null'),
    ("targets.0.statusPath", "/a\r\nx-b: c", "targets[0].statusPath"),
    ("targets.0.statusPath", 5, "targets[0].statusPath is 5"),
    ("targets.0.statuspath", "/a", 'did you mean "statusPath"?'),
    ("targets.0.maxInFlight", 0, "targets[0].maxInFlight is 0"),
    ("targets.0.maxQueue", -1, "targets[0].maxQueue is -1"),
    ("targets.0.maxQueue", 1.5, "targets[0].maxQueue is 1.5"),
    ("targets.0.maxQueu", 1, 'did you mean "maxQueue"?'),
    ("targets", [TARGET, TARGET], "targets[1].name"),
    ("keysFile", "keys.json", "keysFile"),
    ("limits.maxBodyKib", 5000, "limits.maxBodyKib is 5000; allowed: a whole number from 1 to 4096"),
    ("limits.maxTokens", None, "limits.maxTokens is null"),
    ("limits.queueTimeoutS", 0, "limits.queueTimeoutS"),
    ("limits.responseTimeoutS", 10**6, "limits.responseTimeoutS"),
    ("runDir", "run", "runDir"),
    ("runDir", "/a\nb", "runDir"),
    ("stateFile", "", "stateFile"),
]


@pytest.mark.parametrize(("path", "value", "expected"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_field_is_named(path: str, value: object, expected: str) -> None:
    with pytest.raises(RouterError) as error:
        parsed(changed(path, value))
    assert expected in error.value.what
    assert error.value.what.startswith("router.json: ")
    assert "\n" not in error.value.what and error.value.next_step


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"version": 1, "version": 1}']
)
def test_what_is_no_json_object_is_refused(content: bytes) -> None:
    with pytest.raises(RouterError, match=r"router\.json: "):
        config.parse(content, "router.json")


def test_good_file_is_read() -> None:
    router = parsed(router_file())
    assert (router.listen.port, router.targets[0].port, router.targets[0].tls) == (8100, 8101, False)
    assert len(router.digest) == 64
    assert router.targets[0].status_path == "/lorafleet/state"


@pytest.mark.parametrize("value", [None, MISSING])
def test_a_target_need_not_have_a_status_path(value: object) -> None:
    assert parsed(changed("targets.0.statusPath", value)).targets[0].status_path is None


@pytest.mark.parametrize(
    ("url", "address", "authority"),
    [
        ("http://127.0.0.1:8101", "127.0.0.1", "127.0.0.1:8101"),
        ("http://far.example.com", "far.example.com", "far.example.com"),
        ("https://far.example.com:443", "far.example.com", "far.example.com"),
        ("https://far.example.com:80", "far.example.com", "far.example.com:80"),
        ("http://[::1]:8101", "[::1]", "[::1]:8101"),
        ("https://[::1]", "[::1]", "[::1]"),
    ],
)
def test_address_and_host_header_of_a_target(url: str, address: str, authority: str) -> None:
    target = parsed(changed("targets.0.url", url)).targets[0]
    assert (target.address, target.authority) == (address, authority)


def test_state_file_is_found_in_a_file_that_is_wrong_elsewhere() -> None:
    assert config.state_file_of(b'{"version": 9, "stateFile": "/a/state.json"}') == Path("/a/state.json")
    for content in (b"{", b"[]", b'{"stateFile": 5}', b'{"stateFile": "relative"}'):
        assert config.state_file_of(content) is None


def keys_error(tmp_path: Path, content: str, mode: int = 0o600) -> RouterError:
    path = tmp_path / "keys.json"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(RouterError) as error:
        config.load_access(parsed(changed("keysFile", str(path))))
    assert "sk-secret" not in str(error.value)
    return error.value


def test_wrong_keys_files_are_told_without_a_key(tmp_path: Path) -> None:
    good = '{"server": "sk-secret"}'
    assert "chmod 600" in keys_error(tmp_path, good, 0o644).next_step
    assert 'did you mean "server"?' in keys_error(tmp_path, '{"serve": "sk-secret"}').what
    for content in ('{"server": "sk-secret two"}', '{"server": "sk-secret\\n"}', '{"server": ""}', '{"server": 5}'):
        assert 'the key of "server"' in keys_error(tmp_path, content).what
    assert "is not JSON" in keys_error(tmp_path, '{"server": sk-secret}').what
    assert "not a JSON object" in keys_error(tmp_path, '["sk-secret"]').what
    with pytest.raises(RouterError, match="cannot be read"):
        config.load_access(parsed(changed("keysFile", str(tmp_path / "none.json"))))


def test_good_keys_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text('{"server": "sk-secret"}')
    path.chmod(0o600)
    assert config.load_access(parsed(changed("keysFile", str(path)))) == {"server": config.Access("sk-secret")}
    assert config.load_access(parsed(router_file())) == {}


def test_a_platforms_own_headers_stand_beside_the_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text('{"server": {"key": null, "headers": {"Modal-Key": "wk-1"}}}')
    path.chmod(0o600)
    found = config.load_access(parsed(changed("keysFile", str(path))))
    assert found == {"server": config.Access(None, {"modal-key": "wk-1"})}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"key": "sk-secret", "header": {}}, "the entry"),
        ({"key": "sk-secret", "headers": ["a"]}, "the entry"),
        ({"key": "sk-secret\n"}, "the key"),
        ({"headers": {"Authorization": "sk-secret"}}, "a header's name"),
        ({"headers": {"x-lorafleet-session": "sk-secret"}}, "a header's name"),
        ({"headers": {"a b": "sk-secret"}}, "a header's name"),
        ({"headers": {"a": "sk-secret two"}}, "a header's value"),
        ({"headers": {"a": 5}}, "a header's value"),
    ],
)
def test_wrong_headers_are_told_without_their_values(tmp_path: Path, entry: object, expected: str) -> None:
    assert f'{expected} of "server"' in keys_error(tmp_path, json.dumps({"server": entry})).what


@pytest.mark.parametrize(
    ("url", "prefix"),
    [("http://a.example", ""), ("http://a.example/", ""), ("https://a.example/v2/x1/openai/", "/v2/x1/openai")],
)
def test_what_stands_before_v1(url: str, prefix: str) -> None:
    assert parsed(changed("targets.0.url", url)).targets[0].prefix == prefix


def test_a_target_that_must_not_be_asked() -> None:
    assert parsed(changed("targets.0.healthPath", None)).targets[0].health_path is None
    with pytest.raises(RouterError, match="healthPath is missing"):
        parsed(changed("targets.0.healthPath", MISSING))


def test_missing_haproxy_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(haproxy, "_MORE_PLACES", str(tmp_path))
    with pytest.raises(RouterError) as error:
        haproxy.find()
    assert error.value.next_step == "apt-get install haproxy"


@pytest.mark.parametrize("said", ["HAProxy version 2.4.1 2022", "something else"])
def test_old_haproxy_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str) -> None:
    program = tmp_path / "haproxy"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(RouterError, match=r"2\.6 or newer"):
        haproxy.find()


def test_state_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RouterError, match="stateFile"):
        files.State(tmp_path / "file" / "state.json").set("starting", "")


def test_run_dir_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RouterError, match="runDir"):
        files.prepare_run_dir(tmp_path / "file" / "run")


def test_half_written_generation_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RouterError, match="runDir"):
        files.write_generation(tmp_path, 1, {"a": "x", "no/such": "y"})
    assert list(tmp_path.iterdir()) == []


def test_state_file_shape(tmp_path: Path) -> None:
    state = files.State(tmp_path / "deep" / "state.json")
    state.set("failed", "did not start", RouterError("what", "next"))
    value = json.loads(state.path.read_text())
    keys = ["version", "phase", "detail", "error", "pid", "haproxyPid", "updatedAt", "configDigest", "refusedDigest"]
    assert list(value) == keys
    assert value["error"] == {"what": "what", "next": "next"}
    assert [path.name for path in state.path.parent.iterdir()] == ["state.json"]
