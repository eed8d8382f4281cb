"""The parts of `make chaos` that judge: which kills there are, what counts as a fault, and that the kill is one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.stack_project import descendants
from tools.chaos import gate as gate_module
from tools.chaos.bench import all_operations, main, verdict
from tools.chaos.gate import CallGate
from tools.chaos.killing import Operation, Result, compare
from tools.chaos.places import platform_of, platforms
from tools.chaos.protocol import Moment, Thing

_TREE = "import subprocess, sys, time; subprocess.Popen(['sleep', '300']); print('up', flush=True); time.sleep(300)"


def test_what_an_undisturbed_run_makes_is_no_difference() -> None:
    things = [Thing("pods", {"b": 1, "a": 2}), Thing("templates")]
    found = compare(things, [Thing("templates"), Thing("pods", {"a": 2, "b": 1})])
    assert (found.orphans, found.duplicates, found.differing) == (0, 0, frozenset())


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([Thing("pods", 1), Thing("pods", 1)], (0, 1, set())),
        ([Thing("pods", 1), Thing("volumes"), Thing("volumes")], (2, 0, set())),
        ([Thing("pods", 2)], (0, 0, {"pods"})),
        ([], (0, 0, {"pods"})),
        ([Thing("pods", 2), Thing("pods", 3)], (0, 1, {"pods"})),
    ],
)
def test_a_second_one_a_leftover_and_another_one_are_told_apart(
    there: list[Thing], expected: tuple[int, int, set[str]]
) -> None:
    found = compare([Thing("pods", 1)], there)
    assert (found.orphans, found.duplicates, set(found.differing)) == expected


@pytest.mark.parametrize(
    ("figures", "status"),
    [({"kills": 3}, 0), ({}, 1), *(({"kills": 3, fault: 1}, 1) for fault in ("orphans", "duplicates", "unsettled"))],
)
def test_the_exit_status_is_0_only_if_something_was_killed_and_all_was_right(
    figures: dict[str, int], status: int
) -> None:
    assert verdict(Counter(figures)) == status


def test_a_line_says_what_was_killed_and_what_was_wrong() -> None:
    killed = Result(Operation("runpod", "Pod", "create"), "POST /v2/pods", 3, 8, "after", killed=True, took_s=2.5)
    assert str(killed) == "runpod Pod create: call 4 of 8, POST /v2/pods, after: good (2.5 s)"
    assert "no kill" in str(replace(killed, killed=False))
    assert "FAULT: 1 orphans, 2 duplicates (" in str(replace(killed, orphans=1, duplicates=2))


def test_the_gate_opens_at_the_wanted_call_and_kills_the_whole_tree() -> None:
    gate = CallGate()
    with subprocess.Popen([sys.executable, "-c", _TREE], stdout=subprocess.PIPE, text=True) as root:
        assert root.stdout is not None
        root.stdout.readline()
        tree = descendants(root.pid)
        assert len(tree) == 2
        gate.open((1, "after"))
        gate.aim(root.pid)
        passed: list[Moment | None] = [gate.reached("GET a", reads=True), gate.reached("POST a"), gate.reached("GET a")]
        assert passed == [None, "after", None]
        assert not gate.killed
        assert root.poll() is None
        gate.kill()
        assert gate.killed
        assert root.wait(timeout=60) == -9
        until = time.monotonic() + 60
        while any(_runs(pid) for pid in tree) and time.monotonic() < until:
            time.sleep(0.01)
        assert not any(_runs(pid) for pid in tree)
    assert (gate.calls, gate.changing) == (["GET a", "POST a", "GET a"], {1, 2})


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_gate_that_was_opened_for_nothing_kills_nothing() -> None:
    gate = CallGate()
    gate.open()
    assert gate.reached("POST a") is None
    gate.kill()
    assert not gate.killed


def test_a_kill_that_finds_nobody_is_no_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "_AIM_TIMEOUT_S", 0.1)
    gate = CallGate()
    gate.open((0, "before"))
    assert gate.reached("POST a") == "before"
    gate.kill()
    assert (gate.killed, gate.missed) == (False, True)
    gate.open()
    assert not gate.missed


@pytest.mark.parametrize("platform", platforms())
def test_every_resource_of_a_platform_has_its_operations(platform: str, tmp_path: Path) -> None:
    from providers.kit import registry

    scenarios = platform_of(platform).scenarios(tmp_path)
    names = [each.name for each in scenarios]
    assert len(set(names)) == len(names)
    text = "".join(str(each.declared) for each in scenarios)
    assert [name for name in registry.resources(platform) if f"lorafleet:{platform}:{name}'" not in text] == []
    operations = {each.name for each in all_operations([platform])}
    assert {"create", "delete", "delete-up"} < operations
    assert any(each.startswith("update:") for each in operations)


def test_a_wrong_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--operation", "explode", "--list"])
    assert ended.value.code == 2
    assert "--list says which there are" in capsys.readouterr().err
