"""kill -9 at every step of a create: the next `up` ends with exactly one server and one router, no orphan."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.stack_project import StackProject, command_line, descendants, kill, wait_for

# What can be seen from outside of a create's progress, in its order.
STEPS = [
    "folder claimed",
    "configuration written",
    "process started",
    "fetching",
    "launching",
    "loading",
    "probing",
    "ready",
    "router folder claimed",
    "router started",
]


def reached(project: StackProject, step: str) -> Callable[[], bool]:
    run = project.state_dir / "run"

    def phase() -> str:
        for file in run.glob("server-*/state.json"):
            text = file.read_text(errors="replace")
            return next(
                (
                    word
                    for word in ("ready", "probing", "loading", "launching", "fetching")
                    if f'"phase": "{word}"' in text
                ),
                "",
            )
        return ""

    def at_least(name: str) -> bool:
        return phase() in order[order.index(name) :]

    order = ["fetching", "launching", "loading", "probing", "ready"]
    seen: dict[str, Callable[[], bool]] = {
        "folder claimed": lambda: any(run.glob("server-*")),
        "configuration written": lambda: any(run.glob("server-*/config.json")),
        "process started": lambda: bool(project.leaders()),
        "router folder claimed": lambda: any(run.glob("router-*")),
        "router started": lambda: bool(project.leaders("handlers.router")),
    }
    return seen.get(step) or partial(at_least, step)


def plugins(pid: int) -> list[int]:
    return [each for each in descendants(pid) if "providers" in command_line(each) and "python" in command_line(each)]


def assert_one_of_each(project: StackProject) -> None:
    """One server, one router, both known to the state; and nothing else."""
    for name, what in (("server", "handlers.serving"), ("router", "handlers.router")):
        [leader] = project.leaders(what)
        state = project.state(name)
        assert state["pid"] == leader.identity.pid
        assert state["status"] == "ready"
        assert [str(p) for p in (project.state_dir / "run").glob(f"{name}-*")] == [state["id"]]
    project.up("--expect-no-changes").ok()
    project.destroy().ok()
    assert project.processes() == []
    assert not any((project.state_dir / "run").glob("*"))


@pytest.mark.parametrize("step", STEPS)
def test_kill_of_the_plugin(project: StackProject, step: str) -> None:
    project.behave(phaseS=0.15)
    running = project.start("up", "--yes", "--skip-preview")
    wait_for(reached(project, step), 60, step)
    for pid in plugins(running.pid):
        kill(pid)
    running.communicate(timeout=60)
    project.up().ok()
    assert_one_of_each(project)


@pytest.mark.parametrize("step", STEPS)
def test_kill_of_the_whole_up(project: StackProject, step: str) -> None:
    project.behave(phaseS=0.15)
    running = project.start("up", "--yes", "--skip-preview")
    wait_for(reached(project, step), 60, step)
    for pid in reversed(descendants(running.pid)):
        kill(pid)
    running.communicate(timeout=60)
    project.recover()
    project.up().ok()
    assert_one_of_each(project)


def test_kill_of_the_engine_alone_ends_the_plugin(project: StackProject) -> None:
    project.behave(phaseS=1)
    running = project.start("up", "--yes", "--skip-preview")
    wait_for(reached(project, "fetching"), 60, "the server to start")
    [plugin] = plugins(running.pid)
    running.kill()
    running.communicate(timeout=60)
    wait_for(lambda: not Path(f"/proc/{plugin}").exists(), 5, "the plugin to follow its engine")
    project.recover()
    project.up().ok()
    assert_one_of_each(project)


def test_ctrl_c_keeps_what_was_made(project: StackProject) -> None:
    project.behave(phaseS=2)
    running = project.start("up", "--yes", "--skip-preview")
    wait_for(reached(project, "fetching"), 60, "the server to start")
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=60)
    assert running.returncode != 0
    assert "Traceback" not in output
    assert project.state()["id"], "the state must know what was made"
    project.behave()
    project.up().ok()
    assert_one_of_each(project)


def test_kill_during_an_update(project: StackProject) -> None:
    project.up().ok()
    project.behave(phaseS=0.3)
    project.change(lambda fleet: fleet["targets"]["server"]["engine"].update(maxNumSeqs=16))
    running = project.start("up", "--yes", "--skip-preview")
    wait_for(reached(project, "ready"), 60, "the first server")
    wait_for(lambda: not reached(project, "ready")(), 60, "the restart")
    for pid in reversed(descendants(running.pid)):
        kill(pid)
    running.communicate(timeout=60)
    project.recover()
    project.up().ok()
    assert project.state()["engine"]["maxNumSeqs"] == 16
    assert_one_of_each(project)


def test_kill_during_a_destroy(project: StackProject) -> None:
    project.up().ok()
    running = project.start("destroy", "--yes", "--skip-preview")
    wait_for(lambda: not project.leaders("handlers.router"), 60, "the router to be gone")
    for pid in reversed(descendants(running.pid)):
        kill(pid)
    running.communicate(timeout=60)
    project.recover()
    project.destroy().ok()
    assert project.processes() == []
