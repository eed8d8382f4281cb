"""What a serverless endpoint and a pod have in common: an image with its variables, disk and ports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from providers import kit

from . import http
from .answers import Endpoint, Pod

# Variables that RunPod itself reads; they hold no secrets.
OWN_VARIABLES = frozenset({"PORT", "PORT_HEALTH", "HEALTH_CHECK_PATH", "RUNPOD_INIT_TIMEOUT"})
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_PORT = r"^\d{1,5}/(http|tcp)$"

CudaVersion = Annotated[str, Field(pattern=r"^\d+\.\d+$")]


class SecretVariable(kit.Model):
    """An environment variable whose value is never shown."""

    name: Annotated[str, Field(pattern=_VARIABLE)]
    value: kit.Secret[str]


def _by_name(variables: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return sorted((each["name"], each["value"]) for each in variables)


class ContainerInputs(kit.Inputs):
    """image: of the serving runtime, by digest; args: behind its entry point; registry: id of a
    RegistryCredential, empty for a public image.

    env: variables that anybody may see; secret_env: those that nobody may. RunPod keeps both in plain text and shows
    them to whoever has a key for the account. disk_gb: of the container, which ends with it. ports: as in `8000/http`.
    """

    name: kit.AutoName
    image: Annotated[str, Field(min_length=1)]
    args: str = ""
    env: dict[Annotated[str, Field(pattern=_VARIABLE)], str] = Field(default_factory=dict)
    secret_env: Annotated[list[SecretVariable], kit.Normalised(_by_name)] = Field(default_factory=list)
    disk_gb: Annotated[int, Field(ge=1)] = 20
    ports: list[Annotated[str, Field(pattern=_PORT)]] = Field(default_factory=list)
    registry: str = ""


async def warn_without_token(ctx: kit.Context) -> None:
    """Told at preview, which goes on: what it shows needs no token."""
    problem = http.token_problem()
    if problem is not None:
        await ctx.warn(f"{problem.what}; `pulumi up` needs it\n  next: {problem.next_action}")


def variable_problems(inputs: ContainerInputs) -> Iterator[kit.Problem]:
    """A variable that is given twice."""
    seen = set(inputs.env)
    for index, each in enumerate(inputs.secret_env):
        if each.name in seen:
            yield kit.Problem(
                ("secretEnv", index, "name"),
                f"the variable {each.name} is given twice",
                "each name once, in env or in secretEnv",
                "take one of them away",
            )
        seen.add(each.name)


def settings(inputs: ContainerInputs) -> dict[str, Any]:
    """The part of a request body."""
    return {
        "image": inputs.image,
        "args": inputs.args,
        "env": {**inputs.env, **{each.name: each.value for each in inputs.secret_env}},
        "disk": inputs.disk_gb,
        "ports": list(inputs.ports),
        "registry": inputs.registry or None,
    }


def settings_of(found: Endpoint | Pod) -> dict[str, Any]:
    """The same of what RunPod has."""
    return {
        "image": found.image,
        "args": found.args,
        "env": dict(found.env),
        "disk": found.disk,
        "ports": list(found.ports),
        "registry": found.registry or None,
    }


def inputs_of(found: Endpoint | Pod, known: ContainerInputs | None) -> dict[str, Any]:
    """What RunPod has, as inputs by their Python names; variables that nobody declared count as secret.

    For `model_construct`: somebody may have set what a declaration may not say, and a refresh must show that.
    """
    open_ones = set(known.env) if known else set()
    hidden = [each.name for each in known.secret_env] if known else []
    shown = open_ones | (OWN_VARIABLES - set(hidden))
    env: Mapping[str, str] = found.env
    order = [name for name in hidden if name in env] + sorted(set(env) - shown - set(hidden))
    return {
        "image": found.image,
        "args": found.args,
        "env": {name: value for name, value in env.items() if name in shown},
        "secret_env": [SecretVariable.model_construct(name=name, value=env[name]) for name in order],
        "disk_gb": found.disk,
        "ports": list(found.ports),
        "registry": found.registry or "",
    }
