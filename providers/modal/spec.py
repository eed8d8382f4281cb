"""What may be declared of a target of the kind `modal`: a server that Modal starts when requests come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field

from lorafleet.errors import Problem, shown
from lorafleet.stackfile import FieldPath
from lorafleet.targets import Site, TargetSpec
from lorafleet.values import Choice, Text, Whole

# Modal's names of GPUs that a model of this size fits on. lorafleet.gpus says what each can do, prices.json the price.
GPUS = ("T4", "L4", "A10", "L40S", "A100-40GB", "A100-80GB", "H100", "H200")
# Modal's documentation of region selection, November 2026; more of them exist, Modal checks the name.
_REGION = Text(r"[a-z]{2,}(?:-[a-z]+)*(?:-?[0-9])?", "a region of Modal, as in us, eu-west or asia-northeast3")
_NAME = Text(r"[A-Za-z0-9._-]{1,63}", "up to 63 letters, digits, `.`, `_` and `-`")
_LONGEST_NAME = 63
PROXY_TOKEN = {"Modal-Key": "modalProxyTokenId", "Modal-Secret": "modalProxyTokenSecret"}
"""What Modal asks for with proxy_auth: {header: key of the stack's secret}."""
_PROXY_TOKENS = "modal.com/settings/proxy-auth-tokens"


class ModalTarget(TargetSpec):
    """The fleet on Modal: containers with the serving image, as many as there are requests for.

    Fields:
        gpus: types that a container may get (`GPUS`), the preferred one first; a container has one GPU.
        environment: Modal's environment, which must exist.
        app: name of the app in it; without it, `lorafleet-STACK-TARGET`.
        min_containers: containers that always run and are always paid for.
        max_containers: containers at the same time at most.
        buffer_containers: idle containers beside the busy ones, while there are requests.
        scaledown_window_s: how long an idle container stays, in seconds; it is paid for meanwhile.
        requests_per_container: requests at once from which on another container is started.
        routing_region: where requests enter Modal.
        regions: where containers may run; none means anywhere, which is cheapest.
        nonpreemptible: containers that Modal does not move; they cost more.
        proxy_auth: only requests with a Proxy Auth Token of the workspace start or reach a container; the router
            sends the one of the stack's configuration (`modalProxyTokenId`, `modalProxyTokenSecret`).
        gpu_snapshot: start from a snapshot of a started container, its GPU's memory included (alpha at Modal, and not
            tried with this image).
        secrets: names of Modal Secrets whose variables the containers get, beside those of this project.
        registry_secret: name of the Modal Secret that may pull the image; none for a public one.
        cache_volume: keep fetched weights in a Modal Volume, from container to container.
        model_bucket_secret: name of a Modal Secret with an HMAC key of Google; with it the base model is not fetched
            but read from its bucket, which is mounted. It must lie in one (`gs://`).
        start_timeout_s: longest time until a new container has loaded everything, in seconds.
        drain_timeout_s: longest wait for requests in flight when a container stops, in seconds.
    """

    kind: Literal["modal"]
    gpus: Annotated[list[Annotated[str, Choice(GPUS)]], Field(min_length=1)]
    environment: Annotated[str, _NAME] = "main"
    app: Annotated[str, _NAME] | None = None
    min_containers: Annotated[int, Whole(0, 100, "containers")] = 0
    max_containers: Annotated[int, Whole(1, 100, "containers")] = 2
    buffer_containers: Annotated[int, Whole(0, 100, "containers")] = 0
    scaledown_window_s: Annotated[int, Whole(2, 3600, "seconds")] = 300
    requests_per_container: Annotated[int, Whole(1, 1024, "requests")] = 16
    routing_region: Annotated[str, _REGION] = "us-east"
    regions: list[Annotated[str, _REGION]] = Field(default_factory=list)
    nonpreemptible: bool = False
    proxy_auth: bool = True
    gpu_snapshot: bool = False
    secrets: list[Annotated[str, _NAME]] = Field(default_factory=list)
    registry_secret: Annotated[str, _NAME] | None = None
    cache_volume: bool = False
    model_bucket_secret: Annotated[str, _NAME] | None = None
    start_timeout_s: Annotated[int, Whole(60, 7200, "seconds")] = 900
    drain_timeout_s: Annotated[int, Whole(1, 600, "seconds")] = 30

    def app_name(self, environment: str, target: str) -> str:
        """The app's name on Modal; `environment` is the stack's."""
        return self.app or f"lorafleet-{environment}-{target}"

    def stack_secrets(self) -> Mapping[str, str]:
        if not self.proxy_auth:
            return {}
        where = f"Proxy Auth Token of Modal ({_PROXY_TOKENS}), without which Modal lets no request in (proxyAuth)"
        return {
            PROXY_TOKEN["Modal-Key"]: f"id of a {where}",
            PROXY_TOKEN["Modal-Secret"]: f"secret of the same {where}",
        }

    def problems(self, site: Site) -> Iterable[tuple[FieldPath, Problem]]:
        if self.min_containers > self.max_containers:
            yield (
                ("minContainers",),
                Problem(
                    "there would be more containers at least than at most",
                    found=f"minContainers {self.min_containers}, maxContainers {self.max_containers}",
                    allowed=f"at most {self.max_containers}",
                    next_action="Lower minContainers or raise maxContainers.",
                ),
            )
        if len(self.app_name(site.environment, site.target)) > _LONGEST_NAME:
            yield (
                ("app",),
                Problem(
                    "the app's name would be too long for Modal",
                    found=shown(self.app_name(site.environment, site.target)),
                    allowed=_NAME.allowed,
                    next_action="Name the app with `app`.",
                ),
            )
        if self.engine.device == "cpu":
            yield (
                ("engine", "device"),
                Problem(
                    "the engine would not use the GPU that is paid for",
                    found="cpu",
                    allowed="auto or cuda",
                    next_action="Take `device` away.",
                ),
            )
        if "T4" in self.gpus and self.engine.dtype == "bfloat16":
            yield (
                ("engine", "dtype"),
                Problem(
                    "a T4 has no bfloat16",
                    found="bfloat16, and T4 among gpus",
                    allowed="auto or float16 with a T4",
                    next_action="Take T4 out of gpus, or dtype away: then float16 is taken there.",
                ),
            )


SPEC = ModalTarget
