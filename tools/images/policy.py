"""What every image must hold to. Pure functions over a Dockerfile and what the bake file says of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import dropwhile

from tools.images.dockerfiles import Dockerfile, Instruction
from tools.images.places import Problem

DIGEST = re.compile(r"[\w./:-]+@sha256:[0-9a-f]{64}")
ARGUMENT = re.compile(r"\$\{(\w+)\}")
SECRET_NAME = re.compile(r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|APIKEY|KEY|KEYS|CREDENTIALS?)(?:_|$)", re.IGNORECASE)
SECRET_VALUE = re.compile(
    r"hf_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16}|ghp_\w{20,}|-----BEGIN|AIza[\w-]{30,}|rpa_[A-Z0-9]{20,}"
)
FETCHERS = {"curl", "wget", "git", "aria2c"}
HIDDEN = re.compile(r"\b(curl|wget|apt-get|apt|aptitude|dpkg|pip3? (?:install|download))\b")
"""What `sh -c "…"`, `$(…)` and the like can hide from a split into commands."""
ASSIGNMENT = re.compile(r"\w+=.*", re.DOTALL)
APT_HELPER = "apt-install.sh"
PINNED_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+=[\w:+.~-]+")


@dataclass(frozen=True)
class Facts:
    """What `docker buildx bake --print` says of a target: its arguments and its linked images.

    `pinned` is False for an image whose base has no known digest; it may not be in the default group.
    """

    args: Mapping[str, str] = field(default_factory=dict)
    contexts: Mapping[str, str] = field(default_factory=dict)
    pinned: bool = True


Check = Callable[[Dockerfile, Facts], Iterator[Problem]]


def problems(image: Dockerfile, facts: Facts) -> list[Problem]:
    """All that is wrong with an image, in the order of the checks below."""
    return [problem for check in CHECKS for problem in check(image, facts)]


def bases(image: Dockerfile, facts: Facts) -> Iterator[Problem]:
    """Every FROM is an image by digest, a stage of this file, or an image that the bake file builds before."""
    known: set[str] = set()
    for item in image.all("FROM"):
        given = item.values[0]
        found = ARGUMENT.fullmatch(given)
        value = facts.args.get(found[1], "") if found else given
        linked = facts.contexts.get(given, "").startswith("target:")
        unpinned_by_choice = found is not None and not facts.pinned and value == ""
        if given not in known and not linked and not unpinned_by_choice and DIGEST.fullmatch(value) is None:
            yield Problem(
                item.where, f"FROM {given} is {value or 'empty'!r}, not an image by digest", "pin it in bases.json"
            )
        if re.search(r":latest\b", value):
            yield Problem(item.where, f"FROM {given} is a `latest`", "name the version, in bases.json")
        known |= {item.values[2]} if len(item.values) == 3 else set()
    for item in image.all("COPY"):
        origin = item.flag("from")
        if origin is not None and origin not in image.stage_names() and DIGEST.fullmatch(origin) is None:
            yield Problem(item.where, f"--from={origin} is neither a stage nor an image by digest", "pin it")
    if re.search(r"^#\s*syntax\s*=", image.text, re.MULTILINE | re.IGNORECASE):
        yield Problem(f"{image.path.name}:1", "a `# syntax=` line fetches another image", "leave it out")


def copies(image: Dockerfile, _facts: Facts) -> Iterator[Problem]:
    """Nothing by ADD (it fetches and unpacks), and nothing wholesale: what goes in is named."""
    for item in image.all("ADD"):
        yield Problem(item.where, "ADD", "use COPY; what comes from elsewhere comes by hash through a lock")
    for item in image.all("COPY"):
        if item.flag("from") is None and any(source in (".", "./", "*", "/") for source in item.values[:-1]):
            yield Problem(item.where, "COPY of the whole build context", "name the folders and files")


def user(image: Dockerfile, _facts: Facts) -> Iterator[Problem]:
    """The container's user is set in the last stage, is a number (so that others can tell), and is not root."""
    users = image.all("USER", image.last_stage)
    value = users[-1].values[0] if users else ""
    if re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", value) is None:
        where = users[-1].where if users else image.instructions[-1].where
        yield Problem(where, f"the container's user is {value or 'not set'}", "end with USER NUMBER:NUMBER, not 0")


