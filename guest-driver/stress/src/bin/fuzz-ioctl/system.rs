// SPDX-License-Identifier: Apache-2.0 OR MIT

//! System calls as they are, on files that may be closed by now and with memory that may not be there.

use std::ffi::CStr;

use libc::c_long;
use rustix::io::Errno;

use crate::memory::Address;

/// The number of a file, which somebody else may have closed.
pub type Descriptor = i32;

/// What a call gives.
pub type Answer = Result<usize, Errno>;

pub fn open(path: &CStr, nonblocking: bool) -> Answer {
    let flags = libc::O_RDWR | libc::O_CLOEXEC | nonblock(nonblocking);
    let here = file(libc::AT_FDCWD);
    call(
        libc::SYS_openat,
        [here, path.as_ptr().addr(), flags as usize],
    )
}

pub fn dup(of: Descriptor) -> Answer {
    call(libc::SYS_dup, [file(of)])
}

/// `of` must be one that nothing but this fuzzer uses.
pub fn close(of: Descriptor) -> Answer {
    call(libc::SYS_close, [file(of)])
}

pub fn set_nonblocking(of: Descriptor, nonblocking: bool) -> Answer {
    let flags = nonblock(nonblocking) as usize;
    call(libc::SYS_fcntl, [file(of), libc::F_SETFL as usize, flags])
}

pub fn ioctl(of: Descriptor, command: u32, argument: Address) -> Answer {
    call(
        libc::SYS_ioctl,
        [file(of), command as usize, argument.number()],
    )
}

pub fn read(of: Descriptor, to: Address, length: usize) -> Answer {
    call(libc::SYS_read, [file(of), to.number(), length])
}

/// What the `count` vectors at `vectors` point to must be an [`Address`] each.
pub fn readv(of: Descriptor, vectors: Address, count: usize) -> Answer {
    call(libc::SYS_readv, [file(of), vectors.number(), count])
}

pub fn write(of: Descriptor, from: Address, length: usize) -> Answer {
    call(libc::SYS_write, [file(of), from.number(), length])
}

/// `timeout` in milliseconds; negative waits for ever.
pub fn poll(polled: Address, count: usize, timeout: i32) -> Answer {
    call(libc::SYS_poll, [polled.number(), count, timeout as usize])
}

pub fn epoll_create() -> Answer {
    call(libc::SYS_epoll_create1, [libc::EPOLL_CLOEXEC as usize])
}

pub fn epoll_control(epoll: Descriptor, operation: i32, of: Descriptor, event: Address) -> Answer {
    let arguments = [file(epoll), operation as usize, file(of), event.number()];
    call(libc::SYS_epoll_ctl, arguments)
}

/// `timeout` in milliseconds; negative waits for ever.
pub fn epoll_wait(epoll: Descriptor, events: Address, count: usize, timeout: i32) -> Answer {
    let arguments = [file(epoll), events.number(), count, timeout as usize];
    call(libc::SYS_epoll_wait, arguments)
}

/// Sends a signal to a thread of this process, which has a handler for it.
pub fn signal(thread: i32, signal: i32) -> Answer {
    let process = std::process::id() as usize;
    call(
        libc::SYS_tgkill,
        [process, thread as usize, signal as usize],
    )
}

fn file(number: Descriptor) -> usize {
    number as usize
}

fn nonblock(nonblocking: bool) -> i32 {
    if nonblocking { libc::O_NONBLOCK } else { 0 }
}

/// `number` must be that of a call that writes memory only where an argument is an [`Address`].
fn call<const COUNT: usize>(number: c_long, arguments: [usize; COUNT]) -> Answer {
    let argument = |index| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: what is written to an `Address` destroys nothing. Files are closed that nothing but
    // this fuzzer uses.
    let answer =
        unsafe { libc::syscall(number, argument(0), argument(1), argument(2), argument(3)) };
    usize::try_from(answer).map_err(|_| {
        // SAFETY: it points to this thread's `errno`.
        Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
    })
}
