// SPDX-License-Identifier: GPL-2.0

//! `/dev/evgenN`; `uapi` says what each call does.

use kernel::{
    fs::{File, Kiocb},
    iov::IovIterDest,
    list::List,
    miscdevice::{MiscDevice, MiscDeviceRegistration},
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::{
        atomic::{Atomic, Relaxed},
        poll::PollTable,
        Arc,
    },
    transmute::{AsBytes, FromBytes},
    uaccess::UserSlice,
};

use crate::{
    abi::event::EVENT_SIZE,
    deferred,
    device::{Device, Process},
    device_list,
    kernel_additions::{
        kiocb::is_nonblocking,
        poll::{self, PollMiscDevice, POLLERR, POLLHUP, POLLIN, POLLRDNORM},
    },
    uapi::{self, AddEvent, Coalescing, Counters, DeferredInjection},
};

/// Most events that a reader takes out of the list at a time: bounds how long it holds the
/// spinlock, and how many events it can bring back.
const READ_BATCH: usize = 64;

/// A file that a program has opened, and what was done with it since, by whoever shares it. Needs
/// no lock.
pub(crate) struct OpenFile {
    device: Arc<Device>,
    /// Events that it gave out.
    read: Atomic<u64>,
    /// Times that a `read` slept.
    sleeps: Atomic<u64>,
}

#[vtable]
impl MiscDevice for OpenFile {
    type Ptr = KBox<Self>;

    fn open(file: &File, misc: &MiscDeviceRegistration<Self>) -> Result<KBox<Self>> {
        let device = device_list::find(misc.device().name()).ok_or(ENODEV)?;
        poll::enable(file, misc)?;
        let open = Self {
            device,
            read: Atomic::new(0),
            sleeps: Atomic::new(0),
        };
        Ok(KBox::new(open, GFP_KERNEL)?)
    }

    fn read_iter(kiocb: Kiocb<'_, KBox<Self>>, iov: &mut IovIterDest<'_>) -> Result<usize> {
        let open = kiocb.file();
        let device = &open.device;
        device.check_present()?;
        let room = iov.len() / EVENT_SIZE;
        if room == 0 {
            return Err(EINVAL);
        }
        let nonblocking = is_nonblocking(&kiocb);
        loop {
            device.wait_for_event(nonblocking, &open.sleeps)?;
            let process = device.lock()?;
            let copy = |event: &[u8; EVENT_SIZE]| iov.copy_to_iter(event) == EVENT_SIZE;
            let count = open.give_out(&process, room, copy)?;
            if count > 0 {
                return Ok(count * EVENT_SIZE);
            }
            // Another reader was faster.
        }
    }

    fn ioctl(open: &Self, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let device = &open.device;
        device.check_present()?;
        let arg = UserPtr::from_addr(arg);
        match cmd {
            uapi::ADD => device.add(&argument(arg)?)?,
            uapi::INJECT => device.inject(argument(arg)?)?,
            uapi::COUNTERS => {
                let counters = device.counters()?;
                UserSlice::new(arg, size_of::<Counters>())
                    .writer()
                    .write(&counters)?;
            }
            uapi::GET_EVENT => {
                let process = device.lock()?;
                let mut to = UserSlice::new(arg, EVENT_SIZE).writer();
                if open.give_out(&process, 1, |event| to.write_slice(event).is_ok())? == 0 {
                    return Err(EAGAIN);
                }
            }
            uapi::WAIT_DRAINED => device.wait_drained(argument(arg)?)?,
            uapi::SET_COALESCING => device.set_coalescing(&argument(arg)?)?,
            uapi::INJECT_DEFERRED => deferred::inject(device, &argument(arg)?)?,
            uapi::RESET => device.reset()?,
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }

    fn show_fdinfo(open: &Self, file: &SeqFile, _file: &File) {
        let device = open.device.registers().device();
        seq_print!(file, "evgen-device:\t{}\n", device.name());
        seq_print!(file, "evgen-events-read:\t{}\n", open.read.load(Relaxed));
        seq_print!(file, "evgen-sleeps:\t{}\n", open.sleeps.load(Relaxed));
    }
}

/// What the argument of an `ioctl` points to.
fn argument<T: FromBytes>(arg: UserPtr) -> Result<T> {
    UserSlice::new(arg, size_of::<T>()).reader().read()
}

impl PollMiscDevice for OpenFile {
    fn poll(open: &Self, file: &File, table: &PollTable<'_>) -> u32 {
        let device = &open.device;
        table.register_wait(file, device.changed());
        let events = device.events().lock();
        // There is no `POLLOUT`, for there is no `write`; and no `ioctl` waits for room.
        if events.is_gone() {
            POLLERR | POLLHUP
        } else if events.is_empty() {
            0
        } else {
            POLLIN | POLLRDNORM
        }
    }
}

// SAFETY: There is no padding: see the assertion below.
unsafe impl AsBytes for Counters {}
// SAFETY: Any bit pattern is a valid value: there are only integers in it.
unsafe impl FromBytes for AddEvent {}
// SAFETY: As above.
unsafe impl FromBytes for Coalescing {}
// SAFETY: As above.
unsafe impl FromBytes for DeferredInjection {}

const _: () = assert!(
    size_of::<Counters>() == 2 * 4 + uapi::MAX_RINGS * 9 * 8 + 11 * 8 + 10 * 8 + uapi::FAULTS * 8,
    "padding of the counters would leak to programs",
);

impl OpenFile {
    /// Gives the oldest events to a program, at most `room` of them, and tells their number. `copy`
    /// copies one, or says that it cannot: `EFAULT` if that is the first.
    ///
    /// The device's mutex is held, as `_process` shows: so readers do not get each other's events
    /// out of order.
    fn give_out(
        &self,
        _process: &Process,
        room: usize,
        mut copy: impl FnMut(&[u8; EVENT_SIZE]) -> bool,
    ) -> Result<usize> {
        let device = &self.device;
        let mut total = 0;
        while total < room {
            let mut unread = device.events().lock().take(READ_BATCH.min(room - total));
            if unread.is_empty() {
                break;
            }
            let mut read = List::new();
            let mut count = 0;
            while let Some(node) = unread.pop_front() {
                if !copy(&node.entry().bytes) {
                    unread.push_front(node);
                    break;
                }
                read.push_back(node);
                count += 1;
            }
            let fault = !unread.is_empty();
            device.give_back(&mut read, count, &mut unread);
            self.read.add(count as u64, Relaxed);
            total += count;
            if fault {
                if total == 0 {
                    return Err(EFAULT);
                }
                break;
            }
            // With a large buffer and a fast device, this could go on for long.
            if current!().signal_pending() {
                break;
            }
        }
        Ok(total)
    }
}
