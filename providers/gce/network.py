"""Where the VMs stand, and who is let in: no address of the Internet, Google's probes and the router alone."""

from __future__ import annotations

import pulumi
from pulumi_gcp.compute._inputs import FirewallAllowArgsDict
from pulumi_gcp.compute.firewall import Firewall
from pulumi_gcp.compute.network import Network
from pulumi_gcp.compute.router import Router
from pulumi_gcp.compute.router_nat import RouterNat
from pulumi_gcp.compute.subnetwork import Subnetwork

from .place import Place
from .spec import GceTarget

# https://cloud.google.com/load-balancing/docs/health-check-concepts#ip-ranges
PROBES = ("35.191.0.0/16", "130.211.0.0/22")
# https://cloud.google.com/iap/docs/using-tcp-forwarding#create-firewall-rule
IAP = "35.235.240.0/20"
DEFAULT_RANGE = "10.80.0.0/24"


class Standing:
    """A network and its part in the region.

    network, subnetwork: as other resources name them. made: what must be there before a VM can reach anything.
    """

    network: pulumi.Output[str]
    subnetwork: pulumi.Output[str]
    made: list[pulumi.Resource]

    def __init__(self, name: str, place: Place, spec: GceTarget) -> None:
        self.made = []
        declared = spec.network
        if declared.name and declared.subnetwork:
            self.network = pulumi.Output.concat("projects/", place.project, "/global/networks/", declared.name)
            self.subnetwork = pulumi.Output.concat(
                "projects/", place.project, f"/regions/{place.region}/subnetworks/", declared.subnetwork
            )
        else:
            self._make(name, place, declared.range or DEFAULT_RANGE)
        self._let_in(name, place, spec)

    def _make(self, name: str, place: Place, addresses: str) -> None:
        network = Network(
            f"{name}-network",
            auto_create_subnetworks=False,
            description="lorafleet: model servers",
            opts=place.options(),
        )
        subnetwork = Subnetwork(
            f"{name}-subnet",
            network=network.id,
            region=place.region,
            ip_cidr_range=addresses,
            # Buckets, images, secrets and logs, without an address of the Internet.
            private_ip_google_access=True,
            opts=place.options(),
        )
        router = Router(f"{name}-router", network=network.id, region=place.region, opts=place.options())
        # The way out to what is not Google's: packages, and the hub if the model comes from there.
        nat = RouterNat(
            f"{name}-nat",
            router=router.name,
            region=place.region,
            nat_ip_allocate_option="AUTO_ONLY",
            source_subnetwork_ip_ranges_to_nat="LIST_OF_SUBNETWORKS",
            subnetworks=[{"name": subnetwork.id, "source_ip_ranges_to_nats": ["ALL_IP_RANGES"]}],
            log_config={"enable": True, "filter": "ERRORS_ONLY"},
            opts=place.options(),
        )
        self.network, self.subnetwork = network.id, subnetwork.id
        self.made = [nat]

    def _let_in(self, name: str, place: Place, spec: GceTarget) -> None:
        serving: list[FirewallAllowArgsDict] = [{"protocol": "tcp", "ports": [str(spec.port)]}]
        Firewall(
            f"{name}-from-router",
            network=self.network,
            direction="INGRESS",
            allows=serving,
            source_service_accounts=[place.router],
            source_ranges=list(spec.allow_from) or None,
            target_service_accounts=[place.account],
            description="lorafleet: requests, from the router",
            opts=place.options(),
        )
        if spec.form == "group":
            Firewall(
                f"{name}-from-probes",
                network=self.network,
                direction="INGRESS",
                allows=serving,
                source_ranges=list(PROBES),
                target_service_accounts=[place.account],
                description="lorafleet: Google's health checks",
                opts=place.options(),
            )
        if spec.iap_ssh:
            Firewall(
                f"{name}-from-iap",
                network=self.network,
                direction="INGRESS",
                allows=[{"protocol": "tcp", "ports": ["22"]}],
                source_ranges=[IAP],
                target_service_accounts=[place.account],
                description="lorafleet: gcloud compute ssh --tunnel-through-iap",
                opts=place.options(),
            )
