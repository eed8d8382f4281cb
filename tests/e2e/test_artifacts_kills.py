"""Kill -9 of `lorafleet adapter push` at 20 random moments, on both kinds of store: nothing wrong is ever visible, and
a repeat finishes it.

A moment is one between two steps: before and after each call of the store, and at each piece of an upload. The command
is the real one; the store that it opens is wrapped, so that the process kills itself at the moment that was drawn.
"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorafleet.load import load_stack
from providers.artifacts.fetch import parse_origin
from providers.artifacts.push import push
from providers.artifacts.rules import rules_of
from providers.artifacts.store import open_store
from providers.artifacts.verify import verify
from tests.support.artifacts_kit import emulator_environment, fake_gcs, large_adapter, make_project, plain_environment

KILLS = 20
COMMAND = """
import os, signal, sys, threading
from lorafleet import cli
from providers.artifacts import adapter_commands

kill_at, arguments = int(sys.argv[1]), sys.argv[2:]
moments, lock, real = 0, threading.Lock(), adapter_commands.open_store

def moment():
    global moments
    with lock:
        moments += 1
        if moments == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

class Store:
    def __init__(self, store): self.store = store
    def __getattr__(self, name):
        value = getattr(self.store, name)
        def call(*args, **more):
            if "progress" in more:
                told = more["progress"]
                def tell(count):
                    moment()
                    if told: told(count)
                more["progress"] = tell
            moment()
            result = value(*args, **more)
            moment()
            return result
        return call if callable(value) else value

adapter_commands.open_store = lambda url: Store(real(url))
code = cli.main(arguments)
print(moments, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(params=["folder", "bucket"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, dict[str, str]]]:
    """The store's URL, and the environment of commands that use it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "folder":
        yield f"file://{tmp_path}/store", plain_environment()
        return
    with fake_gcs(tmp_path / "gcs", "store") as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        yield "gs://store/prefix", emulator_environment(url)


def test_a_push_that_is_killed(place: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    url, environment = place
    store = open_store(url)
    adapter = large_adapter(tmp_path / "adapter", tmp_path / "base", megabytes=9)
    project = make_project(tmp_path / "project", url, base=tmp_path / "base")

    def command(kill_at: int, name: str) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-c", COMMAND, str(kill_at), "adapter", "push", str(adapter), "--name", name]
        return subprocess.run(arguments, cwd=project, env=environment, capture_output=True, text=True, timeout=300)

    whole = command(0, "whole")
    assert whole.returncode == 0, whole.stderr
    moments = int(whole.stderr.split()[-1])
    assert moments > KILLS // 2

    chance = random.Random(20261122)
    half_done = 0
    for number in range(KILLS):
        # The first moment and the last one, too.
        kill_at = [1, moments][number] if number < 2 else chance.randint(1, moments)
        killed = command(kill_at, f"killed-{number}")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        found = verify(store, "adapter", [f"killed-{number}"])
        assert found.faults == ()
        half_done += len(found.half_done)
    print(f"{KILLS} kills among {moments} moments left {half_done} half-done pushes")
    assert half_done > 0

    fleet = load_stack(project, "local")
    for number in range(KILLS):
        push(store, parse_origin(str(adapter), Path.cwd()), f"killed-{number}", rules_of(fleet, store))
    found = verify(store, "adapter")
    assert found.faults == () and found.half_done == ()
    assert len(found.versions) == KILLS + 1
    assert len({version.split("@")[1] for version in found.versions}) == 1
    # Nor is anything left on this machine.
    assert os.listdir(tmp_path / "cache/lorafleet/staging") == ["lock"]  # noqa: PTH208
    if url.startswith("file://"):
        assert os.listdir(tmp_path / "store/.store") == ["lock"]  # noqa: PTH208
