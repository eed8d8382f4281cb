"""The local stack through the real engine, with a stand-in for vLLM and the real HAProxy."""

from __future__ import annotations

import json
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port
from tests.support.stack_project import StackProject, command_line, wait_for


def ask(project: StackProject, key: str, model: str = "easycontract") -> tuple[int, dict[str, str], str]:
    """(status, headers, body) of one question at the router."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{project.ports['router']}/v1/chat/completions",
        data=json.dumps({"model": model, "messages": [{"role": "user", "content": "?"}]}).encode(),
        headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


def port_is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_preview_up_preview_destroy(project: StackProject) -> None:
    preview = project.preview().ok()
    assert "8 to create" in preview.output
    assert f"http://127.0.0.1:{project.ports['router']}/v1" in preview.output, "known before it is made"
    assert not project.state_dir.exists(), "a preview makes nothing"

    project.up().ok()
    assert project.output("endpoint") == f"http://127.0.0.1:{project.ports['router']}/v1"
    assert project.output("models") == ["exaone-3.5-2.4b", "checklist", "easycontract"]
    targets = project.output("targets")
    assert set(targets) == {"server"}
    assert targets["server"]["kind"] == "local"
    assert targets["server"]["url"] == f"http://127.0.0.1:{project.ports['server']}"
    assert targets["server"]["adapters"]["easycontract"].startswith("easycontract@sha256-")
    status, headers, _ = ask(project, project.output("apiKey"))
    assert status == 200
    assert headers["x-lorafleet-target"] == "server"

    project.preview("--expect-no-changes").ok()
    project.up("--expect-no-changes").ok()
    project.refresh("--expect-no-changes").ok()

    project.destroy().ok()
    assert project.processes() == []
    assert not any(port_is_open(port) for port in project.ports.values())
    left = [p for p in project.state_dir.rglob("*") if p.is_file()]
    assert {p.parent.name for p in left} == {"logs"}, f"files are left: {left}"


def test_the_key_is_nowhere_in_plain_text(project: StackProject) -> None:
    first = project.preview("--diff").ok().output + project.up("--diff").ok().output
    keys = [project.output("apiKey")]
    diff = project.run("preview", "--diff", "--refresh").ok().output
    project.run("config", "set", "--secret", "apiKey", "my-own-key-0123456789").ok()
    keys.append("my-own-key-0123456789")
    changed = project.run("preview", "--diff", "--json").ok().output + project.up("--diff").ok().output
    assert ask(project, keys[1])[0] == 200
    assert ask(project, keys[0])[0] == 401, "the former key was replaced"
    logs = "\n".join(p.read_text(errors="replace") for p in (project.state_dir / "logs").iterdir())
    run = "\n".join(p.read_text(errors="replace") for p in (project.state_dir / "run").rglob("*") if p.is_file())
    processes = "\n".join(
        command_line(int(p.name)) + _environment(p) for p in Path("/proc").iterdir() if p.name.isdigit()
    )
    places = {
        "output": first + diff + changed,
        "state": project.state_text(),
        "logs": logs,
        "run folder": run,
        "processes": processes,
        "stack file": project.stack_file.read_text(),
    }
    for key in keys:
        assert [place for place, text in places.items() if key in text] == []


def _environment(entry: Path) -> str:
    try:
        return (entry / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_a_dead_server_is_seen_and_mended(project: StackProject) -> None:
    project.up().ok()
    key = project.output("apiKey")
    [server] = project.leaders()
    for member in [m for m in project.processes() if "stand-in" in command_line(m.identity.pid)]:
        member.identity.signal(signal.SIGKILL)

    # Clients in between: an answer at once, and when to come back.
    wait_for(lambda: not server.identity.alive(), 5, "the server to be gone")
    begun = time.monotonic()
    status, headers, body = ask(project, key)
    assert status == 503
    assert int({k.lower(): v for k, v in headers.items()}["retry-after"]) > 0
    assert "error" in json.loads(body)
    assert time.monotonic() - begun < 5

    refreshed = project.refresh().ok().output
    assert "the model server is not running" in refreshed
    assert "~status" in refreshed
    still = project.run("refresh", "--preview-only", "--expect-no-changes")
    assert "~status" in still.output, "what is broken keeps showing until it is mended"

    preview = project.preview().ok().output
    assert "1 to update" in preview
    project.up().ok()
    assert len(project.leaders()) == 1
    # The router looks every second.
    wait_for(lambda: ask(project, key)[0] == 200, 5, "the router to see the server again")
    project.up("--expect-no-changes").ok()


def test_up_alone_mends_too(project: StackProject) -> None:
    project.up().ok()
    [server] = project.leaders()
    project.kill_everything()
    wait_for(lambda: not project.processes(), 5, "all to be gone")
    assert "2 to update" in project.preview().ok().output
    project.up().ok()
    assert ask(project, project.output("apiKey"))[0] == 200
    assert [each.identity for each in project.leaders()] != [server.identity]


def test_a_process_that_hangs_is_restarted(project: StackProject) -> None:
    project.up().ok()
    [server] = project.leaders()
    server.identity.signal(signal.SIGSTOP)
    assert "does not answer" in project.refresh().ok().output
    project.change(lambda fleet: fleet["targets"]["server"].update(drainTimeoutS=0))
    project.up().ok()
    [again] = project.leaders()
    assert again.identity != server.identity


def test_changed_settings_restart_the_server_in_place(project: StackProject) -> None:
    project.up().ok()
    [server] = project.leaders()
    project.change(lambda fleet: fleet["targets"]["server"]["engine"].update(maxNumSeqs=16))
    diff = project.preview("--diff").ok().output
    assert "maxNumSeqs: 32 => 16" in diff
    project.up().ok()
    [again] = project.leaders()
    assert again.identity != server.identity
    assert project.state()["engine"]["maxNumSeqs"] == 16


def test_a_changed_router_keeps_its_process(project: StackProject) -> None:
    project.up().ok()
    [router] = project.leaders("handlers.router")
    project.change(lambda fleet: fleet["router"]["limits"].update(maxTokens=64))
    project.up().ok()
    assert [each.identity for each in project.leaders("handlers.router")] == [router.identity]
    project.up("--expect-no-changes").ok()


def test_another_port(project: StackProject) -> None:
    project.up().ok()
    old, new = project.ports["server"], free_port()
    project.change(lambda fleet: fleet["targets"]["server"].update(port=new))
    project.up().ok()
    assert not port_is_open(old)
    assert port_is_open(new)
    assert ask(project, project.output("apiKey"))[0] == 200


def test_a_forced_replacement_makes_a_new_one_and_leaves_one(project: StackProject) -> None:
    project.up().ok()
    [server] = project.leaders()
    urn = next(
        line.split()[-1]
        for line in project.run("stack", "--show-urns").ok().output.splitlines()
        if "ModelServer::server" in line
    )
    project.up("--replace", urn.removeprefix("URN:").strip()).ok()
    [again] = project.leaders()
    assert again.identity != server.identity
    assert project.state()["pid"] == again.identity.pid
    project.destroy().ok()
    assert project.processes() == []


def test_a_server_that_fails_leaves_a_state_to_go_on_from(project: StackProject) -> None:
    project.behave(failAt="loading")
    failed = project.up()
    assert failed.code != 0
    assert "loading failed as it was told to" in failed.output
    assert "next: tell it otherwise" in failed.output
    assert "Traceback" not in failed.output
    assert project.state()["id"], "the state must know the folder"
    project.behave()
    project.up().ok()
    assert len(project.leaders()) == 1
    project.up("--expect-no-changes").ok()


def test_a_port_that_is_taken_is_told_at_preview(project: StackProject) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", project.ports["server"]))
        taken.listen()
        refused = project.preview()
    assert refused.code != 0
    assert f"port {project.ports['server']} of 127.0.0.1 is in use by process" in refused.output
    assert "Traceback" not in refused.output
    assert not project.state_dir.exists()


def test_import(project: StackProject) -> None:
    """A resource that the state lost can be brought back by its id."""
    project.up().ok()
    state = project.state("router")
    exported = json.loads(project.run("stack", "export").ok().output)
    resources = exported["deployment"]["resources"]
    lost = next(r for r in resources if r["type"] == "lorafleet:local:RouterProcess")
    exported["deployment"]["resources"] = [r for r in resources if r is not lost]
    (project.folder / "state.json").write_text(json.dumps(exported))
    project.run("stack", "import", "--file", "state.json").ok()
    parent = lost["parent"]
    imported = project.run(
        "import", "--yes", "--generate-code=false", "--protect=false", "--skip-preview",
        "--parent", f"component={parent}", lost["type"], "router", lost["id"],
    )  # fmt: skip
    assert imported.code == 0, imported.output
    assert project.state("router")["pid"] == state["pid"]
    project.up().ok()
    assert len(project.leaders("handlers.router")) == 1


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda f: f["targets"]["server"].update(prot=1), ["targets.server.prot", "port"]),
        (lambda f: f["release"]["adapters"].update(checklist=f"sha256:{'0' * 64}"), ["release.adapters.checklist"]),
        (lambda f: f["adapters"].pop("checklist"), ["release.adapters.checklist"]),
        (lambda f: f["targets"].update(other=f["targets"].pop("server")), ["'server'", "other"]),
    ],
    ids=["unknown key", "wrong digest", "adapter missing", "no such target"],
)
def test_a_wrong_declaration_is_one_clear_error_at_preview(project: StackProject, edit: Any, words: list[str]) -> None:
    project.change(edit)
    refused = project.preview()
    assert refused.code != 0
    for word in words:
        assert word in refused.output
    assert "Traceback" not in refused.output
    assert "  next:" in refused.output
    assert "unhandled" not in refused.output
    assert not project.state_dir.exists()
