#!/bin/bash
# Before the server starts: the GPU answers, Docker is there, the image is there, the configuration is written. Does only
# what is missing, so it may run at any time and as often as one likes. `prepare --image` stops before the
# configuration: for a disk image that others start from.
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "$0")")
# shellcheck source=/dev/null
. "$here/settings"

say() { printf '[%4d s] prepare: %s\n' "$SECONDS" "$*"; }
fail() {
    printf 'error: %s\n  next: %s\n' "$1" "$2" >&2
    exit 1
}
# Networks and registries fail now and then, most of all in a VM's first seconds.
again() {
    local attempt
    for attempt in 1 2 3 4 5; do
        "$@" && return 0
        say "that was attempt $attempt of 5: $1"
        sleep "$((attempt * RETRY_S))"
    done
    return 1
}

gpu_answers() {
    local end=$((SECONDS + 180))
    until nvidia-smi -L; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 2
    done
}

# `set -e` does not count in a function whose failure is caught, so each step says so itself.
packages() {
    export DEBIAN_FRONTEND=noninteractive
    local keys=/usr/share/keyrings/nvidia-container-toolkit.gpg
    # The lock is held by whoever else installs at the first boot.
    local apt=(apt-get -y -q -o DPkg::Lock::Timeout=300)
    if ! command -v nvidia-ctk >/dev/null; then
        again curl -fsSL --max-time 60 -o /run/nvidia.asc https://nvidia.github.io/libnvidia-container/gpgkey || return 1
        gpg --batch --yes --dearmor -o "$keys" /run/nvidia.asc || return 1
        echo "deb [signed-by=$keys] https://nvidia.github.io/libnvidia-container/stable/deb/amd64 /" \
            >/etc/apt/sources.list.d/nvidia-container-toolkit.list || return 1
    fi
    again "${apt[@]}" update || return 1
    again "${apt[@]}" install docker.io nvidia-container-toolkit || return 1
    nvidia-ctk runtime configure --runtime=docker || return 1
    # It looks for NVIDIA's hook when it starts.
    systemctl restart docker
}

login_and_pull() {
    local registry=${IMAGE%%/*}
    case $registry in
    *.pkg.dev | gcr.io | *.gcr.io)
        "$here/configure" token | docker login -u oauth2accesstoken --password-stdin "https://$registry" || return 1
        ;;
    esac
    docker pull --quiet "$IMAGE"
}

# In a shell of its own, with a login of its own that is gone afterwards: the VM's account gives a new token at any time.
pull() (
    DOCKER_CONFIG=$(mktemp -d)
    export DOCKER_CONFIG
    trap 'rm -rf -- "$DOCKER_CONFIG"' EXIT
    again login_and_pull
)

say "on $(hostname), image $IMAGE"
gpu_answers || fail "the GPU does not answer" "see why with: sudo nvidia-smi; the disk image must have NVIDIA's driver"
if ! command -v docker >/dev/null || ! command -v nvidia-ctk >/dev/null; then
    say "installing Docker and NVIDIA's container toolkit (a prepared disk image has them)"
    packages || fail "Docker can't be installed" "the VM needs a way to Ubuntu's and NVIDIA's packages: Cloud NAT"
fi
if docker image inspect "$IMAGE" >/dev/null 2>&1; then
    say "the image is there"
else
    say "pulling the image"
    pull || fail "the image can't be pulled" "may the VM's account read the repository? does the digest exist?"
    say "pulled"
fi
[ "${1-}" = --image ] && exit 0
if [ ! -d "$CACHE" ]; then
    install -d -m 0750 -o "${OWNER%:*}" -g "${OWNER#*:}" "$CACHE"
fi
"$here/configure" launch
say "done"
