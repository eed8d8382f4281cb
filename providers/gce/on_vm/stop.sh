#!/bin/bash
# Ends the server as asked: it is not ready any more, requests in flight end (drainTimeoutS), then the container goes.
# systemd calls it when the VM shuts down, too, also when a Spot VM is taken away.
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "$0")")
# shellcheck source=/dev/null
. "$here/settings"

echo "stop: requests in flight have $DRAIN_S s"
docker stop --time "$STOP_S" "$CONTAINER" >/dev/null || true
