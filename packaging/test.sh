#!/usr/bin/env bash
# Every gate and every test, as CI runs them: packaging/test.sh
# Only pytest, with arguments of your own:     packaging/test.sh -k masquerade
#
# Sets up what it needs (Debian packages if root, a virtual environment in /var/cache/otgd). Tests of
# the kernel need root; for others they are skipped with a reason, unless CI is set.
set -euo pipefail

# shellcheck source=packaging/lib/setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/setup.sh"
cd -- "$root"

# Some tests run otgctl as nobody, who has to be able to read it.
if ((EUID == 0)) && ! setpriv --reuid 65534 --clear-groups test -r "$root/otgd/__main__.py"; then
    copy=$(mktemp -d)
    trap 'rm -rf -- "$copy"' EXIT
    cp -a -- "$root/." "$copy"
    chmod -R a+rX -- "$copy"
    "$copy/packaging/test.sh" "$@"
    exit
fi

# What tests need beside the program: tools, and, for root, what boots real systems.
packages+=(bsdutils dosfstools groff-base mtools openssh-client strace systemd tcpdump)
if ((EUID == 0)); then
    mapfile -t system_needs < packaging/lib/system-needs.txt
    packages+=("${system_needs[@]}")
fi
install_packages
venv=$cache/test
make_venv "$venv" packaging/requirements-dev.txt --editable "$root" < <(
    printf '%s\n' "$root" && cat pyproject.toml
)
PATH=$venv/bin:/usr/sbin:/sbin:$PATH

if (($#)); then
    exec python -m pytest "$@"
fi

failed=()
gate() {
    heading "$*"
    "$@" || failed+=("$1")
}

gate ruff format --check .
gate ruff check .
gate mypy otgd tests
gate lint-imports
gate python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=90

# The heart is small and pure enough to be tested to the last branch. Silent when it is, so that
# pytest's summary is the last thing said.
heart='otgd/planner.py,otgd/reconciler.py,otgd/config.py,otgd/config/*'
if ! report=$(coverage report --include="$heart" --fail-under=100 --show-missing 2>&1); then
    heading "Branch coverage of planner, reconciler and config is to be 100 %"
    printf '%s\n' "$report"
    failed+=(coverage)
fi

((${#failed[@]} == 0)) || fail "failed: ${failed[*]}"
