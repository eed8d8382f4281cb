"""What targets of the kind `gce` plan: one golden plan for each variant, and the rules of safety that hold in each.

All variants are targets of one stack, so that one preview through the real engine shows them all.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from providers.kit.values import UNKNOWN_SENTINEL
from tests.fakes.gcp import CLOUD_VARIABLE, VERSION
from tests.support.stack_project import ROOT, StackProject

GOLDEN = Path(__file__).parent / "golden" / "gce"
PROJECT = "fleet-123"
ACCOUNT = f"lorafleet-gce@{PROJECT}.iam.gserviceaccount.com"
ROUTER = f"lorafleet-router@{PROJECT}.iam.gserviceaccount.com"
INSTANCE = "gcp:compute/instance:Instance"
TEMPLATE = "gcp:compute/instanceTemplate:InstanceTemplate"
GROUP = "gcp:compute/regionInstanceGroupManager:RegionInstanceGroupManager"
AUTOSCALER = "gcp:compute/regionAutoscaler:RegionAutoscaler"
FIREWALL = "gcp:compute/firewall:Firewall"
# Written out here, so that the plan can disagree with it: Google's health checks, and its Identity-Aware Proxy.
PROBES = ("35.191.0.0/16", "130.211.0.0/22")
IAP = "35.235.240.0/20"
SECRET = "gcp:secretmanager/secretVersion:SecretVersion"
MEMBER = "gcp:secretmanager/secretIamMember:SecretIamMember"

_PROGRAM = '''
import pulumi
from providers import stack

class Manifest(pulumi.ComponentResource):
    """Stands for the manifest in the store, which this test has none of."""
    def __init__(self):
        super().__init__("test:index:Manifest", "manifest")
        self.served = pulumi.Output.from_input({})

fleet = stack.fleet()
targets = stack.targets(fleet, Manifest())
pulumi.export("urls", {each.endpoint.name: each.endpoint.url for each in targets})
pulumi.export("keys", {each.endpoint.name: each.endpoint.key for each in targets})
'''
L4: dict[str, Any] = {
    "kind": "gce",
    "machine": "g2-standard-4",
    "gpu": "L4",
    "zones": ["asia-northeast3-a", "asia-northeast3-b"],
    "project": PROJECT,
}
ONE = {"form": "vm", "zones": ["asia-northeast3-a"]}
HOURS = {"on": "08:00", "off": "20:00", "timeZone": "Asia/Seoul"}
VARIANTS: dict[str, dict[str, Any]] = {
    "on-demand": L4,
    "spot": {**L4, "onDemand": 0, "spot": 2},
    "one-and-spot": {**L4, "onDemand": 1, "spot": 3, "spotTermination": "stop", "standby": 1},
    "vm": {**L4, **ONE, "disk": {"type": "pd-ssd"}},
    "vm-hours": {**L4, **ONE, "schedule": {**HOURS, "days": "mon-fri"}, "projectNumber": 123456789012},
    "group-hours": {**L4, "schedule": HOURS, "updates": "in-place"},
    "t4": {
        **L4,
        "machine": "n1-standard-4",
        "gpu": "T4",
        "zones": ["asia-northeast3-b"],
        "engine": {"dtype": "float16"},
        "network": {"name": "fleet", "subnetwork": "fleet-seoul"},
        "allowFrom": ["10.0.0.5/32"],
        "iapSsh": True,
        "opsAgent": False,
        "labels": {"team": "contracts"},
    },
}
FLEET: dict[str, Any] = {
    "store": "gs://a-bucket/fleet",
    "baseModel": {
        "name": "exaone-3.5-2.4b",
        "source": "hf://an-owner/a-model",
        "license": "none needed (made for tests)",
    },
    "adapters": {"easycontract": {"rank": 8}},
    "targets": {},
    "router": {"port": 8100, "metricsPort": 8102},
    "release": {
        "image": f"asia-northeast3-docker.pkg.dev/{PROJECT}/lorafleet/serving@sha256:{'0' * 64}",
        "baseModel": {"revision": "e" * 40},
        "adapters": {"easycontract": f"sha256:{'1' * 64}"},
    },
}
Plan = list[dict[str, Any]]


@dataclass
class GceProject(StackProject):
    """A stack of targets on Compute Engine, with a stand-in for Google's plugin."""

    stack: str = "dev"

    def __post_init__(self) -> None:
        (self.folder / "stacks").mkdir(parents=True)
        (self.folder / "backend").mkdir()
        project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
        project["plugins"]["providers"][0]["path"] = str(ROOT / "providers")
        stub = {"name": "gcp", "path": str(ROOT / "tests" / "fakes" / "gcp"), "version": VERSION}
        project["plugins"]["providers"].append(stub)
        (self.folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        (self.folder / "stacks" / "__main__.py").write_text(_PROGRAM)
        self.declare(primary=L4)
        self.run("stack", "init", self.stack).ok()

    def declare(self, **targets: dict[str, Any]) -> None:
        config = self.read_config()["config"] if self.stack_file.exists() else {}
        self.write_config({**config, "serving:fleet": {**copy.deepcopy(FLEET), "targets": copy.deepcopy(targets)}})

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, CLOUD_VARIABLE: str(self.cloud_file)}

    @property
    def cloud_file(self) -> Path:
        return self.folder / "cloud.json"

    def things(self, kind: str) -> dict[str, dict[str, Any]]:
        """{id: {inputs, outputs}} of what the stand-in has made."""
        made = json.loads(self.cloud_file.read_text())["resources"]
        return {key: each for key, each in made.items() if each["type"] == kind}

    def planned(self) -> Plan:
        """Every resource of a preview, in the order of its URN."""
        steps = json.loads(self.preview("--json").ok().output)["steps"]
        states = ({"inputs": {}, **step["newState"]} for step in steps if step["op"] == "create")
        return sorted(states, key=lambda state: str(state["urn"]))


