"""An app's inputs as Modal's definition, and Modal's definition as inputs."""

from __future__ import annotations

from typing import Any, cast

from . import marks
from .api import Modal
from .fields import GCS, SERVER, AppInputs, AppOutputs, BucketMount, VolumeMount, hundredths, milli

_SNAPSHOT_OPTION = "enable_gpu_snapshot"


async def deploy(modal: Modal, urn: str, inputs: AppInputs) -> None:
    """Deploys the app as declared; Modal makes no new version when nothing changed.

    Containers of the version before go on until new ones answer (Modal's strategy `rolling`).
    """
    from modal import runner
    from modal._image import _Image
    from modal._server import _DirectServerCls
    from modal.app import _App
    from modal.cloud_bucket_mount import _CloudBucketMount
    from modal.secret import _Secret
    from modal.volume import _Volume

    # The SDK would run git here and tell Modal the commit, its author's address and the remote's URL, in which some
    # keep a token. Nothing of this machine goes to Modal.
    cast(Any, runner).get_git_commit_info = _no_commit

    def secret(name: str, *keys: str) -> Any:
        return _Secret.from_name(name, environment_name=inputs.environment, required_keys=list(keys))

    volumes: dict[str, Any] = {}
    for path, mount in inputs.volumes.items():
        volume = _Volume.from_name(mount.volume, environment_name=inputs.environment)
        options: dict[str, Any] = {"read_only": True} if mount.read_only else {}
        options |= {"sub_path": mount.sub_path} if mount.sub_path else {}
        volumes[path] = volume.with_mount_options(**options) if options else volume
    for path, bucket in inputs.buckets.items():
        volumes[path] = _CloudBucketMount(
            bucket_name=bucket.bucket,
            bucket_endpoint_url=bucket.endpoint or None,
            key_prefix=bucket.prefix or None,
            secret=secret(bucket.secret, *_bucket_keys(bucket)) if bucket.secret else None,
            read_only=bucket.read_only,
        )
    app = _App(inputs.name, tags=marks.tags(urn, inputs.image, inputs.registry_secret), include_source=False)
    app.server(
        image=_Image.from_registry(
            inputs.image, secret=secret(inputs.registry_secret) if inputs.registry_secret else None
        ),
        secrets=[secret(name) for name in inputs.secrets],
        gpu=inputs.gpus[0] if len(inputs.gpus) == 1 else list(inputs.gpus) or None,
        cpu=_cores(inputs.cpu),
        memory=inputs.memory_mib,
        volumes=cast(Any, volumes),
        min_containers=inputs.min_containers,
        max_containers=inputs.max_containers or None,
        buffer_containers=inputs.buffer_containers,
        scaledown_window=inputs.scaledown_window_s,
        target_concurrency=inputs.target_concurrency,
        max_concurrency=inputs.max_concurrency,
        name=SERVER,
        port=inputs.port,
        routing_region=inputs.routing_region,
        compute_region=inputs.compute_regions or None,
        cloud=inputs.cloud or None,
        nonpreemptible=inputs.nonpreemptible,
        unauthenticated=not inputs.proxy_auth,
        startup_timeout=inputs.startup_timeout_s,
        exit_grace_period=inputs.exit_grace_period_s,
        enable_memory_snapshot=inputs.gpu_snapshot,
        experimental_options={_SNAPSHOT_OPTION: True} if inputs.gpu_snapshot else None,
        include_source=False,
        # The image's own command starts the server; nothing of this machine goes into it.
    )(_DirectServerCls)
    await app.deploy(name=inputs.name, environment_name=inputs.environment, client=modal.client)


async def restore_scaling(modal: Modal, environment: str, inputs: AppInputs) -> None:
    """Takes back what somebody set with `update_autoscaler`: a deployment that changes nothing else leaves it."""
    from modal_proto import api_pb2

    server = await modal.server(environment, inputs.name, SERVER)
    if server is None:
        return
    wanted = api_pb2.AutoscalerSettings(
        min_containers=inputs.min_containers,
        max_containers=inputs.max_containers,
        buffer_containers=inputs.buffer_containers,
        scaledown_window=inputs.scaledown_window_s,
        target_concurrency_float=hundredths(inputs.target_concurrency),
    )
    now = await modal.scaling(server.function_id)
    ours = ("min_containers", "max_containers", "buffer_containers", "scaledown_window", "target_concurrency_float")
    if any(getattr(now, each) != getattr(wanted, each) for each in ours):
        await modal.set_scaling(server.function_id, wanted)


