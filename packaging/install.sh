#!/usr/bin/env bash
# Install otgd where there is no .deb for it: bookworm and other systems with apt and systemd.
#
#   packaging/install.sh                       install, or upgrade what it installed before
#   packaging/install.sh --uninstall           take it away, keep /etc/otgd
#   packaging/install.sh --uninstall --purge   and that, too
#
# The program and the pinned versions of what it needs go to a virtual environment of their own in
# /opt/otgd, the other files of the .deb to /usr/local. Debian's packages are installed by apt.
set -euo pipefail
here=$(cd -- "$(dirname -- "$0")" && pwd)
checkout=$(dirname -- "$here")

opt=/opt/otgd
manifest=$opt/installed-files
packages=(
    gcc iptables kmod libc6-dev libsystemd-dev pkg-config python3 python3-dev python3-nftables
    python3-venv udev
)

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

place() { # SOURCE DIRECTORY: install a file of the .deb, under /usr/local where that is looked at
    local target
    case $2 in
        usr/lib/systemd/catalog) target=/$2/$(basename -- "$1") ;;
        usr/share/zsh/vendor-completions) # zsh looks for vendors' below /usr only
            target=/usr/local/share/zsh/site-functions/$(basename -- "$1")
            ;;
        usr/*) target=/usr/local/${2#usr/}/$(basename -- "$1") ;;
        *) fail "no place for $1 in /$2" ;;
    esac
    local mode=0644
    [[ ! -x $1 ]] || mode=0755
    sed -e "s|/usr/bin/otg|$opt/current/bin/otg|" -e 's|/usr/lib/otgd/|/usr/local/lib/otgd/|' \
        "$1" | install -D -m "$mode" /dev/stdin "$target"
    echo "$target" >> "$manifest.new"
}

place_all() {
    local source directory section
    : > "$manifest.new"
    while read -r source directory; do
        if [[ $directory != etc/* ]]; then
            place "$checkout/$source" "$directory"
        elif [[ ! -e /$directory/$(basename -- "$source") ]]; then # never over the owner's own
            install -D -m 0644 "$checkout/$source" "/$directory/$(basename -- "$source")"
        fi
    done < "$here/debian/otgd.install"
    while read -r directory; do
        install -d -m 0755 "/$directory"
    done < "$here/debian/otgd.dirs"
    while read -r source; do
        section=${source##*.}
        place "$checkout/$source" "usr/share/man/man$section"
    done < "$here/debian/otgd.manpages"
    for program in otgd otgctl; do
        ln -sfn "$opt/current/bin/$program" "/usr/local/bin/$program"
        echo "/usr/local/bin/$program" >> "$manifest.new"
    done
    # What an older version had and this one has not.
    if [[ -e $manifest ]]; then
        { grep -Fxv -f "$manifest.new" "$manifest" || true; } | xargs --no-run-if-empty -d '\n' rm -f --
    fi
    mv -- "$manifest.new" "$manifest"
}

make_environment() { # prints its path; the one in use stays whole if this fails
    local new
    new=$opt/$(date -u +%Y%m%dT%H%M%SZ)
    rm -rf -- "$new"
    # Debian's own Python, the only one that sees python3-nftables.
    /usr/bin/python3 -m venv --system-site-packages "$new"
    {
        "$new/bin/pip" install --quiet --use-pep517 \
            --require-hashes --requirement "$here/requirements.txt"
        "$new/bin/pip" install --quiet --no-deps "$checkout"
    } >&2 || { rm -rf -- "$new"; return 1; }
    echo "$new"
}

install_otgd() {
    local new old
    export DEBIAN_FRONTEND=noninteractive
    apt-get install --yes --quiet --no-install-recommends "${packages[@]}" ||
        fail "apt-get could not install what otgd needs; after apt-get update?"
    mkdir -p -- "$opt"
    new=$(make_environment) || fail "pip could not install what otgd needs"
    ln -sfn "$new" "$opt/current"
    place_all
    journalctl --update-catalog
    systemd-sysusers otgd.conf
    systemd-tmpfiles --create otgd.conf
    /lib/systemd/systemd-sysctl 30-otgd.conf
    systemctl daemon-reload
    sh "$here/debian/otgd.postinst" configure
    systemctl --quiet enable otgd-names-boot.service otgd.service
    systemctl restart otgd.service
    for old in "$opt"/*/; do
        [[ $old -ef $opt/current ]] || rm -rf -- "$old"
    done
    echo "otgd runs. Its config is /etc/otgd/otgd.toml; see also: otgctl status"
}

uninstall_otgd() {
    [[ -e $manifest ]] || fail "nothing that install.sh installed is here"
    systemctl --quiet disable --now otgd-swarm.service 2> /dev/null || true # newer than some
    systemctl --quiet disable --now otgd-names.path otgd-names-boot.service otgd.service
    sh "$here/debian/otgd.prerm" remove
    xargs --no-run-if-empty -d '\n' -a "$manifest" rm -f --
    rmdir --ignore-fail-on-non-empty /usr/local/lib/otgd \
        /usr/local/lib/systemd/system/dhcpcd.service.d
    rm -rf -- "$opt" /var/lib/otgd # the names that udev knew; made from the config
    journalctl --update-catalog
    systemctl daemon-reload
    sh "$here/debian/otgd.postrm" remove
    if [[ ${1-} == --purge ]]; then
        sh "$here/debian/otgd.postrm" purge
    else
        echo "otgd is gone. /etc/otgd is still there."
    fi
}

((EUID == 0)) || fail "needs root: sudo $0"
if dpkg-query -W -f '${db:Status-Status}' otgd 2> /dev/null | grep -qx installed; then
    fail "otgd is installed from its .deb; use apt"
fi
case ${1-} in
    '') install_otgd ;;
    --uninstall) uninstall_otgd "${2-}" ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