def life(image: Dockerfile, _facts: Facts) -> Iterator[Problem]:
    """A health check and an entry point, both in the form that runs no shell: signals reach the program."""
    for name in ("HEALTHCHECK", "ENTRYPOINT"):
        found = image.all(name, image.last_stage)
        if not found:
            yield Problem(image.instructions[-1].where, f"the last stage has no {name}", f"give it a {name}")
        elif not found[-1].exec_form:
            yield Problem(found[-1].where, f"{name} runs a shell", 'write it as a list: ["program", "argument"]')


def fetching(image: Dockerfile, _facts: Facts) -> Iterator[Problem]:
    """Nothing is fetched but packages: of Debian by version and date, of Python by hash."""
    for item in image.all("RUN"):
        for command in item.commands():
            words = list(dropwhile(lambda word: ASSIGNMENT.fullmatch(word) or word in ("env", "exec"), command))
            yield from _command(item, words) if words else ()
            for word in words[1:]:
                hidden = HIDDEN.search(word)
                if hidden and (" " in word or "$(" in word or "`" in word):
                    yield Problem(item.where, f"{hidden[1]} inside another command", "write it as a command of its own")


def _command(item: Instruction, command: list[str]) -> Iterator[Problem]:
    program = command[0].rpartition("/")[2]
    if program in FETCHERS:
        yield Problem(item.where, f"{program} fetches something that no lock holds", "take packages, by hash")
    if command[-1] == "|":
        yield Problem(
            item.where, f"the output of {program} is piped on", "no pipes: a fault in front of one is not seen"
        )
    if program in ("apt", "apt-get", "aptitude", "dpkg"):
        yield Problem(item.where, f"{program} without a date and versions", f"use images/{APT_HELPER}")
    if any(word.endswith(APT_HELPER) for word in command):
        place = next(number for number, word in enumerate(command) if word.endswith(APT_HELPER))
        date, *packages = command[place + 1 :] or [""]
        if date != "${DEBIAN_SNAPSHOT}" or not packages:
            yield Problem(
                item.where,
                f"{APT_HELPER} without its date and packages",
                f"{APT_HELPER} ${{DEBIAN_SNAPSHOT}} NAME=VERSION",
            )
        for package in packages:
            if PINNED_PACKAGE.fullmatch(package) is None:
                yield Problem(item.where, f"the Debian package {package} has no version", f"write {package}=VERSION")
    installs = {"install", "sync", "download"} & set(command)
    if (
        installs
        and (program in ("pip", "pip3", "uv", "pipx") or "pip" in command)
        and "--require-hashes" not in command
    ):
        yield Problem(
            item.where, f"`{' '.join(command[:4])} …` takes packages without hashes", "add --require-hashes and a lock"
        )


def secrets(image: Dockerfile, _facts: Facts) -> Iterator[Problem]:
    """No ENV, ARG or LABEL that looks like a secret: each stays readable in the image's layers and history."""
    for item in (*image.all("ENV"), *image.all("ARG"), *image.all("LABEL")):
        for name, value in _pairs(item):
            if SECRET_NAME.search(name) or SECRET_VALUE.search(value):
                yield Problem(
                    item.where, f"{item.name} {name} looks like a secret", "give it when the container is run"
                )
    for item in image.all("RUN"):
        if SECRET_VALUE.search(item.values[0]):
            yield Problem(item.where, "a secret stands in RUN", "use RUN --mount=type=secret")


def _pairs(item: Instruction) -> list[tuple[str, str]]:
    if item.name == "ARG":
        return [(value.partition("=")[0], value.partition("=")[2]) for value in item.values]
    return list(zip(item.values[::2], item.values[1::2], strict=False))


CHECKS: tuple[Check, ...] = (bases, copies, user, life, fetching, secrets)
