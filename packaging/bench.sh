#!/usr/bin/env bash
# Measure otgd beside systemd-networkd, NetworkManager, the guide and a lower bound in C, in one run:
#     packaging/bench.sh            about an hour; give it a machine that has nothing else to do
#     packaging/bench.sh --quick    about ten minutes
#     packaging/bench.sh --help     results' directory, single peers, single parts
#
# Run as root. Sets up what it needs: Debian packages, a Debian root in ~/.cache/otgd, otgd's package.
set -euo pipefail

# shellcheck source=packaging/lib/setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/setup.sh"

# shellcheck disable=SC2034 # install_packages reads it
packages=(gcc git iproute2 libc6-dev mmdebstrap python3 systemd-container util-linux)

if [[ " $* " != *" --help "* && " $* " != *" --report"* ]]; then
    ((EUID == 0)) || fail "needs root for its containers; try: sudo $0"
    install_packages
fi

# -P: what is imported is the checkout's, whatever the current directory holds.
bench=(env PYTHONPATH="$root" PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -P -m tests.bench)
# Mounts of the run are its own, and end with it.
((EUID != 0)) || bench=(unshare --mount "${bench[@]}")
exec "${bench[@]}" "$@"
