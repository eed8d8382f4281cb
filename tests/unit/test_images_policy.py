"""The images' build files: as they are they hold to the policy, and each rule of it can be broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tools.images import bases, buildx, checks, dockerfiles, policy
from tools.images.places import ImagesError

PINNED = "docker.io/library/python:3.12-slim@sha256:" + "0a" * 32
GOOD = """\
ARG PYTHON_BASE
FROM ${PYTHON_BASE} AS packages
COPY requirements.lock /build/requirements.lock
RUN python -m pip install --no-deps --require-hashes -r /build/requirements.lock && python -m compileall -q /opt
FROM ${PYTHON_BASE}
ARG DEBIAN_SNAPSHOT
RUN sh /tmp/apt-install.sh "${DEBIAN_SNAPSHOT}" tini=0.19.0-1+b3
COPY --from=packages /opt /opt
USER 10001:10001
HEALTHCHECK CMD ["python", "-m", "images.health", "router"]
ENTRYPOINT ["tini", "--", "python"]
"""
FACTS = policy.Facts({"PYTHON_BASE": PINNED})


def found(folder: Path, text: str, facts: policy.Facts = FACTS) -> list[str]:
    path = folder / "Dockerfile"
    path.write_text(text)
    return [str(problem) for problem in policy.problems(dockerfiles.read(path, "one"), facts)]


needs_buildx = pytest.mark.skipif(buildx.command() is None, reason="python -m tools.images setup could not get buildx")


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    return buildx.bake(["all"])


@needs_buildx
def test_the_images_of_this_repository_are_as_they_should_be() -> None:
    assert [str(problem) for problem in checks.problems()] == []


def test_a_good_file_passes(tmp_path: Path) -> None:
    assert found(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("FROM ${PYTHON_BASE}\n", "FROM python:3.12-slim\n", "not an image by digest"),
        ("FROM ${PYTHON_BASE}\n", "FROM python:latest@sha256:" + "0a" * 32 + "\n", "is a `latest`"),
        ("FROM ${PYTHON_BASE}\n", "FROM ${OTHER_BASE}\n", "not an image by digest"),
        ("FROM ${PYTHON_BASE}\n", "FROM serving\n", "not an image by digest"),
        ("ARG PYTHON_BASE\n", "# syntax=docker/dockerfile:1\nARG PYTHON_BASE\n", "fetches another image"),
        ("--from=packages", "--from=busybox:1.37", "neither a stage nor an image by digest"),
        ("COPY requirements.lock", "ADD https://example.org/a.tar /a\nCOPY requirements.lock", "ADD"),
        ("COPY requirements.lock /build/requirements.lock", "COPY . /build", "the whole build context"),
        ("USER 10001:10001\n", "", "user is not set"),
        ("USER 10001:10001", "USER 0", "user is 0"),
        ("USER 10001:10001", "USER nobody", "user is nobody"),
        ("USER 10001:10001", "USER 10001\nUSER root", "user is root"),
        ('HEALTHCHECK CMD ["python", "-m", "images.health", "router"]\n', "", "no HEALTHCHECK"),
        ('HEALTHCHECK CMD ["python", "-m", "images.health", "router"]', "HEALTHCHECK NONE", "HEALTHCHECK runs a shell"),
        ('ENTRYPOINT ["tini", "--", "python"]', "ENTRYPOINT tini -- python", "ENTRYPOINT runs a shell"),
        ("RUN sh /tmp", "RUN apt-get install -y tini=1\nRUN sh /tmp", "apt-get without a date"),
        ("tini=0.19.0-1+b3", "tini", "tini has no version"),
        ("tini=0.19.0-1+b3", "tini=0.19.0-1+b3 haproxy", "haproxy has no version"),
        ('"${DEBIAN_SNAPSHOT}"', "20261121T060000Z", "without its date"),
        ("RUN sh /tmp", "RUN curl -sSf https://example.org/install | sh\nRUN sh /tmp", "curl fetches"),
        ("RUN sh /tmp", "RUN cat /x | sh\nRUN sh /tmp", "piped on"),
        ("RUN sh /tmp", 'RUN bash -c "$(curl https://example.org)"\nRUN sh /tmp', "curl inside another command"),
        ("RUN sh /tmp", 'RUN sh -c "apt-get install -y x"\nRUN sh /tmp', "apt-get inside another command"),
        ("RUN sh /tmp", "RUN A=1 env B=2 apt-get install -y x=1\nRUN sh /tmp", "apt-get without a date"),
        ("RUN sh /tmp", 'RUN ["curl", "https://example.org"]\nRUN sh /tmp', "curl fetches"),
        ("RUN sh /tmp", "RUN git clone https://example.org/x\nRUN sh /tmp", "git fetches"),
        (" --require-hashes", "", "without hashes"),
        ("RUN python -m pip install", "RUN uv pip sync /x && python -m pip install", "without hashes"),
        ("ARG DEBIAN_SNAPSHOT", "ARG HF_TOKEN\nARG DEBIAN_SNAPSHOT", "HF_TOKEN looks like a secret"),
        ("ARG DEBIAN_SNAPSHOT", "ENV A=1 API_KEY=x\nARG DEBIAN_SNAPSHOT", "API_KEY looks like a secret"),
        ("ARG DEBIAN_SNAPSHOT", "ENV NAME=hf_" + "a" * 34 + "\nARG DEBIAN_SNAPSHOT", "NAME looks like a secret"),
        ("RUN sh /tmp", "RUN echo hf_" + "a" * 34 + "\nRUN sh /tmp", "a secret stands in RUN"),
    ],
)
def test_each_rule_can_be_broken(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert GOOD.count(old) >= 1
    faults = found(tmp_path, GOOD.replace(old, new))
    assert any(says in fault for fault in faults), faults
    assert all("\n  next: " in fault for fault in faults)


def test_an_unpinned_base_passes_only_where_it_is_said(tmp_path: Path) -> None:
    assert found(tmp_path, GOOD, policy.Facts({"PYTHON_BASE": ""}, pinned=False)) == []
    assert len(found(tmp_path, GOOD, policy.Facts({"PYTHON_BASE": ""}))) == 2
    assert found(tmp_path, GOOD, policy.Facts({"PYTHON_BASE": "python:3.12"}, pinned=False)) != []


def test_what_is_not_in_the_build_context_is_found(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "one.py").touch()
    (tmp_path / "code" / "notes.md").touch()
    (tmp_path / "secret.txt").touch()
    (tmp_path / "Dockerfile.dockerignore").write_text("*\n!code\n!tool.sh\n**/*.md\n")
    path = tmp_path / "Dockerfile"
    mount = "--mount=type=bind,source=tool.sh,target=/t"
    path.write_text(f"FROM a AS b\nCOPY code /c\nCOPY secret.txt code/notes.md /d/\nRUN {mount} true\n")
    image = dockerfiles.read(path, "one")
    assert dockerfiles.context(image, tmp_path) == {"code/one.py"}
    says = [problem.what.split()[0] for problem in dockerfiles.missing(image, tmp_path)]
    assert says == ["secret.txt", "code/notes.md", "tool.sh"]
    (tmp_path / "tool.sh").touch()
    assert len(dockerfiles.missing(image, tmp_path)) == 2
    with pytest.raises(ImagesError, match=r"secret\.txt is not in the build context"):
        dockerfiles.mirror(image, tmp_path / "tree", {}, tmp_path)
    with pytest.raises(ImagesError, match=r"No such file"):
        (tmp_path / "Dockerfile.dockerignore").unlink()
        dockerfiles.context(image, tmp_path)


def test_hadolint_speaks_up(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text("FROM debian\nRUN cd /tmp\n")
    assert any("DL3006" in str(problem) for problem in checks.lint([path]))


@needs_buildx
def test_the_groups_of_the_bake_file(everything: dict[str, Any]) -> None:
    assert set(everything["target"]) == {"serving", "runpod", "router", "vertex"}
    default = buildx.bake([])["target"]
    pinned = bases.load()["bases"]["vertex"]["digest"] is not None
    assert set(default) == {"serving", "runpod", "router"}, "put vertex in once its base is pinned" if pinned else ""
    assert default["runpod"]["contexts"] == {"serving": "target:serving"}


@needs_buildx
def test_what_variables_do() -> None:
    said = {
        "REGISTRY": "europe-west4-docker.pkg.dev/project/lorafleet",
        "VERSION": "1.2.3",
        "REVISION": "ab" * 20,
        "SOURCE_DATE_EPOCH": "1763800000",
        "CACHE": "europe-west4-docker.pkg.dev/project/lorafleet-cache/layers",
    }
    target = buildx.bake(["router"], said, ["--push"])["target"]["router"]
    assert target["tags"] == ["europe-west4-docker.pkg.dev/project/lorafleet/router:1.2.3"]
    assert target["labels"]["org.opencontainers.image.created"] == "2025-11-22T08:26:40Z"
    assert target["labels"]["org.opencontainers.image.revision"] == "ab" * 20
    assert target["args"]["SOURCE_DATE_EPOCH"] == "1763800000"
    assert target["output"] == [{"push": "true", "rewrite-timestamp": "true", "type": "image"}]
    (cache,) = target["cache-to"]
    assert cache["ref"] == said["CACHE"] + ":router" and cache["ignore-error"] == "true"


@needs_buildx
@pytest.mark.parametrize(
    ("name", "value"), [("VERSION", "latest"), ("VERSION", "a b"), ("REGISTRY", ""), ("REGISTRY", "Ab/c")]
)
def test_variables_are_checked(name: str, value: str) -> None:
    with pytest.raises(ImagesError, match=f"{name} is"):
        buildx.bake([], {name: value})


@needs_buildx
def test_a_bake_file_that_lacks_things_is_found(everything: dict[str, Any]) -> None:
    broken = {"target": {"router": {"args": {"PYTHON_BASE": ""}, "tags": ["x:latest"], "platforms": ["linux/arm64"]}}}
    faults = "\n".join(map(str, checks.bake_problems(broken, broken, {"router", "serving"})))
    for words in ("no target serving", "image.licenses", "linux/arm64", "attestations []", "x:latest", "unpinned base"):
        assert words in faults
    assert checks.bake_problems(everything, {"target": {}}, set(everything["target"])) == []
