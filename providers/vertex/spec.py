"""What may be declared of a target of the kind `vertex`: our handler behind an endpoint of Vertex AI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Annotated, Literal

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from lorafleet.errors import Problem, listed, shown
from lorafleet.gpus import find
from lorafleet.stackfile import FieldPath
from lorafleet.targets import Site, TargetSpec
from lorafleet.values import Choice, Image, Model, Text, Whole, refuse

from . import machines

# What vLLM takes of the GPU's memory (its own default).
_USABLE_VRAM = 0.9
_SHARED_REQUEST_S = 60  # Google's limit of a request to an endpoint without an address of its own
METRICS = ("vllm-waiting", "vllm-cache", "gpu-duty-cycle", "gpu-utilization", "cpu", "requests")
_GPU_NAMES = {find(each).name: each for each in reversed(machines.ACCELERATORS)}

_PROJECT = Text(
    r"[a-z][a-z0-9-]{4,28}[a-z0-9]|[0-9]{1,20}",
    "the id or number of a Google Cloud project, as in my-project-123",
    "`gcloud projects list` shows it.",
)
_ACCOUNT = Text(
    r"[a-z][a-z0-9-]{4,28}[a-z0-9]@[a-z0-9.-]+\.gserviceaccount\.com",
    "a service account's address, as in lorafleet-vertex@my-project.iam.gserviceaccount.com",
)
_URL = Text(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?", "http:// or https:// and a host, without a path")


@dataclass(frozen=True, slots=True)
class _OfMany:
    """One of more names than anybody wants to read: an error shows those that are most like the one that was given."""

    names: tuple[str, ...]
    what: str
    where: str

    def check(self, value: object) -> str:
        if isinstance(value, str) and value in self.names:
            return value
        given = str(value).lower()
        # What begins alike first: g2-… for G2, europe-… for Europe.
        alike = sorted(self.names, key=lambda each: -SequenceMatcher(None, given, each).ratio())
        alike.sort(key=lambda each: each.split("-")[0] != given.split("-")[0])
        raise refuse(
            f"there is no such {self.what}",
            allowed=f"{', '.join(alike[:6])} and others: {self.where}",
            next_action=f'Did you mean "{alike[0]}"?',
        )

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)


_REGION = _OfMany(
    tuple(sorted(machines.REGIONS)), "region of Vertex AI", "cloud.google.com/vertex-ai/docs/general/locations"
)
_MACHINE = _OfMany(tuple(machines.MACHINES), "machine with GPUs that is known here", "providers/vertex/machines.py")
# A truth value and nothing that could be taken for one.
Flag = Annotated[bool, Field(strict=True)]
Gpu = Annotated[str, Choice(tuple(reversed(_GPU_NAMES)))]


class Canary(Model):
    """Another image beside the target's, on machines of its own, for a part of the requests.

    Fields:
        image: the other image, by digest.
        percent: its share of the requests.
    """

    image: Image
    percent: Annotated[int, Whole(1, 99, "percent")]


class VertexTarget(TargetSpec):
    """The fleet on Vertex AI: replicas on machines with GPUs that Google starts, watches and replaces.

    Fields:
        image: the image `vertex` by its digest; the release's `image` is another one, without Vertex AI's own server.
        project: Google Cloud project; region: one of Vertex AI's, as in europe-west4.
        machine: machine type of a replica, as in g2-standard-8.
        gpu: the replica's GPU; without it, what the machine comes with. A replica has one, as its server uses one.
        spot: on machines that Google may take away at any time, for much less.
        replicas_min: replicas that always run and are always paid for; 0 needs idle_s.
        replicas_max: replicas at the same time at most.
        idle_s: scale to zero (a preview of Google's): so long without a request until nothing runs, in seconds.
        scale_on, scale_target: what replicas are added by, and from which value on (a percentage; of `vllm-waiting` and
            `requests` a number).
        access: `dedicated` (an address of its own), `shared` (Google's; 1.5 MB and 60 s a request), or
            `private-service-connect` (inside the networks of allowed_projects alone).
        allowed_projects: projects that a private endpoint lets in; private_url: under which the router reaches it, as
            its address is given out by your own network.
        request_timeout_s: longest time of one request on a dedicated endpoint, in seconds.
        service_account: whom the container acts as, who must be able to read the bucket and say there what it serves;
            without it `lorafleet-vertex` of the project, which the stack `shared` makes.
        shared_memory_mb: of /dev/shm.
        access_logging: a line in Cloud Logging for each request, without its content.
        canary: another image for a part of the requests.
        start_timeout_s: longest time until a new replica has loaded everything, in seconds.
        drain_timeout_s: longest wait for requests in flight when a replica stops, in seconds.
    """

    kind: Literal["vertex"]
    image: Image
    project: Annotated[str, _PROJECT]
    region: Annotated[str, _REGION]
    machine: Annotated[str, _MACHINE]
    gpu: Gpu | None = None
    spot: Flag = False
    replicas_min: Annotated[int, Whole(0, 100, "replicas")] = 1
    replicas_max: Annotated[int, Whole(1, 100, "replicas")] = 1
    idle_s: Annotated[int, Whole(300, 28_800, "seconds")] | None = None
    scale_on: Annotated[str, Choice(METRICS)] = "vllm-waiting"
    scale_target: Annotated[int, Whole(1, 10_000)] = 5
    access: Annotated[str, Choice(("dedicated", "shared", "private-service-connect"))] = "dedicated"
    allowed_projects: list[Annotated[str, _PROJECT]] = Field(default_factory=list)
    private_url: Annotated[str, _URL] | None = None
    request_timeout_s: Annotated[int, Whole(1, 3600, "seconds")] | None = None
    service_account: Annotated[str, _ACCOUNT] | None = None
    shared_memory_mb: Annotated[int, Whole(64, 1_000_000, "MB")] = 2048
    access_logging: Flag = False
    canary: Canary | None = None
    start_timeout_s: Annotated[int, Whole(60, 7200, "seconds")] = 1800
    drain_timeout_s: Annotated[int, Whole(0, 600, "seconds")] = 30

    @property
    def accelerator(self) -> str:
        """The GPU by Vertex AI's name."""
        own = machines.MACHINES[self.machine].gpu
        return own if self.gpu is None or find(own).name == self.gpu else _GPU_NAMES[self.gpu]

    @property
    def timeout_s(self) -> int:
        """Longest request as Vertex AI is told it; 0: its own limit."""
        return (self.request_timeout_s or 600) if self.access == "dedicated" else 0

    def problems(self, site: Site) -> Iterable[tuple[FieldPath, Problem]]:
        yield from self._machine_problems()
        yield from self._model_problems(site.content_bytes)
        yield from self._replica_problems()
        if self.service_account is None and self.project.isdigit():
            yield (
                ("serviceAccount",),
                Problem(
                    "the project's account cannot be named by the project's number",
                    found=f"project {self.project}",
                    allowed="the project's id, or serviceAccount",
                    next_action="Set project to its id (`gcloud projects list`), or set serviceAccount.",
                ),
            )
        if self.access != "private-service-connect" and self.allowed_projects:
            yield (
                ("allowedProjects",),
                Problem(
                    "an endpoint with a public address lets in whoever may send requests (IAM), and no project",
                    found=f"access {self.access}",
                    allowed="allowedProjects with access private-service-connect",
                    next_action="Take allowedProjects away, or make the endpoint a private one.",
                ),
            )
        if (self.access == "private-service-connect") != (self.private_url is not None):
            yield (
                ("privateUrl",),
                Problem(
                    "a private endpoint, and no other, has an address of your own network",
                    found=f"access {self.access}, {'no privateUrl' if self.private_url is None else 'privateUrl'}",
                    allowed="privateUrl with access private-service-connect",
                    next_action="Set both or neither: the forwarding rule's address, as in http://10.0.0.5.",
                ),
            )
        if self.access != "dedicated" and self.request_timeout_s is not None:
            yield (
                ("requestTimeoutS",),
                Problem(
                    f"only a dedicated endpoint lets a request take other than {_SHARED_REQUEST_S} s",
                    found=f"access {self.access}",
                    allowed="requestTimeoutS with access dedicated",
                    next_action="Take requestTimeoutS away, or set access to dedicated.",
                ),
            )

    def _machine_problems(self) -> Iterator[tuple[FieldPath, Problem]]:
        accelerator = self.accelerator
        machine = machines.MACHINES[self.machine]
        fit = machines.machines_with(accelerator, 1)
        if machine.gpu != accelerator:
            yield (
                ("gpu",),
                Problem(
                    f"{self.machine} has no {self.gpu}: it comes with {find(machine.gpu).name}",
                    found=shown(self.gpu),
                    allowed=f"{find(machine.gpu).name} with {self.machine}, or {self.gpu} with {listed(fit[:4])}",
                    next_action=f"Set machine to {fit[0]}, or take gpu away.",
                )
                if fit
                else Problem(
                    f"{self.machine} has no {self.gpu}, and no machine has one alone",
                    found=shown(self.gpu),
                    allowed=f"{find(machine.gpu).name} with {self.machine}",
                    next_action="Take gpu away.",
                ),
            )
            return
        if 1 not in machine.counts:
            # vLLM is not told to spread the model, so the others would be paid for and idle.
            one = [name for name, each in machines.MACHINES.items() if 1 in each.counts]
            alike = [name for name in one if find(machines.MACHINES[name].gpu).name == find(accelerator).name] or one
            yield (
                ("machine",),
                Problem(
                    f"{self.machine} comes with {machine.counts[0]} GPUs or more, and a server uses one",
                    found=shown(self.machine),
                    allowed=f"a machine with one GPU: {listed(alike[:6])}",
                    next_action=f"Take {alike[0]}, and for more requests at once a larger replicasMax.",
                ),
            )
            return
        regions = machines.GPU_REGIONS.get(accelerator)
        if regions is not None and self.region not in regions:
            near = machines.nearest_region(self.region, regions)
            yield (
                ("region",),
                Problem(
                    f"Google has no {find(accelerator).name} in this region",
                    found=shown(self.region),
                    allowed=listed(sorted(regions)),
                    next_action=f"The nearest one with it is {near}; or take a machine with another GPU.",
                ),
            )
        if self.shared_memory_mb > machine.memory_gb * 1000 / 2:
            yield (
                ("sharedMemoryMb",),
                Problem(
                    f"this is more than half of the {machine.memory_gb:g} GB of {self.machine}",
                    found=shown(self.shared_memory_mb),
                    allowed=f"at most {int(machine.memory_gb * 500)}",
                    next_action="Lower it, or take a larger machine.",
                ),
            )

    def _model_problems(self, content_bytes: int | None) -> Iterator[tuple[FieldPath, Problem]]:
        gpu = find(self.accelerator)
        if self.engine.dtype != "auto" and self.engine.dtype not in gpu.dtypes:
            yield (
                ("engine", "dtype"),
                Problem(
                    f"a {gpu.name} does not compute in {self.engine.dtype}",
                    found=shown(self.engine.dtype),
                    allowed=listed(gpu.dtypes),
                    next_action="Take float16, or a machine with an L4, such as g2-standard-8.",
                ),
            )
        if self.engine.device == "cpu":
            yield (
                ("engine", "device"),
                Problem(
                    "the replicas of this target have GPUs",
                    found="cpu",
                    allowed="auto or cuda",
                    next_action="Take engine.device away.",
                ),
            )
        usable = gpu.vram_gib * _USABLE_VRAM * 2**30
        needed = (content_bytes or 0) + (self.engine.kv_cache_mib << 20)
        if needed > usable:
            larger = next((each for each in machines.MACHINES if _vram(each) * _USABLE_VRAM * 2**30 >= needed), None)
            yield (
                ("machine",),
                Problem(
                    "the model and kvCacheMib do not fit into the memory of its GPU",
                    found=f"{self.machine} with {gpu.vram_gib} GiB, {-(-needed // 2**30)} GiB needed",
                    allowed=f"a GPU of whose memory {_USABLE_VRAM:.0%} is enough",
                    next_action=f"Lower kvCacheMib{f', or take {larger}' if larger else ''}.",
                ),
            )

    def _replica_problems(self) -> Iterator[tuple[FieldPath, Problem]]:
        if self.replicas_min > self.replicas_max:
            yield (
                ("replicasMin",),
                Problem(
                    "there would be more replicas at least than at most",
                    found=f"replicasMin {self.replicas_min}, replicasMax {self.replicas_max}",
                    allowed=f"at most {self.replicas_max}",
                    next_action="Lower replicasMin or raise replicasMax.",
                ),
            )
        if (self.replicas_min == 0) != (self.idle_s is not None):
            without = self.idle_s is None
            yield (
                ("replicasMin",) if without else ("idleS",),
                Problem(
                    "nothing says when it scales to zero" if without else "it never scales to zero",
                    found=f"replicasMin {self.replicas_min}",
                    allowed="replicasMin 0 and idleS together, or neither",
                    next_action="Set idleS (a preview of Google's), or replicasMin to 1."
                    if without
                    else "Set replicasMin to 0, or take idleS away.",
                ),
            )
        if self.scale_on not in ("vllm-waiting", "requests") and self.scale_target > 100:
            yield (
                ("scaleTarget",),
                Problem(
                    f"{self.scale_on} is a percentage",
                    found=shown(self.scale_target),
                    allowed="a whole number from 1 to 100",
                    next_action="Lower scaleTarget.",
                ),
            )


def _vram(machine: str) -> int:
    """GiB of the one GPU of a machine; 0 for a machine with more."""
    found = machines.MACHINES[machine]
    return find(found.gpu).vram_gib if 1 in found.counts else 0


SPEC = VertexTarget