def target_of(resource: dict[str, Any]) -> str:
    """The target that a resource belongs to: its component's name is in front of its own."""
    name = resource["urn"].rpartition("::")[2]
    found = [each for each in VARIANTS if name == each or name.startswith(f"{each}-")]
    return max(found, key=len, default="")


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Plan]:
    project = GceProject(tmp_path_factory.mktemp("gce") / "project")
    project.declare(**VARIANTS)
    whole = [each for each in project.planned() if "lorafleet:gce:Target" in each["urn"]]
    assert {target_of(each) for each in whole} == set(VARIANTS)
    return {name: [each for each in whole if target_of(each) == name] for name in VARIANTS}


def as_text(plan: Plan) -> str:
    lines: list[str] = []
    # What Pulumi's engine puts behind a name that it makes.
    random_part = re.compile(r'(?<=-)[0-9a-f]{7}(?=")')
    for resource in sorted(plan, key=lambda each: (each["type"], each["urn"])):
        name = resource["urn"].rpartition("::")[2]
        lines.append(f"{resource['type']} {name}")
        for key, value in sorted(resource["inputs"].items()):
            if key == "metadata":
                # The programs have files and tests of their own.
                value = {**value, "user-data": "(see providers/gce/on_vm)"}
            text = json.dumps(value, sort_keys=True).replace(UNKNOWN_SENTINEL, "(known when it is made)")
            lines.append(f"    {key}: {random_part.sub('(random)', text)}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_whole_plan(plans: dict[str, Plan], variant: str) -> None:
    text, golden = as_text(plans[variant]), GOLDEN / f"{variant}.txt"
    if os.environ.get("LORAFLEET_WRITE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True, parents=True)
        golden.write_text(text)
    assert text == golden.read_text(), "if this is meant: LORAFLEET_WRITE_GOLDEN=1, and review the difference"


# -- what must hold of every plan ---------------------------------------------------------------------------


def faults(plan: Plan) -> Iterator[str]:
    for resource in plan:
        for rule in RULES:
            for fault in rule(resource):
                yield f"{resource['urn'].rpartition('::')[2]}: {fault}"


def _no_address_of_the_internet(resource: dict[str, Any]) -> Iterator[str]:
    for interface in resource["inputs"].get("networkInterfaces", []):
        if interface.get("accessConfigs") or interface.get("ipv6AccessConfigs"):
            yield "has an address of the Internet"
    if (
        resource["type"].endswith((":Address", ":GlobalAddress"))
        and resource["inputs"].get("addressType") != "INTERNAL"
    ):
        yield "an address of the Internet"
    scheme = resource["inputs"].get("loadBalancingScheme")
    if scheme is not None and scheme != "INTERNAL":
        yield "a load balancer of the Internet"


def _runs_as_its_own_account(resource: dict[str, Any]) -> Iterator[str]:
    if resource["type"] in (INSTANCE, TEMPLATE):
        account = resource["inputs"].get("serviceAccount", {}).get("email")
        if account != ACCOUNT:
            yield f"runs as {account}"
        if resource["inputs"].get("canIpForward") is not False:
            yield "may send under other addresses"


def _no_secret_in_metadata(resource: dict[str, Any]) -> Iterator[str]:
    metadata = resource["inputs"].get("metadata", {})
    if "apiKeySha256" in str(metadata.get("lorafleet-launch")):
        yield "a key's digest in the metadata"
    for key, value in metadata.items():
        if key == "lorafleet-secret":
            if value != UNKNOWN_SENTINEL and not re.fullmatch(r"projects/[^/]+/secrets/[^/]+/versions/\d+", value):
                yield "a secret itself, not its name, in the metadata"
        elif re.search(r"\b(?:hf_|lf-|ya29\.|AIza)[A-Za-z0-9]|[0-9a-f]{64}(?!')(?<!0{64})(?<!1{64})", value):
            yield f"what looks like a secret in the metadata's {key}"
    if metadata and not (
        metadata.get("enable-oslogin") == "TRUE"
        and metadata.get("block-project-ssh-keys") == "TRUE"
        and metadata.get("serial-port-enable") == "FALSE"
    ):
        yield "people get in without IAM"


def _lets_in_probes_and_router_only(resource: dict[str, Any]) -> Iterator[str]:
    if resource["type"] != FIREWALL:
        return
    inputs = resource["inputs"]
    if inputs.get("targetServiceAccounts") != [ACCOUNT]:
        yield "opens other machines too"
    ports = [(each["protocol"], tuple(each.get("ports", ()))) for each in inputs["allows"]]
    sources = (inputs.get("sourceServiceAccounts", []), inputs.get("sourceRanges", []))
    if ports == [("tcp", ("8000",))]:
        if sources not in (([ROUTER], []), ([ROUTER], ["10.0.0.5/32"]), ([], list(PROBES))):
            yield f"lets in {sources}"
    elif ports != [("tcp", ("22",))] or sources != ([], [IAP]):
        yield f"opens {ports} to {sources}"


def _no_wide_role(resource: dict[str, Any]) -> Iterator[str]:
    role = resource["inputs"].get("role", "")
    if role in ("roles/owner", "roles/editor", "roles/viewer") or "admin" in role.lower():
        yield f"{role} is too wide"
    if resource["type"].startswith("gcp:projects/iAMMember") and role.startswith("roles/"):
        yield f"{role} on the whole project"
    if resource["type"].lower().endswith(("iampolicy", "iambinding")):
        yield "overwrites what others have granted"
    if resource["type"] == MEMBER and resource["inputs"]["member"] != f"serviceAccount:{ACCOUNT}":
        yield f"the secret is open to {resource['inputs']['member']}"
    allowed = {"compute.instances.start", "compute.instances.stop"}
    if set(resource["inputs"].get("permissions", ())) - allowed:
        yield "a role that may do more than the hours need"


def _a_gpu_ends_for_maintenance(resource: dict[str, Any]) -> Iterator[str]:
    scheduling = resource["inputs"].get("scheduling")
    if scheduling is None:
        return
    if scheduling.get("onHostMaintenance") != "TERMINATE":
        yield "a VM with a GPU can't be moved"
    spot = scheduling.get("provisioningModel") == "SPOT"
    if spot != scheduling.get("preemptible") or spot == scheduling.get("automaticRestart"):
        yield "its way of paying and its restart do not fit together"


def _reaches_google_without_the_internet(resource: dict[str, Any]) -> Iterator[str]:
    if resource["type"].endswith(":Subnetwork") and resource["inputs"].get("privateIpGoogleAccess") is not True:
        yield "needs an address of the Internet to reach Google"


def _zones_and_surge_fit(resource: dict[str, Any]) -> Iterator[str]:
    if resource["type"] != GROUP:
        return
    inputs = resource["inputs"]
    policy, zones = inputs["updatePolicy"], len(inputs["distributionPolicyZones"])
    numbers = (policy["maxSurgeFixed"], policy["maxUnavailableFixed"])
    if numbers not in ((zones, 0), (0, zones)):
        yield f"can't be updated in {zones} zones with {numbers}"
    if inputs["autoHealingPolicies"]["initialDelaySec"] < 900:
        yield "is healed while it loads"
    if (inputs["distributionPolicyTargetShape"], policy["instanceRedistributionType"]) != ("BALANCED", "NONE"):
        yield "waits for a zone without GPUs, or takes no autoscaler"


def _nothing_runs_outside_of_the_hours(resource: dict[str, Any]) -> Iterator[str]:
    """Google's conditions for none: a minimum of 0, and no signal that is measured on running VMs."""
    if resource["type"] != AUTOSCALER:
        return
    policy = resource["inputs"]["autoscalingPolicy"]
    if policy["minReplicas"] != 0:
        yield "VMs are left running"
    for signal in {"cpuUtilization", "loadBalancingUtilization", "metrics"} & set(policy):
        yield f"{signal} keeps the last VM running"
    if policy.get("cooldownPeriod", 60) > 600:
        yield "switches off late"


RULES: tuple[Callable[[dict[str, Any]], Iterator[str]], ...] = (
    _no_address_of_the_internet,
    _runs_as_its_own_account,
    _no_secret_in_metadata,
    _lets_in_probes_and_router_only,
    _no_wide_role,
    _a_gpu_ends_for_maintenance,
    _reaches_google_without_the_internet,
    _zones_and_surge_fit,
    _nothing_runs_outside_of_the_hours,
)


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_safe(plans: dict[str, Plan], variant: str) -> None:
    plan = plans[variant]
    assert list(faults(plan)) == []
    kinds = {each["type"] for each in plan}
    assert kinds >= {FIREWALL, SECRET, MEMBER} and kinds & {INSTANCE, TEMPLATE}, "a rule must have something to look at"


def input_of(kind: str, path: str, value: object) -> Callable[[Plan], object]:
    def change(plan: Plan) -> None:
        here: Any = next(each for each in plan if each["type"] == kind)["inputs"]
        *parents, last = path.split("/")
        for part in parents:
            here = here[int(part)] if part.isdigit() else here[part]
        here[last] = value

    return change


@pytest.mark.parametrize(
    ("variant", "change", "says"),
    [
        ("on-demand", input_of(TEMPLATE, "networkInterfaces/0/accessConfigs", [{}]), "address of the Internet"),
        ("vm", input_of(INSTANCE, "networkInterfaces/0/accessConfigs", [{}]), "address of the Internet"),
        ("vm", input_of("gcp:compute/address:Address", "addressType", "EXTERNAL"), "address of the Internet"),
        (
            "spot",
            input_of("gcp:compute/forwardingRule:ForwardingRule", "loadBalancingScheme", "EXTERNAL"),
            "load balancer of the Internet",
        ),
        ("spot", input_of(TEMPLATE, "serviceAccount/email", "1-compute@developer.gserviceaccount.com"), "runs as"),
        ("vm", input_of(INSTANCE, "canIpForward", True), "other addresses"),
        ("vm", input_of(INSTANCE, "metadata/lorafleet-launch", '{"apiKeySha256": ["x"]}'), "key's digest"),
        ("vm", input_of(INSTANCE, "metadata/lorafleet-secret", "lf-the-key-itself"), "not its name"),
        ("t4", input_of(TEMPLATE, "metadata/user-data", "HF_TOKEN=" + "hf" + "_abcdefgh"), "looks like a secret"),
        ("t4", input_of(TEMPLATE, "metadata/user-data", "ab" * 32), "looks like a secret"),
        ("t4", input_of(TEMPLATE, "metadata/enable-oslogin", "FALSE"), "without IAM"),
        ("t4", input_of(FIREWALL, "sourceRanges", ["0.0.0.0/0"]), "0.0.0.0/0"),
        ("t4", input_of(FIREWALL, "targetServiceAccounts", []), "other machines"),
        ("spot", input_of(FIREWALL, "allows", [{"protocol": "tcp", "ports": ["22"]}]), "opens"),
        ("spot", input_of(MEMBER, "role", "roles/secretmanager.admin"), "too wide"),
        ("spot", input_of(MEMBER, "member", "allUsers"), "open to allUsers"),
        ("vm-hours", input_of("gcp:projects/iAMMember:IAMMember", "role", "roles/compute.viewer"), "whole project"),
        (
            "vm-hours",
            input_of("gcp:projects/iAMCustomRole:IAMCustomRole", "permissions", ["compute.instances.delete"]),
            "more than the hours",
        ),
        ("t4", input_of(TEMPLATE, "scheduling/onHostMaintenance", "MIGRATE"), "can't be moved"),
        ("spot", input_of(TEMPLATE, "scheduling/automaticRestart", True), "fit together"),
        ("spot", input_of(TEMPLATE, "scheduling/preemptible", False), "fit together"),
        ("vm", input_of("gcp:compute/subnetwork:Subnetwork", "privateIpGoogleAccess", False), "reach Google"),
        ("on-demand", input_of(GROUP, "updatePolicy/maxSurgeFixed", 1), "can't be updated"),
        ("on-demand", input_of(GROUP, "autoHealingPolicies/initialDelaySec", 60), "while it loads"),
        ("on-demand", input_of(GROUP, "distributionPolicyTargetShape", "ANY"), "takes no autoscaler"),
        ("group-hours", input_of(AUTOSCALER, "autoscalingPolicy/minReplicas", 1), "left running"),
        ("group-hours", input_of(AUTOSCALER, "autoscalingPolicy/cpuUtilization", {"target": 1}), "the last VM"),
        ("group-hours", input_of(AUTOSCALER, "autoscalingPolicy/cooldownPeriod", 1320), "off late"),
    ],
)
def test_each_rule_can_fail(plans: dict[str, Plan], variant: str, change: Callable[[Plan], object], says: str) -> None:
    broken = copy.deepcopy(plans[variant])
    change(broken)
    assert any(says in fault for fault in faults(broken)), list(faults(broken))
