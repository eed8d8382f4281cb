"""The set-up's small parts: versions, stamps, locks, running commands, disk space."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.setup import disk, locks, official, stamps, versions
from tools.setup.errors import SetupError
from tools.setup.progress import Task, about, clock, tail

REPOSITORY = Path(__file__).resolve().parents[2]


def script(path: Path, body: str) -> Path:
    """Writes an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("v3.259.0\n", (3, 259, 0)),
        ("3.260.0-alpha.1+dirty", (3, 260, 0)),
        ("uv 0.13.9 (x86_64-unknown-linux-gnu)", (0, 13, 9)),
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("HAProxy version 2.6.12-1+deb12u4 2025/10/03 - https://haproxy.org/", (2, 6, 12)),
        ("no number here 7", None),
        ("", None),
    ],
)
def test_versions_are_read_from_what_tools_print(text: str, version: versions.Version | None) -> None:
    assert versions.parse(text) == version


@pytest.mark.parametrize(
    ("found", "wanted", "enough"),
    [
        ((3, 259, 0), (3, 259, 0), True),
        ((3, 259), (3, 259, 0), True),
        ((3, 259, 0), (3, 259), True),
        ((3, 26, 0), (3, 259, 0), False),
        ((4, 0), (3, 259, 0), True),
        ((0, 8, 0), (0, 8, 1), False),
        (None, (0,), False),
    ],
)
def test_versions_compare_as_numbers(found: versions.Version | None, wanted: versions.Version, enough: bool) -> None:
    assert versions.at_least(found, wanted) is enough


def test_version_of_a_command_that_fails_hangs_on_input_or_is_missing(tmp_path: Path) -> None:
    assert versions.of_command([script(tmp_path / "good", "echo tool 1.2.3 >&2")]) == (1, 2, 3)
    assert versions.of_command([script(tmp_path / "bad", "echo 1.2.3; exit 3")]) is None
    assert versions.of_command([script(tmp_path / "reader", "read line; echo 1.2")]) == (1, 2)
    assert versions.of_command([tmp_path / "missing"]) is None


def test_stamp_follows_content_name_and_facts(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text("one")
    first = stamps.digest([lock], {"root": "/x"})
    assert stamps.digest([lock], {"root": "/x"}) == first
    assert stamps.digest([lock], {"root": "/y"}) != first
    lock.write_text("two")
    assert stamps.digest([lock], {"root": "/x"}) != first
    lock.unlink()
    assert len({first, stamps.digest([lock], {"root": "/x"}), stamps.digest([], {"root": "/x"})}) == 3


def test_stamp_is_written_whole_and_compared(tmp_path: Path) -> None:
    stamp = tmp_path / "stamp"
    assert not stamps.matches(stamp, "abc")
    stamps.write(stamp, "abc")
    assert stamps.matches(stamp, "abc")
    assert not stamps.matches(stamp, "abcd")
    assert [file.name for file in tmp_path.iterdir()] == ["stamp"]


def test_a_lock_waits_for_its_holder_and_for_the_holders_children(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    # The holder is killed at once; its child, which has the descriptor, holds on for a second and a half.
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys\n"
            "from pathlib import Path\n"
            "from tools.setup import locks\n"
            "with locks.held(Path(sys.argv[1]), lambda who, s: None) as lock:\n"
            "    child = subprocess.Popen(['sleep', '1.5'], pass_fds=[lock])\n"
            "    print('held', flush=True)\n"
            "    child.wait()\n",
            str(lock),
        ],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    began = time.monotonic()
    waited: list[str] = []
    with locks.held(lock, lambda who, _seconds: waited.append(who)):
        assert time.monotonic() - began > 0.3
    assert waited[0] == str(holder.pid)


def task(tmp_path: Path) -> Task:
    return Task(2, 7, "thing", tmp_path / "logs" / "thing.log")


def test_a_command_runs_with_its_output_in_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task(tmp_path).run(["sh", "-c", "echo out; echo err >&2"], "making it", expected_s=200, on_failure="x")
    assert capsys.readouterr().out == "[2/7] thing: making it (about 3 minutes)...\n"
    log = (tmp_path / "logs" / "thing.log").read_text()
    assert log.startswith("$ sh -c ")
    assert log.endswith("out\nerr\n")


def test_a_failed_command_names_what_failed_and_its_log(tmp_path: Path) -> None:
    with pytest.raises(SetupError) as caught:
        task(tmp_path).run(["sh", "-c", "echo broken; exit 4"], "making it", expected_s=1, on_failure="mend it")
    assert caught.value.what == "making it failed (exit status 4)"
    assert caught.value.next_step == "mend it"
    assert caught.value.log is not None
    assert "broken" in tail(caught.value.log)


def test_a_command_that_is_missing_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="/missing can't be started: No such file or directory"):
        task(tmp_path).run([tmp_path / "missing"], "making it", expected_s=1, on_failure="x")


def test_a_stalled_command_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(SetupError, match="no progress for 1 s"):
        task(tmp_path).run(
            ["sh", "-c", f"sleep 60 & echo $! > {pid_file}; wait"],
            "making it",
            expected_s=1,
            on_failure="x",
            stalled_after_s=1,
            measure=lambda: 0,
        )
    grandchild = int(pid_file.read_text())
    for _ in range(50):
        stat = Path(f"/proc/{grandchild}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    os.kill(grandchild, signal.SIGKILL)
    pytest.fail("the grandchild was still there")


def test_a_command_that_gets_on_is_not_taken_for_stalled(tmp_path: Path) -> None:
    grows = tmp_path / "grows"
    grows.mkdir()
    task(tmp_path).run(
        ["sh", "-c", f"for i in 1 2 3 4 5; do echo x >> {grows}/file; sleep 0.5; done"],
        "downloading",
        expected_s=3,
        on_failure="x",
        stalled_after_s=1.5,
        measure=lambda: official.size_of(grows),
    )


def test_times_for_people() -> None:
    assert [clock(0), clock(61.9), clock(3605)] == ["0:00", "1:01", "60:05"]
    assert [about(40), about(540)] == ["about 40 seconds", "about 9 minutes"]


def test_too_little_disk_space_says_how_much_there_is_and_how_much_is_needed(tmp_path: Path) -> None:
    disk.require({tmp_path / "not" / "there" / "yet": 0.0001})
    with pytest.raises(SetupError, match=r"has [0-9.]+ GiB free, and what is missing needs 1000001.0 GiB"):
        disk.require({tmp_path / "a": 1_000_000, tmp_path / "b": 1})
