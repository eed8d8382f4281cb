"""Promotion and rollback on a store in a folder: what is written, what is refused, and that nothing else happens."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorafleet.cli import main
from lorafleet.errors import LorafleetError
from lorafleet.release import document, pins
from providers.artifacts import holds, layout
from providers.artifacts.release_promotion import promotion
from providers.artifacts.release_records import history
from providers.artifacts.release_rollback import rollback
from tests.unit.release_kit import ROOT, V1, V2, Releases, second_versions


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return second_versions(tmp_path_factory.mktemp("made") / "project").root


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Releases:
    """A project of its own for each test: `second` serves the first versions, `local` the second ones."""
    shutil.copytree(made, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Releases(tmp_path / "project")


def changed(before: str, after: str) -> list[tuple[str, str]]:
    old, new = before.splitlines(), after.splitlines()
    assert len(old) == len(new)
    return [pair for pair in zip(old, new, strict=True) if pair[0] != pair[1]]


def as_written(file: Path) -> tuple[int, int, bytes]:
    status = file.stat()
    return status.st_ino, status.st_mtime_ns, file.read_bytes()


def test_promotion_of_local_to_a_second_environment_is_a_diff_of_two_lines(project: Releases) -> None:
    before = project.text("second")
    code, out, _ = project.run("promote", "local", "second")
    assert code == 0
    assert changed(before, project.text("second")) == [
        (f"        {name}: {V1[name]}", f"        {name}: {V2[name]}") for name in ("easycontract", "checklist")
    ]
    lines = out.splitlines()
    assert [line for line in lines if line.startswith("-") and not line.startswith("---")] == [
        f"-        {name}: {V1[name]}" for name in ("easycontract", "checklist")
    ]
    assert lines[0] == "--- a/stacks/Pulumi.second.yaml" and "\x1b" not in out
    assert lines[-1] == "next: pulumi up --stack second"


def test_rollback_gives_the_same_bytes(project: Releases) -> None:
    project.replace("second", "      adapters:\n        easy", "      # our two\n      adapters: # two\n        easy")
    before = project.file("second").read_bytes()
    assert project.run("promote", "local", "second")[0] == 0
    project.up("second")
    code, out, _ = project.run("rollback", "second")
    assert code == 0 and out.splitlines()[-1] == "next: pulumi up --stack second"
    assert project.file("second").read_bytes() == before
    project.up("second")
    assert project.run("rollback", "second")[0] == 0  # and forth again
    assert project.fleet("second").release.adapters == V2
    assert project.run("rollback", "second")[0] == 0
    assert project.file("second").read_bytes() == before


def test_rollback_before_the_promotion_was_brought_out(project: Releases) -> None:
    before = project.file("second").read_bytes()
    project.run("promote", "local", "second")
    assert project.run("rollback", "second")[0] == 0
    assert project.file("second").read_bytes() == before


def test_rollback_after_an_adapter_was_added_by_the_promotion(project: Releases) -> None:
    """The former block has the same bytes, though it has another number of lines, CRLF and comments of its own."""
    crlf = project.text("second").replace("\n", "\r\n")
    crlf = crlf.replace("        easycontract: sha", "        # plain words\r\n        easycontract: sha")
    one = [line for line in crlf.split("\r\n") if "checklist" not in line and "list of things" not in line]
    project.file("second").write_bytes("\r\n".join(one).encode())
    project.up("second")
    former = document.read(project.root, "second").block_text
    assert "# plain words\r\n" in former and "checklist" not in former
    code, _, err = project.run("promote", "local", "second")
    assert code == 1 and "Add `checklist: {}` under `adapters` in stacks/Pulumi.second.yaml" in err
    project.replace("second", "    adapters:\r\n      easy", "    adapters:\r\n      checklist: {}\r\n      easy")
    assert project.run("promote", "local", "second")[0] == 0
    assert project.fleet("second").release.adapters == V2
    project.up("second")
    before = project.file("second").read_bytes()
    code, _, err = project.run("rollback", "second")  # the file declares an adapter that was not pinned then
    assert code == 1 and "the release does not pin the adapter checklist" in err
    assert project.file("second").read_bytes() == before
    project.replace("second", "      checklist: {}\r\n", "")
    assert project.run("rollback", "second")[0] == 0
    assert document.read(project.root, "second").block_text == former


def test_rollback_after_an_adapter_was_taken_away_by_the_promotion(project: Releases) -> None:
    """Its line and its comment come back, which no record of values could know."""
    folder = str(ROOT / "demo" / "adapters" / "easycontract")
    assert main(["adapter", "push", folder, "--name", "tone"]) == 0
    project.replace("second", "    adapters:\n      easy", "    adapters:\n      tone: {}\n      easy")
    pins_of_tone = f"        # polite\n        'tone':   '{V1['easycontract']}' # since May\n\n        # plain words\n"
    project.replace("second", "        easycontract: sha", f"{pins_of_tone}        easycontract: sha")
    project.up("second")
    former = project.file("second").read_bytes()
    project.replace("second", "      tone: {}\n", "")
    code, out, _ = project.run("promote", "local", "second")
    assert code == 0 and "tone" not in project.text("second") and "# polite" not in project.text("second")
    project.up("second")
    code, _, err = project.run("rollback", "second")
    assert code == 1 and "the release pins an adapter that is not declared" in err
    project.replace("second", "    adapters:\n      easy", "    adapters:\n      tone: {}\n      easy")
    code, out, _ = project.run("rollback", "second")
    assert code == 0 and "+        # polite" in out
    assert project.file("second").read_bytes() == former


@pytest.mark.parametrize("tampered", ["other digests", "more than a block", "no YAML", "no UTF-8"])
def test_a_kept_block_that_is_not_the_release_is_not_used(project: Releases, tampered: str) -> None:
    project.run("promote", "local", "second")
    store = project.store("second")
    (block,) = store.list("blocks/second/")
    text = document.read(project.root, "second").block_text
    data = {
        "other digests": text.encode(),
        "more than a block": text.replace(V2["checklist"], V1["checklist"]).encode() + b"\n    sneaked: in",
        "no YAML": b"release: {",
        "no UTF-8": b"release: \xff",
    }[tampered]
    store.write(block.path, data)
    assert project.run("rollback", "second")[0] == 0
    assert project.fleet("second").release.adapters == V1 and "sneaked" not in project.text("second")


def test_rollback_to_a_named_record(project: Releases) -> None:
    project.pin("local", easycontract=V1["easycontract"])
    project.up("local")
    records = history(project.store(), "local").records
    assert [record.release["adapters"] for record in records] == [
        {"checklist": V2["checklist"], "easycontract": V1["easycontract"]},
        V2,
        V1,
    ]
    assert rollback(project.root, "local").release["adapters"] == V2
    assert rollback(project.root, "local", to=records[2].id).release["adapters"] == V1
    assert rollback(project.root, "local", to=records[2].digest[:8]).release["adapters"] == V1
    for wrong, what in (("2099", "no such record"), ("2", "several records"), ("", "several records")):
        with pytest.raises(LorafleetError, match=what) as caught:
            rollback(project.root, "local", to=wrong)
        assert records[0].id in caught.value.allowed or records[1].id in caught.value.allowed


def test_a_broken_record_is_left_out(project: Releases) -> None:
    store = project.store()
    for name, data in (("20990101T000000.000000Z-aaaaaaaaaaaa", b"{"), ("20990101T000000.000001Z-bbbbbbbbbbbb", b"[]")):
        store.write(f"{layout.releases('local')}{name}.json", data)
    assert rollback(project.root, "local").release["adapters"] == V1
    assert "can't be read" in project.run("history", "local")[1]


def test_rollback_passes_over_releases_that_failed(project: Releases) -> None:
    """A release that no server took over is in the history too: it is nothing to go back to."""
    project.up("second")
    for versions in (V2, {**V2, "easycontract": V1["easycontract"]}):
        project.pin("second", **versions)
        project.up("second", served=False)
    code, out, _ = project.run("rollback", "second", "--dry-run")
    assert code == 0
    failed = next(each for each in history(project.store(), "second").records if each.release["adapters"] == V2)
    assert f"{failed.id} is passed over: no server of second has served it" in out
    assert rollback(project.root, "second").release["adapters"] == V1
    assert rollback(project.root, "second", to=failed.id).release["adapters"] == V2, "unless it is asked for by name"


def test_no_history(project: Releases) -> None:
    store = project.store()
    for entry in list(store.list(layout.releases("second"))):
        store.delete(entry.path)
    with pytest.raises(LorafleetError, match="no other release"):
        rollback(project.root, "second")
    assert project.run("history", "second")[1].startswith("second has no history")


def test_rollback_is_refused_for_what_is_missing_or_held(project: Releases) -> None:
    store = project.store()
    for entry in list(store.list(f"{layout.adapter('checklist', V1['checklist'])}/")):
        store.delete(entry.path)
    holds.hold(store, "easycontract", V1["easycontract"], "it is rude")
    before = project.file("local").read_bytes()
    code, out, err = project.run("rollback", "local")
    assert (code, out) == (1, "")
    assert "for 2 reasons" in err and "has no version" in err and "held back: it is rude" in err
    code, _, err = project.run("rollback", "local", "--force", "a calm afternoon")
    assert code == 1 and "for this reason" in err and "has no version" in err
    assert project.file("local").read_bytes() == before
    project.push(version=1, name="checklist")
    code, out, _ = project.run("rollback", "local", "--force", "a calm afternoon")
    assert code == 0 and "overridden: " in out and "because:  a calm afternoon" in out


def test_a_second_promotion_has_nothing_to_do(project: Releases) -> None:
    project.run("promote", "local", "second")
    before = as_written(project.file("second"))
    code, out, _ = project.run("promote", "local", "second")
    assert code == 0 and "nothing to do" in out and out.endswith("next: pulumi up --stack second\n")
    assert as_written(project.file("second")) == before


def test_dry_run_writes_nothing(project: Releases) -> None:
    before, stored = as_written(project.file("second")), project.objects()
    code, out, _ = project.run("promote", "local", "second", "--dry-run")
    assert code == 0 and "+        checklist: " in out and "nothing was written" in out
    assert out.endswith("next: lorafleet release promote local second && pulumi up --stack second\n")
    assert as_written(project.file("second")) == before
    assert project.objects() == stored


def test_an_image_is_promoted_too(project: Releases) -> None:
    image_not_out(project)
    project.up("local")
    assert project.run("promote", "local", "second")[0] == 0
    assert "serving@sha256:" + "a" * 64 in project.text("second")
    assert project.fleet("second").release == project.fleet("local").release


def test_only_some_adapters(project: Releases) -> None:
    code, out, _ = project.run("promote", "local", "second", "--only", "checklist", "--json")
    assert code == 0
    assert project.fleet("second").release.adapters == {**V1, "checklist": V2["checklist"]}
    answer = json.loads(out)
    assert answer["changes"] == [{"what": "adapters.checklist", "old": V1["checklist"], "new": V2["checklist"]}]
    assert answer["written"] is True and answer["next"] == "pulumi up --stack second" and answer["overridden"] == []
    code, _, err = project.run("promote", "local", "second", "--only", "checklst")
    assert code == 1 and "Did you mean checklist?" in err


# Refusals: (change of the good state, arguments, what must be said).


def not_up(project: Releases) -> None:
    project.pin("local", checklist=V1["checklist"])


def no_manifest(project: Releases) -> None:
    project.store().delete(layout.manifest("local"))


def broken_manifest(project: Releases) -> None:
    project.store().write(layout.manifest("local"), b'{"adapters": 1}')


def never_served(project: Releases) -> None:
    project.store().delete(layout.served("local", "checklist", V2["checklist"]))


def held(project: Releases) -> None:
    holds.hold(project.store(), "checklist", V2["checklist"], "forgets half the list")


def broken_hold(project: Releases) -> None:
    project.store().write(layout.hold("checklist", V2["checklist"]), b"{")


def missing(project: Releases) -> None:
    project.store().delete(f"{layout.adapter('checklist', V2['checklist'])}/{layout.METADATA}")


def other_store(project: Releases) -> None:
    project.replace("second", "store: file://.lorafleet/store", "store: file://.lorafleet/other")


def canary_of_source(project: Releases) -> None:
    project.replace(
        "local",
        f"checklist: {V2['checklist']}",
        f"checklist: {V2['checklist']}\n      canaries: {{checklist: {{digest: {V1['checklist']}, weight: 5}}}}",
    )
    project.up("local")


def canary_of_target(project: Releases) -> None:
    other = "sha256:" + "7" * 64
    project.replace(
        "second",
        f"checklist: {V1['checklist']}",
        f"checklist: {V1['checklist']}\n      canaries: {{checklist: {{digest: {other}, weight: 5}}}}",
    )


def undeclared(project: Releases) -> None:
    project.replace("second", "      checklist:\n        description: answers with a list of things to do\n", "")
    project.replace("second", f"        checklist: {V1['checklist']}\n", "")


def declared_more(project: Releases) -> None:
    project.replace("second", "    adapters:\n      easy", "    adapters:\n      tone: {}\n      easy")


def image_in_source(project: Releases) -> None:
    image = "registry.example/serving@sha256:" + "a" * 64
    project.replace("local", "      adapters:\n        easy", f"      image: {image}\n      adapters:\n        easy")


def image_in_target(project: Releases) -> None:
    image = "registry.example/serving@sha256:" + "a" * 64
    project.replace("second", "      adapters:\n        easy", f"      image: {image}\n      adapters:\n        easy")


def image_not_out(project: Releases) -> None:
    image_in_target(project)
    project.replace("second", "serving@sha256:" + "a" * 64, "serving@sha256:" + "b" * 64)
    image_in_source(project)


def low_rank(project: Releases) -> None:
    metadata = f"{layout.adapter('checklist', V2['checklist'])}/{layout.METADATA}"
    blob = project.store().read(metadata)
    assert blob is not None
    project.store().write(metadata, json.dumps(json.loads(blob.data) | {"rank": 64}).encode())


def other_base(project: Releases) -> None:
    model = project.root / "model"
    model.mkdir()
    for file in (project.root / "demo" / "base").iterdir():
        (model / file.name).write_bytes(file.read_bytes() + (b" " if file.name == "config.json" else b""))
    project.replace("second", "source: file://demo/base", "source: file://model")


def base_of_hub(project: Releases) -> None:
    project.replace("second", "source: file://demo/base", "source: hf://someone/tiny")


def folder_with_another_content(project: Releases) -> None:
    project.replace(
        "second", "      checklist:\n", "      checklist:\n        source: file://demo/adapters/checklist\n"
    )


def another_hub(project: Releases) -> None:
    more = "        source: hf://someone/checklist\n        rank: 8\n        revision: " + "b" * 40 + "\n"
    project.replace("second", "      checklist:\n", f"      checklist:\n{more}")


def bad_target(project: Releases) -> None:
    project.replace("second", "maxQueue: 64", "maxQueu: 64")


def bad_source(project: Releases) -> None:
    project.replace("local", "maxQueue: 64", "maxQueu: 64")


def anchor(project: Releases) -> None:
    project.replace("second", f"checklist: {V1['checklist']}", f"checklist: &c {V1['checklist']}")


REFUSALS: dict[str, tuple[Callable[[Releases], Any], list[str], list[str]]] = {
    "the file is not served": (
        not_up,
        [],
        ["says another version of checklist than local serves", "pulumi up --stack local"],
    ),
    "nothing is served": (no_manifest, [], ["local serves nothing", "pulumi up --stack local"]),
    "a broken manifest": (broken_manifest, [], ["local serves nothing"]),
    "never served healthy": (never_served, [], ["never served healthy in local", "--force"]),
    "held back": (held, [], ["held back: forgets half the list", "adapter unhold", "--force"]),
    "held, unreadable": (broken_hold, [], ["held back: the note that holds this version back can't be read"]),
    "missing": (
        missing,
        [],
        ["the store of second has no version", "adapter push FOLDER --name checklist --stack local"],
    ),
    "missing, forced": (missing, ["--force", "x"], ["the store of second has no version"]),
    "another store": (
        other_store,
        ["--force", "x"],
        [
            "for 2 reasons",
            "adapter pull checklist@sha256:",
            "--stack local && lorafleet adapter push",
            "/.lorafleet/other",
        ],
    ),
    "a canary runs in the source": (canary_of_source, [], ["local has a canary running for checklist", "--only NAME"]),
    "a canary runs in the target": (canary_of_target, [], ["second has a canary of another version of checklist"]),
    "not declared": (undeclared, [], ["second does not declare the adapter checklist", "Add `checklist: {}`"]),
    "declared, but not there": (declared_more, [], ["second declares the adapter tone, which local does not serve"]),
    "an image in the source alone": (image_in_source, [], ["only local pins an image, second does not"]),
    "an image in the target alone": (image_in_target, [], ["only second pins an image, local does not"]),
    "an image that is not out": (image_not_out, [], ["local says another image than `pulumi up` has brought"]),
    "a rank too high": (low_rank, [], ["has a higher rank than the target server takes", "rank 64"]),
    "another base": (other_base, [], ["the base model of second is not the one that the release pins"]),
    "a base of the hub": (base_of_hub, [], ["second takes another base model than local"]),
    "a folder with another content": (folder_with_another_content, [], ["from a folder that holds another content"]),
    "another place": (another_hub, [], ["second takes checklist from another place than local"]),
    "a mistake in the target's file": (bad_target, [], ["Did you mean `maxQueue`?", "Pulumi.second.yaml"]),
    "a mistake in the source's file": (bad_source, [], ["Did you mean `maxQueue`?", "Pulumi.local.yaml"]),
    "an anchor": (anchor, [], ["anchor"]),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refused(project: Releases, case: str) -> None:
    change, arguments, said = REFUSALS[case]
    change(project)
    before, stored = project.file("second").read_bytes(), project.objects()
    code, out, err = project.run("promote", "local", "second", *arguments)
    assert (code, out) == (1, ""), err
    for text in said:
        assert text in err, err
    assert "Traceback" not in err and "  next:" in err
    assert project.file("second").read_bytes() == before
    assert project.objects() == stored
    code, out, err = project.run("promote", "local", "second", *arguments, "--json")
    assert (code, err) == (1, "")
    answer = json.loads(out)
    assert answer["error"] and all(reason["what"] and reason["next"] for reason in answer["reasons"])


def test_all_reasons_at_once(project: Releases) -> None:
    for change in (declared_more, held, never_served, image_in_source):
        change(project)
    missing(project)
    _, _, err = project.run("promote", "local", "second")
    assert "the promotion of local to second is refused for 6 reasons, nothing was written" in err
    assert err.count("  next:") == 6


def test_other_reasons_do_not_touch_what_is_promoted_alone(project: Releases) -> None:
    for change in (canary_of_source, declared_more, held):
        change(project)
    # `second` is then no valid declaration, as nothing pins `tone`; that is not for a promotion to mend.
    code, _, err = project.run("promote", "local", "second", "--only", "easycontract")
    assert code == 1 and "does not pin the adapter tone" in err
    project.replace("second", "      tone: {}\n", "")
    assert project.run("promote", "local", "second", "--only", "easycontract")[0] == 0
    assert project.fleet("second").release.adapters == {**V1, "easycontract": V2["easycontract"]}


def test_alone_only_on_the_same_base(project: Releases) -> None:
    other_base(project)
    base = "sha256:" + "e" * 64
    now = project.fleet("local").release.base_model.digest
    assert now is not None
    project.replace("second", now, base)
    code, _, err = project.run("promote", "local", "second", "--only", "checklist")
    assert code == 1 and "second serves another base model than local" in err


def test_an_adapter_of_the_hub_in_both(project: Releases) -> None:
    """The store need not have it; that a server has served it is asked for all the same."""
    for environment in ("local", "second"):
        more = "        source: hf://someone/checklist\n        rank: 8\n        revision: " + "b" * 40 + "\n"
        project.replace(environment, "      checklist:\n", f"      checklist:\n{more}")
    missing(project)
    assert project.run("promote", "local", "second", "--dry-run")[0] == 0
    never_served(project)
    assert "for this reason" in project.run("promote", "local", "second")[2]


def test_a_reason_overrides_holds_and_missing_marks_and_is_shown(project: Releases) -> None:
    held(project)
    never_served(project)
    code, out, _ = project.run("promote", "local", "second", "--force", "  approved by K. in #42 ", "--json")
    answer = json.loads(out)
    assert code == 0 and answer["force"] == "approved by K. in #42"
    assert [error["what"].split(" ", 2)[2] for error in answer["overridden"]] == [
        "was never served healthy in local",
        answer["overridden"][1]["what"].split(" ", 2)[2],
    ]
    assert "held back" in answer["overridden"][1]["what"]
    assert project.run("promote", "local", "second", "--force", "  ")[0] == 2


def test_the_canary_of_the_target_ends_when_its_digest_is_promoted(project: Releases) -> None:
    project.replace(
        "second",
        f"checklist: {V1['checklist']}",
        f"checklist: {V1['checklist']}\n      canaries:\n        checklist: {{digest: {V2['checklist']}, weight: 5}}",
    )
    code, out, _ = project.run("promote", "local", "second")
    assert code == 0 and "the canary of checklist in second ends" in out
    assert pins.of(project.fleet("second").release)["adapters"] == V2
    assert "canaries" not in project.text("second").split("release:\n")[-1]


def test_a_store_that_does_not_answer(project: Releases) -> None:
    before = project.file("second").read_bytes()
    folder = project.root / ".lorafleet" / "store" / "holds"
    folder.write_text("not a folder")
    store = project.root / ".lorafleet" / "store"
    moved = store.rename(project.root / "moved")
    store.symlink_to(store)
    code, out, err = project.run("promote", "local", "second")
    assert (code, out) == (1, "") and "can't be used" in err and "  next:" in err
    assert project.file("second").read_bytes() == before
    store.unlink()
    moved.rename(store)


def test_the_block_that_can_not_be_remembered_is_a_warning(project: Releases) -> None:
    (project.root / ".lorafleet" / "store" / "blocks").write_text("in the way")
    code, out, _ = project.run("promote", "local", "second")
    assert code == 0 and "warning: the former block's text could not be kept" in out
    assert project.fleet("second").release.adapters == V2
    before = project.text("second")
    assert project.run("rollback", "second")[0] == 0  # the values come from the record
    assert len(changed(before, project.text("second"))) == 2
    assert project.fleet("second").release.adapters == V1


def test_a_file_that_changes_meanwhile_is_not_written(project: Releases) -> None:
    proposal = promotion(project.root, "local", "second")
    project.replace("second", "maxQueue: 64", "maxQueue: 65")
    before = project.file("second").read_bytes()
    with pytest.raises(LorafleetError, match="changed by someone else"):
        proposal.apply()
    assert project.file("second").read_bytes() == before
    assert [path.name for path in (project.root / "stacks").iterdir() if path.name.startswith(".")] == []


def test_many_at_once_are_one(project: Releases) -> None:
    before = project.text("second")
    proposals = [promotion(project.root, "local", "second", only=[name]) for name in (*V1, *V1, *V1, *V1)]
    gate = threading.Barrier(len(proposals))
    written: list[str] = []

    def apply(index: int) -> None:
        gate.wait()
        with contextlib.suppress(LorafleetError):
            proposals[index].apply()
            written.append(next(iter(proposals[index].changes)).what)

    threads = [threading.Thread(target=apply, args=(index,)) for index in range(len(proposals))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 1  # the others would have undone it
    assert [pair[1].split(":")[0].strip() for pair in changed(before, project.text("second"))] == [
        written[0].removeprefix("adapters.")
    ]


def test_what_a_killed_command_left_goes(project: Releases) -> None:
    stacks = project.root / "stacks"
    (stacks / ".Pulumi.second.yaml.x1y2z3.lorafleet").write_text("half")
    (stacks / ".Pulumi.second.yaml.swp").write_text("an editor's")
    assert project.run("promote", "local", "second")[0] == 0
    assert [path.name for path in stacks.iterdir() if path.name.startswith(".")] == [".Pulumi.second.yaml.swp"]


def test_mode_and_link_of_the_file_stay(project: Releases) -> None:
    real = project.root / "elsewhere.yaml"
    project.file("second").rename(real)
    real.chmod(0o640)
    project.file("second").symlink_to(real)
    assert project.run("promote", "local", "second")[0] == 0
    assert project.file("second").is_symlink() and V2["checklist"] in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640


def test_a_disk_that_takes_no_more(project: Releases) -> None:
    """No file of this process may grow beyond a few bytes."""
    before = project.file("second").read_bytes()
    program = """
import resource, sys
from lorafleet.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
sys.exit(main(["release", "promote", "local", "second"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project.root, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "can't be written" in done.stderr and "Traceback" not in done.stderr
    assert project.file("second").read_bytes() == before
    assert [path.name for path in (project.root / "stacks").iterdir() if path.name.startswith(".")] == []


def test_environments_that_are_not_there(project: Releases) -> None:
    (project.root / "stacks" / "Pulumi.shared.yaml").write_text("config:\n  serving:shared: {}\n")
    for arguments, said in (
        (["promote", "local", "secnd"], "Did you mean second?"),
        (["promote", "locl", "second"], "Did you mean local?"),
        (["promote", "local", "shared"], "no such environment"),
        (["promote", "local", "local"], "promoted to itself"),
        (["rollback", "secnd"], "Did you mean second?"),
        (["show", "secnd"], "Did you mean second?"),
    ):
        code, out, err = project.run(*arguments)
        assert (code, out) == (1, "") and said in err
