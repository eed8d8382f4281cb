"""HTTP as Vertex AI wants it: the token, regional addresses, quotas, and repeats only where they do no harm.

Each request has a connection of its own: on a kept one that Google has closed meanwhile, nobody could tell whether
a POST arrived.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from providers import kit

from . import credentials

URL_VARIABLE = "LORAFLEET_VERTEX_URL"  # another address than Google's, for tests

_TIMEOUTS_S = (10.0, 60.0)  # to connect, to answer
# How often a request that may be repeated is made.
_ATTEMPTS = 7
_LONGEST_PAUSE_S = 30.0
_SHOWN_CHARACTERS = 600
# Before something is asked for again; it doubles each time.
FIRST_PAUSE_S = 0.2


class OutcomeUnknownError(kit.ResourceError):
    """The request may have taken effect or not: no answer came, or one that says nothing about it."""


class RefusedError(kit.ResourceError):
    """Vertex AI said no. status: of HTTP; reason: Google's name for it, such as FAILED_PRECONDITION."""

    def __init__(self, what: str, *, status: int, reason: str, next_action: str) -> None:
        super().__init__(what, next_action=next_action)
        self.status, self.reason = status, reason


class _NotSentError(Exception):
    """No connection: Vertex AI has not seen the request."""


@dataclass(frozen=True)
class _Answer:
    status: int
    retry_after: str
    body: bytes


@dataclass(frozen=True)
class Http:
    """Requests to one address."""

    url: str

    async def get(self, path: str, **query: str) -> Any:
        """The JSON at a path, or None where there is nothing (404)."""
        return await self._ask("GET", path, query, None, repeat=True)

    async def delete(self, path: str) -> Any:
        """The operation that deletes; None if there is nothing to delete. As `post`."""
        return await self._ask("DELETE", path, {}, None, repeat=False)

    async def post(self, path: str, body: object, **query: str) -> Any:
        """The JSON of the answer. Raises OutcomeUnknownError where it may have taken effect; it is not repeated."""
        return await self._ask("POST", path, query, body, repeat=False)

    async def patch(self, path: str, body: object, **query: str) -> Any:
        """As `post`, but repeated: what a PATCH says here is absolute."""
        return await self._ask("PATCH", path, query, body, repeat=True)

    async def _ask(self, method: str, path: str, query: dict[str, str], body: object, *, repeat: bool) -> Any:
        """The JSON of an answer that is good; None for a 404 to GET and DELETE."""
        for attempt in range(1, _ATTEMPTS + 1):
            last = attempt == _ATTEMPTS
            # Not all at once: the resources of a run wait for the same quota.
            pause = min(FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S) * random.uniform(0.8, 1.2)
            try:
                # In a thread, so that other resources are not held up.
                answer = await asyncio.to_thread(self._exchange, method, path, query, body)
            except _NotSentError as error:
                if last:
                    raise kit.ResourceError(
                        f"Vertex AI at {urlsplit(self.url).netloc} cannot be reached: {error}",
                        next_action="look at the network and at https://status.cloud.google.com, then run it again",
                    ) from None
            except OSError as error:
                if last or not repeat:
                    raise _unknown(method, path, type(error).__name__) from None
            else:
                if answer.status < 300:
                    return _json(answer, method, path)
                if answer.status == 404 and method in ("GET", "DELETE"):
                    return None
                if answer.status == 429 and not last:
                    # It was refused unseen, so even a POST may be made again.
                    pause = max(pause, float(answer.retry_after)) if answer.retry_after.isdigit() else pause
                elif answer.status < 500 or answer.status == 501:
                    raise _refusal(method, path, answer)
                elif last or not repeat:
                    raise _unknown(method, path, f"it answered {answer.status}{_said(answer)[1]}")
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _exchange(self, method: str, path: str, query: dict[str, str], body: object) -> _Answer:
        # Imported here, as an SDK would be.
        import requests

        url = f"{self.url}{path}{'?' + urlencode(query) if query else ''}"
        headers = {**credentials.headers(), "accept": "application/json"}
        data = None
        if body is not None:
            headers["content-type"] = "application/json; charset=utf-8"
            data = json.dumps(body).encode()
        try:
            # `trust_env` of a session would let ~/.netrc take the token's place; proxies come from the environment.
            with requests.Session() as session:
                session.auth = _keep_header
                answer = session.request(
                    method, url, headers=headers, data=data, timeout=_TIMEOUTS_S, allow_redirects=False
                )
                return _Answer(answer.status_code, answer.headers.get("retry-after", ""), answer.content)
        except requests.exceptions.ConnectTimeout:
            raise _NotSentError("no connection within 10 s") from None
        except requests.exceptions.ConnectionError as error:
            if _not_trusted(error):
                raise _NotSentError("its certificate is not accepted") from None
            if _never_connected(error):
                raise _NotSentError("no connection") from None
            raise ConnectionError(str(error)) from None


