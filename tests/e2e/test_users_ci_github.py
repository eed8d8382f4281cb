"""A small GitHub on loopback, which behaves as its REST documentation says, and the workflows' calls against it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from lorafleet import comment
from lorafleet.errors import LorafleetError
from tools.ci.actions import Run
from tools.ci.github import GitHub
from tools.ci.preview import _post

REPOSITORY = "example/fleet"
TOKEN = "ghs_" + "exampleexample0123456789exampleexample01"


class FakeGitHub:
    """Comments, issues, branches, files and pull requests of one repository.

    `permissions` are those of the token; `busy` is the number of requests that are still to be answered with 503;
    `lost` is the number of POSTs whose answer is still to get lost (502), which are done if `does_lost`.
    """

    def __init__(self) -> None:
        self.permissions = {"pull-requests", "issues", "contents"}
        self.comments: dict[int, dict[str, Any]] = {}
        self.issues: dict[int, dict[str, Any]] = {}
        self.pulls: dict[int, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.trees: dict[str, dict[str, bytes]] = {}
        self.commits: dict[str, dict[str, Any]] = {}
        self.branches: dict[str, str] = {}
        self.set_main("a" * 40, {})
        self.calls: list[tuple[str, str]] = []
        self.busy = self.lost = 0
        self.does_lost = True
        self.next = 1000
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                return None

            def _serve(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length)) if length else {}
                status, answer, headers = fake.answer(self.command, self.path, body, self.headers.get("authorization"))
                raw = b"" if answer is None else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"content-length": str(len(raw)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve  # noqa: N815 - the names that the library calls

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def by_workflow(self) -> list[dict[str, Any]]:
        """The comments that a workflow wrote."""
        return [each for each in self.comments.values() if each["user"]["type"] == "Bot"]

    def write(self, number: int, body: str, kind: str = "User") -> int:
        """Writes a comment as somebody."""
        self.next += 1
        self.comments[self.next] = {"id": self.next, "body": body, "user": {"type": kind}, "issue": number}
        return self.next

    def set_main(self, commit: str, files: dict[str, bytes]) -> None:
        """Gives the branch `main` a commit with these files."""
        self.trees[f"tree-{commit}"] = files
        self.commits[commit] = {"sha": commit, "tree": {"sha": f"tree-{commit}"}, "parents": []}
        self.branches["main"] = commit

    def files_of(self, branch: str) -> dict[str, bytes]:
        """What a branch ends with."""
        return self.trees[self.commits[self.branches[branch]]["tree"]["sha"]]

    # -- the API --------------------------------------------------------------------------------------------

    def answer(
        self, method: str, target: str, body: dict[str, Any], authorization: str | None
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON and headers."""
        url = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        path = url.path.removeprefix(f"/repos/{REPOSITORY}")
        self.calls.append((method, path))
        if self.busy:
            self.busy -= 1
            return 503, {"message": "Service unavailable"}, {"retry-after": "0"}
        if authorization != f"Bearer {TOKEN}":
            return 401, {"message": "Bad credentials"}, {}
        for pattern, wanted, handle in self._routes():
            if found := re.fullmatch(pattern, f"{method} {path}"):
                if method != "GET" and not (wanted & self.permissions):
                    missing = {"x-accepted-github-permissions": "; ".join(f"{each}=write" for each in sorted(wanted))}
                    return 403, {"message": "Resource not accessible by integration"}, missing
                if method == "POST" and self.lost:
                    self.lost -= 1
                    if self.does_lost:
                        handle(*found.groups(), body, query)
                    return 502, {"message": "Server Error"}, {}
                status, answer = handle(*found.groups(), body, query)
                return self._paged(url.path, query, answer) if isinstance(answer, list) else (status, answer, {})
        return 404, {"message": "Not Found"}, {}

    def _paged(self, path: str, query: dict[str, str], answer: list[Any]) -> tuple[int, Any, dict[str, str]]:
        size, page = int(query.get("per_page", 30)), int(query.get("page", 1))
        following = {**query, "page": str(page + 1)}
        text = "&".join(f"{key}={value}" for key, value in following.items())
        headers = {"link": f'<{self.url}{path}?{text}>; rel="next"'} if len(answer) > page * size else {}
        return 200, answer[(page - 1) * size : page * size], headers

    def _routes(self) -> list[tuple[str, set[str], Any]]:
        talk = {"issues", "pull-requests"}
        return [
            (r"GET /issues/(\d+)/comments", set(), self._comments),
            (r"POST /issues/(\d+)/comments", talk, self._comment),
            (r"PATCH /issues/comments/(\d+)", talk, self._change_comment),
            (r"DELETE /issues/comments/(\d+)", talk, self._remove_comment),
            (r"GET /issues", set(), self._list_issues),
            (r"POST /issues", {"issues"}, self._issue),
            (r"PATCH /issues/(\d+)", {"issues"}, self._change_issue),
            (r"GET /git/ref/heads/(.+)", set(), self._ref),
            (r"PATCH /git/refs/heads/(.+)", {"contents"}, self._move_ref),
            (r"POST /git/refs", {"contents"}, self._make_ref),
            (r"POST /git/blobs", {"contents"}, self._blob),
            (r"POST /git/trees", {"contents"}, self._tree),
            (r"GET /git/commits/(.+)", set(), self._commit),
            (r"POST /git/commits", {"contents"}, self._make_commit),
            (r"GET /pulls", set(), self._list_pulls),
            (r"POST /pulls", {"pull-requests"}, self._pull),
            (r"PATCH /pulls/(\d+)", {"pull-requests"}, self._change_pull),
        ]

    def _comments(self, number: str, body: Any, query: dict[str, str]) -> tuple[int, Any]:
        return 200, [each for each in self.comments.values() if each["issue"] == int(number)]

    def _comment(self, number: str, body: dict[str, Any], query: Any) -> tuple[int, Any]:
        if len(body["body"]) > 65_536:
            return 422, {"message": "Validation Failed: body is too long (maximum is 65536 characters)"}
        return 201, self.comments[self.write(int(number), body["body"], "Bot")]

    def _change_comment(self, number: str, body: dict[str, Any], query: Any) -> tuple[int, Any]:
        if int(number) not in self.comments:
            return 404, {"message": "Not Found"}
        self.comments[int(number)]["body"] = body["body"]
        return 200, self.comments[int(number)]

    def _remove_comment(self, number: str, body: Any, query: Any) -> tuple[int, Any]:
        return (204, None) if self.comments.pop(int(number), None) else (404, {"message": "Not Found"})

    def _list_issues(self, body: Any, query: dict[str, str]) -> tuple[int, Any]:
        state, label = query.get("state", "open"), query.get("labels")
        return 200, [
            {**each, "labels": [{"name": name} for name in each["labels"]]}
            for each in self.issues.values()
            if state in ("all", each["state"]) and (label is None or label in each["labels"])
        ]

    def _issue(self, body: dict[str, Any], query: Any) -> tuple[int, Any]:
        self.next += 1
        made = {"number": self.next, "id": self.next, "state": "open", "user": {"type": "Bot"}, "labels": [], **body}
        self.issues[self.next] = made
        return 201, made

    def _change_issue(self, number: str, body: dict[str, Any], query: Any) -> tuple[int, Any]:
        self.issues[int(number)] |= body
        return 200, self.issues[int(number)]

    def _ref(self, branch: str, body: Any, query: Any) -> tuple[int, Any]:
        sha = self.branches.get(branch)
        return (200, {"object": {"sha": sha}}) if sha else (404, {"message": "Not Found"})

    def _move_ref(self, branch: str, body: dict[str, Any], query: Any) -> tuple[int, Any]:
        if branch not in self.branches:
            return 422, {"message": "Reference does not exist"}
        if body["sha"] not in self.commits:
            return 422, {"message": "Object does not exist"}
        self.branches[branch] = body["sha"]
        for pull in self.pulls.values():  # GitHub closes what has nothing to merge any more
            if self.branches[pull["head"]] == self.branches[pull["base"]]:
                pull["state"] = "closed"
        return 200, {"object": {"sha": body["sha"]}}

    def _make_ref(self, body: dict[str, Any], query: Any) -> tuple[int, Any]:
        branch = body["ref"].removeprefix("refs/heads/")
        if branch in self.branches:
            return 422, {"message": "Reference already exists"}
        self.branches[branch] = body["sha"]
        return 201, {"object": {"sha": body["sha"]}}

    def _blob(self, body: dict[str, Any], query: Any) -> tuple[int, Any]:
        assert body["encoding"] == "base64"
        content = base64.b64decode(body["content"], validate=True)
        sha = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self.blobs[sha] = content
        return 201, {"sha": sha}

    def _tree(self, body: dict[str, Any], query: Any) -> tuple[int, Any]:
        if body["base_tree"] not in self.trees or any(each["sha"] not in self.blobs for each in body["tree"]):
            return 422, {"message": "base_tree is not a valid tree oid, or a blob is not there"}
        assert all((each["mode"], each["type"]) == ("100644", "blob") for each in body["tree"])
        files = self.trees[body["base_tree"]] | {each["path"]: self.blobs[each["sha"]] for each in body["tree"]}
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.trees[sha] = files
        return 201, {"sha": sha}

    def _commit(self, sha: str, body: Any, query: Any) -> tuple[int, Any]:
        return (200, self.commits[sha]) if sha in self.commits else (404, {"message": "Not Found"})

    def _make_commit(self, body: dict[str, Any], query: Any) -> tuple[int, Any]:
        if body["tree"] not in self.trees or any(each not in self.commits for each in body["parents"]):
            return 422, {"message": "Tree SHA does not exist, or a parent does not"}
        self.next += 1
        sha = hashlib.sha1(f"{self.next} {body}".encode()).hexdigest()
        self.commits[sha] = {
            "sha": sha,
            "tree": {"sha": body["tree"]},
            "parents": [{"sha": p} for p in body["parents"]],
        }
        return 201, self.commits[sha]

    def _list_pulls(self, body: Any, query: dict[str, str]) -> tuple[int, Any]:
        return 200, [
            each
            for each in self.pulls.values()
            if f"example:{each['head']}" == query.get("head") and query.get("state", "open") in ("all", each["state"])
        ]

    def _pull(self, body: dict[str, Any], query: Any) -> tuple[int, Any]:
        if self.branches.get(body["head"]) in (None, self.branches[body["base"]]):
            return 422, {"message": "Validation Failed: no commits between the two"}
        self.next += 1
        self.pulls[self.next] = {"number": self.next, "state": "open", **body}
        return 201, self.pulls[self.next]

    def _change_pull(self, number: str, body: dict[str, Any], query: Any) -> tuple[int, Any]:
        self.pulls[int(number)] |= body
        return 200, self.pulls[int(number)]


