// SPDX-License-Identifier: Apache-2.0 OR MIT

//! System calls as they are: with their errors, and with arguments that nobody should give.

use std::arch::asm;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use evgen_stress::device::Device;
use evgen_uapi::{ADD, AddEvent, COUNTERS, Counters, EVENT_SIZE, GET_EVENT, INJECT, WAIT_DRAINED};
use rustix::io::Errno;
use rustix::ioctl::{Getter, Ioctl, IoctlOutput, Opcode, Setter, ioctl};
use rustix::process::{Pid, Signal, getpid};

use crate::bench::Answer;

/// Addresses where a program has nothing: no page, hardly a page, the kernel.
pub const NOWHERE: [usize; 3] = [0, 0x1000, 0xffff_ffff_8000_0000];

/// Sends a signal to a thread of this program, which must handle it.
pub fn send(signal: Signal, thread: Pid) -> Answer<()> {
    let (process, thread) = (getpid().as_raw_pid(), thread.as_raw_pid());
    // SAFETY: the arguments are integers.
    match unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal.as_raw()) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// `ioctl` with any command, and an argument that points to nowhere.
pub fn ioctl_nowhere(device: &Device, command: Opcode, nowhere: usize) -> Answer<()> {
    assert!(NOWHERE.contains(&nowhere));
    // SAFETY: nothing of this program is there.
    unsafe { ioctl_at(device, command, nowhere) }
}

/// [`ADD`] of any event.
pub fn add(device: &Device, event: AddEvent) -> Answer<()> {
    // SAFETY: the driver's interface says that `ADD` reads an `AddEvent` and writes nothing.
    unsafe { ioctl(device, Setter::<ADD, AddEvent>::new(event)) }
}

/// [`INJECT`] of ring 0.
pub fn inject(device: &Device) -> Answer<()> {
    // SAFETY: the driver's interface says that `INJECT` reads a `u32` and writes nothing.
    unsafe { ioctl(device, Setter::<INJECT, u32>::new(0)) }
}

/// [`GET_EVENT`] of an event that nobody looks at.
pub fn get_event(device: &Device) -> Answer<()> {
    // SAFETY: the driver's interface says that `GET_EVENT` fills in this many bytes.
    unsafe { ioctl(device, Getter::<GET_EVENT, [u8; EVENT_SIZE]>::new()) }.map(drop)
}

/// [`COUNTERS`] at which nobody looks.
pub fn counters(device: &Device) -> Answer<()> {
    // SAFETY: the driver's interface says that `COUNTERS` fills in a whole `Counters`, a plain struct
    // of integers.
    unsafe { ioctl(device, Getter::<COUNTERS, Counters>::new()) }.map(drop)
}

/// [`WAIT_DRAINED`] for so many milliseconds.
pub fn wait_drained(device: &Device, milliseconds: u32) -> Answer<()> {
    // SAFETY: the driver's interface says that `WAIT_DRAINED` reads a `u32` and writes nothing.
    unsafe { ioctl(device, Setter::<WAIT_DRAINED, u32>::new(milliseconds)) }
}

/// `read` of `length` bytes to any address.
///
/// # Safety
/// Nothing of this program that Rust knows of may be there.
pub unsafe fn read_to(device: &Device, address: usize, length: usize) -> Answer<usize> {
    let buffer = std::ptr::with_exposed_provenance_mut(address);
    // SAFETY: as the caller promises. The kernel checks what can be written.
    let count = unsafe { libc::read(device.as_fd().as_raw_fd(), buffer, length) };
    usize::try_from(count).map_err(|_| last_errno())
}

/// `ioctl` with any command and any argument.
///
/// # Safety
/// The argument must not be the address of anything of this program that Rust knows of.
pub unsafe fn ioctl_at(device: &Device, command: Opcode, argument: usize) -> Answer<()> {
    // SAFETY: as the caller promises. The kernel checks what can be accessed.
    unsafe { ioctl(device, Anything { command, argument }) }
}

struct Anything {
    command: Opcode,
    argument: usize,
}

// SAFETY: it claims to write, and gives nothing out.
unsafe impl Ioctl for Anything {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.command
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::with_exposed_provenance_mut(self.argument)
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut std::ffi::c_void) -> Answer<()> {
        Ok(())
    }
}

/// Whether 32-bit programs can run here. Only then is [`ioctl_of_32_bits`] a system call.
pub fn runs_32_bits() -> bool {
    Path::new("/proc/sys/abi/vsyscall32").exists()
}

/// `ioctl` as a 32-bit program makes it.
///
/// # Safety
/// As for [`ioctl_at`]; and [`runs_32_bits`].
pub unsafe fn ioctl_of_32_bits(device: &Device, command: Opcode, argument: u32) -> Answer<()> {
    const SYS_IOCTL: i32 = 54;
    let mut result = SYS_IOCTL;
    // SAFETY: as the caller promises. `rbx`, which carries the file, cannot be named as an operand, so
    // it is exchanged for it and back. The kernel may clobber the registers that a 32-bit program has
    // not.
    unsafe {
        asm!(
            "xchg rbx, {file}",
            "int 0x80",
            "xchg rbx, {file}",
            file = inout(reg) device.as_fd().as_raw_fd() as u64 => _,
            inlateout("eax") result,
            in("ecx") command,
            in("edx") argument,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    match result {
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(-errno)),
    }
}

fn last_errno() -> Errno {
    let error = std::io::Error::last_os_error();
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
