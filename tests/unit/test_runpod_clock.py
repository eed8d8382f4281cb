"""Pods by the clock: the hours of a declaration, what a refresh says of them, and the command that keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

import lorafleet.cli
from providers.runpod import hours, marks
from providers.runpod.hours import Day
from providers.runpod.resources import Pod
from tests.fakes.runpod import Fake, Fault
from tests.fakes.runpod.faults import Kind
from tests.fakes.runpod.run import POD, Run, started

ROOT = Path(__file__).resolve().parents[2]
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)  # 09:00 in Seoul
SEOUL: dict[str, Any] = {**POD, "schedule": "08:00-20:00 Asia/Seoul", "scheduleDays": ["mon"]}
BY_DAY, BY_NIGHT = MONDAY + timedelta(hours=3), MONDAY + timedelta(hours=15)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with started(monkeypatch) as server:
        yield server


def at(monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
    monkeypatch.setattr(hours, "now", lambda: moment)


def on(text: str, moment: str, *days: Day) -> bool:
    return hours.parse(text, days).on(datetime.fromisoformat(moment))


@pytest.mark.parametrize(
    ("text", "days", "moments"),
    [
        # 2026-11-23 is a Monday.
        ("08:00-24:00 Asia/Seoul", [], {"2026-11-22T22:59:59Z": False, "2026-11-22T23:00:00Z": True,
                                        "2026-11-23T14:59:59Z": True, "2026-11-23T15:00:00Z": False}),
        ("22:00-06:00 UTC", ["fri"], {"2026-11-27T21:59:00Z": False, "2026-11-27T22:00:00Z": True,
                                      "2026-11-28T05:59:00Z": True, "2026-11-28T06:00:00Z": False,
                                      "2026-11-28T22:00:00Z": False, "2026-11-27T05:00:00Z": False}),
        ("00:00-24:00 UTC", ["sat", "sun"], {"2026-11-27T23:59:00Z": False, "2026-11-28T00:00:00Z": True,
                                             "2026-11-29T23:59:00Z": True, "2026-11-30T00:00:00Z": False}),
        # Wall clock: an hour earlier in UTC in summer.
        ("08:00-20:00 Europe/Berlin", [], {"2026-03-28T07:00:00Z": True, "2026-03-28T06:59:00Z": False,
                                           "2026-03-29T06:00:00Z": True, "2026-03-29T18:00:00Z": False}),
        ("20:00-00:00 UTC", [], {"2026-11-23T23:59:00Z": True, "2026-11-24T00:00:00Z": False}),
    ],
)  # fmt: skip
def test_hours_are_those_of_the_wall_clock(text: str, days: list[Day], moments: dict[str, bool]) -> None:
    assert {moment: on(text, moment, *days) for moment in moments} == moments


async def test_a_pod_is_made_and_kept_as_its_hours_say(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, BY_NIGHT)
    made = await Run(Pod).create(SEOUL)
    assert fake.cloud.pods[made]["status"] == "EXITED"
    reading = await Run(Pod).read(made, SEOUL)
    assert reading is not None
    assert reading.inputs == Run(Pod).load(SEOUL), "outside of its hours a pod that is stopped is no drift"
    assert reading.outputs.on_schedule
    at(monkeypatch, BY_DAY)
    run = Run(Pod)
    reading = await run.read(made, SEOUL)
    assert reading is not None and not reading.outputs.on_schedule
    assert reading.inputs == Run(Pod).load(SEOUL)
    assert "does not run, against its schedule 08:00-20:00 Asia/Seoul" in run.said[0]
    assert (await run.update(made, SEOUL, SEOUL)).on_schedule
    assert fake.cloud.pods[made]["status"] == "RUNNING"
    at(monkeypatch, BY_NIGHT)
    reading = await run.read(made, SEOUL)
    assert reading is not None and not reading.outputs.on_schedule
    await run.update(made, SEOUL, {**SEOUL, "schedule": "", "scheduleDays": []})
    assert fake.cloud.pods[made]["status"] == "RUNNING", "without hours it runs always"


async def test_who_keeps_the_hours_may_come_late(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, BY_NIGHT)
    made = await Run(Pod).create(SEOUL)
    for late, right in ((timedelta(), True), (hours.LATE - timedelta(seconds=1), True), (hours.LATE, False)):
        at(monkeypatch, MONDAY - timedelta(hours=1) + late)
        reading = await Run(Pod).read(made, SEOUL)
        assert reading is not None and reading.outputs.on_schedule is right


async def test_a_locked_pod_and_wrong_hours_are_refused() -> None:
    run = Run(Pod)
    for change, where in (({"locked": True}, ("locked",)), ({"schedule": "always"}, ("schedule",))):
        found = [each async for each in Pod().problems(run.context(), run.load({**SEOUL, **change}), None)]
        assert [each.path for each in found] == [where]
        assert found[0].next_action


# -- the command --------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose stack `prod` has three pods by the clock and one that always runs."""
    config = yaml.safe_load((ROOT / "stacks" / "Pulumi.local.yaml").read_text())
    fleet = config["config"]["serving:fleet"]
    fleet["store"] = "gs://bucket"
    fleet["baseModel"]["source"] = "gs://bucket/models/base"
    for adapter in fleet["adapters"].values():
        adapter.pop("source", None)
        adapter["rank"] = 8
    hours_of = {
        "day": "08:00-20:00 Asia/Seoul",
        "night": "20:00-08:00 Asia/Seoul",
        "also-day": "08:00-20:00 Asia/Seoul",
    }
    fleet["targets"] = {
        name: {"kind": "runpod-pod", "gpu": "A40", "engine": {"maxModelLen": 512}} | ({"hours": text} if text else {})
        for name, text in {**hours_of, "always": None}.items()
    }
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.prod.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def pod_of(target: str, **changed: Any) -> str:
    run = Run(Pod)
    run.urn = marks.pod_urn("prod", "serving", target)
    return await run.create({**POD, "name": f"{target}-12345678", **changed})


