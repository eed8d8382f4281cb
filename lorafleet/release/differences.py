"""A change of the release block as git would show it."""

from __future__ import annotations

import difflib
import re

from lorafleet.release.block import Block


def unified(old: str, new: str, block: Block) -> str:
    """The differing lines of the block with a few around them, with the line numbers of the whole file.

    Lines outside the block are never shown: other configuration of the stack stands there. Empty without a difference.
    """
    # Everything before and after the block is the same in both texts.
    first = old.count("\n", 0, block.start)
    start = old.rfind("\n", 0, block.start) + 1
    stop = len(new) - (len(old) - block.end)
    before = old[start : block.end].splitlines()
    after = new[start:stop].splitlines()
    if before == after:
        return ""
    name = block.shown_path
    lines = list(difflib.unified_diff(before, after, f"a/{name}", f"b/{name}", lineterm=""))
    return "".join(f"{_moved(line, first) if line.startswith('@@') else line}\n" for line in lines)


def _moved(header: str, lines: int) -> str:
    """`@@ -1,3 +1,3 @@` for a text that starts some lines further down."""
    return re.sub(r"([-+])([0-9]+)", lambda found: f"{found[1]}{int(found[2]) + lines}", header, count=2)
