"""Access tokens of Google, for targets that ask for one instead of a lasting key.

They live for an hour. A machine of Google's gets them from its metadata server, as the service account that it runs
as; a developer's from `gcloud`. https://cloud.google.com/compute/docs/access/authenticate-workloads#applications
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

_METADATA = "metadata.google.internal"
_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
_METADATA_TIMEOUT_S = 2.0
_GCLOUD_TIMEOUT_S = 20.0
# gcloud does not say how long its token lives, and gives out a used one: ask often.
_GCLOUD_LIFETIME_S = 600.0
# Google hands out a new token when the old one has less than five minutes left.
_EARLY_S = 240.0
_RETRY_S = 10.0
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")


class NoTokenError(Exception):
    """No token can be had now. The text says why, and holds none."""


@dataclass(frozen=True)
class Token:
    """`until` is a time of this machine's monotonic clock."""

    text: str
    until: float


def fetch() -> Token:
    """A token of the metadata server (another address: GCE_METADATA_HOST), else of gcloud. Raises NoTokenError."""
    try:
        return _from_metadata()
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        without = f"the metadata server does not answer ({type(error).__name__})"
    program = shutil.which("gcloud")
    if program is None:
        raise NoTokenError(f"{without}, and there is no gcloud here")
    try:
        done = subprocess.run(
            [program, "auth", "print-access-token", "--quiet"],
            capture_output=True,
            text=True,
            timeout=_GCLOUD_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoTokenError(f"{without}, and gcloud can't be run ({type(error).__name__})") from None
    if done.returncode != 0:
        raise NoTokenError(f"{without}, and `gcloud auth print-access-token` failed: `gcloud auth login` first")
    return Token(_checked(done.stdout.strip()), time.monotonic() + _GCLOUD_LIFETIME_S)


def _from_metadata() -> Token:
    connection = http.client.HTTPConnection(os.environ.get("GCE_METADATA_HOST", _METADATA), timeout=_METADATA_TIMEOUT_S)
    try:
        connection.request("GET", _PATH, headers={"Metadata-Flavor": "Google"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(f"HTTP {answer.status}")
        document = json.loads(answer.read(65536))
    finally:
        connection.close()
    return Token(_checked(document["access_token"]), time.monotonic() + float(document["expires_in"]))


def _checked(text: str) -> str:
    if _TOKEN.fullmatch(text) is None:
        raise NoTokenError("what came is no access token")
    return text


class Tokens:
    """Keeps one token fresh. `changed` is awaited with each new one, and with None when the last one has run out."""

    def __init__(
        self, changed: Callable[[str | None], Coroutine[None, None, None]], say: Callable[[str], None]
    ) -> None:
        self._changed = changed
        self._say = say
        self._token: Token | None = None
        self._silent = False
        self._task: asyncio.Task[None] | None = None

    @property
    def text(self) -> str | None:
        """The token of now."""
        token = self._token
        return token.text if token is not None and token.until > time.monotonic() else None

    async def begin(self) -> None:
        """Looks for a first one, and from then on keeps it fresh. Once begun, it does nothing more."""
        if self._task is None:
            pause_s = await self._renew()
            self._task = asyncio.create_task(self._run(pause_s))

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self, pause_s: float) -> None:
        while True:
            await asyncio.sleep(pause_s)
            before = self.text
            pause_s = await self._renew()
            if self.text != before or self.text is None:
                await self._changed(self.text)

    async def _renew(self) -> float:
        """Gives the seconds until the next time."""
        try:
            self._token = await asyncio.to_thread(fetch)
        except NoTokenError as error:
            if not self._silent:
                self._say(f"no access token of Google for targets that ask for one: {error}")
            self._silent = True
            return _RETRY_S
        if self._silent:
            self._say("there is an access token of Google again")
        self._silent = False
        return max(_RETRY_S, self._token.until - time.monotonic() - _EARLY_S)
