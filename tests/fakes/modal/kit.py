"""What tests of the provider against the stand-in share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from modal_proto import api_pb2 as pb

from tests.support.plugin_client import Plugin

from . import FakeModal
from .faults import Kind, Moment

APP = "urn:pulumi:dev::serving::lorafleet:modal:App::spill"
NAME = "lorafleet-dev-spill"
ID = f"main/{NAME}"
IMAGE = f"registry.example.com/serving@sha256:{'0' * 64}"


def plugin(modal: FakeModal, **more: str) -> Plugin:
    """A plugin process that finds the stand-in."""
    return Plugin({**modal.environ(), **more})


def checked(running: Plugin, **more: Any) -> dict[str, Any]:
    """The checked inputs of an app."""
    news = {"environment": "main", "name": NAME, "image": IMAGE, "gpus": ["L4"], **more}
    inputs, failures = running.check(APP, news, seed=os.urandom(32))
    assert failures == []
    return inputs


@contextmanager
def killed_at(modal: FakeModal, rpc: str, when: Moment, work: Callable[[Plugin], object]) -> Iterator[None]:
    """Runs `work` with a plugin that is killed (-9) while Modal is at this call.

    when: `before` or `after` the call's work, or once it was `answered`.
    """
    kinds: dict[Moment, Kind] = {"before": "hold_before", "after": "hold_after", "answered": "hold_answered"}
    held = modal.faults.add(rpc, kinds[when])
    with plugin(modal) as running:

        def call() -> None:
            # The plugin dies under it.
            try:
                work(running)
            except Exception:
                return

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        assert held.reached.wait(120), f"{rpc} was not called"
        running.kill()
        thread.join(60)
    modal.faults.clear()
    yield


def assert_one_app(modal: FakeModal, **settings: int) -> None:
    """Exactly one app, deployed, with these autoscaler settings; nothing begun and not ended."""
    [app] = modal.cloud.living()
    assert app is modal.cloud.deployed("main", NAME)
    assert app.state == pb.APP_STATE_DEPLOYED
    live = modal.cloud.live(app)
    for name, value in settings.items():
        assert getattr(live.autoscaler_settings, name) == value
