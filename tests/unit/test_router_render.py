"""The router's HAProxy configuration, against golden files; `UPDATE_GOLDEN=1` writes them anew."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from handlers.router import config, names, render
from handlers.router.config import Access

GOLDEN = Path(__file__).parent / "golden" / "router"


def router_file() -> dict[str, Any]:
    """A good router file: one local target, the base and two adapters."""
    models = ["exaone-3.5-2.4b", "easycontract", "checklist"]
    return {
        "version": 1,
        "listen": {"host": "127.0.0.1", "port": 8100},
        "metrics": {"host": "127.0.0.1", "port": 8102},
        "clientKeysSha256": ["ab" * 32],
        "baseModel": "exaone-3.5-2.4b",
        "models": [{"name": name} for name in models],
        "targets": [
            {
                "name": "server",
                "kind": "local",
                "url": "http://127.0.0.1:8101",
                "models": models,
                "healthPath": "/ready",
                "statusPath": "/lorafleet/state",
                "maxInFlight": 32,
                "maxQueue": 64,
            }
        ],
        "keysFile": None,
        "limits": {"maxBodyKib": 512, "maxTokens": 4096, "queueTimeoutS": 30, "responseTimeoutS": 600},
        "runDir": "/run/router",
        "stateFile": "/run/router.json",
    }


def several_targets() -> dict[str, Any]:
    """Two targets, one of them far away over TLS; names that must be encoded; an IPv6 address."""
    value = router_file()
    value["listen"]["host"] = "::1"
    value["models"].append({"name": "Team_A/review@v2"})
    value["targets"][0]["models"] = value["targets"][0]["models"][:2]
    far = {"name": "far_away.1", "kind": "vm", "url": "https://far.example.com", "statusPath": None}
    value["targets"].append(
        {**value["targets"][0], **far, "models": ["exaone-3.5-2.4b", "checklist", "Team_A/review@v2"], "maxQueue": 0}
    )
    return value


def scaled_to_zero() -> dict[str, Any]:
    """A local target, and one on a platform that must not be asked, wants a header and has a path before /v1."""
    value = router_file()
    far = {"name": "burst", "kind": "runpod-queue", "url": "https://api.example.com/v2/abc/openai"}
    value["targets"].append({**value["targets"][0], **far, "healthPath": None, "statusPath": None})
    return value


def parsed(value: dict[str, Any]) -> config.RouterFile:
    return config.parse(json.dumps(value).encode(), "router.json")


@pytest.mark.parametrize(
    ("name", "value", "keys"),
    [
        ("one", router_file(), {}),
        ("several", several_targets(), {"far_away.1": Access("sk-far"), "server": Access("sk-server")}),
        (
            "unasked",
            scaled_to_zero(),
            {
                "burst": Access("rp-key", {"modal-key": "wk-1", "modal-secret": "ws-1"}),
                "server": Access(None, {"a": "b"}),
            },
        ),
    ],
)
def test_files_are_as_in_the_golden_folder(name: str, value: dict[str, Any], keys: dict[str, Access]) -> None:
    files = render.render(parsed(value), keys)
    folder = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for file, text in files.items():
            (folder / file).write_bytes(text.encode())
    golden = {path.name: path.read_bytes().decode() for path in folder.iterdir()}
    assert files == golden


def test_the_same_file_gives_the_same_text() -> None:
    assert render.render(parsed(router_file()), {}) == render.render(parsed(router_file()), {})


def test_settings_that_must_be_there() -> None:
    text = render.render(parsed(several_targets()), {})[render.CONFIG_FILE]
    for wanted in ("option http-no-delay", "option abortonclose", "noreuseport", "wait-for-body", "error-limit 1"):
        assert wanted in text
    for retry_on in [line for line in text.splitlines() if "retry-on" in line]:
        # Each of these would make an answer a second time while the first is still being made.
        assert not {"response-timeout", "all-retryable-errors", "500", "502", "504"} & set(retry_on.split())


def test_a_target_key_stands_in_one_file_only() -> None:
    files = render.render(parsed(several_targets()), {"server": Access("sk-very-secret")})
    assert [name for name, text in files.items() if "sk-very-secret" in text] == ["target-keys.map"]


def test_buffer_holds_the_largest_body() -> None:
    value = router_file()
    value["limits"]["maxBodyKib"] = 4096
    text = render.render(parsed(value), {})[render.CONFIG_FILE]
    assert f"tune.bufsize {(4096 + 64) * 1024}" in text


@pytest.mark.parametrize("name", ["exaone-3.5-2.4b", "a_b", "a/b", "Team_A/review@v2", "a:b", "_5f", "한글", ""])
def test_encoded_names_go_back(name: str) -> None:
    encoded = names.encode(name)
    assert names.decode(encoded) == name
    assert set(encoded) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")


@pytest.mark.parametrize("text", ["a_", "a_5", "a_zz", "a/b", "a_5F"])
def test_what_was_never_encoded_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="encoded name"):
        names.decode(text)


def test_two_names_never_become_one() -> None:
    alike = ["a_b", "a/b", "a@b", "a:b", "a.b", "a-b", "a_5fb", "A_b"]
    assert len({names.model_backend(name) for name in alike}) == len(alike)
