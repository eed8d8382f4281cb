"""Keeps the salt of this checkout's passphrase out of git's sight.

Pulumi writes `encryptionsalt` into stacks/Pulumi.local.yaml, which is committed. A clean filter (.gitattributes; the
set-up defines it) leaves that line out of what git stores and compares. One thing remains: git takes a file for
changed without comparing if its size is not what the index remembers. So the index is told the new size, and only
if what git would store is what it has stored already: nothing of the user's is ever staged.
"""

from __future__ import annotations

import subprocess
from pathlib import Path


def hide_from_git(root: Path, file: str) -> bool:
    """Tells git's index that `file` is as it was, if but for the salt it is; gives whether it did.

    Does nothing outside a git checkout, or where git is missing, or for a file that was changed otherwise.
    """
    would_store = _git(root, "hash-object", f"--path={file}", file)
    has_stored = _git(root, "rev-parse", "--verify", "--quiet", f":{file}")
    if would_store is None or would_store != has_stored:
        return False
    return _git(root, "update-index", "--", file) is not None


def _git(root: Path, *arguments: str) -> str | None:
    """What a git command prints; None if it failed or there is no git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
