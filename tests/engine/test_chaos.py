"""One of the kills of `make chaos` on each platform that has cases, and that a fault would be seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tools.chaos import killing
from tools.chaos.killing import Operation, kills
from tools.chaos.places import platform_of, platforms
from tools.chaos.protocol import Gate, Moment, Platform

_PLATFORM = "runpod"
_CREATE = Operation(_PLATFORM, "NetworkVolume", "create")


@pytest.mark.parametrize("platform", platforms())
def test_a_create_that_was_killed_is_put_right(platform: str, tmp_path: Path) -> None:
    chaos = platform_of(platform)
    smallest = min(chaos.scenarios(tmp_path), key=lambda each: len(str(each.declared)))
    latest: Moment = "after" if "after" in chaos.moments else chaos.moments[-1]
    operation = Operation(platform, smallest.name, "create")
    first = next(kills(operation, lambda _, moment: moment == latest, extent="changes"))
    assert first.killed
    assert first.good, str(first)


def test_what_is_made_twice_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the plugin had made another volume when the run after the kill began."""
    real = platform_of(_PLATFORM)

    class Twice:
        moments = real.moments
        scenarios = staticmethod(real.scenarios)

        @contextmanager
        def running(self, folder: Path, gate: Gate) -> Iterator[Platform]:
            with real.running(folder, gate) as platform:
                saved: list[Any] = []

                def things() -> Any:
                    there = real_things()
                    return [*there, *there] if saved else there

                def restore(state: Any) -> None:
                    saved.append(state)
                    real_restore(state)

                real_things, real_restore = platform.things, platform.restore
                monkeypatch.setattr(platform, "things", things)
                monkeypatch.setattr(platform, "restore", restore)
                yield platform

    monkeypatch.setattr(killing, "platform_of", lambda _: Twice())
    [found] = kills(_CREATE, lambda _, moment: moment == "answered", extent="changes")
    assert (found.killed, found.orphans, found.duplicates, found.unsettled) == (True, 0, 1, "")
