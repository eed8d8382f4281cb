"""What an app on Modal is, as inputs and outputs."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from providers import kit

SERVER = "serving"
"""The name of the one server in an app."""
GCS = "https://storage.googleapis.com"
"""Google Cloud Storage's S3 interface."""

Image = Annotated[
    str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9._-]+)+@sha256:[0-9a-f]{64}$", max_length=400)
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,63}$")]
MaybeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,63}$")]
Seconds = Annotated[int, Field(ge=0, le=86_400)]


def _mountable(path: str) -> str:
    """What Modal mounts at (modal 1.6, `validate_mount_points`), in the one form in which it is read back."""
    parts = path.split("/")[1:]
    if any(part in ("", ".", "..") for part in parts) or path in ("/root", "/tmp"):
        raise ValueError("must be an absolute path without `.`, `..` or a slash at its end, and not /root or /tmp")
    return path


def hundredths(value: float | None) -> float | None:
    """A number of requests per container as Modal keeps it: to the hundredth, and no less than one unless none."""
    return value if value is None else 1.0 if 0 < value < 1 else round(float(value), 2)


def milli(cores: float | None) -> int | None:
    """Cores as Modal keeps them."""
    return None if cores is None else round(cores * 1000)


Path = Annotated[str, Field(pattern=r"^/[^\x00-\x1f\x7f]+$"), AfterValidator(_mountable)]
Count = Annotated[int, Field(ge=0, le=10_000)]


class VolumeMount(kit.Model):
    """A Modal Volume in the container. sub_path: a folder of it, as in `models/v1`; "" for all of it."""

    volume: Name
    read_only: bool = False
    sub_path: Annotated[str, Field(pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*)?$")] = ""


class BucketMount(kit.Model):
    """A bucket in the container, through its S3 interface.

    endpoint: as GCS; "" for S3 itself. prefix: of all objects, ending in `/`, or "".
    secret: Modal Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for a bucket of Google, with an HMAC key as
        GOOGLE_ACCESS_KEY_ID and GOOGLE_ACCESS_KEY_SECRET. "" for a public bucket.
    """

    bucket: Annotated[str, Field(min_length=3, max_length=222)]
    endpoint: Annotated[str, Field(pattern=r"^(https://[A-Za-z0-9.-]+(:[0-9]+)?)?$")] = ""
    prefix: Annotated[str, Field(pattern=r"^(.*/)?$")] = ""
    secret: MaybeName = ""
    read_only: bool = True


class AppInputs(kit.Inputs):
    """An app with one server, which is an image run as it is.

    environment: Modal's own; it must exist. name: of the app, unique in it. registry_secret: Modal Secret that may pull
    the image ("" for a public one). secrets: names of Modal Secrets whose variables the containers get.
    gpus: types, the one that is taken before the others first; `H100:2` is two of them.
    cpu: cores, to the thousandth; memory_mib: MiB (None: Modal's choice). min_, max_, buffer_containers: how many run;
    buffer: idle ones beside the busy ones. scaledown_window_s: how long an idle one stays, 2 to 3600.
    target_concurrency: requests per container at which another one is started, to the hundredth; max_concurrency: above
    it Modal answers 429 (None: never).
    routing_region: where requests enter; compute_regions: where containers may run (empty: anywhere).
    cloud: `aws`, `gcp` or `oci` ("": any).
    proxy_auth: whether Modal asks for Modal-Key and Modal-Secret before it starts a container for a request.
    startup_timeout_s: from a container's start until its port answers. exit_grace_period_s: for requests in flight.
    gpu_snapshot: keep the memory of a started container, GPU included, for the next start (alpha at Modal).
    volumes, buckets: {path in the container: what is mounted there}.
    """

    environment: kit.Replaced[Name]
    name: kit.Replaced[Name]
    image: Image
    registry_secret: MaybeName = ""
    secrets: list[Name] = Field(default_factory=list)
    gpus: list[Annotated[str, Field(pattern=r"^[A-Z0-9!-]+(:[2-8])?$")]]
    cpu: Annotated[Annotated[float, Field(ge=0.001, le=256)] | None, kit.Normalised(milli)] = None
    memory_mib: Annotated[int, Field(gt=0)] | None = None
    min_containers: Count = 0
    max_containers: Count = 1
    buffer_containers: Count = 0
    scaledown_window_s: Seconds = 300
    target_concurrency: Annotated[float, Field(ge=0, le=10_000), kit.Normalised(hundredths)] = 32
    max_concurrency: Count | None = None
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    routing_region: str = "us-east"
    compute_regions: list[str] = Field(default_factory=list)
    cloud: MaybeName = ""
    nonpreemptible: bool = False
    proxy_auth: bool = True
    startup_timeout_s: Seconds = 900
    exit_grace_period_s: Seconds = 30
    gpu_snapshot: bool = False
    volumes: dict[Path, VolumeMount] = Field(default_factory=dict)
    buckets: dict[Path, BucketMount] = Field(default_factory=dict)


class AppOutputs(kit.Outputs):
    """app_id: Modal's; url: base URL without `/v1`. version: of the deployment, counted by Modal.

    image_id: Modal's own of the image. status: `deployed` when all is well, else `disabled`, `stopping` or `replaced`
    (somebody deployed an app without our server).
    """

    app_id: str
    url: str
    version: int
    image_id: str
    status: Annotated[str, kit.Expected("deployed")]