async def read_inputs(
    modal: Modal,
    environment: str,
    name: str,
    server: Any,
    tags: dict[str, str],
    state: tuple[AppInputs, AppOutputs] | None,
) -> AppInputs:
    """The inputs that make what runs now. `server` is Modal's answer about it, `state` what Pulumi remembers.

    They are not validated: what somebody deployed from elsewhere may be nothing that could be declared.
    """
    data = server.function
    first = data.ranked_functions[0].function
    http, placement, resources = data.http_config, first.scheduler_placement, first.resources
    scaling = await modal.scaling(server.function_id)
    mounts = list(first.cloud_bucket_mounts)
    secret_names = await modal.secrets(environment) if first.secret_ids or mounts else {}
    volume_names = await modal.volumes(environment) if first.volume_mounts else {}
    gpus = [each.function.resources.gpu_config for each in data.ranked_functions]
    return AppInputs.model_construct(
        environment=environment,
        name=name,
        image=_image(first.image_id, tags, state),
        registry_secret=marks.registry_secret(tags),
        secrets=[secret_names.get(each, (each, 0.0))[0] for each in first.secret_ids],
        gpus=[each.gpu_type if each.count == 1 else f"{each.gpu_type}:{each.count}" for each in gpus if each.count],
        cpu=resources.milli_cpu / 1000 or None,
        memory_mib=resources.memory_mb or None,
        min_containers=scaling.min_containers,
        max_containers=scaling.max_containers,
        buffer_containers=scaling.buffer_containers,
        scaledown_window_s=scaling.scaledown_window,
        target_concurrency=hundredths(scaling.target_concurrency_float or float(scaling.target_concurrency)) or 0.0,
        max_concurrency=first.max_concurrent_inputs or None,
        port=http.port,
        routing_region=http.proxy_regions[0] if http.proxy_regions else "",
        compute_regions=list(placement.regions),
        cloud=first.cloud_provider_str,
        nonpreemptible=placement.nonpreemptible,
        proxy_auth=not http.unauthenticated,
        startup_timeout_s=http.startup_timeout,
        exit_grace_period_s=http.exit_grace_period,
        gpu_snapshot=first.checkpointing_enabled and _SNAPSHOT_OPTION in data.experimental_options,
        volumes={
            each.mount_path: VolumeMount.model_construct(
                volume=volume_names.get(each.volume_id, (each.volume_id, 0.0))[0],
                read_only=each.read_only,
                sub_path=each.sub_path,
            )
            for each in first.volume_mounts
        },
        buckets={
            each.mount_path: BucketMount.model_construct(
                bucket=each.bucket_name,
                endpoint=each.bucket_endpoint_url,
                prefix=each.key_prefix,
                secret=secret_names.get(each.credentials_secret_id, (each.credentials_secret_id, 0.0))[0],
                read_only=each.read_only,
            )
            for each in mounts
        },
    )


async def _no_commit() -> None:
    return None


def _bucket_keys(bucket: BucketMount) -> tuple[str, str]:
    """The variables that the secret of a bucket must have, by the documentation of modal 1.6's CloudBucketMount."""
    if bucket.endpoint == GCS:
        return ("GOOGLE_ACCESS_KEY_ID", "GOOGLE_ACCESS_KEY_SECRET")
    return ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def _cores(wanted: float | None) -> float | None:
    """Half a thousandth more, as the SDK cuts off what is behind the thousandths: 0.57 would be 0.569."""
    thousandths = milli(wanted)
    return None if thousandths is None else (thousandths + 0.5) / 1000


def _image(image_id: str, tags: dict[str, str], state: tuple[AppInputs, AppOutputs] | None) -> str:
    """The image by its reference. Modal tells only an id of its own: it counts for what it was when we deployed it."""
    told = marks.image(tags)
    if told is not None and (state is None or image_id == state[1].image_id or told != state[0].image):
        return told
    if state is not None and image_id == state[1].image_id:
        return state[0].image
    return f"modal.invalid/{image_id.lower()}@sha256:{'0' * 64}"
