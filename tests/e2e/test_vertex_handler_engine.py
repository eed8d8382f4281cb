"""The engine peft by itself, with the real transformers and PEFT, and the handler without a known server."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.launcher_kit import ROOT
from tests.fakes.hf_toolkit.kit import NEWER, PYTHON, Handler, needs_vertex

pytestmark = needs_vertex


ENGINE = ("same_as_peft_alone", "leaving_frees_the_row", "adapters_come_and_go", "faults", "drawing")


def check(*names: str, **more: str) -> dict[str, Any]:
    """What these checks found, made in one process: torch takes seconds to import."""
    done = subprocess.run(
        [str(PYTHON), "-m", "tests.fakes.hf_toolkit.engine_checks", *names], cwd=ROOT, capture_output=True, text=True,
        check=False, timeout=600, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **more},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def engine() -> dict[str, Any]:
    return check(*ENGINE)


def test_mixed_rows_that_join_and_leave_get_what_each_gets_alone(engine: dict[str, Any]) -> None:
    found = engine["same_as_peft_alone"]
    assert found["wrong"] == 0
    assert found["differ"] > found["of"] / 3


def test_a_cancelled_request_makes_room_for_the_next(engine: dict[str, Any]) -> None:
    assert engine["leaving_frees_the_row"] == {"waited": True, "first": False, "gone": True, "rows": True}


def test_adapters_are_loaded_and_unloaded_between_two_tokens(engine: dict[str, Any]) -> None:
    assert engine["adapters_come_and_go"] == {
        "same": [True, True], "different": 3, "unknown": "checklist is not loaded", "long goes on": True, "peft": True,
    }  # fmt: skip


def test_a_fault_is_its_requests_own(engine: dict[str, Any]) -> None:
    assert engine["faults"] == {
        "failed": "the prompt could not be read", "well after": True, "refused": "adapter_invalid", "slots": 2,
        "unmerged": ["RuntimeError: made to fail", "the prompt could not be read"], "well again": True,
        "late": "the engine has ended",
    }  # fmt: skip


def test_each_row_draws_by_its_own_settings(engine: dict[str, Any]) -> None:
    found = engine["drawing"]
    assert (found["same"], found["narrow"]) == (True, True)
    assert found["others"] > 1


def test_the_plain_contract_without_a_known_server(tmp_path: Path) -> None:
    handler = Handler(tmp_path, NEWER, "peft")  # not started: its settings are used
    found = check(
        "without_a_server", HF_MODEL_DIR=str(handler.model_dir), LORAFLEET_CONFIG=json.dumps(handler.document),
        LORAFLEET_ENGINE="peft",
    )["without_a_server"]  # fmt: skip
    assert (found["right"], found["error"], found["early"]) == (True, 400, "the model is not ready yet")
    assert "nobody" in found["refused"]
