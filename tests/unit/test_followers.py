"""What servers write to the store, judged against a manifest. Nothing that they write is trusted."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorafleet.manifest import digest_of, document
from providers import kit
from providers.artifacts.followers import Followers, Verdict
from providers.artifacts.store import open_store

BASE = {"name": "base", "source": "file:///base", "revision": None, "digest": f"sha256:{'0' * 64}"}
OLD, NEW = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"


def manifest(digest: str) -> dict[str, Any]:
    return document(store="file:///s", base_model=BASE, adapters={"a": digest}, canaries={}, elsewhere={})


def status(**changes: Any) -> dict[str, Any]:
    """A server that runs and serves NEW, changed."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "version": 2,
        "phase": "ready",
        "updatedAt": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "heartbeatS": 2,
        "baseModel": {"name": "base", "revision": None, "digest": BASE["digest"]},
        "manifestDigest": digest_of(manifest(NEW)),
        "manifest": {"digest": digest_of(manifest(NEW)), "state": "serving", "since": "", "error": None},
        "adapters": [{"name": "a", "digest": NEW, "wanted": NEW, "state": "serving", "error": None}],
        **changes,
    }


def refusal(reason: str) -> dict[str, Any]:
    error = {"reason": "probe_failed", "what": reason, "next": "", "retrying": False}
    return {
        "manifestDigest": digest_of(manifest(OLD)),
        "manifest": {"digest": digest_of(manifest(NEW)), "state": "refused", "error": error},
        "adapters": [{"name": "a", "digest": OLD, "wanted": NEW, "state": "failed", "error": error}],
    }


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., list[Verdict]]:
    def looked(**servers: object) -> list[Verdict]:
        for name, written in servers.items():
            file = tmp_path / "status" / "test" / name / "0.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(written if isinstance(written, str) else json.dumps(written))
            if isinstance(written, dict) and "age" in written:
                then = time.time() - float(written["age"])
                os.utime(file, (then, then))
        return Followers(open_store(f"file://{tmp_path}"), "test", manifest(NEW)).look()

    return looked


def test_one_that_serves_it_follows(look: Callable[..., list[Verdict]]) -> None:
    assert look(one=status(), two=status()) == [Verdict("one/0", "follows"), Verdict("two/0", "follows")]


def test_no_server_is_no_verdict(look: Callable[..., list[Verdict]]) -> None:
    assert look() == []


@pytest.mark.parametrize(
    "gone",
    [
        {"phase": "fetching"},
        {"phase": "loading"},  # with this release
        {"phase": "failed"},
        {"phase": "draining"},
        {"age": 3600},
        {"heartbeatS": "often"},
        {"baseModel": {"name": "another", "revision": None, "digest": BASE["digest"]}},
        {"baseModel": []},
    ],
)
def test_who_does_not_run_is_not_asked(look: Callable[..., list[Verdict]], gone: dict[str, Any]) -> None:
    assert look(server=status(**gone)) == []


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '"text"', "{}", "\x00"])
def test_nonsense_is_not_taken_for_a_server(look: Callable[..., list[Verdict]], text: str) -> None:
    assert look(server=text) == []


def test_one_that_has_not_looked_yet_is_waited_for(look: Callable[..., list[Verdict]]) -> None:
    old = digest_of(manifest(OLD))
    [verdict] = look(server=status(manifestDigest=old, manifest={"digest": old, "state": "serving"}))
    assert verdict.state == "pending"


def test_one_that_tries_again_is_waited_for_and_says_why(look: Callable[..., list[Verdict]]) -> None:
    trying = refusal("the bucket does not answer")
    trying["manifest"]["state"] = "following"
    [verdict] = look(server=status(**trying))
    assert verdict.state == "pending"
    assert "the bucket does not answer" in verdict.about


def test_one_that_starts_with_another_release_is_waited_for(look: Callable[..., list[Verdict]]) -> None:
    """It is about to be ready with the former release, and may refuse this one."""
    old = digest_of(manifest(OLD))
    [verdict] = look(
        server=status(phase="loading", manifestDigest=None, manifest={"digest": old, "state": "following"})
    )
    assert verdict.state == "pending"