@pytest.fixture
def fake() -> Iterator[FakeGitHub]:
    made = FakeGitHub()
    try:
        yield made
    finally:
        made.close()


def client(fake: FakeGitHub, token: str = TOKEN) -> GitHub:
    run = Run(REPOSITORY, fake.url, token, None, None, 7, "main")
    return GitHub(run, pause_s=0.01)


def test_one_comment_of_each_stack_is_found_again_on_a_later_page(fake: FakeGitHub) -> None:
    for number in range(250):
        fake.write(7, f"talk {number}")
    forged = fake.write(7, f"{comment.marker('prod')}\nnothing changes, merge it")
    with client(fake) as github:
        _post(github, 7, "prod", [f"{comment.marker('prod')}\nfirst\n"])
        _post(github, 7, "dev", [f"{comment.marker('dev')}\nother\n"])
        _post(github, 7, "prod", [f"{comment.marker('prod')}\nsecond\n"])
        written = len([call for call in fake.calls if call[0] != "GET"])
        _post(github, 7, "prod", [f"{comment.marker('prod')}\nsecond\n"])
    assert sorted(each["body"].splitlines()[1] for each in fake.by_workflow()) == ["other", "second"]
    assert fake.comments[forged]["body"].endswith("merge it"), "somebody else's comment is not ours to change"
    assert len([call for call in fake.calls if call[0] != "GET"]) == written, "what is right already is not written"


