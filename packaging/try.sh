#!/usr/bin/env bash
# See otgd at work, on this machine and without any Raspberry Pi: four simulated gadgets are plugged
# in, reach a simulated Internet, and one is pulled. Everything happens in private namespaces.
#
# Run as root. Sets up what it needs (Debian packages, a virtual environment in /var/cache/otgd) and
# leaves nothing else behind, also when interrupted.
set -euo pipefail

# shellcheck source=packaging/lib/setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/setup.sh"

((EUID == 0)) || fail "needs root for its private network namespaces; try: sudo $0"
install_packages

# pip builds in the directory that it installs from; a copy keeps the checkout clean.
copy=$(mktemp -d)
show=0
# shellcheck disable=SC2317 # the trap calls it
stop() {
    rm -rf -- "$copy"
    ((show)) || return 0
    kill -KILL "$show" || true
    wait "$show" || true
} 2>/dev/null
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
cp -r -- "$root"/{otgd,pyproject.toml,README.md} "$copy"
find "$copy" -name __pycache__ -prune -exec rm -rf {} +

venv=$cache/try
make_venv "$venv" "$root/packaging/requirements.txt" "$copy" < <(
    cd -- "$copy" && find . -type f -print0 | sort -z | xargs -0 sha256sum
)
rm -rf -- "$copy"

# The show has its own network, mounts and processes. Its first process dies with unshare, and the
# kernel ends every other one with it, so there is nothing to clean up that could be forgotten.
unshare --net --mount --pid --fork --kill-child --mount-proc \
    bash -- "$root/packaging/lib/show.sh" "$venv/bin" &
show=$!
status=0
wait "$show" || status=$?
show=0
exit "$status"
