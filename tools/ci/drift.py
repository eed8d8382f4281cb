"""The nightly look: does the world still agree with what is declared? One issue per stack says where it does not."""

from __future__ import annotations

from pathlib import Path

from lorafleet import comment
from tools.ci import actions, engine
from tools.ci.github import GitHub

LABEL = "drift"
_OPENING = """\
The nightly `pulumi preview --refresh` finds that this stack is not as declared. Either somebody or something changed it
by hand, or a merged change was not deployed. Deploy to put it back, or write the change into the declaration.
This issue is kept up to date and closes itself.

"""


def run(stack: str, out: Path) -> int:
    """Compares one stack with the world; opens, changes or closes its issue. 0 also where it drifted.

    Gives the preview's exit status if it failed: then nothing is known and the issue stays as it is.
    """
    account = engine.preview(actions.stack_name(stack), out / stack, "--refresh", "--expect-no-changes")
    this = actions.this_run()
    pages = comment.pages(
        stack,
        account.preview,
        account.events,
        account.status,
        comment.Links(run=this.url, commit=this.commit),
        said=account.said,
        limit_bytes=comment.LIMIT_BYTES - 2_000,
    )
    actions.show("\n".join(pages))
    actions.summary("\n".join(pages))
    if account.failed:
        return account.status
    mark = f"<!-- lorafleet:drift:{stack} -->"
    with GitHub(this) as github:
        open_issue = github.own_issue(mark, LABEL)
        if account.status == 7:
            body = f"{mark}\n{_OPENING}{pages[0]}"
            if open_issue is None:
                number = github.add_issue(f"{stack} is not as declared", body, LABEL)
                actions.notice(f"{stack} has drifted: issue {number} was opened")
            else:
                github.change_issue(open_issue, body=body)
                actions.notice(f"{stack} has drifted still: issue {open_issue} was brought up to date")
        elif open_issue is not None:
            github.add_comment(open_issue, "The stack is as declared again.")
            github.change_issue(open_issue, state="closed")
    return 0
