"""RunPod's client against the stand-in: what is repeated, what is not, and what it says when something is wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest

from providers import kit
from providers.runpod import api, http, marks, steps
from providers.runpod.http import OutcomeUnknownError
from tests.fakes.runpod import Fake, Fault, running
from tests.fakes.runpod.faults import Kind
from tests.support.ports import free_port

TOKEN = "rpa_secret-token-of-the-tests"
URN = "urn:pulumi:test::serving::lorafleet:runpod:NetworkVolume::v"
NAME = marks.name("v-12345678", URN)
VOLUME: dict[str, Any] = {"name": NAME, "size": 50, "dataCenter": "EU-RO-1"}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with running(free_port(), TOKEN) as server:
        monkeypatch.setenv(http.URL_VARIABLE, server.url)
        monkeypatch.setenv(http.TOKEN_VARIABLE, TOKEN)
        monkeypatch.setattr(http, "_quota", http._Quota())
        monkeypatch.setattr(steps, "_SOUGHT_FOR_S", 0.3)
        monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.02)
        yield server
        assert server.violations == []


async def made_once(client: api.Api) -> Any:
    return await steps.create_once(lambda: client.create_volume(VOLUME), client.list_volumes, "v-12345678", URN)


@pytest.mark.parametrize("kind", ["error before", "reset before"])
async def test_a_post_without_an_answer_is_never_repeated(fake: Fake, kind: Kind) -> None:
    fake.faults.add(Fault(kind, "POST"))
    with pytest.raises(OutcomeUnknownError, match="not known whether RunPod carried out POST") as error:
        await made_once(api.connect())
    assert fake.changes() == [("POST", "/v2/network-volumes")]
    assert fake.cloud.volumes == {}
    assert "run the command again" in error.value.next_action


@pytest.mark.parametrize("kind", ["error after", "reset after", "half done"])
async def test_what_a_post_without_an_answer_made_is_found(fake: Fake, kind: Kind) -> None:
    fake.faults.add(Fault(kind, "POST"))
    fake.cloud.volumes["other"] = {**VOLUME, "id": "other", "type": "STANDARD", "name": "v-12345678"}
    made = await made_once(api.connect())
    assert fake.changes() == [("POST", "/v2/network-volumes")]
    assert set(fake.cloud.volumes) == {"other", made.id}


async def test_a_refused_post_is_repeated_after_the_time_that_was_told(fake: Fake) -> None:
    fake.faults.add(Fault("rate limit", "POST", seconds=1))
    begun = time.monotonic()
    await made_once(api.connect())
    assert time.monotonic() - begun >= 1
    assert len(fake.cloud.volumes) == 1


@pytest.mark.parametrize("kind", ["error before", "error after", "reset before", "reset after", "rate limit", "delay"])
async def test_what_changes_nothing_twice_is_repeated(fake: Fake, kind: Kind) -> None:
    fake.cloud.not_found_at_first = 0
    made = await made_once(api.connect())
    for method in ("GET", "DELETE"):
        fake.faults.add(Fault(kind, method, f"/v2/network-volumes/{made.id}", times=2, seconds=0.1))
    found = await api.connect().get_volume(made.id)
    assert found == made
    await api.connect().delete_volume(made.id)
    assert fake.cloud.volumes == {}
    await api.connect().delete_volume(made.id)  # gone already: no error


async def test_it_gives_up_with_one_clear_error(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_ATTEMPTS", 2)
    fake.faults.add(Fault("error before", "GET", times=100, status=503))
    with pytest.raises(kit.ResourceError, match="503"):
        await api.connect().list_volumes()
    assert len(fake.requests) == 2


async def test_nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_ATTEMPTS", 2)
    monkeypatch.setenv(http.URL_VARIABLE, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv(http.TOKEN_VARIABLE, TOKEN)
    with pytest.raises(kit.ResourceError, match="cannot be reached") as error:
        await api.connect().create_volume(VOLUME)
    assert not isinstance(error.value, OutcomeUnknownError), "it was never sent"


async def test_the_quota_that_answers_tell_is_never_exceeded(fake: Fake) -> None:
    fake.window.requests, fake.window.seconds = 3, 1
    for _ in range(7):
        await api.connect().list_volumes()
    assert fake.over_quota == 0


async def test_a_quota_that_is_gone_for_long_is_told_at_once(fake: Fake) -> None:
    fake.window.requests, fake.window.seconds = 1, 3600
    await api.connect().list_volumes()
    with pytest.raises(kit.ResourceError, match=r"quota of requests for this account is used up for another 3[56]"):
        await api.connect().create_volume(VOLUME)
    assert fake.changes() == []


def test_retry_after_is_seconds_or_a_date() -> None:
    assert http._retry_after("12", 1) == 12
    assert 50 < http._retry_after(formatdate(time.time() + 60, usegmt=True), 1) <= 60
    assert http._retry_after("soon", 1.5) == 1.5


async def test_a_wrong_token_names_the_variable_and_is_not_shown(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(http.TOKEN_VARIABLE, "rpa_a-wrong-token-0123456789")
    with pytest.raises(kit.ResourceError) as error:
        await api.connect().list_endpoints()
    assert error.value.what == "RunPod does not accept the token in RUNPOD_API_KEY (401)"
    assert "rpa_a-wrong" not in str(error.value) + repr(http.connect())


@pytest.mark.parametrize("token", ["", "  ", "rpa_x\n", "rpa x\ty", "rpa_ö"])
def test_what_is_no_token(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv(http.TOKEN_VARIABLE, token)
    with pytest.raises(kit.ResourceError, match="RUNPOD_API_KEY holds no token") as error:
        api.connect()
    assert not token.strip() or token.strip() not in str(error.value)


@pytest.mark.parametrize("url", ["http://example.com", "https://", "ftp://127.0.0.1", "nonsense"])
def test_the_token_goes_nowhere_unprotected(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(http.TOKEN_VARIABLE, TOKEN)
    monkeypatch.setenv(http.URL_VARIABLE, url)
    with pytest.raises(kit.ResourceError, match="holds no https:// address"):
        api.connect()


async def test_a_refusal_says_what_runpod_says(fake: Fake) -> None:
    with pytest.raises(kit.ResourceError) as error:
        await api.connect().create_volume({**VOLUME, "dataCenter": "XX-YY-1"})
    assert error.value.what == "RunPod refused POST /v2/network-volumes (400): data center XX-YY-1 does not exist"


async def test_an_answer_that_is_not_understood_names_the_field(fake: Fake) -> None:
    await made_once(api.connect())
    [volume] = fake.cloud.volumes.values()
    volume["size"] = "large"
    with pytest.raises(kit.ResourceError, match=r"not understood: networkVolumes\[0\]: size: .*integer"):
        await api.connect().list_volumes()
    assert fake.violations, "the stand-in says so too"
    fake.violations.clear()


async def test_the_stand_in_refuses_what_the_description_does_not_allow(fake: Fake) -> None:
    with pytest.raises(kit.ResourceError, match=r"422.*bogus"):
        await api.connect().create_volume({**VOLUME, "bogus": 1})
    assert len(fake.violations) == 1
    fake.violations.clear()


def test_names_carry_the_mark_and_give_the_name_back() -> None:
    other = URN.replace("::v", "::w")
    assert marks.is_marked(NAME, URN)
    assert marks.is_marked(f"{NAME} -fb", URN)
    assert not marks.is_marked(NAME, other)
    assert not marks.is_marked("v-12345678", URN)
    assert marks.plain(f"{NAME} -fb") == "v-12345678"
    assert marks.plain("My Endpoint (2)") == "my-endpoint-2"
    assert marks.plain("42") == "r-42"
    for shown in ("ä", "", "-", "x" * 100):
        assert marks.plain(marks.plain(shown)) == marks.plain(shown)
