#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# archive.sh KERNEL_FOLDER FOLDER: writes FOLDER as an initramfs to standard output: all files
# root's, their times 0, and with the /dev/console that only root could make on disk.
set -euo pipefail

cd "$2"
{
    printf 'nod /dev/console 0600 0 0 c 5 1\n'
    LC_ALL=C find . -mindepth 1 | LC_ALL=C sort | while IFS= read -r path; do
        name=/${path#./}
        if [[ -L $path ]]; then
            printf 'slink %s %s 0777 0 0\n' "$name" "$(readlink "$path")"
        elif [[ -d $path ]]; then
            printf 'dir %s 0755 0 0\n' "$name"
        else
            printf 'file %s %s %s 0 0\n' "$name" "$path" "$(stat -Lc %a "$path")"
        fi
    done
} | "$1/gen_init_cpio" -t 0 -
