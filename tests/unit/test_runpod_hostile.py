"""RunPod at its worst: slow states, echoes of secrets, settings that nobody may declare, things of others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from providers import kit
from providers.kit import values
from providers.kit.check import dump
from providers.kit.diff import diff
from providers.kit.lifecycle import InitFailedError
from providers.runpod import api, http, switching
from providers.runpod.echoes import without_echoes
from providers.runpod.resources import NetworkVolume, Pod, ServerlessEndpoint
from tests.fakes.runpod import Fake, Fault, pods
from tests.fakes.runpod.refusal import RefusedError
from tests.fakes.runpod.run import ENDPOINT, POD, VOLUME, Run, started

CREDENTIALS = json.dumps({"type": "service_account", "private_key": f"-----BEGIN KEY-----\nMIIEvQIB{'Ab9+' * 200}\n"})


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with started(monkeypatch) as server:
        yield server


# -- what RunPod says of a request ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "quoted",
    [
        lambda body: json.dumps(body),
        lambda body: repr(body),
        lambda body: json.dumps(body)[:300],
        lambda body: json.dumps(json.dumps(body)),
        lambda body: str(body["env"]["KEY"])[:150],
    ],
)
async def test_a_refusal_that_quotes_the_request_shows_no_secret(fake: Fake, quoted: Callable[[Any], str]) -> None:
    """The kit hides whole secrets in messages; RunPod may escape one or cut it, and so does the client."""
    body = {"name": "x", "env": {"KEY": CREDENTIALS}, "password": "a-password-0123456789"}
    problem = {"title": "Unprocessable Entity", "detail": "env is wrong", "errors": [quoted(body)]}
    answer = http.Answer(422, {}, json.dumps(problem).encode())
    refused = http.connect()._refusal("POST", "/v2/pods", answer, body)
    hide = values.redactor({"secretEnv": values.seal([{"name": "KEY", "value": CREDENTIALS}])})
    assert "env is wrong" in refused.what
    for part in ("MIIEvQIB", "Ab9+Ab9+", "service_account", "a-password"):
        assert part not in hide(refused.what), refused.what


def test_what_is_no_secret_stays() -> None:
    body = {"image": "registry.example.com/serving", "env": {"PORT": "80", "KEY": "0123456789"}, "password": None}
    assert (
        without_echoes("no registry.example.com/serving on port 80", body)
        == "no registry.example.com/serving on port 80"
    )
    assert without_echoes("KEY is 0123456789, or 3456789", body) == "KEY is [secret], or 3456789"
    assert without_echoes("a text", None) == "a text"


def test_an_address_with_a_wrong_port_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(http.TOKEN_VARIABLE, "rpa_token")
    monkeypatch.setenv(http.URL_VARIABLE, "https://api.example.com:port")
    with pytest.raises(kit.ResourceError, match="holds no https:// address"):
        http.connect()


# -- what somebody else did ----------------------------------------------------------------------------------


def _another_pool(fake: Fake, _: Any) -> None:
    next(each for each in fake.cloud.gpus if each["id"] == "NVIDIA L4")["pool"] = "ANOTHER"
    api._shared.cache_clear()  # as in a new run: the catalog is asked once in each


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda _, endpoint: endpoint["env"].update({"my-variable": "a-secret-0123"}), "secretEnv"),
        (lambda _, endpoint: endpoint.update(timeout=0), "timeoutMs"),
        (lambda _, endpoint: endpoint.update(ports=["53/udp"]), "ports"),
        (_another_pool, "gpus"),
    ],
    ids=["variable", "timeout", "port", "pool"],
)
async def test_a_refresh_shows_what_no_declaration_could_say(fake: Fake, change: Any, field: str) -> None:
    made = await Run(ServerlessEndpoint).create(ENDPOINT)
    change(fake, fake.cloud.endpoints[made])
    reading = await Run(ServerlessEndpoint).read(made, ENDPOINT)
    assert reading is not None
    wanted = dump(Run(ServerlessEndpoint).load(ENDPOINT))
    found = diff(ServerlessEndpoint.inputs_model(), dump(reading.inputs), wanted)
    assert {each.path[0] for each in found} == {field}
    await Run(ServerlessEndpoint).update(made, ENDPOINT, ENDPOINT)
    reading = await Run(ServerlessEndpoint).read(made, ENDPOINT)
    assert reading is not None and reading.inputs == Run(ServerlessEndpoint).load(ENDPOINT)


async def test_other_peoples_things_that_are_not_understood_are_left_alone(fake: Fake) -> None:
    volume = await Run(NetworkVolume).create(VOLUME)
    theirs = {**fake.cloud.volumes[volume], "id": "theirs", "name": "somebody-else", "type": "HOLOGRAPHIC"}
    fake.cloud.volumes["theirs"] = theirs
    assert [each.id for each in await api.connect().list_volumes()] == [volume]
    second = await Run(NetworkVolume).create({**VOLUME, "name": "weights-2"})
    assert second == volume, "taken over, though theirs is listed"
    theirs["name"] = fake.cloud.volumes[volume]["name"]
    with pytest.raises(kit.ResourceError, match=r"networkVolumes\[1\]: type"):
        await api.connect().list_volumes()
    assert fake.violations
    fake.violations.clear()


# -- pods whose state follows slowly --------------------------------------------------------------------------


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """RunPod takes an action and shows it three looks later; until then it refuses another one. The actions so far."""
    act, proceed = pods.act, pods.proceed
    taken: list[str] = []
    under_way: dict[str, tuple[str, int]] = {}

    def slow_act(pod: Any, action: str) -> None:
        if pod["id"] in under_way:
            raise RefusedError(409, "something is under way")
        taken.append(action)
        under_way[pod["id"]] = (action, 3)

    def slow_proceed(pod: Any, looks: int) -> None:
        action, left = under_way.get(pod["id"], ("", 0))
        if not action:
            proceed(pod, looks)
        elif left:
            under_way[pod["id"]] = (action, left - 1)
        else:
            del under_way[pod["id"]]
            act(pod, action)

    monkeypatch.setattr(pods, "act", slow_act)
    monkeypatch.setattr(pods, "proceed", slow_proceed)
    return taken


@pytest.mark.parametrize("kind", [None, "reset after", "reset before"])
async def test_a_pod_is_told_once(fake: Fake, slow: list[str], kind: Any) -> None:
    made = await Run(Pod).create(POD)
    stopped = {**POD, "running": False}
    for before, after, status in ((POD, stopped, "EXITED"), (stopped, POD, "RUNNING")):
        if kind:
            fake.faults.add(Fault(kind, "POST", "/v2/pods/.*"))
        await Run(Pod).update(made, before, after)
        assert fake.cloud.pods[made]["status"] == status
    assert slow == ["stop", "start"]


async def test_a_pod_that_does_not_start_is_told_again_and_at_last_is_an_error(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switching, "_SHOWS_WITHIN_S", 0.2)
    made = await Run(Pod).create(POD)
    pods.become(fake.cloud.pods[made], "ERROR")
    monkeypatch.setattr(pods, "act", lambda *_: None)
    with pytest.raises(InitFailedError, match="could not be started: RunPod says ERROR"):
        await Run(Pod).update(made, POD, POD)


async def test_a_private_address_comes_with_a_restart(fake: Fake) -> None:
    made = await Run(Pod).create(POD)
    wanted = {**POD, "globalNetworking": True}
    await Run(Pod).update(made, POD, wanted)
    assert fake.cloud.pods[made]["globalNetworking"] == {"enabled": True}
    assert fake.cloud.pods[made]["status"] == "RUNNING"
    assert [path for method, path in fake.changes() if method == "PATCH"] == [f"/v2/pods/{made}"]
    assert [body for *_, path, body in fake.requests if path.endswith("/action")] == [{"action": "restart"}]
    reading = await Run(Pod).read(made, wanted)
    assert reading is not None and reading.inputs == Run(Pod).load(wanted)


async def test_a_locked_pod_is_not_restarted_for_its_private_address(fake: Fake) -> None:
    locked = {**POD, "locked": True}
    made = await Run(Pod).create(locked)
    run = Run(Pod)
    await run.update(made, locked, {**locked, "globalNetworking": True})
    assert not any(path.endswith("/action") for *_, path, _ in fake.requests)
    assert "takes effect when" in run.said[0]
