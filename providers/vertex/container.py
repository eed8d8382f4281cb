"""The container of a model: what a program says of it, what Vertex AI is told, and how the two are compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from providers import kit

from .answers import ContainerSpec, seconds
from .answers import Model as FoundModel
from .answers import Probe as FoundProbe

# Variables of the Hugging Face containers and of our handler that hold no secrets.
OWN_VARIABLES = frozenset(
    {"HF_TASK", "HF_TRUST_REMOTE_CODE", "LORAFLEET_ENGINE", "LORAFLEET_MAX_QUEUE", "LORAFLEET_MAX_TOKENS"}
)
LONGEST_START_S = 7200  # of Vertex AI's description of `deploymentTimeout`
_LARGEST_VARIABLE = 128 << 10
_LARGEST_VARIABLES = 512 << 10
_MOST_VARIABLES = 200
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_ROUTE = r"^(/[^\s?#]*)?$"


class Probe(kit.Model):
    """A question to the container: GET of `path`, or `command` run in it (one of the two).

    period_s, timeout_s: how often, and how long an answer may take (timeout_s at most period_s). failures: so many in a
    row count. initial_delay_s: wait before the first.
    """

    path: Annotated[str, Field(pattern=_ROUTE)] = ""
    command: list[str] = Field(default_factory=list)
    period_s: Annotated[int, Field(ge=1, le=3600)] = 10
    timeout_s: Annotated[int, Field(ge=1, le=3600)] = 1
    failures: Annotated[int, Field(ge=1, le=1000)] = 3
    initial_delay_s: Annotated[int, Field(ge=0, le=7200)] = 0


class SecretVariable(kit.Model):
    """An environment variable whose value is never shown."""

    name: Annotated[str, Field(pattern=_VARIABLE)]
    value: kit.Secret[str]


def _by_name(variables: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return sorted((each["name"], each["value"]) for each in variables)


class ContainerInputs(kit.Inputs):
    """image: in Artifact Registry, by digest; command, args: in place of the image's own.

    env: variables that anybody may see; secret_env: those that nobody may. Vertex AI keeps both in plain text and shows
    them to whoever may read the model.
    port: on which the container listens; predict_route: where requests go, `invoke`: any path may be asked for instead
    (a preview of Google's, dedicated endpoints only); health_route: answers 200 while it can serve.
    shared_memory_mb: of /dev/shm; deployment_timeout_s: longest start (1 to 7200). artifact_uri: a gs:// folder, whose
    address the container gets as AIP_STORAGE_URI.
    startup_probe, health_probe, liveness_probe: without them Vertex AI asks health_route every 10 s, each within 1 s.
    """

    image: Annotated[str, Field(min_length=1)]
    command: list[str] = Field(default_factory=list)
    args: list[str] = Field(default_factory=list)
    env: dict[Annotated[str, Field(pattern=_VARIABLE)], str] = Field(default_factory=dict)
    secret_env: Annotated[list[SecretVariable], kit.Normalised(_by_name)] = Field(default_factory=list)
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    predict_route: Annotated[str, Field(pattern=_ROUTE)] = "/predict"
    invoke: bool = False
    health_route: Annotated[str, Field(pattern=r"^/[^\s?#]*$")] = "/health"
    shared_memory_mb: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    deployment_timeout_s: Annotated[int, Field(ge=1, le=LONGEST_START_S)] = 1800
    startup_probe: Probe | None = None
    health_probe: Probe | None = None
    liveness_probe: Probe | None = None
    artifact_uri: Annotated[str, Field(pattern=r"^(gs://[a-z0-9][a-z0-9._-]+(/.*)?)?$")] = ""


def problems(inputs: ContainerInputs) -> Iterator[kit.Problem]:
    """What Vertex AI would refuse, some of it only when the container is to be started."""
    host = inputs.image.split("/")[0]
    if not (host.endswith("-docker.pkg.dev") or host == "gcr.io" or host.endswith(".gcr.io")):
        yield kit.Problem(
            ("image",),
            f"Vertex AI fetches images from Google's registries alone, and not from {host}",
            "REGION-docker.pkg.dev/PROJECT/REPOSITORY/IMAGE@sha256:…",
            "push the image to Artifact Registry; a remote repository there can stand for another registry",
        )
    if bool(inputs.predict_route) == inputs.invoke:
        yield kit.Problem(
            ("predictRoute",),
            "goes not with invoke" if inputs.invoke else "there is no way in",
            'predictRoute, or invoke with predictRoute ""',
            "set one of the two",
        )
    yield from _probe_problems(inputs)
    yield from _variable_problems(inputs)


def _probe_problems(inputs: ContainerInputs) -> Iterator[kit.Problem]:
    for wire, probe in (
        ("startupProbe", inputs.startup_probe),
        ("healthProbe", inputs.health_probe),
        ("livenessProbe", inputs.liveness_probe),
    ):
        if probe is None:
            continue
        if bool(probe.path) == bool(probe.command):
            yield kit.Problem((wire,), "a probe asks one thing", "path or command", "set one of the two")
        if probe.timeout_s > probe.period_s:
            what = f"an answer may take {probe.timeout_s} s, and the next question comes after {probe.period_s} s"
            yield kit.Problem((wire, "timeoutS"), what, f"at most {probe.period_s}", "lower timeoutS or raise periodS")
    startup = inputs.startup_probe
    if startup is not None:
        longest = startup.initial_delay_s + startup.period_s * startup.failures
        if longest > inputs.deployment_timeout_s:
            yield kit.Problem(
                ("startupProbe", "failures"),
                f"the probe waits for {longest} s, Vertex AI gives the start up after {inputs.deployment_timeout_s}",
                f"initialDelayS + periodS * failures of at most {inputs.deployment_timeout_s}",
                "lower failures or raise deploymentTimeoutS",
            )


def _variable_problems(inputs: ContainerInputs) -> Iterator[kit.Problem]:
    seen: set[str] = set()
    size = 0
    given: list[tuple[tuple[str | int, ...], str, str]] = [
        (("env", name), name, value) for name, value in inputs.env.items()
    ]
    given += [(("secretEnv", at, "name"), each.name, each.value) for at, each in enumerate(inputs.secret_env)]
    for path, name, value in given:
        if name in seen:
            yield kit.Problem(path, f"the variable {name} is given twice", "each name once", "take one away")
        if name.startswith("AIP_"):
            yield kit.Problem(path, "Vertex AI itself sets the variables that begin so", "another name", "rename it")
        bytes_ = len(f"{name}={value}".encode())
        if bytes_ >= _LARGEST_VARIABLE:
            yield kit.Problem(path, f"the variable {name} has {bytes_} bytes", "less than 128 KiB", "shorten it")
        seen.add(name)
        size += bytes_
    if size > _LARGEST_VARIABLES or len(given) > _MOST_VARIABLES:
        yield kit.Problem(
            ("env",),
            f"there are {len(given)} variables with {size} bytes",
            "at most 200 with 512 KiB together",
            "put what is long into the bucket",
        )


def settings(inputs: ContainerInputs) -> dict[str, Any]:
    """`containerSpec` and `artifactUri` of a request."""
    variables = {**inputs.env, **{each.name: each.value for each in inputs.secret_env}}
    spec: dict[str, Any] = {
        "imageUri": inputs.image,
        "command": list(inputs.command),
        "args": list(inputs.args),
        # In an order of its own: a later one may refer to an earlier one, which is not wanted here.
        "env": [{"name": name, "value": variables[name]} for name in sorted(variables)],
        "ports": [{"containerPort": inputs.port}],
        "predictRoute": inputs.predict_route,
        "invokeRoutePrefix": "/*" if inputs.invoke else "",
        "healthRoute": inputs.health_route,
        "sharedMemorySizeMb": str(inputs.shared_memory_mb) if inputs.shared_memory_mb else "",
        "deploymentTimeout": f"{inputs.deployment_timeout_s}s",
        "startupProbe": _probe(inputs.startup_probe, inputs.port),
        "healthProbe": _probe(inputs.health_probe, inputs.port),
        "livenessProbe": _probe(inputs.liveness_probe, inputs.port),
    }
    body = {"containerSpec": {key: value for key, value in spec.items() if value not in (None, "", [])}}
    return {**body, "artifactUri": inputs.artifact_uri} if inputs.artifact_uri else body


def alias(inputs: ContainerInputs) -> str:
    """What a version with exactly this container is called; so it is uploaded once, and found again."""
    text = json.dumps(settings(inputs), sort_keys=True, separators=(",", ":"))
    return f"spec-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _probe(probe: Probe | None, port: int) -> dict[str, Any] | None:
    if probe is None:
        return None
    question: dict[str, Any] = (
        {"exec": {"command": list(probe.command)}} if probe.command else {"httpGet": {"path": probe.path, "port": port}}
    )
    return {
        **question,
        "periodSeconds": probe.period_s,
        "timeoutSeconds": probe.timeout_s,
        "failureThreshold": probe.failures,
        **({"initialDelaySeconds": probe.initial_delay_s} if probe.initial_delay_s else {}),
    }


def inputs_of(found: FoundModel, known: ContainerInputs | None) -> dict[str, Any]:
    """What Vertex AI has, as inputs by their Python names; variables that nobody declared count as secret."""
    spec = found.container_spec
    if spec is None:
        raise kit.ResourceError(
            "the model has no container of its own",
            next_action="declare one with a container; this resource has no others",
        )
    env = {each.name: each.value for each in spec.env}
    hidden = [each.name for each in known.secret_env] if known else []
    open_ones = (set(known.env) if known else set()) | (OWN_VARIABLES - set(hidden))
    order = [name for name in hidden if name in env] + sorted(set(env) - open_ones - set(hidden))
    return {
        "image": spec.image_uri,
        "command": spec.command,
        "args": spec.args,
        "env": {name: value for name, value in env.items() if name in open_ones},
        "secret_env": [SecretVariable(name=name, value=env[name]) for name in order],
        "port": spec.ports[0].container_port if spec.ports else 8080,
        "predict_route": spec.predict_route,
        "invoke": bool(spec.invoke_route_prefix),
        "health_route": spec.health_route or "/",
        "shared_memory_mb": int(spec.shared_memory_size_mb or 0),
        "deployment_timeout_s": _timeout(spec),
        "startup_probe": _probe_of(spec.startup_probe),
        "health_probe": _probe_of(spec.health_probe),
        "liveness_probe": _probe_of(spec.liveness_probe),
        "artifact_uri": found.artifact_uri,
    }


def _timeout(spec: ContainerSpec) -> int:
    return seconds(spec.deployment_timeout) or 1800


def _probe_of(found: FoundProbe | None) -> Probe | None:
    if found is None:
        return None
    return Probe(
        path=found.http_get.path if found.http_get else "",
        command=found.exec.command if found.exec else [],
        period_s=found.period_seconds or 10,
        timeout_s=found.timeout_seconds or 1,
        failures=found.failure_threshold or 3,
        initial_delay_s=found.initial_delay_seconds,
    )
