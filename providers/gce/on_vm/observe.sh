#!/bin/bash
# Sends the journal and the GPU's figures to Cloud Logging and Cloud Monitoring: Google's Ops Agent, and NVIDIA's DCGM,
# which it reads. Beside the server and never in its way: what fails here is said and tried at the next boot.
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "$0")")
# shellcheck source=/dev/null
. "$here/settings"

export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -y -q -o DPkg::Lock::Timeout=300)
agent=/etc/google-cloud-ops-agent/config.yaml

if ! command -v dcgmi >/dev/null; then
    echo "observe: installing DCGM"
    # shellcheck source=/dev/null
    distribution=$(. /etc/os-release && echo "$ID${VERSION_ID//./}")
    curl -fsSL --retry 5 --max-time 60 -o /run/cuda-keyring.deb \
        "https://developer.download.nvidia.com/compute/cuda/repos/$distribution/x86_64/cuda-keyring_1.1-1_all.deb"
    dpkg -i /run/cuda-keyring.deb
    "${apt[@]}" update
    "${apt[@]}" install --no-install-recommends datacenter-gpu-manager-4-cuda13
fi
systemctl enable --now nvidia-dcgm
if ! command -v google_cloud_ops_agent_engine >/dev/null && [ ! -d /opt/google-cloud-ops-agent ]; then
    echo "observe: installing the Ops Agent"
    curl -fsSL --retry 5 --max-time 60 -o /run/ops-agent.sh \
        https://dl.google.com/cloudagents/add-google-cloud-ops-agent-repo.sh
    bash /run/ops-agent.sh --also-install
fi
if ! cmp -s "$here/ops-agent.yaml" "$agent"; then
    install -D -m 0644 "$here/ops-agent.yaml" "$agent"
    systemctl restart google-cloud-ops-agent
fi
echo "observe: done"
