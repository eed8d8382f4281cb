"""Promotion between two environments with a bucket each, on a real fake-gcs-server, with the commands it prints."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorafleet.cli import main
from lorafleet.release import document
from tests.support.artifacts_kit import fake_gcs
from tests.unit.release_kit import V1, V2, Releases


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Releases]:
    for name in [name for name in os.environ if name.upper().endswith("_PROXY")]:
        monkeypatch.delenv(name)
    with fake_gcs(tmp_path / "gcs", "dev-bucket", "prod-bucket") as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        project = Releases(tmp_path / "project", "gs://dev-bucket/fleet")
        project.replace("second", "gs://dev-bucket/fleet", "gs://prod-bucket")
        monkeypatch.chdir(project.root)
        yield project


def test_from_one_bucket_to_another_and_back(project: Releases) -> None:
    project.push("local", version=2)
    project.push("second", version=1)
    project.pin("local", **V2)
    project.up("local")
    project.up("second")
    project.replace("second", f"checklist: {V1['checklist']}", f"checklist: {V1['checklist']} # since March")
    before = project.file("second").read_bytes()

    code, _, err = project.run("promote", "local", "second")
    assert code == 1 and "for 2 reasons" in err
    commands = re.findall(r"has it: lorafleet (adapter pull .*) && lorafleet (adapter push .*)", err)
    assert len(commands) == 2
    for index, pair in enumerate(commands):
        for command in pair:  # as they were printed
            words = [word.replace("FOLDER", f"fetched-{index}") for word in command.split()]
            assert main([word.rstrip(".") for word in words]) == 0
    assert project.file("second").read_bytes() == before

    assert project.run("promote", "local", "second")[0] == 0
    assert project.fleet("second").release.adapters == V2
    project.up("second")
    code, out, _ = project.run("verify", "second")
    assert code == 0, out
    code, out, _ = project.run("show", "second")
    assert code == 0 and "this release" in out and "server/0  ready" in out
    assert project.run("rollback", "second")[0] == 0
    assert project.file("second").read_bytes() == before
    assert document.read(project.root, "second").block_text.count("# since March") == 1


def test_a_bucket_that_is_not_there(project: Releases) -> None:
    project.replace("second", "gs://prod-bucket", "gs://no-such-bucket")
    before = project.file("second").read_bytes()
    for command in (["promote", "local", "second"], ["rollback", "second"], ["verify", "second"]):
        code, out, err = project.run(*command)
        assert (code, out) == (1, "") and "Traceback" not in err and "  next:" in err, err
    assert project.file("second").read_bytes() == before
