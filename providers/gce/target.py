"""The component of the kind `gce`."""

from __future__ import annotations

import pulumi
from pulumi_gcp.secretmanager.secret import Secret
from pulumi_gcp.secretmanager.secret_iam_member import SecretIamMember
from pulumi_gcp.secretmanager.secret_version import SecretVersion

from lorafleet.plan import Plan
from providers.access.resources import ApiKey
from providers.kit.endpoint import Endpoint
from providers.kit.program import Declared, declare
from providers.stack import refuse
from providers.stack import target as planned_target

from . import group, single
from .network import Standing
from .place import Place
from .spec import GceTarget
from .vm import Vms, own_labels


class VllmVm(pulumi.ComponentResource):
    """The target called `name` of the fleet, on VMs of Compute Engine.

    manifest: says what its servers serve; they follow it, so a release is no change of this resource.
    endpoint: what the router needs to send requests to it. Its address is one of the VMs' network: only what stands in
        that network, or is joined to it, reaches it.
    """

    endpoint: Endpoint

    def __init__(self, name: str, fleet: Plan, manifest: Declared, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("lorafleet:gce:Target", name, None, opts)
        planned = planned_target(fleet, name, "gce")
        spec = planned.spec
        assert isinstance(spec, GceTarget)  # its kind says so
        image = _check(name, fleet)
        if fleet.router.runs == "here":
            pulumi.log.warn(
                f"target '{name}' answers within its own network only, and the router runs on this machine, which must "
                "stand in that network or be joined to it (docs/gce.md)",
                self,
            )
        place = Place(self, name, spec, own_labels(fleet.environment, name))
        standing = Standing(name, place, spec)
        key = declare(ApiKey, f"{name}-key", {}, pulumi.ResourceOptions(parent=self))
        secret, granted = _secret(name, fleet, place, key)
        vms = Vms(name, fleet, planned, spec, place, standing, secret, image)
        make = single.make if spec.form == "vm" else group.make
        address = make(vms, [manifest, granted])
        url = pulumi.Output.concat("http://", address, f":{spec.port}")
        self.endpoint = Endpoint(
            name=name,
            kind=planned.kind,
            url=url,
            key=key.key,
            models=planned.models,
            served=manifest.served,
            max_in_flight=spec.max_in_flight,
            max_queue=spec.max_queue,
        )
        self.register_outputs({"url": url})


def _check(name: str, fleet: Plan) -> str:
    """The image. Ends the program when there is none, or when the VMs could not read what they are to serve."""
    if fleet.image is None:
        refuse(
            f"target '{name}' runs an image, and the stack file names none\n  next:    set serving:fleet.release.image"
        )
    for field, url in (("store", fleet.store), ("baseModel.source", fleet.base.source)):
        if url.startswith("file://"):
            refuse(
                f"target '{name}' runs on Compute Engine, which can't read {field}: a folder of this machine\n"
                "  allowed: gs://bucket/folder, and hf://owner/repository for the base model\n"
                f"  next:    change serving:fleet.{field}; `lorafleet model mirror` and `adapter push` copy there"
            )
    return fleet.image


def _secret(name: str, fleet: Plan, place: Place, key: Declared) -> tuple[pulumi.Output[str], pulumi.Resource]:
    """What must not stand in the VMs' metadata, in Secret Manager: (its version's full name, the right to read it).

    The key's digest is enough to check it, so the VMs never have the key.
    """
    secret_id = f"lorafleet-{fleet.environment}-{name}"
    full_name = pulumi.Output.concat("projects/", place.project, "/secrets/", secret_id)
    secret = Secret(
        f"{name}-secret",
        secret_id=secret_id,
        project=place.project,
        # Not `auto`, which lets Google choose where the value lies.
        replication={"user_managed": {"replicas": [{"location": place.region}]}},
        opts=place.options(),
    )
    content: dict[str, pulumi.Input[object]] = {"apiKeySha256": [key.sha256]}
    hub_token = pulumi.Config().get_secret("hfToken")
    if hub_token is not None:
        content["hfToken"] = hub_token
    data: pulumi.Output[str] = pulumi.Output.secret(pulumi.Output.json_dumps(content))
    version = SecretVersion(
        f"{name}-secret",
        secret=full_name,
        secret_data=data,
        opts=place.options(after=[secret]),
    )
    granted = SecretIamMember(
        f"{name}-secret",
        project=place.project,
        secret_id=secret.secret_id,
        role="roles/secretmanager.secretAccessor",
        member=pulumi.Output.concat("serviceAccount:", place.account),
        opts=place.options(),
    )
    return version.name, granted


TARGET = VllmVm
