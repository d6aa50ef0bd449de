// SPDX-License-Identifier: GPL-2.0

//! debugfs: files that show text, and that keep their module loaded while they are open.
//!
//! The files of `kernel::debugfs` do not: they name no owner, and closing one when its module is gone
//! runs into memory that is gone too (`full_proxy_release` in `fs/debugfs/file.c`). C's
//! `DEFINE_SHOW_ATTRIBUTE`, which this is, names the owner.

use core::marker::PhantomData;

use kernel::{
    bindings,
    ffi::{c_int, c_void},
    fmt,
    module::{this_module, ModuleMetadata},
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::Arc,
};

/// A folder, or a file. Removed when dropped; that waits for whoever reads it.
///
/// # Invariants
///
/// What debugfs gave when this was made: an entry that nobody else removes, or an error, which debugfs
/// takes in place of an entry.
struct Entry(*mut bindings::dentry);

// SAFETY: The functions of debugfs can be called by any thread,
unsafe impl Send for Entry {}
// SAFETY: and by several at a time.
unsafe impl Sync for Entry {}

impl Drop for Entry {
    fn drop(&mut self) {
        // SAFETY: By the type's invariants.
        unsafe { bindings::debugfs_remove(self.0) };
    }
}

/// A folder. It is there until this and all that is in it has been dropped.
///
/// Process context; sleeps. A folder that cannot be made is none, and has no files: debugfs is for
/// looking only, so nobody should mind.
pub(crate) struct Folder {
    entry: Entry,
    /// Dropped after `entry`.
    _parent: Option<Arc<Folder>>,
}

impl Folder {
    /// Makes a folder in another one, or in the root of debugfs.
    pub(crate) fn new(name: &CStr, parent: Option<Arc<Folder>>) -> Result<Arc<Self>> {
        let parent_entry = parent
            .as_ref()
            .map_or(core::ptr::null_mut(), |parent| parent.entry.0);
        // SAFETY: `name` is a string, and the parent is there: it is kept below.
        let entry = unsafe { bindings::debugfs_create_dir(name.as_char_ptr(), parent_entry) };
        let folder = Self {
            // INVARIANT: It was just made.
            entry: Entry(entry),
            _parent: parent,
        };
        Ok(Arc::new(folder, GFP_KERNEL)?)
    }
}

/// What a file shows.
pub(crate) trait Text: Send + Sync + 'static {
    /// The module that this is a part of.
    type OwnerModule: ModuleMetadata;

    /// Writes the text. Process context; may sleep. Called once more if it was longer than expected.
    fn write(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// A file that shows what `T` is like at the time when it is read. When this was dropped nobody looks at
/// `T` any more; a file that is still open then reads as `EIO`.
pub(crate) struct File<T: Text> {
    /// Dropped before what it shows.
    _entry: Entry,
    _text: KBox<T>,
    _folder: Arc<Folder>,
}

impl<T: Text> File<T> {
    /// Makes a file. Process context; sleeps.
    pub(crate) fn new(name: &CStr, folder: &Arc<Folder>, text: T) -> Result<Self> {
        let text = KBox::new(text, GFP_KERNEL)?;
        // SAFETY: `name` is a string, and the folder is there: it is kept below. So is the text, and
        // the file is removed before it is dropped. The operations are for a file of a `T`.
        let entry = unsafe {
            bindings::debugfs_create_file_full(
                name.as_char_ptr(),
                0o400,
                folder.entry.0,
                core::ptr::from_ref(&*text).cast_mut().cast(),
                core::ptr::null(),
                Operations::<T>::get(),
            )
        };
        Ok(Self {
            // INVARIANT: It was just made.
            _entry: Entry(entry),
            _text: text,
            _folder: folder.clone(),
        })
    }
}

/// The operations of a file that shows a `T`.
struct Operations<T>(PhantomData<T>);

impl<T: Text> Operations<T> {
    const OPERATIONS: bindings::file_operations = bindings::file_operations {
        owner: this_module::<T::OwnerModule>().as_ptr(),
        open: Some(Self::open),
        read: Some(bindings::seq_read),
        llseek: Some(bindings::seq_lseek),
        release: Some(bindings::single_release),
        ..pin_init::zeroed()
    };

    fn get() -> &'static bindings::file_operations {
        &Self::OPERATIONS
    }

    /// # Safety
    ///
    /// For debugfs, which opens the file `file` of [`File::new`] with the inode `inode`.
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: The inode's private data is what `File::new` gave, and `show` is for that.
        unsafe { bindings::single_open(file, Some(Self::show), (*inode).i_private) }
    }

    /// # Safety
    ///
    /// For `seq_read`, by way of debugfs, which keeps the file from being removed meanwhile.
    unsafe extern "C" fn show(seq: *mut bindings::seq_file, _: *mut c_void) -> c_int {
        // SAFETY: `single_open` put what `File::new` gave there, a `T` that is there until the file
        // is removed, and lent to nobody but readers like this.
        let text = unsafe { &*(*seq).private.cast::<T>() };
        // SAFETY: It is valid, and used by one thread at a time.
        let seq = unsafe { SeqFile::from_raw(seq) };
        seq_print!(seq, "{}", Displayed(text));
        0
    }
}

struct Displayed<'a, T>(&'a T);

impl<T: Text> fmt::Display for Displayed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f)
    }
}
