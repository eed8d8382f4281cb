"""The few calls of GitHub's REST API that the workflows need (https://docs.github.com/en/rest)."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
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


class _UnsureError(LorafleetError):
    """GitHub did not say whether it has done what it was asked for."""


class GitHub:
    """One repository, with the token of one run.

    Every call raises LorafleetError, with what the token lacks where it was refused. Comments, issues and pull requests
    are asked for once: where the answer got lost, they are looked for instead.
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

        def there() -> int | None:
            return max(
                (each.id for each in self.own_comments(number) if each.body.strip() == body.strip()), default=None
            )

        return self._made_once(f"/issues/{number}/comments", {"body": body}, "id", there)

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
        """Opens an issue whose body begins with a marker; gives its number. The label is made if it is not there."""
        asked = {"title": title, "body": body, "labels": [label]}
        return self._made_once("/issues", asked, "number", lambda: self.own_issue(body.split("\n")[0], label))

    def change_issue(self, number: int, **fields: str) -> None:
        """Changes `title`, `body` or `state` of an issue."""
        self._json("PATCH", f"/issues/{number}", fields)

    # -- a proposal of one changed file -----------------------------------------------------------------------

    def head(self, branch: str) -> str:
        """The commit that a branch ends with."""
        return str(self._json("GET", f"/git/ref/heads/{branch}")["object"]["sha"])

    def put_branch(self, branch: str, parent: str, path: str, content: bytes, message: str) -> str:
        """Makes a branch of one commit after `parent`, in which one file is other, or moves it there; gives the commit.

        The branch changes in one step: GitHub closes a pull request whose branch is at its base for a moment.
        """
        # These three are seen by nobody until the branch has them, so one that is made twice does no harm.
        blob = self._json(
            "POST",
            "/git/blobs",
            {"content": base64.b64encode(content).decode(), "encoding": "base64"},
            again=True,
        )["sha"]
        tree = self._json(
            "POST",
            "/git/trees",
            {
                "base_tree": self._json("GET", f"/git/commits/{parent}")["tree"]["sha"],
                "tree": [{"path": path, "mode": "100644", "type": "blob", "sha": blob}],
            },
            again=True,
        )["sha"]
        asked = {"message": message, "tree": tree, "parents": [parent]}
        commit = str(self._json("POST", "/git/commits", asked, again=True)["sha"])
        moved = self._send(
            "PATCH", f"/git/refs/heads/{branch}", {"sha": commit, "force": True}, missing=True, absent=422
        )
        if moved is None:
            try:
                self._json("POST", "/git/refs", {"ref": f"refs/heads/{branch}", "sha": commit})
            except _UnsureError:
                # There now or not: this moves it to where it is, or says that it is not there.
                self._json("PATCH", f"/git/refs/heads/{branch}", {"sha": commit, "force": True})
        return commit

    def put_pull_request(self, branch: str, base: str, title: str, body: str) -> int:
        """Opens the pull request of a branch, or writes the open one anew; gives its number."""
        owner = self._repository.split("/")[2]

        def there() -> int | None:
            found = self._all("/pulls", {"state": "open", "head": f"{owner}:{branch}", "base": base})
            return next((int(each["number"]) for each in found), None)

        number = there()
        if number is None:
            return self._made_once(
                "/pulls", {"title": title, "head": branch, "base": base, "body": body}, "number", there
            )
        self._json("PATCH", f"/pulls/{number}", {"title": title, "body": body})
        return number

    # -- the wire -------------------------------------------------------------------------------------------

    def _all(self, path: str, params: dict[str, str]) -> Iterator[dict[str, Any]]:
        """All pages of a list."""
        answer = self._send("GET", path, params={**params, "per_page": "100"})
        while answer is not None:
            yield from answer.json()
            following = answer.links.get("next", {}).get("url")
            answer = self._send("GET", following, whole=True) if following else None

    def _made_once(self, path: str, body: object, key: str, there: Callable[[], int | None]) -> int:
        """POSTs what must not be there twice; gives the number under `key`, or what `there` finds if none came."""
        try:
            return int(self._json("POST", path, body)[key])
        except _UnsureError:
            for number in range(1, _TRIES + 1):
                time.sleep(self._pause_s * number)  # lists are brought up to date a little later
                found = there()
                if found is not None:
                    return found
            raise

    def _json(self, method: str, path: str, body: object = None, *, again: bool = False) -> dict[str, Any]:
        answer = self._send(method, path, body, again=again)
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
        again: bool = False,
    ) -> httpx.Response | None:
        """Sends a request; None if `missing` and the thing is not there (404, or the status `absent`).

        What GitHub has certainly not done is sent again, and so is all that can be done twice: everything but a POST,
        and a POST with `again`.

        Raises:
            _UnsureError: it is not known whether a POST was done.
        """
        url = path if whole else self._repository + path
        again = again or method != "POST"
        for number in range(1, _TRIES + 1):
            try:
                answer = self._client.request(method, url, json=body, params=params)
            except httpx.TransportError as error:
                said = f"GitHub could not be reached: {type(error).__name__}"
                if not again and not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
                    raise _unsure(method, path, said) from None
                if number == _TRIES:
                    raise LorafleetError(said, next_action="run the job again") from None
                time.sleep(self._pause_s * number)
                continue
            if not again and _is_unsure(answer):
                raise _unsure(method, path, f"GitHub answered with status {answer.status_code}")
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


def _is_unsure(answer: httpx.Response) -> bool:
    """Whether a failed request may have been done all the same; `retry-after` says that it was not."""
    return answer.status_code in (500, 502, 504) or (answer.status_code == 503 and "retry-after" not in answer.headers)


def _unsure(method: str, path: str, said: str) -> _UnsureError:
    return _UnsureError(
        f"{said}, and it is not known whether {method} {path} was done",
        next_action="look whether it is there, then run the job again: that also looks first",
    )


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
