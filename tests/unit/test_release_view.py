"""`release show`, `diff`, `history` and `verify`: what they say of a good state, and of each fault."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorafleet.release import pins
from providers.artifacts import layout
from tests.unit.release_kit import DIGESTS, V1, V2, Releases, second_versions
from tests.unit.test_release_promotion import (
    broken_hold,
    canary_of_source,
    held,
    low_rank,
    missing,
    no_manifest,
    not_up,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return second_versions(tmp_path_factory.mktemp("made") / "project").root


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Releases:
    shutil.copytree(made, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Releases(tmp_path / "project")


def test_show(project: Releases) -> None:
    canary_of_source(project)
    project.store().write(
        f"{layout.statuses('local')}server/1.json",
        b'{"version": 2, "phase": "failed", "updatedAt": "2020-01-01T00:00:00.000Z", "heartbeatS": 2, "adapters": [], '
        b'"error": {"what": "no room \\u001b[31m"}}',
    )
    project.store().write(f"{layout.statuses('local')}server/2.json", b"{")
    code, out, _ = project.run("show", "local")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == f"Release of local  {pins.digest(project.fleet('local').release.model_dump(by_alias=True))[:12]}"
    assert f"checklist  {V2['checklist']}" in lines
    assert f"checklist  {V1['checklist']}  canary, 5 % of the requests" in lines
    assert "    version 2" in lines and "demo/adapters-v2/easycontract" in out
    assert any(line.startswith("served now") and line.endswith("this release") for line in lines)
    served = f"easycontract@{V2['easycontract'][:19]}"
    assert any(line.startswith("server/0  ready") and served in line for line in lines)
    assert any(line.startswith("server/1  failed") and "silent for" in line and "no room" in line for line in lines)
    assert any(line.startswith("server/2") and "can't be read" in line for line in lines)
    assert "\x1b" not in out and lines[-1] == "next: pulumi preview --stack local"
    answer = json.loads(project.run("show", "local", "--json")[1])
    assert answer["release"]["canaries"] == {"checklist": {"digest": V1["checklist"], "weight": 5}}
    assert [version["note"] for version in answer["versions"]] == ["version 2", "version 2", "version 1"]
    assert answer["served"] is True and len(answer["servers"]) == 3


def test_show_of_a_file_that_is_not_served(project: Releases) -> None:
    not_up(project)
    out = project.run("show", "local")[1]
    assert f"another release: adapters.checklist {pins.short(V2['checklist'])}" in out
    assert out.endswith("next: pulumi up --stack local\n")
    no_manifest(project)
    assert "served now   nothing" in project.run("show", "local")[1]


def test_diff(project: Releases) -> None:
    code, out, _ = project.run("diff", "local", "second")
    assert code == 0 and len(out.splitlines()) == 4
    assert f"adapters.checklist     {V2['checklist']}  {V1['checklist']}" in out
    assert out.endswith("next: lorafleet release promote local second && pulumi up --stack second\n")
    answer = json.loads(project.run("diff", "second", "local", "--json")[1])
    assert answer["changes"][0] == {"what": "adapters.checklist", "a": V1["checklist"], "b": V2["checklist"]}
    project.run("promote", "local", "second")
    assert "have the same release" in project.run("diff", "local", "second")[1]


def test_history(project: Releases) -> None:
    code, out, _ = project.run("history", "local")
    lines = out.splitlines()
    assert code == 0 and lines[0].endswith("<- the file") and "<- the file" not in lines[3]
    short = {name: (pins.short(V1[name]), pins.short(V2[name])) for name in V1}
    assert lines[1:3] == [f"    adapters.{name}: {short[name][0]} -> {short[name][1]}" for name in sorted(V1)]
    assert lines[-1] == "next: lorafleet release rollback local && pulumi up --stack local"
    answer = json.loads(project.run("history", "local", "--json")[1])
    assert [record["release"]["adapters"] for record in answer["records"]] == [V2, V1]
    assert [record["inFile"] for record in answer["records"]] == [True, False]
    assert project.run("history", "second")[1].endswith("next: pulumi preview --stack second\n")


def test_verify_of_what_is_right(project: Releases) -> None:
    code, out, err = project.run("verify", "local")
    assert (code, err) == (0, ""), out
    assert [line.split()[0] for line in out.splitlines()[:-2]] == ["ok"] * 6
    assert out.endswith("local: nothing is wrong\nnext: pulumi preview --stack local\n")


def truncated(project: Releases) -> None:
    folder = project.root / ".lorafleet" / "store" / layout.adapter("checklist", V2["checklist"])
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def half(project: Releases) -> None:
    project.store().delete(f"{layout.adapter('checklist', V2['checklist'])}/adapter_config.json")


def other_files(project: Releases) -> None:
    (project.root / "demo").unlink()
    shutil.copytree(Path(__file__).parents[2] / "demo" / "base", project.root / "demo" / "base")
    (project.root / "demo" / "base" / "config.json").write_text("{}")


def refusing(project: Releases) -> None:
    blob = project.store().read(layout.manifest("local"))
    assert blob is not None
    error = {"what": "the adapter answers garbage", "next": "x", "reason": "probe_failed", "retrying": False}
    document = json.loads(blob.data)
    project.status("local", document)
    path = f"{layout.statuses('local')}server/0.json"
    status = json.loads(project.store().read(path).data)  # type: ignore[union-attr]
    status["manifestDigest"] = "0" * 64
    status["manifest"]["state"] = "refused"
    status["adapters"][0] |= {"state": "failed", "error": error}
    project.store().write(path, json.dumps(status).encode())


FAULTS: dict[str, tuple[Callable[[Releases], Any], str]] = {
    "missing": (missing, "the store of local has no version"),
    "truncated": (truncated, "its files are not what the digest says"),
    "half": (half, "its files are not all there"),
    "held": (held, "held back: forgets half the list"),
    "held, unreadable": (broken_hold, "held back: the note"),
    "rank": (low_rank, "has a higher rank than the target server takes"),
    "base": (other_files, "the base model of local is not the one that the release pins"),
    "nothing served": (no_manifest, "nothing is served"),
    "another release served": (not_up, "it says something else than the file: adapters.checklist is"),
    "a server that refuses": (refusing, "the adapter answers garbage"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_verify_finds(project: Releases, case: str) -> None:
    change, said = FAULTS[case]
    change(project)
    code, out, err = project.run("verify", "local")
    assert (code, err) == (1, "")
    wrong = [line for line in out.splitlines() if line.startswith("WRONG")]
    assert len(wrong) == 1 and said in wrong[0], out
    code, out, _ = project.run("verify", "local", "--json")
    answer = json.loads(out)
    assert code == 1 and answer["right"] is False
    assert [finding["what"] for finding in answer["findings"] if finding["state"] == "wrong"] != []


def test_verify_looks_at_canaries_too(project: Releases) -> None:
    canary_of_source(project)
    project.store().delete(f"{layout.adapter('checklist', V1['checklist'])}/{layout.METADATA}")
    code, out, _ = project.run("verify", "local")
    assert code == 1 and f"checklist {V1['checklist'][:19]}… (canary, 5 %): the store of local has no version" in out


def test_the_demo_is_what_these_tests_take_it_for() -> None:
    assert V1 != V2 and set(V1) == {"easycontract", "checklist"} and DIGESTS["base"].startswith("sha256:")
