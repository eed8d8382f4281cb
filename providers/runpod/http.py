"""HTTP as RunPod's REST API v2 wants it: the token, time-outs, quotas, and repeats only where they do no harm.

The standard library's client, not an SDK: RunPod's own speaks GraphQL, which is to be switched off, and cannot change
or delete an endpoint. One request has one connection, because a plugin run makes a handful of them.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import re
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from providers import kit

from .echoes import without_echoes

TOKEN_VARIABLE = "RUNPOD_API_KEY"
URL_VARIABLE = "RUNPOD_API_URL"  # another address, for tests
DEFAULT_URL = "https://api.runpod.io"

_CONNECT_TIMEOUT_S = 10.0
_ANSWER_TIMEOUT_S = 60.0
# How often a request that may be repeated is made, and for how long at most a quota is waited for.
_ATTEMPTS = 6
_LONGEST_PAUSE_S = 90.0
_SHOWN_CHARACTERS = 400
_READ_CHARACTERS = 20_000
# Before something is asked for again; it doubles each time.
FIRST_PAUSE_S = 0.2


class OutcomeUnknownError(kit.ResourceError):
    """The request may have taken effect or not: no answer came, or one that says nothing about it."""


class RefusedError(kit.ResourceError):
    """RunPod refused a request, which had no effect. status: of its answer, 400 to 499."""

    def __init__(self, status: int, what: str, *, next_action: str) -> None:
        super().__init__(what, next_action=next_action)
        self.status = status


class _NotSentError(Exception):
    """No connection: RunPod has not seen the request."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class _Quota:
    """When the next request may be made, by what the answers so far said. One for all calls of this process."""

    not_before: float = 0.0

    def heed(self, headers: dict[str, str]) -> None:
        for left, reset in re.findall(r"r=(\d+)\s*;\s*t=(\d+)", headers.get("ratelimit", "")):
            if int(left) == 0:
                self.pause(float(reset))

    def pause(self, seconds: float) -> None:
        self.not_before = max(self.not_before, time.monotonic() + seconds)

    async def wait(self) -> None:
        pause = self.not_before - time.monotonic()
        if pause > _LONGEST_PAUSE_S:
            raise kit.ResourceError(
                f"RunPod's quota of requests for this account is used up for another {pause:.0f} s",
                next_action="run the command again after that time; nothing was changed by this request",
            )
        if pause > 0:
            await asyncio.sleep(pause)


_quota = _Quota()


