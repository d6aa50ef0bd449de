// SPDX-License-Identifier: GPL-2.0

//! [`MiscDevice`]: `poll`, `select` and `epoll`.

use core::marker::PhantomData;

use kernel::{
    bindings,
    fs::File,
    miscdevice::{MiscDevice, MiscDeviceOptions, MiscDeviceRegistration},
    prelude::*,
    sync::{
        atomic::{atomic_store, Relaxed},
        poll::PollTable,
    },
    types::ForeignOwnable,
};

pub(crate) use kernel::bindings::{POLLERR, POLLHUP, POLLIN, POLLRDNORM};

/// A misc device whose files can be polled, from when [`enable`] was called for them.
pub(crate) trait PollMiscDevice: MiscDevice {
    /// Registers with `table` what is notified when the answer changes, and then gives the answer:
    /// [`POLLIN`] and so on.
    ///
    /// In this order, or a change in between is missed. Process context; must not wait for the
    /// answer to change. What it registers must be there until [`MiscDevice::release`]: the kernel
    /// lets go of it before that.
    fn poll(
        device: <Self::Ptr as ForeignOwnable>::Borrowed<'_>,
        file: &File,
        table: &PollTable<'_>,
    ) -> u32;
}

/// Makes `file`, a file of the misc device `misc`, one that can be polled. To be called by
/// [`MiscDevice::open`] with its own arguments; `EINVAL` if they are others.
pub(crate) fn enable<T: PollMiscDevice>(file: &File, misc: &MiscDeviceRegistration<T>) -> Result {
    // SAFETY: Both are valid, for there are references to them. A file's operations change here
    // only.
    let (current, own) = unsafe { ((*file.as_ptr()).f_op, (*misc.as_raw()).fops) };
    if current != own {
        return Err(EINVAL);
    }
    // The file keeps the reference to the module that it has by its operations: the new ones have
    // the same owner.
    //
    // SAFETY: The pointer is valid as above. The new operations fit the file, as it has those of a
    // `T`, and live as long as the module. `open` is before anybody can use the file; and even in a
    // file that is in use, each call would find either the old operations or the new ones, which
    // are the same but for `poll`.
    unsafe {
        atomic_store(
            &raw mut (*file.as_ptr()).f_op,
            core::ptr::from_ref(WithPoll::<T>::operations()),
            Relaxed,
        );
    }
    Ok(())
}

/// The operations of the files of a `T`: those of any misc device, and `poll`.
struct WithPoll<T>(PhantomData<T>);

impl<T: PollMiscDevice> WithPoll<T> {
    const OPERATIONS: bindings::file_operations = {
        let misc = MiscDeviceOptions { name: c"" }.into_raw::<T>();
        // SAFETY: It points to the table of all misc devices of this type, a constant.
        let own = unsafe { *misc.fops };
        bindings::file_operations {
            poll: Some(Self::poll),
            ..own
        }
    };

    fn operations() -> &'static bindings::file_operations {
        &Self::OPERATIONS
    }

    /// # Safety
    ///
    /// `file` must be a file of a registered misc device `T` that has been opened and is not
    /// released yet. `table` must be null or valid.
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: Between `open` and `release`, `private_data` is what `open` has returned, as a
        // foreign pointer, and nobody changes that.
        let device = unsafe { <T::Ptr as ForeignOwnable>::borrow((*file).private_data) };
        // SAFETY: The file is valid during the call, and its position is of no interest to `poll`.
        let file = unsafe { File::from_raw_file(file) };
        // SAFETY: As the caller promises.
        let table = unsafe { PollTable::from_raw(table) };
        T::poll(device, file, &table)
    }
}