def test_pages_come_and_go(fake: FakeGitHub) -> None:
    def pages(number: int) -> list[str]:
        return [f"{comment.marker('prod', page)}\n{page} of {number}\n" for page in range(1, number + 1)]

    with client(fake) as github:
        for number in (3, 1, 2):
            _post(github, 7, "prod", pages(number))
            assert [each["body"] for each in fake.by_workflow()] == pages(number)


def test_a_comment_that_was_deleted_meanwhile_is_written_again(fake: FakeGitHub) -> None:
    with client(fake) as github:
        number = github.add_comment(7, f"{comment.marker('prod')}\nfirst\n")
        del fake.comments[number]
        assert github.change_comment(number, "x") is False
        github.remove_comment(number)
        _post(github, 7, "prod", [f"{comment.marker('prod')}\nsecond\n"])
    assert len(fake.by_workflow()) == 1


def test_a_missing_permission_is_named(fake: FakeGitHub) -> None:
    fake.permissions = set()
    with client(fake) as github, pytest.raises(LorafleetError) as caught:
        github.add_comment(7, "x")
    assert "status 403" in str(caught.value) and "pull-requests=write" in str(caught.value)
    assert "permissions:" in str(caught.value) and TOKEN not in str(caught.value)


def test_a_wrong_token_is_told_and_not_shown(fake: FakeGitHub) -> None:
    with client(fake, "ghs_" + "wrong0123456789" * 3) as github, pytest.raises(LorafleetError) as caught:
        github.add_comment(7, "x")
    assert "status 401" in str(caught.value) and "ghs_" not in str(caught.value)


def test_a_busy_github_is_asked_again(fake: FakeGitHub) -> None:
    fake.busy = 3
    with client(fake) as github:
        github.add_comment(7, "x")
    assert len(fake.by_workflow()) == 1


