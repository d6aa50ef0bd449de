# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Sourced. The kernels that kernel.sh makes, and what each is built with, as are its modules.

readonly kernel_names='stock rt lockdep kasan'

is_kernel_name() { [[ " $kernel_names " == *" $1 "* && $1 != *' '* ]]; }

# give_up_unless_kernel NAME
give_up_unless_kernel() {
    is_kernel_name "$1" || give_up 2 "there is no kernel '$1'; there are ${kernel_names// /, }"
}

# toolchain_of NAME: sets `root`, and `compiler`, an argument of make or nothing.
# shellcheck disable=SC2034,SC2154  # for the caller, which knows where it is
toolchain_of() {
    case $1 in
    # Where Rust is on, KASAN is for clang alone.
    kasan) root=$("$here/clang-root.sh") compiler=LLVM=-19 ;;
    *) root=$("$here/toolchain-root.sh") compiler='' ;;
    esac
}
