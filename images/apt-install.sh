#!/bin/sh
# apt-install.sh SNAPSHOT NAME=VERSION...
# Installs Debian packages as they were at a moment (20261121T060000Z) of Debian's archive of all its states: the same
# packages, and what they depend on, tomorrow as today. Leaves nothing behind but the packages; apt's own configuration
# is not touched. Plain http is enough: apt checks the signatures.
set -eu
snapshot=$1
shift
. /etc/os-release
list=$(mktemp)
trap 'rm -f "$list"' EXIT
archive=${DEBIAN_ARCHIVE:-http://snapshot.debian.org/archive}
options="[check-valid-until=no signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
{
    echo "deb $options $archive/debian/$snapshot $VERSION_CODENAME main"
    echo "deb $options $archive/debian/$snapshot $VERSION_CODENAME-updates main"
    echo "deb $options $archive/debian-security/$snapshot $VERSION_CODENAME-security main"
} >"$list"
chmod 644 "$list"
apt() {
    apt-get -o Dir::Etc::SourceList="$list" -o Dir::Etc::SourceParts=- -o Acquire::Retries=5 -o Dpkg::Use-Pty=0 "$@"
}
export DEBIAN_FRONTEND=noninteractive
apt -q update
apt -q install -y --no-install-recommends "$@"
apt clean
rm -rf /var/lib/apt/lists/* /var/cache/ldconfig/aux-cache /var/log/apt /var/log/dpkg.log /var/log/alternatives.log
