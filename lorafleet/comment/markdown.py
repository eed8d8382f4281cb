"""Pieces of Markdown from texts that anybody may have written: nothing in them becomes markup, a link or a mention."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from lorafleet.comment.values import cut, visible

LONGEST_NAME = 120


def code(text: str, longest: int = LONGEST_NAME) -> str:
    """A code span. GitHub makes nothing of what stands in one: no HTML, no link, no @mention, no #number."""
    inner = cut(visible(text), longest=longest) or " "
    fence = "`" * (_longest_run(inner) + 1)
    pad = " " if inner.startswith("`") or inner.endswith("`") else ""
    return f"{fence}{pad}{inner}{pad}{fence}"


def block(lines: Iterable[str], language: str = "") -> list[str]:
    """A fenced block; each line is made visible, so that none can end the block."""
    shown = [visible(line) for line in lines]
    fence = "`" * max(3, *(_longest_run(line) + 1 for line in shown), 3)
    return [f"{fence}{language}", *shown, fence]


def details(summary: str, body: Sequence[str]) -> list[str]:
    """A folded part. The summary is plain text."""
    return ["<details>", f"<summary>{html.escape(summary)}</summary>", "", *body, "", "</details>", ""]


def quoted(lines: Iterable[str]) -> list[str]:
    """The lines as a quotation, which is how GitHub's coloured notes are written."""
    return [f"> {line}" if line else ">" for line in lines]


def listed(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def counted(number: int, one: str, many: str) -> str:
    """`1 resource`, `2 resources`."""
    return f"{number} {one if number == 1 else many}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
