# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Sourced. Which of the kernels in the archive to take.

# kernel_preference RECORDED: reads "RELEASE PACKAGE_VERSION" lines, and writes those worth
# trying, best first: the recorded one, then its series, then every other one that is 7.3 or
# newer; within both the newest first.
kernel_preference() {
    local recorded=$1 release version rank
    local series
    series=$(series_of "$recorded")
    while read -r release version; do
        if [[ "$release $version" == "$recorded" ]]; then
            rank=0
        elif [[ $(series_of "$release") == "$series" ]]; then
            rank=1
        elif [[ $(printf '7.3\n%s\n' "$(series_of "$release")" | sort -V | head -n 1) == 7.3 ]]; then
            rank=2
        else
            continue
        fi
        printf '%s %s %s\n' "$rank" "$version" "$release"
    done | sort -k1,1n -k2,2Vr | while read -r rank version release; do
        printf '%s %s\n' "$release" "$version"
    done
}

# series_of 7.3.4+deb13-cloud-amd64: 7.3
series_of() {
    [[ $1 =~ ^([0-9]+\.[0-9]+) ]] && printf '%s\n' "${BASH_REMATCH[1]}"
}
