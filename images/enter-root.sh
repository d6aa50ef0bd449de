#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# enter-root.sh ROOT [--bind FOLDER NAME]… [--see FOLDER NAME]… [--device PATH]… -- COMMAND…
#
# Runs COMMAND inside the toolchain root, which is read-only there. FOLDER is /mnt/NAME,
# writable (--bind) or not (--see). The device node PATH is there too. COMMAND dies with this process, and its exit status,
# 128 and the signal included, is this one's.
set -euo pipefail

options=(--ro-bind "$1" / --dev /dev --ro-bind /proc /proc --tmpfs /tmp --tmpfs /mnt --chdir /mnt
    --ro-bind-try /etc/resolv.conf /etc/resolv.conf --die-with-parent)
((EUID == 0)) || options+=(--unshare-user --uid 0 --gid 0)
shift
while [[ $1 != -- ]]; do
    case $1 in
    --bind) options+=(--bind "$2" "/mnt/$3") ;;
    --see) options+=(--ro-bind "$2" "/mnt/$3") ;;
    --device) options+=(--dev-bind "$2" "$2") && shift 2 && continue ;;
    *) exit 2 ;;
    esac
    shift 3
done

unset LD_LIBRARY_PATH LD_PRELOAD
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/tmp TMPDIR=/tmp
exec bwrap "${options[@]}" "$@"
