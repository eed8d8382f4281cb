"""A stand-in for Modal's control plane: a gRPC server that speaks the protocol which the package `modal` brings along.

It answers the calls that deploying, reading and stopping a server take, and refuses what Modal refuses: a wrong token,
an environment, secret or volume that is not there, an image digest that its registry does not have, a GPU or a region
that does not exist, names that break the rules. Any other call is answered UNIMPLEMENTED.

    with serving("ak-token", "as-secret") as modal:
        # MODAL_SERVER_URL=modal.url in the environment of who talks to it
        modal.faults.add("AppPublish", "reset_after")
        modal.cloud.deployed("main", "app")

`cloud.py` is what there is, with its rules; `rpcs.py` the calls; `faults.py` what goes wrong; `server.py` serves.
For tests over it: `kit.py` has the plugin's process, `life.py` a resource's life in the test's own process,
`project.py` a Pulumi project on the real engine.
"""

from .server import FakeModal, serving

__all__ = ["FakeModal", "serving"]
