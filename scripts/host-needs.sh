#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# host-needs.sh [COMMAND…]
#
# Installs what this machine lacks for boot.sh, and COMMAND…, where that may be done
# without a question, else says what to install (exit 69).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=images/cache.sh
. "$here/../images/cache.sh"

missing_packages() {
    local need
    for need in mmdebstrap bwrap:bubblewrap cc:gcc strip:binutils flock:util-linux perl:perl-base "$@"; do
        command -v "${need%%:*}" >/dev/null || echo "${need##*:}"
    done
    ((EUID == 0)) || command -v newuidmap >/dev/null || echo uidmap
    [[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || echo debian-archive-keyring
    [[ -n $(find /usr/lib/x86_64-linux-gnu /usr/lib64 -maxdepth 1 -name libc.a 2>/dev/null) ]] || echo libc6-dev
}

install_packages() {
    "${privileged[@]}" apt-get update
    "${privileged[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends "$@"
}

[[ $(uname -sm) == "Linux x86_64" ]] || give_up 69 "needs Linux on x86_64, and this is $(uname -sm)"

mapfile -t missing < <(missing_packages "$@")
if ((${#missing[@]} > 0)); then
    privileged=()
    ((EUID == 0)) || privileged=(sudo -n)
    if ! command -v apt-get >/dev/null || ! "${privileged[@]}" true 2>/dev/null; then
        give_up 69 "this machine lacks packages; install them: sudo apt-get install ${missing[*]}"
    fi
    with_progress "install ${missing[*]}" "$cache/logs/host-needs.log" install_packages "${missing[@]}"
fi

command -v cargo >/dev/null || [[ -x ${CARGO_HOME:-$HOME/.cargo}/bin/cargo ]] ||
    give_up 69 "cargo is missing: install Rust as https://rustup.rs tells, then run this again"
