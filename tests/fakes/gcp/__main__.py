"""What the engine starts as the plugin `gcp` (see pulumi-resource-gcp)."""

import os
import sys
import time
from concurrent import futures
from pathlib import Path

ENGINE_PID = os.getppid()

# Started as a folder, Python puts the folder itself on its path.
sys.path[0] = str(Path(__file__).resolve().parents[3])

import grpc  # noqa: E402
from pulumi.runtime.proto import provider_pb2_grpc  # noqa: E402

from tests.fakes.gcp import CLOUD_VARIABLE  # noqa: E402
from tests.fakes.gcp.cloud import Cloud  # noqa: E402
from tests.fakes.gcp.service import StubService  # noqa: E402


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    service = StubService(Cloud(Path(os.environ[CLOUD_VARIABLE])))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    # Plugins have a process group of their own and outlive an engine that is killed.
    while os.getppid() == ENGINE_PID:
        time.sleep(0.5)


if __name__ == "__main__":
    main()