@dataclass(frozen=True)
class Http:
    """Requests to one address with one token, which `repr` does not show."""

    url: str
    token: str = field(repr=False)

    async def get(self, path: str) -> Any:
        """The JSON at a path, or None where there is nothing (404)."""
        answer = await self._ask("GET", path, None, repeat=True)
        return None if answer.status == 404 else self._json(answer, "GET", path)

    async def delete(self, path: str) -> bool:
        """Deletes; False if RunPod finds nothing there."""
        return (await self._ask("DELETE", path, None, repeat=True)).status != 404

    async def post(self, path: str, body: object) -> Any:
        """The JSON of the answer. Raises OutcomeUnknownError where it may have taken effect; it is not repeated."""
        return self._json(await self._ask("POST", path, body, repeat=False), "POST", path)

    async def patch(self, path: str, body: object) -> Any:
        """As `post`."""
        return self._json(await self._ask("PATCH", path, body, repeat=False), "PATCH", path)

    async def _ask(self, method: str, path: str, body: object, *, repeat: bool) -> Answer:
        """An answer that is good, or 404 to GET and DELETE."""
        for attempt in range(1, _ATTEMPTS + 1):
            last = attempt == _ATTEMPTS
            pause = min(FIRST_PAUSE_S * 2**attempt, 5.0)
            await _quota.wait()
            try:
                # In a thread, so that other resources are not held up.
                answer = await asyncio.to_thread(self._exchange, method, path, body)
            except _NotSentError as error:
                if last:
                    raise kit.ResourceError(
                        f"RunPod's API at {urlsplit(self.url).netloc} cannot be reached: {error}",
                        next_action="look at the network and at https://uptime.runpod.io, then run the command again",
                    ) from None
            except OSError as error:
                if last or not repeat:
                    raise _unknown(method, path, str(error) or type(error).__name__) from None
            else:
                _quota.heed(answer.headers)
                if answer.status == 429 and not last:
                    # RunPod has refused to look at it, so even a POST may be made again.
                    _quota.pause(_retry_after(answer.headers.get("retry-after", ""), pause))
                    continue
                if answer.status < 300 or (answer.status == 404 and method in ("GET", "DELETE")):
                    return answer
                if answer.status < 500:
                    raise self._refusal(method, path, answer, body)
                if last or not repeat:
                    raise _unknown(method, path, f"it answered {answer.status}{self._said(answer, body)}")
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _exchange(self, method: str, path: str, body: object) -> Answer:
        # Imported here, as an SDK would be. It follows no redirect, which could carry the token elsewhere.
        from http.client import HTTPConnection, HTTPException, HTTPSConnection

        parts = urlsplit(self.url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.netloc, timeout=_CONNECT_TIMEOUT_S)
        headers = {"authorization": f"Bearer {self.token}", "accept": "application/json, application/problem+json"}
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            try:
                connection.connect()
            except OSError as error:
                raise _NotSentError(str(error) or type(error).__name__) from None
            connection.sock.settimeout(_ANSWER_TIMEOUT_S)
            text = None if body is None else json.dumps(body).encode()
            connection.request(method, parts.path + path, text, headers)
            answer = connection.getresponse()
            return Answer(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
        except HTTPException as error:
            raise ConnectionError(str(error) or type(error).__name__) from None
        finally:
            connection.close()

    def _json(self, answer: Answer, method: str, path: str) -> Any:
        try:
            return json.loads(answer.body or b"null")
        except ValueError:
            if method == "GET":
                raise not_understood(f"GET {path}: an answer that is not JSON") from None
            raise _unknown(method, path, "its answer is not JSON") from None

    def _refusal(self, method: str, path: str, answer: Answer, body: object) -> RefusedError:
        if answer.status == 401:
            return RefusedError(
                401,
                f"RunPod does not accept the token in {TOKEN_VARIABLE} (401)",
                next_action=f"make a new API key in RunPod's console (Settings, API Keys) and set {TOKEN_VARIABLE}",
            )
        next_action = {
            403: f"give the key in {TOKEN_VARIABLE} the right to read and write, or use another one",
            404: "see whether what is referred to was deleted: run `pulumi refresh`, then `pulumi up`",
            409: "wait until what is under way on RunPod has ended, then run the command again",
            429: "wait a little and run the command again",
        }.get(answer.status, "mend what RunPod complains about and run the command again")
        what = f"RunPod refused {method} {path} ({answer.status}){self._said(answer, body)}"
        return RefusedError(answer.status, what, next_action=next_action)

    def _said(self, answer: Answer, body: object) -> str:
        """What a problem document says, on one line, without the token and what is secret in the request's body."""
        try:
            problem = json.loads(answer.body)
            parts = [problem.get("detail") or problem.get("title") or "", *problem.get("errors", [])]
            text = "; ".join(str(part) for part in parts if part)
        except (ValueError, AttributeError, TypeError):
            text = answer.body.decode(errors="replace")
        # Before it is cut: a part of a secret would not be known for one any more.
        text = without_echoes(text[:_READ_CHARACTERS].replace(self.token, "[secret]"), body)
        line = " ".join(text.split())[:_SHOWN_CHARACTERS]
        return f": {line}" if line else ""


def connect() -> Http:
    """The API, with the token of this run's environment.

    Raises kit.ResourceError if it is missing or cannot be used.
    """
    url, token = os.environ.get(URL_VARIABLE) or DEFAULT_URL, os.environ.get(TOKEN_VARIABLE, "")
    parts = urlsplit(url)
    if not _has_place(parts) or not (
        parts.scheme == "https" or (parts.scheme, parts.hostname) == ("http", "127.0.0.1")
    ):
        raise kit.ResourceError(
            f"the environment variable {URL_VARIABLE} holds no https:// address",
            next_action=f"take it away: {DEFAULT_URL} is used without it",
        )
    problem = token_problem()
    if problem is not None:
        raise problem
    return Http(url.rstrip("/"), token)


def _has_place(parts: SplitResult) -> bool:
    try:
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number
        return False


def token_problem() -> kit.ResourceError | None:
    """What is wrong with the token, as far as can be seen without asking RunPod."""
    token = os.environ.get(TOKEN_VARIABLE, "")
    if token.isascii() and token.isprintable() and token.strip() == token != "":
        return None
    return kit.ResourceError(
        f"the environment variable {TOKEN_VARIABLE} holds no token (its value is not shown)",
        next_action="set it to a RunPod API key, without spaces or line ends around it",
    )


def not_understood(what: str) -> kit.ResourceError:
    return kit.ResourceError(
        f"RunPod's API says something that is not understood: {what}",
        next_action="see whether RunPod has changed its API; providers/runpod/answers.py says what is expected",
    )


def _unknown(method: str, path: str, why: str) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"it is not known whether RunPod carried out {method} {path}: {why}",
        next_action="run the command again: it looks at what there is before it changes anything",
    )


def _retry_after(value: str, otherwise: float) -> float:
    """Seconds of a Retry-After header, which has a number or a date."""
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return otherwise
