"""The few calls of GitHub's REST API that the workflows need (https://docs.github.com/en/rest)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict

from lorafleet.errors import LorafleetError
from tools.ci.actions import Run

_TRIES = 4
_LONGEST_WAIT_S = 60.0
_TIMEOUT_S = 30.0


class _User(BaseModel):
    model_config = ConfigDict(extra="ignore")
    type: str = ""


class Text(BaseModel):
    """A comment or an issue: `id` names a comment, `number` an issue."""

    model_config = ConfigDict(extra="ignore")
    id: int = 0
    number: int = 0
    body: str | None = None
    user: _User | None = None
    pull_request: dict[str, Any] | None = None


class Comment(BaseModel):
    """A comment of this workflow's own."""

    id: int
    body: str


class GitHub:
    """One repository, with the token of one run.

    Every call raises LorafleetError, with what the token lacks where it was refused.
    """

    def __init__(self, run: Run, *, pause_s: float = 2.0) -> None:
        self._repository = f"/repos/{run.repository}"
        self._pause_s = pause_s
        self._client = httpx.Client(
            base_url=run.api_url,
            timeout=_TIMEOUT_S,
            follow_redirects=True,
            headers={
                "Authorization": f"Bearer {run.token}",
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": "2022-11-28",
                "User-Agent": "lorafleet",
            },
        )

    def __enter__(self) -> GitHub:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()

    # -- comments and issues --------------------------------------------------------------------------------

    def own_comments(self, number: int) -> list[Comment]:
        """The comments on an issue or a pull request that a workflow wrote: anybody may write our marker, too."""
        found = (Text.model_validate(each) for each in self._all(f"/issues/{number}/comments", {}))
        return [Comment(id=each.id, body=_lines(each.body)) for each in found if each.user and each.user.type == "Bot"]

    def add_comment(self, number: int, body: str) -> int:
        """Writes a comment; gives its id."""
        return int(self._json("POST", f"/issues/{number}/comments", {"body": body})["id"])

    def change_comment(self, comment: int, body: str) -> bool:
        """Writes a comment anew; False if it is gone."""
        return self._send("PATCH", f"/issues/comments/{comment}", {"body": body}, missing=True) is not None

    def remove_comment(self, comment: int) -> None:
        """Deletes a comment; no error if it is gone."""
        self._send("DELETE", f"/issues/comments/{comment}", missing=True)

    def own_issue(self, marker: str, label: str) -> int | None:
        """Number of the open issue of a workflow's own whose body begins with the marker."""
        for each in self._all("/issues", {"state": "open", "labels": label}):
            issue = Text.model_validate(each)
            is_own = issue.user is not None and issue.user.type == "Bot" and issue.pull_request is None
            if is_own and _lines(issue.body).startswith(f"{marker}\n"):
                return issue.number
        return None

    def add_issue(self, title: str, body: str, label: str) -> int:
        """Opens an issue; gives its number. The label is made with it if it is not there."""
        return int(self._json("POST", "/issues", {"title": title, "body": body, "labels": [label]})["number"])

    def change_issue(self, number: int, **fields: str) -> None:
        """Changes `title`, `body` or `state` of an issue."""
        self._json("PATCH", f"/issues/{number}", fields)

    # -- a proposal of one changed file -----------------------------------------------------------------------

    def head(self, branch: str) -> str:
        """The commit that a branch ends with."""
        return str(self._json("GET", f"/git/ref/heads/{branch}")["object"]["sha"])

    def put_branch(self, branch: str, commit: str) -> None:
        """Makes a branch at a commit, or moves it there."""
        moved = self._send(
            "PATCH", f"/git/refs/heads/{branch}", {"sha": commit, "force": True}, missing=True, absent=422
        )
        if moved is None:
            self._json("POST", "/git/refs", {"ref": f"refs/heads/{branch}", "sha": commit})

    def put_file(self, branch: str, path: str, content_base64: str, message: str) -> None:
        """Commits one file to a branch."""
        former = self._send("GET", f"/contents/{path}", params={"ref": branch}, missing=True)
        body = {"message": message, "content": content_base64, "branch": branch}
        if former is not None:
            body["sha"] = former.json()["sha"]
        self._json("PUT", f"/contents/{path}", body)

    def put_pull_request(self, branch: str, base: str, title: str, body: str) -> int:
        """Opens the pull request of a branch, or writes the open one anew; gives its number."""
        owner = self._repository.split("/")[2]
        for each in self._all("/pulls", {"state": "open", "head": f"{owner}:{branch}", "base": base}):
            number = int(each["number"])
            self._json("PATCH", f"/pulls/{number}", {"title": title, "body": body})
            return number
        return int(self._json("POST", "/pulls", {"title": title, "head": branch, "base": base, "body": body})["number"])

    # -- the wire -------------------------------------------------------------------------------------------

    def _all(self, path: str, params: dict[str, str]) -> Iterator[dict[str, Any]]:
        """All pages of a list."""
        answer = self._send("GET", path, params={**params, "per_page": "100"})
        while answer is not None:
            yield from answer.json()
            following = answer.links.get("next", {}).get("url")
            answer = self._send("GET", following, whole=True) if following else None

    def _json(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = self._send(method, path, body)
        assert answer is not None
        found: dict[str, Any] = answer.json()
        return found

    def _send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        params: dict[str, str] | None = None,
        missing: bool = False,
        absent: int = 404,
        whole: bool = False,
    ) -> httpx.Response | None:
        """Sends a request; None if `missing` and the thing is not there (404, or the status `absent`)."""
        url = path if whole else self._repository + path
        for number in range(1, _TRIES + 1):
            try:
                answer = self._client.request(method, url, json=body, params=params)
            except httpx.TransportError as error:
                # What was sent may have arrived: only what can be done twice is tried again.
                if number == _TRIES or method == "POST":
                    raise LorafleetError(
                        f"GitHub could not be reached: {type(error).__name__}", next_action="run the job again"
                    ) from None
                time.sleep(self._pause_s * number)
                continue
            if not _is_busy(answer) or number == _TRIES:
                break
            time.sleep(min(_LONGEST_WAIT_S, float(answer.headers.get("retry-after") or self._pause_s * number)))
        if missing and answer.status_code in (404, absent):
            return None
        if answer.is_error:
            raise _refusal(method, path, answer)
        return answer


def _is_busy(answer: httpx.Response) -> bool:
    """Whether GitHub asks to come again: it is overloaded, or this token has asked too often."""
    limited = answer.status_code in (403, 429) and (
        "retry-after" in answer.headers or answer.headers.get("x-ratelimit-remaining") == "0"
    )
    return limited or answer.status_code in (500, 502, 503, 504)


def _refusal(method: str, path: str, answer: httpx.Response) -> LorafleetError:
    try:
        said = str(answer.json().get("message", ""))[:200]
    except (ValueError, AttributeError):
        said = ""
    wanted = answer.headers.get("x-accepted-github-permissions", "")
    hint = "give the job's `permissions:` what is missing; a run for a fork never has it"
    return LorafleetError(
        f"GitHub refused {method} {path.split('?')[0]} with status {answer.status_code}{': ' + said if said else ''}",
        allowed=f"a token with {wanted}" if wanted else "",
        next_action=hint
        if answer.status_code in (401, 403, 404)
        else "run the job again; if it stays, read the message",
    )


def _lines(body: str | None) -> str:
    # Texts that were edited on the web come back with other line ends.
    return (body or "").replace("\r\n", "\n")
