#!/usr/bin/env bash
# build-deb.sh [DIRECTORY]: build the Debian package into DIRECTORY (default: dist) and check it.
#
# Builds what the checkout holds, in a clean trixie without a network, as root. Prints the path.
set -euo pipefail
here=$(cd -- "$(dirname -- "$0")" && pwd)
checkout=$(dirname -- "$here")
out=${1:-$checkout/dist}
mkdir -p -- "$out"
out=$(cd -- "$out" && pwd)

((EUID == 0)) || { echo "build-deb.sh: needs root" >&2; exit 1; }

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$checkout/pyproject.toml")
packaged=$(sed -n '1s/.*(\(.*\)).*/\1/p' "$here/debian/changelog")
if [[ $version != "$packaged" ]]; then
    echo "build-deb.sh: pyproject.toml says $version, debian/changelog $packaged" >&2
    exit 1
fi

root=$("$here/lib/make-root.sh" trixie \
    debhelper dh-python lintian pybuild-plugin-pyproject python3-all python3-setuptools)

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
mkdir "$work/otgd"
git -C "$checkout" ls-files -z --cached --others --exclude-standard |
    (cd -- "$checkout" && while IFS= read -r -d '' file; do
        [[ ! -e $file && ! -L $file ]] || printf '%s\0' "$file"
    done) |
    tar -C "$checkout" --null --files-from=- -c | tar -x -C "$work/otgd" --no-same-owner
mv -- "$work/otgd/packaging/debian" "$work/otgd/debian"

# The overlay, and all that is mounted on it, ends with the processes in this namespace.
# Nothing is compiled, so build-essential, and with it the check of build dependencies, is left out.
# shellcheck disable=SC2016 # expanded inside
unshare --mount --net --pid --fork --kill-child bash -euo pipefail -c '
    root=$1 work=$2
    mount -t tmpfs -o mode=755 build /mnt
    mkdir /mnt/{upper,work,root}
    mount -t overlay -o "lowerdir=$root,upperdir=/mnt/upper,workdir=/mnt/work" build /mnt/root
    mkdir -p /mnt/root/build
    mount --bind "$work" /mnt/root/build
    mount -t proc proc /mnt/root/proc
    chroot /mnt/root env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 sh -euc "
        cd /build/otgd
        dpkg-buildpackage --build=binary --no-sign --no-check-builddeps
        lintian --allow-root --fail-on error,warning,info --tag-display-limit 0 ../*.changes
    "
' bash "$root" "$work" > "$work/log" 2>&1 || { cat -- "$work/log" >&2; exit 1; }

package=$(cd -- "$work" && echo ./*.deb)
cp -- "$work/$package" "$out/"
echo "$out/${package#./}"
