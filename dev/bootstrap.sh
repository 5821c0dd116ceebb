#!/usr/bin/env bash
# Set up everything that `make` needs: the virtual environment with the locked packages, and
# Debian's prometheus and postgresql when absent. Quick when nothing is to do.
#
#   VENV    the virtual environment (.venv); any other one is used as it is
#   PYTHON  the Python that makes it (python3)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${VENV:-.venv}
PYTHON=${PYTHON:-python3}
export UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
export DEBIAN_FRONTEND=noninteractive
# uv brings certificates of its own; a machine that has some may trust more, as its pip does.
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-1}; fi

say() { echo "setup: $*"; }
missing() {
    echo "setup: missing: $1. To do: $2" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -E "$@"; fi
}

may_install() {
    command -v apt-get >/dev/null || return 1
    [ "$(id -u)" = 0 ] && return 0
    command -v sudo >/dev/null || return 1
    sudo -n true 2>/dev/null || [ -t 0 ]
}

# Install Debian packages, and leave the services that come with them stopped and disabled: the
# project runs private instances only. A policy that the machine's owner wrote is left alone.
apt_install() {
    say "installing Debian packages: $*"
    local policy=/usr/sbin/policy-rc.d ours=no status=0
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod 755 $policy
        ours=yes
    fi
    # shellcheck disable=SC2064  # the values of now are meant
    trap "rm -f $LOG; [ $ours = no ] || as_root rm -f $policy" EXIT
    local options=(-qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    { as_root apt-get "${options[@]}" update &&
        as_root apt-get "${options[@]}" install --yes --no-install-recommends "$@"; } \
        >"$LOG" 2>&1 || status=$?
    if [ $ours = yes ]; then as_root rm -f $policy; fi
    trap 'rm -f "$LOG"' EXIT
    if [ $status != 0 ]; then
        tail -n 5 "$LOG" >&2
        missing "Debian packages $*" "run \`apt-get install $*\` as root, then \`make setup\`"
    fi
    if command -v systemctl >/dev/null && [ -d /run/systemd/system ]; then
        as_root systemctl disable --quiet "$@" 2>/dev/null || true # packages without a unit
    fi
}

have_prometheus() { command -v prometheus >/dev/null; }
have_postgres() {
    command -v initdb >/dev/null && return
    local found=(/usr/lib/postgresql/*/bin/initdb)
    [ -x "${found[0]}" ]
}

ensure_programs() {
    local wanted=()
    have_prometheus || wanted+=(prometheus)
    have_postgres || wanted+=(postgresql)
    [ ${#wanted[@]} = 0 ] && return
    may_install || missing "${wanted[*]}" \
        "have root or sudo run \`apt-get install ${wanted[*]}\` (or put the programs on PATH)"
    apt_install "${wanted[@]}"
    have_prometheus || missing prometheus "put Prometheus 2.42 or newer on PATH"
    have_postgres || missing postgresql "put the server programs of PostgreSQL (initdb) on PATH"
}

ensure_venv() {
    [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -c '' 2>/dev/null && return
    command -v "$PYTHON" >/dev/null || missing "$PYTHON" "install Python 3.11 or newer"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        missing "Python 3.11 or newer ($PYTHON is older)" "run \`make setup PYTHON=python3.11\`"
    if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
        may_install || missing "Python's venv" "have root or sudo run \`apt-get install python3-venv\`"
        apt_install python3-venv
    fi
    say "making $VENV with $("$PYTHON" --version)"
    "$PYTHON" -m venv --clear "$VENV" || missing "Python's venv" "see the lines above"
}

# uv comes from the lock as well: its own lines, with their hashes.
ensure_uv() {
    [ -x "$VENV/bin/uv" ] && return
    awk '/^[^ ]/ {keep = /^uv==/} keep' requirements.txt >"$VENV/uv.txt"
    "$VENV/bin/python" -m pip install --quiet --require-hashes --only-binary :all: -r "$VENV/uv.txt" >"$LOG" 2>&1
}

with_uv() {
    local uv=("$VENV/bin/uv" pip)
    ensure_uv || return 1
    "${uv[@]}" sync --quiet --python "$VENV/bin/python" --require-hashes --only-binary :all: \
        --compile-bytecode requirements.txt || return 1
    "${uv[@]}" install --quiet --python "$VENV/bin/python" --no-deps --no-build-isolation -e .
}

with_pip() {
    local pip=("$VENV/bin/python" -m pip install --quiet)
    "${pip[@]}" --require-hashes --only-binary :all: -r requirements.txt || return 1
    "${pip[@]}" --no-deps --no-build-isolation -e .
}

install_packages() {
    say "installing the locked packages into $VENV"
    with_uv && return
    say "uv does not work here; trying pip, which is slower"
    with_pip || missing "locked packages" "see the lines above; is a package index reachable?"
}

ensure_packages() {
    local stamp="$VENV/.setup-stamp" wanted
    wanted=$(cat requirements.txt pyproject.toml dev/bootstrap.sh | sha256sum)
    if [ -x "$VENV/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi
    ensure_venv
    rm -f "$stamp"
    install_packages
    echo "$wanted" >"$stamp"
    say "ready"
}

LOG=$(mktemp)
trap 'rm -f "$LOG"' EXIT
ensure_programs
if [ "$VENV" = .venv ]; then ensure_packages; fi
