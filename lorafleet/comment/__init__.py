"""What `pulumi preview` found, as Markdown for a pull request: a pure function of the plan, without times or network.

    pages = comment.pages("prod", json.loads(preview), events, exit_status, comment.Links(run="https://…"))

One page is one comment. Usually there is one; replacements and deletions are never left out, so a plan with thousands
of them takes several.
"""

from lorafleet.comment.pages import LIMIT_BYTES, Links, marker, pages
from lorafleet.comment.plan import read_plan

__all__ = ["LIMIT_BYTES", "Links", "marker", "pages", "read_plan"]
