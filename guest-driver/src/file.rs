// SPDX-License-Identifier: GPL-2.0

//! `/dev/evgenN`; `uapi` says what each call does.

use kernel::{
    fs::{file::flags::O_NONBLOCK, File, Kiocb, LocalFile},
    iov::IovIterDest,
    list::List,
    miscdevice::{MiscDevice, MiscDeviceRegistration},
    prelude::*,
    sync::{Arc, ArcBorrow},
    transmute::{AsBytes, FromBytes},
    uaccess::UserSlice,
};

use crate::{
    abi::event::EVENT_SIZE,
    device::{Device, Process},
    device_list,
    uapi::{self, AddEvent, Counters},
};

/// Most events that a reader takes out of the list at a time: bounds how long it holds the
/// spinlock, and how many events it can bring back.
const READ_BATCH: usize = 64;

#[vtable]
impl MiscDevice for Device {
    type Ptr = Arc<Self>;

    fn open(_file: &File, misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Self>> {
        device_list::find(misc.device().name()).ok_or(ENODEV)
    }

    fn read_iter(kiocb: Kiocb<'_, Arc<Self>>, iov: &mut IovIterDest<'_>) -> Result<usize> {
        let device = kiocb.file();
        let room = iov.len() / EVENT_SIZE;
        if room == 0 {
            return Err(EINVAL);
        }
        let nonblocking = is_nonblocking(&kiocb);
        loop {
            device.wait_for_event(nonblocking)?;
            let process = device.lock()?;
            let count = copy_events(&device, &process, iov, room)?;
            if count > 0 {
                return Ok(count * EVENT_SIZE);
            }
            // Another reader was faster.
        }
    }

    fn ioctl(device: ArcBorrow<'_, Self>, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let arg = UserPtr::from_addr(arg);
        match cmd {
            uapi::ADD => {
                let event: AddEvent = UserSlice::new(arg, size_of::<AddEvent>()).reader().read()?;
                device.add(&event)?;
            }
            uapi::INJECT => {
                let ring: u32 = UserSlice::new(arg, size_of::<u32>()).reader().read()?;
                device.inject(ring)?;
            }
            uapi::COUNTERS => {
                let counters = device.counters()?;
                UserSlice::new(arg, size_of::<Counters>())
                    .writer()
                    .write(&counters)?;
            }
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }
}

// SAFETY: There is no padding: see the assertion below.
unsafe impl AsBytes for Counters {}
// SAFETY: Any bit pattern is a valid value: there are only integers in it.
unsafe impl FromBytes for AddEvent {}

const _: () = assert!(
    size_of::<Counters>() == 2 * 4 + uapi::MAX_RINGS * 9 * 8 + 11 * 8 + 10 * 8 + uapi::FAULTS * 8,
    "padding of the counters would leak to programs",
);

/// Copies the oldest events to a program, at most `room` of them, and gives their number. The
/// device's mutex is held, as `_process` shows: so readers do not get each other's events out of
/// order.
fn copy_events(
    device: &Device,
    _process: &Process,
    iov: &mut IovIterDest<'_>,
    room: usize,
) -> Result<usize> {
    let mut total = 0;
    while total < room {
        let mut unread = device.events().lock().take(READ_BATCH.min(room - total));
        if unread.is_empty() {
            break;
        }
        let mut read = List::new();
        let mut count = 0;
        while let Some(node) = unread.pop_front() {
            if iov.copy_to_iter(&node.entry().bytes) != EVENT_SIZE {
                unread.push_front(node);
                break;
            }
            read.push_back(node);
            count += 1;
        }
        let fault = !unread.is_empty();
        device
            .events()
            .lock()
            .give_back(&mut read, count, &mut unread);
        total += count;
        if fault {
            // Others may have found the list empty meanwhile, and sleep.
            device.notify();
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

/// Whether the file is to fail rather than wait, as it is set now: `fcntl` can change it.
fn is_nonblocking(kiocb: &Kiocb<'_, Arc<Device>>) -> bool {
    // SAFETY: The file of a call in progress is valid, and this is its own thread.
    let file = unsafe { LocalFile::from_raw_file((*kiocb.as_raw()).ki_filp) };
    file.flags() & O_NONBLOCK != 0
}
