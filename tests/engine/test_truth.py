"""The state and the truth disagree: a killed update, an altered configuration, a refused reload, another name."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket

from tests.engine.test_kills import assert_one_of_each, plugins
from tests.engine.test_stack import ask
from tests.support.ports import free_port
from tests.support.stack_project import StackProject, wait_for


def config_of(project: StackProject, name: str) -> dict[str, object]:
    [file] = (project.state_dir / "run").glob(f"{name}-*/config.json")
    config: dict[str, object] = json.loads(file.read_text())
    return config


def test_plugin_killed_in_an_update_that_moved_the_port(project: StackProject) -> None:
    """The process has the new port already, the state and the router still the old one."""
    project.up().ok()
    new = free_port()
    project.behave(phaseS=0.3)
    project.change(lambda fleet: fleet["targets"]["server"].update(port=new))
    running = project.start("up", "--yes", "--skip-preview")
    wait_for(lambda: any((project.state_dir / "run").glob("server-*/config.json"))
             and config_of(project, "server")["port"] == new and project.leaders(), 60, "the new process")  # fmt: skip
    for pid in plugins(running.pid):
        os.kill(pid, signal.SIGKILL)
    running.communicate(timeout=60)
    project.up().ok()
    assert project.state()["url"] == f"http://127.0.0.1:{new}"
    assert ask(project, project.output("apiKey"))[0] == 200
    assert_one_of_each(project)


def test_plugin_killed_in_every_part_of_a_router_update(project: StackProject) -> None:
    project.up().ok()
    for cap in (65, 66, 67):
        _kill_plugin_in_a_router_update(project, cap)
        project.up().ok()
        project.up("--expect-no-changes").ok()
        [state] = (project.state_dir / "run").glob("router-*/state.json")
        assert json.loads(state.read_text())["phase"] == "ready"
        assert project.state("router")["limits"]["maxTokens"] == cap


def _kill_plugin_in_a_router_update(project: StackProject, max_tokens: int) -> None:
    before = config_of(project, "router")
    project.change(lambda fleet: fleet["router"]["limits"].update(maxTokens=max_tokens))
    running = project.start("up", "--yes", "--skip-preview")
    wait_for(lambda: config_of(project, "router") != before, 60, "the new router file")
    for pid in plugins(running.pid):
        os.kill(pid, signal.SIGKILL)
    running.communicate(timeout=60)


def test_a_configuration_that_somebody_changed_is_seen_and_mended(project: StackProject) -> None:
    project.up().ok()
    for name in ("server", "router"):
        [file] = (project.state_dir / "run").glob(f"{name}-*/config.json")
        good = file.read_text()
        for bad in (good.replace('"version": ', '"version":  '), "{}", "not json"):
            file.write_text(bad)
            assert "does not run with the configuration" in project.refresh().ok().output
            project.up().ok()
            assert json.loads(file.read_text()) == json.loads(good)
            project.up("--expect-no-changes").ok()
    assert ask(project, project.output("apiKey"))[0] == 200


def test_a_refused_reload_keeps_the_former_one_and_is_tried_again(project: StackProject) -> None:
    project.up().ok()
    key, old = project.output("apiKey"), project.ports["metrics"]
    with socket.socket() as taken:
        # Taken between the check and the reload: a listener that the check does not see, on another loopback address.
        taken.bind(("127.0.0.1", 0))
        project.change(lambda fleet: fleet["router"].update(metricsPort=taken.getsockname()[1]))
        refused = project.up()
        assert refused.code != 0
        assert "Traceback" not in refused.output
        assert ask(project, key)[0] == 200, "the former configuration goes on"
    project.change(lambda fleet: fleet["router"].update(metricsPort=old))
    project.up().ok()
    project.up("--expect-no-changes").ok()
    project.change(lambda fleet: fleet["router"].update(metricsPort=free_port()))
    project.up().ok()
    assert ask(project, key)[0] == 200


def test_another_state_folder(project: StackProject) -> None:
    """A replacement whose predecessor holds the port."""
    project.up().ok()
    project.change(lambda fleet: fleet["targets"]["server"].update(stateDir=".lorafleet/elsewhere"))
    assert "replace" in project.preview().ok().output
    project.up().ok()
    assert project.state()["id"].startswith(str(project.folder / ".lorafleet" / "elsewhere"))
    assert project.leaders() == [], "nothing is left in the former folder"
    assert ask(project, project.output("apiKey"))[0] == 200
    project.destroy().ok()
    assert not (project.folder / ".lorafleet" / "elsewhere" / "run").exists()


def test_the_stack_gets_another_name(project: StackProject) -> None:
    """The URN changes, the processes do not: their ports are still the stack's own."""
    project.up().ok()
    project.run("stack", "rename", "renamed").ok()
    (project.folder / "stacks" / "local.py").rename(project.folder / "stacks" / "renamed.py")
    project.stack = "renamed"
    # The server's folder stays where it is; only its URN is another.
    project.change(lambda fleet: fleet["targets"]["server"].update(stateDir=".lorafleet/local"))
    preview = project.preview()
    assert f"port {project.ports['server']} of 127.0.0.1 is in use" not in preview.output, preview.output


def test_processes_outlive_a_lost_folder_and_are_replaced(project: StackProject) -> None:
    project.up().ok()
    [server] = project.leaders()
    shutil.rmtree(project.state()["id"])
    project.up().ok()
    [again] = project.leaders()
    assert not server.identity.alive()
    assert project.state()["pid"] == again.identity.pid
    assert_one_of_each(project)