def _keep_header(request: Any) -> Any:
    return request


def _never_connected(error: Exception) -> bool:
    from urllib3.exceptions import MaxRetryError, NewConnectionError

    cause = error.args[0] if error.args else None
    reason = cause.reason if isinstance(cause, MaxRetryError) else cause
    return isinstance(reason, NewConnectionError)


def _not_trusted(error: Exception) -> bool:
    """Whether the server's certificate was refused. Other errors of TLS may come after the request was sent."""
    from urllib3.exceptions import MaxRetryError

    cause = error.args[0] if error.args else None
    reason = cause.reason if isinstance(cause, MaxRetryError) else cause
    return any(isinstance(each, ssl.CertificateError) for each in getattr(reason, "args", ()))


def connect(location: str) -> Http:
    """The API of a region.

    Raises kit.ResourceError if the address for tests cannot be used.
    """
    given = os.environ.get(URL_VARIABLE)
    if not given:
        return Http(f"https://{location}-aiplatform.googleapis.com")
    parts = urlsplit(given)
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme, parts.hostname) == ("http", "127.0.0.1")):
        raise kit.ResourceError(
            f"the environment variable {URL_VARIABLE} holds no https:// address",
            next_action="take it away: Google's own address is used without it",
        )
    return Http(given.rstrip("/"))


def not_understood(what: str) -> kit.ResourceError:
    return kit.ResourceError(
        f"Vertex AI says something that is not understood: {what}",
        next_action="see whether Google has changed its API; providers/vertex/answers.py says what is expected",
    )


def _json(answer: _Answer, method: str, path: str) -> Any:
    try:
        return json.loads(answer.body or b"{}")
    except ValueError:
        if method == "GET":
            raise not_understood(f"GET {path}: an answer that is not JSON") from None
        raise _unknown(method, path, "its answer is not JSON") from None


_NEXT = {
    401: "the token is not accepted: run `gcloud auth application-default login` again",
    403: "give the account roles/aiplatform.user, and roles/iam.serviceAccountUser on the account that the container "
    "runs as; see that aiplatform.googleapis.com is enabled in the project; then run it again",
    404: "see whether what is referred to was deleted: run `pulumi refresh`, then `pulumi up`",
    409: "wait until what is under way on Vertex AI has ended, then run it again",
    429: "ask for more quota (console, IAM, Quotas), or wait a little, and run it again",
}


def _refusal(method: str, path: str, answer: _Answer) -> RefusedError:
    reason, said = _said(answer)
    next_action = _NEXT.get(answer.status, "mend what Vertex AI complains about and run it again")
    what = f"Vertex AI refused {method} {path} ({answer.status}{' ' + reason if reason else ''}){said}"
    return RefusedError(what, status=answer.status, reason=reason, next_action=next_action)


def _said(answer: _Answer) -> tuple[str, str]:
    """(Google's name of an error, `: what it says` on one line), both empty if it says nothing."""
    reason = ""
    try:
        error = json.loads(answer.body)["error"]
        reason, text = str(error.get("status") or ""), str(error.get("message") or "")
        for detail in error.get("details", []):
            for fault in detail.get("fieldViolations", []):
                text += f"; {fault.get('field')}: {fault.get('description')}"
    except (ValueError, AttributeError, TypeError, KeyError):
        text = answer.body.decode(errors="replace")
    token = os.environ.get(credentials.TOKEN_VARIABLE)
    if token:
        text = text.replace(token, "[secret]")
    line = " ".join(text.split())[:_SHOWN_CHARACTERS]
    return reason, f": {line}" if line else ""


def _unknown(method: str, path: str, why: str) -> kit.ResourceError:
    if method == "GET":
        return kit.ResourceError(
            f"Vertex AI gave no answer to GET {path}: {why}",
            next_action="look at https://status.cloud.google.com and run the command again",
        )
    return OutcomeUnknownError(
        f"it is not known whether Vertex AI carried out {method} {path}: {why}",
        next_action="run the command again: it looks at what there is before it changes anything",
    )