def clock(*arguments: str) -> int:
    return lorafleet.cli.main(["runpod", "clock", "--stack", "prod", *arguments])


async def all_pods() -> dict[str, str]:
    return {
        "day": await pod_of("day"),
        "night": await pod_of("night"),
        "also-day": await pod_of("also-day", running=False),
        "always": await pod_of("always", running=False),
    }


def states(fake: Fake, pods: dict[str, str]) -> dict[str, bool]:
    """{target: whether its pod runs or starts}"""
    return {name: fake.cloud.pods[made]["status"] != "EXITED" for name, made in pods.items()}


def test_it_starts_and_stops_and_touches_nothing_else(
    fake: Fake, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at(monkeypatch, BY_DAY)
    pods = asyncio.run(all_pods())
    foreign = asyncio.run(pod_of("foreign"))
    fake.requests.clear()
    assert clock("--dry-run") == 0
    assert "night: pod" in (said := capsys.readouterr().out) and "would be stopped" in said
    assert fake.changes() == []
    assert clock() == 0
    said = capsys.readouterr().out
    assert f"night: pod {pods['night']} stopped: its hours are 20:00-08:00 Asia/Seoul" in said
    assert f"also-day: pod {pods['also-day']} started" in said
    assert f"day: pod {pods['day']} left" in said and "always" not in said
    assert states(fake, pods) == {"day": True, "night": False, "also-day": True, "always": False}
    assert sorted(fake.changes()) == sorted(("POST", f"/v2/pods/{pods[name]}/action") for name in ("night", "also-day"))
    assert clock() == 0
    assert len(fake.changes()) == 2, "what is right is left alone"
    at(monkeypatch, BY_NIGHT)
    assert clock() == 0
    assert states(fake, pods) == {"day": False, "night": True, "also-day": False, "always": False}
    assert fake.cloud.pods[foreign]["status"] == "RUNNING"


def test_a_target_that_fails_does_not_keep_others_back(
    fake: Fake, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at(monkeypatch, BY_NIGHT)
    pods = asyncio.run(all_pods())
    fake.cloud.pods[pods["day"]]["locked"] = True
    del fake.cloud.pods[pods["night"]]
    fake.cloud.pods[pods["also-day"]]["status"] = "RUNNING"
    fake.cloud.pods[pods["also-day"]]["actions"] = ["stop"]
    assert clock() == 1
    said = capsys.readouterr()
    assert "also-day" in said.out and "stopped" in said.out
    assert "(409): pod is locked (target day)" in said.err
    assert "there is no pod of this target (target night)" in said.err and "pulumi up --stack prod" in said.err


@pytest.mark.parametrize("kind", ["error before", "error after", "reset before", "reset after", "rate limit"])
def test_an_answer_that_is_lost(
    fake: Fake, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: Kind
) -> None:
    at(monkeypatch, BY_DAY)
    pods = asyncio.run(all_pods())
    fake.faults.add(Fault(kind, "POST", f"/v2/pods/{pods['night']}/action"))
    code = clock()
    assert code == (0 if "after" in kind or kind == "rate limit" else 1), capsys.readouterr()
    assert clock() == 0
    assert not states(fake, pods)["night"]


def test_a_machine_without_a_free_card(
    fake: Fake, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at(monkeypatch, BY_DAY)
    pods = asyncio.run(all_pods())
    fake.faults.add(Fault("error before", "POST", f"/v2/pods/{pods['also-day']}/action", status=400))
    assert clock() == 1
    said = capsys.readouterr()
    assert "has no free card" in said.err and "(target also-day)" in said.err
    assert "night: pod" in said.out
    fake.faults.add(Fault("error before", "POST", f"/v2/pods/{pods['also-day']}/action", status=403))
    assert clock() == 1
    assert "give the key in RUNPOD_API_KEY the right" in capsys.readouterr().err


def test_two_pods_of_one_target_are_left_alone(
    fake: Fake, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at(monkeypatch, BY_NIGHT)
    pods = asyncio.run(all_pods())
    first = fake.cloud.pods[pods["day"]]
    fake.cloud.pods["another"] = {**first, "id": "another"}
    assert clock() == 1
    assert "there are 2 pods of this target (target day)" in capsys.readouterr().err
    assert first["status"] == "RUNNING"


def test_without_a_token_it_says_which(
    fake: Fake, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RUNPOD_API_KEY")
    assert clock() == 1
    assert "RUNPOD_API_KEY holds no token" in capsys.readouterr().err
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_wrong-0123456789")
    assert clock() == 1
    said = capsys.readouterr().err
    assert "RunPod does not accept the token in RUNPOD_API_KEY" in said and "rpa_wrong" not in said
