"""Which Pulumi CLI and which Go the set-up takes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools.setup import golang, paths
from tools.setup.errors import SetupError
from tools.setup.steps import engine

WANTED = (3, 259, 0)


def program(path: Path, says: str) -> Path:
    """An executable that prints one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def cli(folder: Path, version: str, *, language_host: bool = True) -> Path:
    """A folder that looks like an installed Pulumi CLI."""
    program(folder / "pulumi", version)
    if language_host:
        program(folder / "pulumi-language-python", "")
    return folder


@pytest.mark.parametrize(
    ("version", "fits"),
    [("v3.259.0", True), ("v3.300.1", True), ("v3.258.9", False), ("v4.0.0", False), ("what", False)],
)
def test_a_cli_fits_from_the_sdks_version_on_and_within_its_major(tmp_path: Path, version: str, fits: bool) -> None:
    assert engine.usable(cli(tmp_path / "bin", version), WANTED) is fits


def test_a_cli_without_its_language_host_does_not_fit(tmp_path: Path) -> None:
    assert not engine.usable(cli(tmp_path, "v3.259.0", language_host=False), WANTED)


def test_the_cli_on_path_is_found_through_a_folder_of_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / "pulumi").symlink_to(cli(tmp_path / "opt", "v3.260.0") / "pulumi")
    monkeypatch.setenv("PATH", f"{links}{os.pathsep}/usr/bin{os.pathsep}/bin")
    assert engine.on_path(WANTED) == links


def test_our_own_links_on_path_are_not_taken_for_the_users_cli(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{paths.ENGINE_LINKS}{os.pathsep}/bin")
    assert engine.path_without_ours() == "/bin"


def test_the_version_to_build_is_that_of_the_locked_sdk() -> None:
    version = engine.wanted_version()
    assert f"\npulumi=={version} \\\n" in (paths.ROOT / "requirements.lock").read_text()
    assert f"github.com/pulumi/pulumi/pkg/v3 v{version} " in (engine.MODULES / "go.mod").read_text()


def test_an_old_go_is_refused_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = program(tmp_path / "bin" / "go", "go version go1.19.8 linux/amd64")
    monkeypatch.setenv("PATH", f"{old.parent}{os.pathsep}/usr/bin{os.pathsep}/bin")
    with pytest.raises(SetupError) as caught:
        golang.find_go("3.259.0", engine.MODULES)
    assert caught.value.what == f"{old} is Go 1.19.8, and the engine needs 1.25.11 or newer"
    assert "https://go.dev/dl/" in caught.value.next_step


def test_a_go_that_may_fetch_a_newer_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text('#!/bin/sh\nif [ "$1" = env ]; then echo auto; else echo go version go1.22.1; fi\n')
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{go.parent}{os.pathsep}/usr/bin{os.pathsep}/bin")
    assert golang.find_go("3.259.0", engine.MODULES) == go


def test_the_users_own_go_settings_do_not_reach_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"GOFLAGS": "-mod=vendor", "GOOS": "windows", "GOWORK": "/x/go.work"}.items():
        monkeypatch.setenv(name, value)
    env = golang.environment()
    assert (env["GOWORK"], "GOFLAGS" in env, "GOOS" in env) == ("off", False, False)


def test_a_lock_that_does_not_pin_a_package_is_said(tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text("pulumi-gcp==10.2.0 \\\n    --hash=sha256:00\n")
    with pytest.raises(LookupError, match=r"some\.lock does not pin pulumi"):
        paths.pinned("pulumi", lock)
