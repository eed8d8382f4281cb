"""Building the images and saying the digests that a release pins."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from lorafleet.comment.markdown import code
from lorafleet.errors import LorafleetError
from tools.ci import actions

BUILDER = "lorafleet"
_BAKE = ("docker", "buildx", "bake", "--builder", BUILDER, "-f", "images/docker-bake.hcl", "-f", "images/bases.json")


def run(out: Path) -> int:
    """Builds, pushes, and tells each image by digest. Gives docker's exit status.

    The registry's password, if there is one, is in REGISTRY_TOKEN; the registry in REGISTRY.

    Raises:
        LorafleetError: REGISTRY is missing.
    """
    registry = actions.need("REGISTRY")
    if token := os.environ.pop("REGISTRY_TOKEN", ""):
        host = registry.split("/")[0]
        login = ["docker", "login", "--username", "oauth2accesstoken", "--password-stdin", f"https://{host}"]
        subprocess.run(login, input=token, text=True, check=True)
    # Attestations need a builder of its own; one that an earlier run has made stays.
    if subprocess.run(["docker", "buildx", "inspect", BUILDER], check=False, capture_output=True).returncode:
        subprocess.run(["docker", "buildx", "create", "--name", BUILDER, "--driver", "docker-container"], check=True)
    out.mkdir(parents=True, exist_ok=True)
    metadata = out / "images.json"
    done = subprocess.run(
        [*_BAKE, "--push", "--progress", "plain", "--metadata-file", str(metadata)],
        env={**os.environ, **_labels()},
        check=False,
    )
    if done.returncode == 0:
        text = told(json.loads(metadata.read_text()))
        print(text)
        actions.summary(text)
    return done.returncode


def told(metadata: dict[str, Any]) -> str:
    """The pushed images by digest, as Markdown, from what `docker buildx bake --metadata-file` writes.

    Raises:
        LorafleetError: an image has no digest.
    """
    lines = ["### Images", "", "A release pins one of these as its `image`.", ""]
    for target in sorted(metadata):
        made = metadata[target]
        if not isinstance(made, dict) or "image.name" not in made:  # the builder's own entries
            continue
        digest = made.get("containerimage.digest")
        if not digest:
            raise LorafleetError(
                f"the image {target} has no digest", next_action="look at the build's log: was it pushed?"
            )
        name = str(made["image.name"]).split(",")[0].rsplit(":", 1)[0]
        lines.append(f"- {target}: {code(f'{name}@{digest}', 300)}")
    return "\n".join(lines)


def _labels() -> dict[str, str]:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    revision = git("rev-parse", "HEAD")
    # A tag in the registry can't be moved: each run needs one of its own, also a second one on the same commit.
    run, attempt = os.environ.get("GITHUB_RUN_NUMBER"), os.environ.get("GITHUB_RUN_ATTEMPT")
    once = f"{run}.{attempt}" if run and attempt else time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    server, repository = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    return {
        "REVISION": revision,
        "VERSION": f"git-{revision[:12]}-{once}",
        "SOURCE_DATE_EPOCH": git("log", "-1", "--format=%ct"),
        "SOURCE": f"{server}/{repository}" if server and repository else "unknown",
    }
