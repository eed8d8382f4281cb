"""The preview of a pull request, and the comment on it."""

from __future__ import annotations

from pathlib import Path

from lorafleet import comment
from lorafleet.errors import LorafleetError
from tools.ci import actions, engine
from tools.ci.github import GitHub


def run(stack: str, out: Path) -> int:
    """Previews one stack; its account stays in `out` for `comment_on`. Gives the preview's exit status."""
    account = engine.preview(actions.stack_name(stack), out / stack)
    pages = comment.pages(stack, account.preview, account.events, account.status, said=account.said)
    actions.show("\n".join(pages))
    return account.status


def comment_on(stack: str, out: Path) -> int:
    """Writes the account of an earlier `run` to the pull request and, whole, to the run's summary.

    There is one comment of each stack, which every further run changes; what one comment can't hold goes to further
    ones, which go again when they are not needed.

    Raises:
        LorafleetError: there is no pull request, or the token may not write to it.
    """
    account = engine.read(out / actions.stack_name(stack))
    this = actions.this_run()
    links = comment.Links(run=this.url, commit=this.commit)

    def pages(limit_bytes: int) -> list[str]:
        return comment.pages(
            stack,
            account.preview,
            account.events,
            account.status,
            links,
            said=account.said,
            limit_bytes=limit_bytes,
        )

    actions.summary(pages(actions.SUMMARY_LIMIT_BYTES)[0])
    if this.pull_request is None:
        raise LorafleetError(
            "it is not known which pull request this is about",
            allowed="a run of a pull request, or its number in PULL_REQUEST",
            next_action="give the workflow's input `pull_request`",
        )
    with GitHub(this) as github:
        _post(github, this.pull_request, stack, pages(comment.LIMIT_BYTES))
    return 0


def _post(github: GitHub, number: int, stack: str, pages: list[str]) -> None:
    theirs = github.own_comments(number)
    kept: set[int] = set()
    for page, text in enumerate(pages, start=1):
        mark = comment.marker(stack, page)
        former = next((each for each in theirs if each.body.startswith(f"{mark}\n")), None)
        if former is None:
            kept.add(github.add_comment(number, text))
            continue
        kept.add(former.id)
        if former.body != text and not github.change_comment(former.id, text):
            # Somebody deleted it meanwhile.
            kept.add(github.add_comment(number, text))
    start = comment.marker(stack).removesuffix(" -->")
    for each in theirs:
        if each.id not in kept and each.body.startswith((f"{start} -->\n", f"{start}:")):
            github.remove_comment(each.id)
