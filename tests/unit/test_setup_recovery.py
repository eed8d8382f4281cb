"""What `make up` makes of the locks and pending operations that it finds."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tools.stack import recovery
from tools.stack.recovery import StackLock, Verdict

HOST = "builder"


def lock(host: str = HOST, made_at: float = 1000.0) -> StackLock:
    return StackLock(file=Path("x.json"), pid=42, host=host, user="someone", made_at=made_at)


@pytest.mark.parametrize(
    ("found", "process_started_at", "verdict"),
    [
        (lock(), 900.0, Verdict.ALIVE),
        (lock(), 1000.9, Verdict.ALIVE),
        (lock(), None, Verdict.DEAD),
        (lock(), 1010.0, Verdict.DEAD),
        (lock(host="elsewhere"), None, Verdict.UNKNOWN),
        (lock(host="elsewhere"), 900.0, Verdict.UNKNOWN),
        (None, None, Verdict.UNKNOWN),
    ],
)
def test_a_lock_is_dead_only_if_its_process_is_known_to_be_gone(
    found: StackLock | None, process_started_at: float | None, verdict: Verdict
) -> None:
    assert recovery.judge(found, HOST, process_started_at) is verdict


def write_lock(backend: Path, name: str, **changes: Any) -> Path:
    """A lock file as the engine writes it."""
    file = backend / ".pulumi" / "locks" / "organization" / "serving" / "local" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "pid": os.getpid(),
        "username": "someone",
        "hostname": socket.gethostname(),
        "timestamp": "2026-01-02T03:04:05.123456789Z",
    }
    file.write_text(json.dumps(content | changes))
    return file


@pytest.mark.parametrize(
    ("timestamp", "seconds"),
    [
        ("2026-01-02T03:04:05.123456789Z", 1767323045.123456),
        ("2026-01-02T03:04:05Z", 1767323045.0),
        ("2026-01-02T12:04:05.5+09:00", 1767323045.5),
    ],
)
def test_a_lock_file_is_read_as_go_writes_it(tmp_path: Path, timestamp: str, seconds: float) -> None:
    read = recovery.read_lock(write_lock(tmp_path, "a.json", pid=7, timestamp=timestamp))
    assert read is not None
    assert (read.pid, read.user) == (7, "someone")
    assert read.made_at == pytest.approx(seconds)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": "x"}', "\x00"])
def test_a_lock_file_that_is_not_understood_is_left_to_people(tmp_path: Path, content: str) -> None:
    write_lock(tmp_path, "a.json").write_text(content)
    assert [verdict for _, _, verdict in recovery.locks_of(tmp_path, "serving", "local")] == [Verdict.UNKNOWN]


def test_locks_of_living_killed_and_recycled_processes(tmp_path: Path) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
    killed = subprocess.Popen(["sleep", "60"])
    write_lock(tmp_path, "1-alive.json", timestamp=now)
    write_lock(tmp_path, "2-killed.json", timestamp=now, pid=killed.pid)
    # This test's own pid, but locked long before it began: the pid had another owner then.
    write_lock(tmp_path, "3-recycled.json", timestamp="2020-01-01T00:00:00Z")
    assert [verdict for _, _, verdict in recovery.locks_of(tmp_path, "serving", "local")][1] is Verdict.ALIVE
    killed.kill()
    # Not waited for yet: a zombie counts as gone.
    deadline = time.monotonic() + 5
    while recovery.started_at(killed.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    verdicts = [verdict for _, _, verdict in recovery.locks_of(tmp_path, "serving", "local")]
    killed.wait()
    assert verdicts == [Verdict.ALIVE, Verdict.DEAD, Verdict.DEAD]


def test_no_backend_means_no_locks(tmp_path: Path) -> None:
    assert recovery.locks_of(tmp_path / "missing", "serving", "local") == []


def test_a_process_with_a_strange_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "42").mkdir()
    (tmp_path / "stat").write_text("cpu 1 2 3\nbtime 1700000000\n")
    fields = ["S", *["0"] * 18, str(5 * os.sysconf("SC_CLK_TCK")), "0"]
    (tmp_path / "42" / "stat").write_text(f"42 (a) b) {' '.join(fields)}\n")
    assert recovery.started_at(42, tmp_path) == 1700000005.0


def test_pending_operations_of_an_export() -> None:
    operation = {"resource": {"urn": "urn:pulumi:local::serving::a:b:C::server"}, "type": "creating"}
    exported = {"version": 3, "deployment": {"resources": [], "pending_operations": [operation]}}
    assert recovery.pending_operations(json.dumps(exported)) == ["creating urn:pulumi:local::serving::a:b:C::server"]
    assert recovery.pending_operations('{"deployment": {"pending_operations": null}}') == []
    assert recovery.pending_operations('{"deployment": null}') == []
    assert recovery.pending_operations("{}") == []
