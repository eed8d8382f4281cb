#!/bin/bash
# Becomes the server: the container in the foreground, its output in the journal, from vLLM's first line on.
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "$0")")
# shellcheck source=/dev/null
. "$here/settings"

# What a VM that lost its power has left; a container that runs is never met here, as it would be this very service.
docker rm --force "$CONTAINER" >/dev/null 2>&1 || true
# On the VM's own network: its name is the server's in the status, and nothing translates addresses.
exec docker run --rm --name "$CONTAINER" --network host --gpus all --shm-size 2g \
    --cap-drop ALL --security-opt no-new-privileges --log-driver none --stop-timeout "$STOP_S" \
    --env-file "$CONFIG/container.env" \
    --volume "$CONFIG/launch.json:/etc/lorafleet/launch.json:ro" \
    --volume "$CACHE:/var/lib/lorafleet" \
    "$IMAGE"