def test_clocks_may_differ(look: Callable[..., list[Verdict]], tmp_path: Path) -> None:
    """A server whose clock is an hour behind is asked all the same; so is one that speaks while this looks on."""
    behind = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)).isoformat()
    [verdict] = look(server=status(**refusal("bad"), updatedAt=behind))
    assert verdict.failed
    followers = Followers(open_store(f"file://{tmp_path}"), "test", manifest(NEW))
    look(server=status(**refusal("bad"), updatedAt="1", age=600))
    assert [each.state for each in followers.look()] == ["silent"]
    look(server=status(**refusal("bad"), updatedAt="2", age=600))
    assert [each.state for each in followers.look()] == ["failed"]


def test_a_refusal_that_was_forgiven_counts_again_when_it_is_new(
    look: Callable[..., list[Verdict]], tmp_path: Path
) -> None:
    def refused(since: str) -> dict[str, Any]:
        word = refusal("bad")
        word["manifest"]["since"] = since
        return status(**word)

    followers = Followers(open_store(f"file://{tmp_path}"), "test", manifest(NEW))
    look(server=refused("1"))
    followers.forgive(followers.look())
    [verdict] = followers.look()
    assert verdict.state == "pending"
    assert "it has not tried again yet" in verdict.about
    look(server=refused("2"))
    assert [each.state for each in followers.look()] == ["failed"]


def test_the_canary_that_fails_is_named(look: Callable[..., list[Verdict]]) -> None:
    word = refusal("bad")
    canary = f"sha256:{'c' * 64}"
    word["adapters"] = [{**word["adapters"][0], "error": {**word["adapters"][0]["error"], "digest": canary}}]
    [verdict] = look(server=status(**word))
    assert canary[:19] in verdict.about


def test_one_that_refuses_has_failed_and_says_why(look: Callable[..., list[Verdict]]) -> None:
    [verdict] = look(server=status(**refusal("it answers\ngarbage")))
    assert verdict.failed
    assert verdict.about == f"server/0: a {NEW[:19]}…: it answers garbage"


@pytest.mark.parametrize("adapters", [None, "x", [None], [{"state": "failed"}], [{"state": "failed", "error": "x"}]])
def test_a_refusal_with_a_strange_list_of_adapters(look: Callable[..., list[Verdict]], adapters: Any) -> None:
    [verdict] = look(server=status(**(refusal("bad") | {"adapters": adapters})))
    assert verdict.failed


def test_one_that_fell_silent_gets_a_heartbeat_to_come_back(look: Callable[..., list[Verdict]], tmp_path: Path) -> None:
    """The store may have been away, and the server with it; it is not a failure if it never comes back."""
    old = digest_of(manifest(OLD))
    stale = status(age=60, heartbeatS=0.1, manifestDigest=old, manifest={"digest": old, "state": "serving"})
    [verdict] = look(server=stale)
    assert verdict.state == "silent"
    assert not verdict.failed

    async def run(back: bool) -> list[Verdict]:
        followers = Followers(open_store(f"file://{tmp_path}"), "test", manifest(NEW))
        waiting = asyncio.create_task(followers.settle(kit.Context("urn", "manifest"), 30))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        if back:
            look(server=status())
        return await waiting

    assert [each.state for each in asyncio.run(run(back=False))] == ["silent"]
    assert [each.state for each in asyncio.run(run(back=True))] == ["follows"]


def test_settling_ends_when_the_last_one_follows(look: Callable[..., list[Verdict]], tmp_path: Path) -> None:
    old = digest_of(manifest(OLD))
    look(server=status(manifestDigest=old, manifest={"digest": old, "state": "serving"}))
    told: list[str] = []

    async def say(message: str, _severity: str) -> None:
        told.append(message)

    async def run() -> list[Verdict]:
        followers = Followers(open_store(f"file://{tmp_path}"), "test", manifest(NEW))
        waiting = asyncio.create_task(followers.settle(kit.Context("urn", "manifest", say=say), 30))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        look(server=status())
        return await waiting

    assert asyncio.run(run()) == [Verdict("server/0", "follows")]
    assert any("server/0" in message for message in told)


def test_settling_ends_at_its_time_limit(look: Callable[..., list[Verdict]], tmp_path: Path) -> None:
    old = digest_of(manifest(OLD))
    look(server=status(manifestDigest=old, manifest={"digest": old, "state": "serving"}))
    followers = Followers(open_store(f"file://{tmp_path}"), "test", manifest(NEW))
    begun = time.monotonic()
    [verdict] = asyncio.run(followers.settle(kit.Context("urn", "manifest"), 0.5))
    assert verdict.failed
    assert "not within 0.5 s" in verdict.about
    assert time.monotonic() - begun < 20
