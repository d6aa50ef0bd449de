// SPDX-License-Identifier: GPL-2.0

//! The tracepoints, which `evgen_trace.h` declares. Each can be passed in any context, with any lock
//! held. One that is turned off costs a jump that is not taken; without `CONFIG_TRACEPOINTS` there are
//! none.

use kernel::{
    device::Device,
    ffi::{c_char, c_int, c_uint},
    prelude::*,
};

use crate::trouble::Trouble;

/// Makes a function for each tracepoint, as `kernel::tracepoint::declare_trace` does; that one finds
/// only what the kernel itself was built with. Says which tracepoint, and what of which C type it gets.
/// Pointers must be those of a `CStr`.
macro_rules! tracepoints {
    ($(
        $(#[$doc:meta])*
        fn $function:ident($($argument:ident: $type:ty),*) =
            $name:ident($($c_type:ty = $value:expr),*);
    )*) => {
        #[cfg(CONFIG_TRACEPOINTS)]
        kernel::macros::paste! {
            // SAFETY: `evgen_trace.h` makes all of them, with these types.
            #[allow(improper_ctypes, reason = "the kernel's own types, some of them empty")]
            unsafe extern "C" {
                $(
                    static [<__tracepoint_ $name>]: kernel::bindings::tracepoint;
                    fn [<rust_do_trace_ $name>]($(_: $c_type),*);
                )*
            }
        }
        $(
            $(#[$doc])*
            #[inline(always)]
            pub(crate) fn $function($($argument: $type),*) {
                #[cfg(CONFIG_TRACEPOINTS)]
                kernel::macros::paste! {
                    // SAFETY: The key is a tracepoint's, defined in C, and this is its function. The
                    // pointers are to strings that live longer than this.
                    unsafe {
                        if kernel::jump_label::static_branch_unlikely!(
                            [<__tracepoint_ $name>], kernel::bindings::tracepoint, key
                        ) {
                            [<rust_do_trace_ $name>]($($value),*);
                        }
                    }
                }
                #[cfg(not(CONFIG_TRACEPOINTS))]
                if false {
                    let _: ($($c_type),*) = ($($value),*);
                }
            }
        )*
    };
}

tracepoints! {
    /// A ring's interrupt was handled: so many events were taken.
    fn interrupt(device: &Device, ring: usize, events: usize) = evgen_interrupt(
        *const c_char = device.name().as_char_ptr(),
        c_int = ring as c_int,
        c_uint = events as c_uint
    );
    /// So many events left the list unread, so many of them early: it was not full.
    fn evicted(device: &Device, events: usize, early: usize) = evgen_evicted(
        *const c_char = device.name().as_char_ptr(),
        c_uint = events as c_uint,
        c_uint = early as c_uint
    );
    /// Something went wrong with a ring, or with the whole device.
    fn trouble(device: &Device, ring: Option<usize>, trouble: Trouble) = evgen_trouble(
        *const c_char = device.name().as_char_ptr(),
        c_int = number(ring),
        *const c_char = trouble.name().as_char_ptr()
    );
    /// A ring was set up anew, or the whole device.
    fn restart(device: &Device, ring: Option<usize>) = evgen_restart(
        *const c_char = device.name().as_char_ptr(),
        c_int = number(ring)
    );
}

/// What a tracepoint calls a ring, or the whole device.
fn number(ring: Option<usize>) -> c_int {
    ring.map_or(-1, |ring| ring as c_int)
}
