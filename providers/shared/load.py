"""Reads and checks `serving:shared`: every mistake with its line, what is allowed and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lorafleet import load, stackfile
from lorafleet.errors import LorafleetError, listed, nearest, shown
from lorafleet.origin import PROJECT, Origin, Report, shown_path
from lorafleet.stackfile import FieldPath

from .declaration import GitHubSettings, Settings

CONFIG_KEY = "shared"
# `pulumi config set --secret secret-NAME` holds the value of the secret NAME.
SECRET_PREFIX = "secret-"
# Longest `google.subject` of a workload identity, in bytes:
# https://cloud.google.com/iam/docs/workload-identity-federation#mapping
_MAX_SUBJECT = 127
# Google takes rules of 2048 characters (github.py), in which every environment stands.
_MAX_ITEMS = 20


@dataclass(frozen=True, slots=True)
class SharedOrigin(Origin):
    """Where `serving:shared` stands; like the fleet's, but for the key."""

    def where(self, path: FieldPath) -> str:
        """`stacks/Pulumi.shared.yaml:12`, or `stack shared` when no file is known."""
        if self.stack_file is None:
            return f"stack {self.environment}"
        name = shown_path(self.stack_file, self.root)
        try:
            line = stackfile.read(self.stack_file, name).line(("config", f"{PROJECT}:{CONFIG_KEY}", *path))
        except LorafleetError:
            return name  # the line is a service; that a file can't be read now must not hide the mistake
        return f"{name}:{line}" if line else name


def load_settings(
    config: Mapping[str, object],
    *,
    stack: str,
    root: Path,
    stack_file: Path | None = None,
    values: Mapping[str, bool] | None = None,
) -> Settings:
    """Checks the settings as Pulumi's configuration has them.

    Args:
        config: `serving:shared`, with camelCase keys.
        stack: the stack's name.
        root: the project's root, from which errors name files.
        stack_file: where the configuration came from; read only to name lines in errors.
        values: names of the secrets that `serving:secret-NAME` has a value for, each with whether it is encrypted.

    Raises:
        LorafleetError: the settings are wrong (`DeclarationErrors` when in more than one place).
    """
    report = Report(SharedOrigin(stack, root.absolute(), stack_file.absolute() if stack_file else None))
    settings = load.validated(Settings, config, (), report)
    report.finish()
    assert settings is not None  # finish() raised otherwise
    _check_lists(settings, report)
    _check_subject(settings.github, report)
    _check_state(settings, report)
    _check_values(settings, values or {}, report)
    report.finish()
    return settings


def _check_lists(settings: Settings, report: Report) -> None:
    lists: list[tuple[FieldPath, tuple[str, ...], str]] = [
        (("github", "environments"), settings.github.environments, "environment of the repository, such as prod")
    ]
    lists += [
        (("secrets", name, "readers"), secret.readers, "identity, such as router")
        for name, secret in settings.secrets.items()
    ]
    for path, items, what in lists:
        twice = sorted({item for item in items if items.count(item) > 1})
        if not 1 <= len(items) <= _MAX_ITEMS:
            report.add(
                path,
                "the list is too long" if items else "the list is empty",
                found=f"{len(items)} items",
                allowed=f"1 to {_MAX_ITEMS} items, each an {what}",
                next_action="Take some away." if items else f"Name at least one {what}.",
            )
        elif twice:
            report.add(
                path,
                f"{twice[0]} stands here twice",
                found=f"[{', '.join(items)}]",
                allowed=f"each {what}, once",
                next_action="Take the second one away.",
            )


def _check_subject(github: GitHubSettings, report: Report) -> None:
    """GitHub's `sub` becomes `google.subject`, whose length Google limits; a longer one could never log in."""
    owner, _, name = github.repository.partition("/")
    # Repositories made since June 2026 have the ids in it:
    # https://docs.github.com/en/actions/reference/openid-connect-reference#immutable-subject-claims
    repository = f"repo:{owner}@{github.owner_id}/{name}@{github.repository_id}"
    for index, environment in enumerate(github.environments):
        subject = f"{repository}:environment:{environment}"
        if len(subject) > _MAX_SUBJECT:
            report.value(
                ("github", "environments", index),
                f"GitHub would introduce itself with {len(subject)} characters, and Google takes {_MAX_SUBJECT}",
                environment,
                allowed=f"names of repository and environment that stay below it: {repository[:40]}...",
                next_action="Give the environment or the repository a shorter name.",
            )
    subject = f"{repository}:ref:refs/heads/{github.branch}"
    if len(subject) > _MAX_SUBJECT:
        report.value(
            ("github", "branch"),
            f"GitHub would introduce itself with {len(subject)} characters, and Google takes {_MAX_SUBJECT}",
            github.branch,
            allowed="names of repository and branch that stay below it",
            next_action="Give the branch or the repository a shorter name.",
        )


def _check_state(settings: Settings, report: Report) -> None:
    """Every server may read the whole store, and Pulumi's state is nothing for servers."""
    if settings.state_bucket == settings.store.bucket:
        report.value(
            ("stateBucket",),
            "Pulumi's state and the store can't share a bucket: every server may read all of the store",
            settings.state_bucket,
            allowed="a bucket of its own",
            next_action="Make another for the state (docs/shared-stack.md says how), and name it here.",
        )


def _check_values(settings: Settings, values: Mapping[str, bool], report: Report) -> None:
    for name, encrypted in values.items():
        key = f"{PROJECT}:{SECRET_PREFIX}{name}"
        if name not in settings.secrets:
            near = nearest(name, settings.secrets)
            report.add(
                ("secrets",),
                f"there is a value ({key}) for a secret that is not declared",
                found=shown(name),
                allowed=_names(settings.secrets),
                next_action=f"Did you mean {SECRET_PREFIX}{near}?"
                if near
                else f"Declare it under `secrets`, or run `pulumi config rm {SECRET_PREFIX}...`.",
            )
        elif not encrypted:
            report.add(
                ("secrets", name),
                f"the value of this secret stands in plain text in the stack file ({key})",
                found="(not shown)",
                allowed="a value set with --secret, which Pulumi encrypts",
                next_action=f"Replace it by a new one: `pulumi config set --secret {SECRET_PREFIX}{name}`.",
            )


def _names(secrets: Iterable[str]) -> str:
    names = list(secrets)
    return listed(names) if names else "no value, as no secret is declared"
