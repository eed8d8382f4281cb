"""Releases through the real engine: the manifest is one resource, running servers follow it, none is replaced."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.support.stack_project import StackProject, command_line, descendants, kill, wait_for

NAMES = ("easycontract", "checklist")


def release(project: StackProject, version: str, *names: str) -> None:
    """Pins the version ("adapters" or "adapters-v2") of these adapters, of all without names."""
    pins = {name: project.digests[version, name] for name in names or NAMES}
    project.change(lambda fleet: fleet["release"]["adapters"].update(pins))


def status(project: StackProject) -> dict[str, Any]:
    """What the server wrote to the store."""
    found: dict[str, Any] = json.loads((project.store / "status" / "local" / "server" / "0.json").read_text())
    return found


def served(project: StackProject) -> dict[str, str]:
    return {each["name"]: each["digest"] for each in status(project)["adapters"]}


def releases(project: StackProject) -> list[dict[str, Any]]:
    """The records of the environment's history, oldest first."""
    return [json.loads(p.read_text()) for p in sorted((project.store / "releases" / "local").glob("*.json"))]


def test_a_release_is_an_update_of_one_resource(project: StackProject) -> None:
    project.up().ok()
    [server] = project.leaders()
    assert [each["release"]["adapters"] for each in releases(project)] == [
        {name: project.digests["adapters", name] for name in sorted(NAMES)}
    ]
    release(project, "adapters-v2", "easycontract")
    preview = project.preview("--diff").ok().output
    old, new = project.digests["adapters", "easycontract"], project.digests["adapters-v2", "easycontract"]
    assert re.search(rf'~ easycontract: "{old}" => "{new}"', preview), preview
    assert "~ 1 to update" in preview
    assert "7 unchanged" in preview
    assert "replace" not in preview
    assert "checklist" not in preview.split("--outputs")[0], "what does not change is not spoken of"

    project.up().ok()
    assert served(project) == {"easycontract": new, "checklist": project.digests["adapters", "checklist"]}
    [still] = project.leaders()
    assert still.identity == server.identity, "no server was restarted"
    assert project.output("targets")["server"]["adapters"]["easycontract"] == f"easycontract@sha256-{new[7:23]}"
    project.up("--expect-no-changes").ok()
    project.refresh("--expect-no-changes").ok()
    assert len(releases(project)) == 2

    release(project, "adapters")  # and back
    project.up().ok()
    assert served(project)["easycontract"] == old
    assert [each["release"]["adapters"]["easycontract"] for each in releases(project)] == [old, new, old]


def test_a_refused_release_is_told_and_the_old_one_goes_on(project: StackProject) -> None:
    project.up().ok()
    bad = project.digests["adapters-v2", "checklist"]
    project.behave(refuse=bad)
    release(project, "adapters-v2")
    ended = project.up()
    assert ended.code != 0
    assert "server/0: checklist" in ended.output
    assert "it answers garbage (stand-in)" in ended.output
    assert "lorafleet release rollback local" in ended.output
    assert "Traceback" not in ended.output
    old = {name: project.digests["adapters", name] for name in NAMES}
    assert served(project) == old

    refreshed = project.refresh().ok().output
    assert "it answers garbage (stand-in)" in refreshed
    again = project.up()  # nothing was changed, and it is still not served
    assert again.code != 0
    assert "it answers garbage (stand-in)" in again.output
    project.behave()  # what was wrong is put right: `up` makes the server try once more
    project.up().ok()
    assert served(project) == {name: project.digests["adapters-v2", name] for name in NAMES}

    project.behave(refuse=bad)
    release(project, "adapters")
    project.up().ok()
    assert served(project) == old
    assert "garbage" not in project.refresh("--expect-no-changes").ok().output


def test_a_server_that_does_not_follow_in_time_is_named(project: StackProject) -> None:
    project.change(lambda fleet: fleet.update(rollout={"timeoutS": 5}))
    project.up().ok()
    project.behave(deaf=True)
    release(project, "adapters-v2")
    ended = project.up()
    assert ended.code != 0
    assert "server/0: not within 5 s" in ended.output
    project.behave()
    project.up().ok()
    assert served(project)["checklist"] == project.digests["adapters-v2", "checklist"]


def test_a_server_that_is_gone_is_not_waited_for(project: StackProject) -> None:
    """Its status lies in the store still; it starts again with what the manifest says then."""
    project.up().ok()
    project.kill_everything()
    wait_for(lambda: not project.processes(), 5, "all to be gone")
    release(project, "adapters-v2")
    project.up().ok()
    new = {name: project.digests["adapters-v2", name] for name in NAMES}
    wait_for(lambda: served(project) == new, 5, "the new server's word")


def test_a_version_that_the_store_lacks_is_refused_at_the_preview(project: StackProject) -> None:
    missing = f"sha256:{'7' * 64}"
    project.change(lambda fleet: fleet["release"]["adapters"].update(easycontract=missing))
    ended = project.preview()
    assert ended.code != 0
    assert "Pulumi.local.yaml:" in ended.output
    assert "the store does not have this version of easycontract" in ended.output
    assert "lorafleet adapter push FOLDER --name easycontract" in ended.output


def test_a_manifest_that_was_changed_or_removed_is_put_right(project: StackProject) -> None:
    project.up().ok()
    file = project.store / "manifests" / "local.json"
    good = file.read_bytes()
    changed = json.loads(good)
    changed["adapters"] = changed["adapters"][:1]
    file.write_text(json.dumps(changed))
    preview = project.preview("--diff").ok().output
    assert "1 to update" in preview
    assert "+ easycontract" in preview
    project.up().ok()
    assert file.read_bytes() == good

    for damage in ("{ this is not JSON", None):
        file.write_text(damage) if damage else file.unlink()
        assert "1 to update" in project.preview().ok().output, damage
        project.up().ok()
        assert file.read_bytes() == good, damage


def test_a_canary_is_an_update_of_the_manifest_alone(project: StackProject) -> None:
    project.up().ok()
    new = project.digests["adapters-v2", "easycontract"]
    canary = {"easycontract": {"digest": new, "weight": 25}}
    project.change(lambda fleet: fleet["release"].update(canaries=canary))
    assert "~ 1 to update" in project.preview().ok().output
    project.up().ok()
    [entry] = [each for each in project.manifest()["adapters"] if each["name"] == "easycontract"]
    assert entry["canary"]["digest"] == new
    assert entry["canary"]["weight"] == 25
    assert entry["digest"] == project.digests["adapters", "easycontract"]
    project.up("--expect-no-changes").ok()
    project.refresh("--expect-no-changes").ok()


@pytest.mark.parametrize("whole", [False, True], ids=["the plugin", "the whole up"])
def test_kill_in_the_middle_of_a_release(project: StackProject, whole: bool) -> None:
    """After the manifest was written and before the server serves it: the next `up` sees it through."""
    project.up().ok()
    [server] = project.leaders()
    project.behave(followS=3)
    release(project, "adapters-v2")
    new = {name: project.digests["adapters-v2", name] for name in NAMES}
    running = project.start("up", "--yes", "--skip-preview")
    wait_for(lambda: {each["name"]: each["digest"] for each in project.manifest()["adapters"]} == new, 60, "the write")
    for pid in reversed(descendants(running.pid)):
        if whole or ("providers" in command_line(pid) and "python" in command_line(pid)):
            kill(pid)
    running.communicate(timeout=60)
    if whole:
        project.recover()
    project.up().ok()
    assert served(project) == new
    assert [each.identity for each in project.leaders()] == [server.identity]
    assert len(releases(project)) == 2
    project.up("--expect-no-changes").ok()
