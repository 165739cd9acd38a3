# shellcheck shell=bash
# shellcheck disable=SC2034 # what is defined here is used by those who source it
# What try.sh and test.sh have in common: tell, fail, Debian packages, virtual environments.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)

if [[ -t 1 ]]; then
    bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' faint=$'\e[2m' plain=$'\e[0m'
else
    bold='' green='' red='' faint='' plain=''
fi

heading() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }

fail() {
    printf '%s%s: %s%s\n' "$red" "$(basename -- "$0")" "$*" "$plain" >&2
    exit 1
}

# What the program needs at run time and what building its two C extensions needs.
packages=(
    gcc iproute2 iptables iputils-ping libc6-dev libsystemd-dev libudev1 nftables pkg-config
    python3 python3-dev python3-nftables python3-venv util-linux
)

# Install those of the Debian packages that are missing.
install_packages() {
    local package missing=()
    for package in "${packages[@]}"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || fail "needs Debian's packages ${missing[*]}; install them"
    ((EUID == 0)) || fail "needs Debian's packages ${missing[*]}; run as root, or install them"
    heading "Installing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update || fail "apt-get update failed; is this machine online?"
    apt-get -qq install --no-install-recommends "${missing[@]}" >/dev/null ||
        fail "apt-get install failed"
}

# Make the virtual environment $1 from the pinned requirements $2, or keep it if it is up to date.
# The rest are pip's arguments for the project itself, which counts as changed when stdin does.
#
# It is made with Debian's own python3, because only that one sees python3-nftables.
make_venv() {
    local venv=$1 requirements=$2 stamp
    shift 2
    stamp=$({ /usr/bin/python3 -V && cat -- "$requirements" -; } | sha256sum)
    mkdir -p -- "$venv"
    exec {lock}>"$venv/.lock"
    flock "$lock"
    if [[ ! -x $venv/bin/python || $stamp != "$(cat -- "$venv/.stamp" 2>/dev/null)" ]]; then
        heading "Making the virtual environment $venv"
        /usr/bin/python3 -m venv --system-site-packages -- "$venv" || fail "cannot make $venv"
        "$venv/bin/python" -m pip install -qq --require-hashes -r "$requirements" ||
            fail "pip could not install $requirements"
        "$venv/bin/python" -m pip install -qq --no-deps --force-reinstall "$@" ||
            fail "pip could not install the checkout"
        printf '%s\n' "$stamp" >"$venv/.stamp"
    fi
    exec {lock}>&-
}

# Root's goes where others can read it: tests run otgctl as nobody, too.
if ((EUID == 0)); then
    cache=/var/cache/otgd
else
    cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/otgd
fi
