"""What the program of the stack `shared` begins and ends with, and how other stacks read what it made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env, is_config_secret

from lorafleet.errors import LorafleetError, listed, nearest
from lorafleet.origin import PROJECT
from providers import stack

from .declaration import Settings
from .github import GitHub
from .grants import IDENTITIES
from .images import Images
from .load import CONFIG_KEY, SECRET_PREFIX, load_settings
from .project import Project
from .secrets import Secrets
from .store import Store

# The outputs, by what reads them in other stacks.
TEXTS = ("project", "region", "store", "images")
TABLES = ("serviceAccounts", "secrets")


def settings() -> Settings:
    """`serving:shared` of this stack's file. Ends the program with every mistake, each with file and line."""
    config = pulumi.Config(PROJECT)
    root = stack.root()
    stack_file = root / "stacks" / f"Pulumi.{pulumi.get_stack()}.yaml"
    if is_config_secret(config.full_key(CONFIG_KEY)):
        stack.refuse(
            f"{stack_file.name}: {PROJECT}:{CONFIG_KEY} holds a secret value\n"
            "  allowed: plain values; nothing in these settings is secret\n"
            f"  next:    take it out; a secret's value goes to `pulumi config set --secret {SECRET_PREFIX}NAME`"
        )
    declared = config.get_object(CONFIG_KEY)
    if declared is None:
        stack.refuse(
            f"{stack_file.name}: the stack has no configuration {PROJECT}:{CONFIG_KEY}\n"
            "  next:    `git checkout stacks/Pulumi.shared.yaml` brings the file back that explains itself"
        )
    try:
        return load_settings(
            declared,
            stack=pulumi.get_stack(),
            root=root,
            stack_file=stack_file,
            values={name: is_config_secret(config.full_key(SECRET_PREFIX + name)) for name in _given_values()},
        )
    except LorafleetError as error:
        stack.refuse(f"the settings of the stack `{pulumi.get_stack()}` are wrong\n{error}")


def values() -> dict[str, pulumi.Output[str]]:
    """Values of secrets that the stack's configuration holds, encrypted, by the secret's name."""
    config = pulumi.Config(PROJECT)
    return {name: config.require_secret(SECRET_PREFIX + name) for name in sorted(_given_values())}


def _given_values() -> set[str]:
    start = f"{PROJECT}:{SECRET_PREFIX}"
    return {key.removeprefix(start) for key in {**get_config_env(), **CONFIG.get()} if key.startswith(start)}


def export(project: Project, *, store: Store, images: Images, secrets: Secrets, github: GitHub) -> None:
    """The outputs: what the other stacks refer to, and the variables of the repository on GitHub (docs/ci.md)."""
    declared = project.settings
    pulumi.export("project", declared.project)
    pulumi.export("region", declared.region)
    pulumi.export("store", store.url)
    pulumi.export("images", images.url)
    pulumi.export("serviceAccounts", {key: declared.email(key) for key in IDENTITIES})
    pulumi.export("secrets", secrets.names)
    pulumi.export(
        "githubVariables",
        {
            # The accounts of previews and deployments follow from the project's name.
            "GCP_PROJECT": declared.project,
            "GCP_WORKLOAD_IDENTITY_PROVIDER": github.provider,
            "IMAGE_REGISTRY": images.url,
        },
    )


@dataclass(frozen=True)
class Reference:
    """What another stack sees of `shared`.

    project, region: of Google Cloud. store: `gs://bucket`. images: `REGION-docker.pkg.dev/PROJECT/REPOSITORY`.
    """

    project: pulumi.Output[str]
    region: pulumi.Output[str]
    store: pulumi.Output[str]
    images: pulumi.Output[str]
    _accounts: pulumi.Output[Mapping[str, str]]
    _secrets: pulumi.Output[Mapping[str, str]]
    _of: str

    def account(self, identity: str) -> pulumi.Output[str]:
        """The e-mail address of a service account. Ends the program when there is no such identity."""
        if identity not in IDENTITIES:
            near = nearest(identity, IDENTITIES)
            stack.refuse(
                f"{self._of} has no service account '{identity}'\n"
                f"  allowed: {listed(IDENTITIES)}\n"
                f"  next:    {f'did you mean {near}?' if near else 'name one of these'}"
            )
        return self._accounts.apply(lambda table: _entry(table, identity, self._of, "service account"))

    def secret(self, name: str) -> pulumi.Output[str]:
        """The full name of a secret, `projects/PROJECT/secrets/NAME`. Ends the program when there is none of it."""
        return self._secrets.apply(lambda table: _entry(table, name, self._of, "secret"))


def reference(name: str | None = None) -> Reference:
    """The stack `shared` of this project, as another stack refers to it.

    Args:
        name: `ORGANIZATION/PROJECT/STACK`; without it, `shared` next to this stack. The organization of a backend in a
            folder or a bucket is `organization`.

    The outputs end the program with one error when that stack was not brought up yet.
    """
    of = name or f"{pulumi.get_organization()}/{pulumi.get_project()}/shared"
    found = pulumi.StackReference(of)

    def output(key: str) -> pulumi.Output[Any]:
        return found.get_output(key).apply(lambda value: _there(value, key, of))

    texts = {key: output(key) for key in TEXTS}
    accounts, secrets = (output(key) for key in TABLES)
    return Reference(**texts, _accounts=accounts, _secrets=secrets, _of=of)


def _there(value: Any, key: str, of: str) -> Any:
    if value is None:
        raise pulumi.RunError(
            f"the stack {of} has no output '{key}'\n"
            "  next:    bring it up first: `pulumi up --stack shared` (docs/shared-stack.md)"
        )
    return value


def _entry(table: Mapping[str, str], name: str, of: str, what: str) -> str:
    if name not in table:
        near = nearest(name, table)
        raise pulumi.RunError(
            f"the stack {of} has no {what} '{name}'\n"
            f"  allowed: {listed(table)}\n"
            f"  next:    {f'did you mean {near}?' if near else f'declare it there and run `pulumi up --stack {of}`'}"
        )
    return table[name]
