#!/usr/bin/env bash
# make-root.sh [--variant VARIANT] [--download "PACKAGE..."] SUITE [PACKAGE...]
#
# Print the path of a Debian root directory with these packages, built once and kept in the cache.
# --download leaves packages and what they need in the root's apt cache, so that apt can install
# them there without a network. Packages come from the mirrors that this machine's apt uses.
# Treat the root as read-only: mount an overlay on it.
# shellcheck disable=SC2016 # hooks and apt's formats expand these themselves
# shellcheck disable=SC2054 # mmdebstrap's lists have commas
set -euo pipefail

variant=minbase download=
while [[ ${1-} == --* ]]; do
    case $1 in
        --variant) variant=$2 ;;
        --download) download=$2 ;;
        *) echo "make-root.sh: unknown option $1" >&2; exit 2 ;;
    esac
    shift 2
done
suite=${1:?make-root.sh: give a suite}
shift

cache=${OTGD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/otgd}
key=$(printf '%s\n' "$variant" "$download" "$@" "$(cat "$0")" | sha256sum | cut -c1-12)
root=$cache/roots/$suite-$key
mkdir -p "$cache/roots"

# Two runs at once build one root.
exec 9>"$root.lock"
flock 9
if [[ -d $root ]]; then
    touch "$root.lock"
    echo "$root"
    exit
fi

mirror() { # LABEL: the address that this machine's apt has for it
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Label: $1" | head -n 1
}
main=$(mirror Debian)
security=$(mirror Debian-Security)
[[ -n $main ]] || { echo "make-root.sh: apt knows no Debian mirror; run apt-get update" >&2; exit 1; }
sources=("deb $main $suite main" "deb $main $suite-updates main")
[[ -z $security ]] || sources+=("deb $security $suite-security main")

options=(
    --mode=root --variant="$variant" --components=main --quiet
    --dpkgopt='path-exclude=/usr/share/doc/*'
    --dpkgopt='path-exclude=/usr/share/locale/*'
    --dpkgopt='path-exclude=/usr/share/man/*'
    --dpkgopt='path-include=/usr/share/man/man?/otg*'
    --aptopt='APT::Install-Recommends "false"'
    --aptopt='Acquire::Languages "none"'
    --skip=cleanup/apt/lists,cleanup/apt/cache
)
packages=$*
[[ -z $packages ]] || options+=(--include="${packages// /,}")
options+=(--customize-hook='rm -f "$1"/var/cache/apt/archives/*.deb')
if [[ $variant != extract ]]; then
    options+=(
        # A first boot takes a new machine id; nothing is mounted; nothing is looked up.
        --customize-hook=': > "$1/etc/machine-id"; : > "$1/etc/fstab"; : > "$1/etc/resolv.conf"'
    )
fi
if [[ -n $download ]]; then
    options+=(--customize-hook="APT_CONFIG=\$MMDEBSTRAP_APT_CONFIG apt-get --yes --quiet \
        --download-only -o Dir::Cache::archives=\"\$1/var/cache/apt/archives\" install $download")
fi

trap 'rm -rf "$root.new"' EXIT
rm -rf "$root.new"
printf '%s\n' "${sources[@]}" | mmdebstrap "${options[@]}" "$suite" "$root.new" - >&2
mv "$root.new" "$root"
echo "$root"