def test_one_that_stays_busy_or_away_is_told(fake: FakeGitHub) -> None:
    fake.busy = 100
    with client(fake) as github, pytest.raises(LorafleetError, match="status 503"):
        github.add_comment(7, "x")
    fake.close()
    with client(fake) as github, pytest.raises(LorafleetError, match="could not be reached"):
        github.own_comments(7)


def test_an_issue_of_ours_is_found_and_no_one_elses(fake: FakeGitHub) -> None:
    mark = "<!-- lorafleet:drift:prod -->"
    with client(fake) as github:
        number = github.add_issue("title", f"{mark}\ntext", "drift")
        fake.issues[1] = {
            "number": 1,
            "id": 1,
            "state": "open",
            "user": {"type": "User"},
            "labels": ["drift"],
            "body": f"{mark}\nx",
        }
        assert github.own_issue(mark, "drift") == number
        github.change_issue(number, state="closed")
        assert github.own_issue(mark, "drift") is None


PROPOSED, STACK_FILE = "promote/dev-to-prod", "stacks/Pulumi.prod.yaml"


def test_a_proposal_is_one_branch_and_one_pull_request(fake: FakeGitHub) -> None:
    fake.set_main("a" * 40, {STACK_FILE: b"old", "other": b"kept"})
    numbers = set()
    with client(fake) as github:
        for text in (b"first", b"second \xff"):
            made = github.put_branch(PROPOSED, github.head("main"), STACK_FILE, text, "message")
            assert fake.branches[PROPOSED] == made and fake.commits[made]["parents"] == [{"sha": "a" * 40}]
            numbers.add(github.put_pull_request(PROPOSED, "main", "title", text.decode(errors="replace")))
    (number,) = numbers
    assert list(fake.pulls) == [number] and fake.pulls[number]["body"].startswith("second")
    assert fake.pulls[number]["state"] == "open", "its branch was never at its base"
    assert fake.files_of(PROPOSED) == {STACK_FILE: b"second \xff", "other": b"kept"}
    assert fake.files_of("main")[STACK_FILE] == b"old"


def test_a_branch_at_its_base_closes_the_pull_request(fake: FakeGitHub) -> None:
    """What the proposal must not do, and what the test above would see."""
    with client(fake) as github:
        github.put_branch(PROPOSED, "a" * 40, STACK_FILE, b"new", "message")
        number = github.put_pull_request(PROPOSED, "main", "title", "body")
        github._json("PATCH", f"/git/refs/heads/{PROPOSED}", {"sha": "a" * 40, "force": True})
    assert fake.pulls[number]["state"] == "closed"


def test_what_was_done_without_an_answer_is_not_done_again(fake: FakeGitHub) -> None:
    mark = "<!-- lorafleet:drift:prod -->"
    with client(fake) as github:
        fake.lost = 1
        assert github.add_issue("title", f"{mark}\ntext", "drift") == github.own_issue(mark, "drift")
        fake.lost = 1
        assert github.add_comment(7, "text\n") == fake.by_workflow()[0]["id"]
        github.put_branch(PROPOSED, "a" * 40, STACK_FILE, b"new", "message")
        fake.lost = 1
        assert github.put_pull_request(PROPOSED, "main", "title", "body") in fake.pulls
    assert (len(fake.issues), len(fake.by_workflow()), len(fake.pulls)) == (1, 1, 1)
    assert [fake.calls.count(("POST", path)) for path in ("/issues", "/issues/7/comments", "/pulls")] == [1, 1, 1]


def test_what_may_have_been_done_is_told(fake: FakeGitHub) -> None:
    fake.lost, fake.does_lost = 1, False
    with client(fake) as github, pytest.raises(LorafleetError, match="502, and it is not known whether POST /issues"):
        github.add_issue("title", "<!-- x -->\ntext", "drift")
    assert not fake.issues and fake.calls.count(("POST", "/issues")) == 1


@pytest.mark.parametrize("lost", [1, 2, 3, 4])
def test_a_branch_is_made_although_an_answer_gets_lost(fake: FakeGitHub, lost: int) -> None:
    """Blob, tree and commit can be made twice; the branch is there or not."""
    with client(fake) as github:
        fake.lost = lost if lost < 4 else 0
        if lost == 4:  # the answer to the branch itself
            make = fake._make_ref

            def made_and_lost(body: dict[str, Any], query: Any) -> tuple[int, Any]:
                make(body, query)
                return 502, {"message": "Server Error"}

            fake._make_ref = made_and_lost  # type: ignore[method-assign]
        assert github.put_branch(PROPOSED, "a" * 40, STACK_FILE, b"new", "message") == fake.branches[PROPOSED]
    assert fake.files_of(PROPOSED) == {STACK_FILE: b"new"} and fake.calls.count(("POST", "/git/refs")) == 1
