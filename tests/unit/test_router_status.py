"""What the router makes of targets' words: read without trust, told as Prometheus' text."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from handlers.router import metrics, status
from handlers.router.metrics import Seen

GOLDEN = Path(__file__).parent / "golden" / "router" / "fleet.prom"
OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
LABEL = r'[a-z_]+="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"(lorafleet_[a-z_]+)\{{({LABEL}(?:,{LABEL})*)\}} (\d+(?:\.\d+)?)")


def adapter(name: str, **changed: Any) -> dict[str, Any]:
    whole = {"name": name, "servedName": f"{name}@sha256-{'a' * 16}", "digest": OLD, "wanted": OLD, "canary": None}
    return whole | {"state": "serving", "since": "2026-01-01T00:00:00.500Z", "error": None} | changed


def document() -> dict[str, Any]:
    """A server in the middle of a release that one adapter holds up."""
    error = {"what": 'digest of "x"\n is \\wrong', "next": "-", "reason": "digest_differs", "retrying": False}
    refused = {"what": "easycontract: digest differs", "next": "-", "reason": "digest_differs", "retrying": False}
    canary = {"servedName": "checklist@sha256-b", "digest": NEW, "weight": 10}
    return {
        "inFlight": {"exaone-3.5-2.4b": 2, "easycontract@sha256-aaaaaaaaaaaaaaaa": 0},
        "done": {"exaone-3.5-2.4b": 5},
        "status": {
            "version": 2,
            "phase": "ready",
            "updatedAt": "2026-01-01T00:00:01.000Z",
            "heartbeatS": 2,
            "manifestDigest": "1" * 64,
            "manifest": {"digest": "2" * 64, "state": "refused", "since": "2026-01-01T00:00:00Z", "error": refused},
            "adapters": [
                adapter("checklist", state="waiting", canary=canary),
                adapter("easycontract", wanted=NEW, state="failed", error=error),
            ],
            "draining": [],
        },
    }


def read(value: object) -> status.Status:
    return status.read(json.dumps(value).encode())


def samples(text: str) -> dict[str, float]:
    """`name{labels}` -> value; the text must be as Prometheus wants it, with each name's lines side by side."""
    found: dict[str, float] = {}
    name, families = "", []
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split()[2]
            families.append(name)
        elif line.startswith("#"):
            assert line == f"# TYPE {name} gauge"
        else:
            match = SAMPLE.fullmatch(line)
            assert match is not None and match[1] == name, line
            assert f"{name}{{{match[2]}}}" not in found, line
            found[f"{name}{{{match[2]}}}"] = float(match[3])
    assert len(families) == len(set(families))
    assert text == "" or text.endswith("\n")
    return found


def test_text_is_as_in_the_golden_file() -> None:
    seen = [
        Seen("server", True, 0.25, read(document())),
        Seen("silent", False, 12.0, None),
        Seen("never-up", False, None, None),
    ]
    text = metrics.text(seen)
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
    assert len(samples(text)) == 17


def test_no_targets_no_text() -> None:
    assert metrics.text([]) == ""


@pytest.mark.parametrize(
    ("changed", "healthy"),
    [
        ({}, True),
        ({"state": "loading", "wanted": NEW}, True),
        ({"state": "loading", "wanted": NEW, "error": {"reason": "fetch_failed", "what": "x"}}, False),
        ({"state": "serving", "error": {"reason": "fetch_failed", "what": "x"}}, True),
        ({"state": "failed"}, False),
        ({"state": "waiting", "digest": None, "error": "unexpected words"}, False),
    ],
)
def test_health_of_an_adapter(changed: dict[str, Any], healthy: bool) -> None:
    value = document()
    value["status"]["adapters"] = [adapter("easycontract", **changed)]
    [found] = read(value).adapters
    assert found.healthy is healthy


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


ODD: list[Any] = [
    None,
    True,
    -1,
    10**400,
    0.5,
    "",
    "x" * 5000,
    'a\nb\x00\ud800"}\\',
    [],
    [[]],
    {},
    {"": None},
    ["a"],
    {"a": 1},
]


@pytest.mark.parametrize("odd", ODD, ids=lambda value: str(type(value).__name__))
def test_a_wrong_value_anywhere_leaves_a_valid_text(odd: Any) -> None:
    paths = [path for path in places(document()) if path]
    assert len(paths) > 40
    for path in paths:
        value = document()
        at: Any = value
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = odd
        if path == ("status",) and not isinstance(odd, dict):
            with pytest.raises(ValueError, match="status"):
                read(value)
            continue
        text = metrics.text([Seen("server", True, 0.0, read(value))])
        assert 1 <= len(samples(text)) <= 17, path
        assert max(map(len, text.splitlines())) < 600
        text.encode()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[" * 100_000, b"[]", b"null", b'{"status": [1]}', b"1" * 9999]
)
def test_what_is_no_status_is_said_without_its_content(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it (is not JSON|has no object under the key \"status\")$"):
        status.read(content)


def test_no_target_can_make_many_series() -> None:
    value = document()
    value["status"]["adapters"] = [adapter(f"a{i}") for i in range(5000)] + [
        adapter("a1"),
        adapter("한글"),
        adapter(""),
    ]
    value["inFlight"] = {f"a{i}": 1 for i in range(5000)}
    found = read(value)
    assert (len(found.adapters), len(found.in_flight)) == (status.MOST_ADAPTERS, status.MOST_SERVED_NAMES)


def test_long_message_is_one_short_line() -> None:
    value = document()
    value["status"]["adapters"][1]["error"]["what"] = "first\r\n\tsecond " + "묵시 " * 500
    fault = read(value).adapters[1].fault
    assert fault is not None
    assert fault.message.startswith("first second 묵시 ") and fault.message.endswith("…")
    assert len(fault.message) == status.MESSAGE_LENGTH


@pytest.mark.parametrize(
    ("since", "unix"),
    [
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T00:01:00.25", 60.25),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("soon", None),
        ("99999-01-01T00:00:00Z", None),
    ],
)
def test_since(since: str, unix: float | None) -> None:
    value = document()
    value["status"]["adapters"] = [adapter("a", since=since)]
    assert read(value).adapters[0].since == unix
