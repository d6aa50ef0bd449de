// SPDX-License-Identifier: GPL-2.0

//! `/sys/kernel/debug/evgen/evgenN`: what a developer wants to see of a device. Reading touches no
//! register, and waits for nobody who waits himself: a removal waits for whoever reads.

use kernel::{
    fmt,
    prelude::*,
    sync::{global_lock, Arc},
};

use crate::{
    kernel_additions::debugfs::{File, Folder, Text},
    measured_lock::LockFigures,
    rings::Rings,
    uapi::Counters,
    LocalModule,
};

global_lock! {
    /// The folder of all devices, while the module is loaded.
    ///
    /// Taken in process context by probe, and when the module is loaded and unloaded. Lock order:
    /// innermost.
    // SAFETY: The module initialises it before it registers the driver, and nothing else gets here.
    unsafe(uninit) static FOLDER: Mutex<Option<Arc<Folder>>> = None;
}

/// The folder of all devices; removed when dropped.
pub(crate) struct Root(());

impl Root {
    /// Makes the folder. Sleeps.
    ///
    /// # Safety
    ///
    /// To be called once.
    pub(crate) unsafe fn new() -> Result<Self> {
        // SAFETY: As the caller promises.
        unsafe { FOLDER.init() };
        *FOLDER.lock() = Some(Folder::new(c"evgen", None)?);
        Ok(Self(()))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let folder = FOLDER.lock().take();
        drop(folder);
    }
}

/// The files of one device; removed when dropped, which waits for whoever reads them.
pub(crate) struct Files {
    _rings: File<RingsText>,
    _counters: File<CountersText>,
    _locks: File<LocksText>,
    _faults: File<FaultsText>,
}

impl Files {
    /// Makes the files of the device that is called `name`. Sleeps.
    pub(crate) fn new(name: &CStr, rings: &Arc<Rings>) -> Result<Self> {
        let root = FOLDER.lock().clone();
        let folder = Folder::new(name, root)?;
        Ok(Self {
            _rings: File::new(c"rings", &folder, RingsText(rings.clone()))?,
            _counters: File::new(c"counters", &folder, CountersText(rings.clone()))?,
            _locks: File::new(c"locks", &folder, LocksText(rings.clone()))?,
            _faults: File::new(c"faults", &folder, FaultsText(rings.clone()))?,
        })
    }
}

/// Each ring, as its driver has it just now. What the device does meanwhile is not waited for.
struct RingsText(Arc<Rings>);

impl Text for RingsText {
    type OwnerModule = LocalModule;

    fn write(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ring) in self.0.snapshots().enumerate() {
            let gathering = self.0.device().gathering().lock()[index];
            writeln!(to, "ring {index}: {}", ring.state.name())?;
            writeln!(to, "  size {}", ring.size)?;
            writeln!(to, "  taken {}", ring.indices.taken)?;
            writeln!(to, "  offered {}", ring.indices.offered)?;
            writeln!(to, "  used {}", ring.indices.used)?;
            writeln!(to, "  waiting {}", ring.indices.waiting())?;
            writeln!(to, "  coalescing_events {}", gathering.events)?;
            writeln!(to, "  coalescing_microseconds {}", gathering.microseconds)?;
            for (source, highest) in ring.highest.into_iter().enumerate() {
                if let Some(highest) = highest {
                    writeln!(to, "  highest_of_source_{source} {highest}")?;
                }
            }
        }
        Ok(())
    }
}

/// What the driver counts, by the names of `uapi`; not what the device counts.
struct CountersText(Arc<Rings>);

impl Text for CountersText {
    type OwnerModule = LocalModule;

    fn write(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.0.device().events().lock();
        let (counters, nodes, free) = (events.counters(), events.nodes(), events.free());
        drop(events);
        write_rings(to, &counters)?;
        for (name, value) in [
            ("added", counters.added),
            ("added_evicted", counters.added_evicted),
            ("read", counters.read),
            ("pending", counters.pending),
            ("evicted_early", counters.evicted_early),
            ("deferred", counters.deferred),
            ("deferred_rung", counters.deferred_rung),
            ("deferred_pending", counters.deferred_pending),
            ("interrupts", counters.interrupts),
            ("empty_interrupts", counters.empty_interrupts),
            ("status_interrupts", counters.status_interrupts),
            ("lost_interrupts", counters.faults.lost_interrupts),
            ("bad_index", counters.faults.bad_index),
            ("bad_element", counters.faults.bad_element),
            ("ring_restarts", counters.faults.ring_restarts),
            ("rings_lost", counters.faults.rings_lost),
            ("self_resets", counters.faults.self_resets),
            ("hangs", counters.faults.hangs),
            ("stuck_busy", counters.faults.stuck_busy),
            ("unreachable", counters.faults.unreachable),
            ("device_restarts", counters.faults.device_restarts),
            ("list_bound", counters.list_bound.into()),
            // Not in `uapi`: how much room there is for events, and how much of it is free.
            ("nodes", nodes as u64),
            ("nodes_free", free as u64),
        ] {
            writeln!(to, "{name} {value}")?;
        }
        Ok(())
    }
}

fn write_rings(to: &mut fmt::Formatter<'_>, counters: &Counters) -> fmt::Result {
    for (index, ring) in counters
        .ring
        .iter()
        .enumerate()
        .take(counters.rings as usize)
    {
        for (name, value) in [
            ("received", ring.received),
            ("evicted", ring.evicted),
            ("bad_checksum", ring.bad_checksum),
            ("out_of_order", ring.out_of_order),
        ] {
            writeln!(to, "ring{index}_{name} {value}")?;
        }
    }
    Ok(())
}

/// How often each lock was taken since the device was bound, and how often somebody else had it.
struct LocksText(Arc<Rings>);

impl Text for LocksText {
    type OwnerModule = LocalModule;

    fn write(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.0.device();
        writeln!(to, "{:10} {:>12} {:>12}", "lock", "taken", "contended")?;
        write_lock(to, fmt!("process"), device.process_figures())?;
        write_lock(to, fmt!("events"), device.events().figures())?;
        for (index, figures) in self.0.lock_figures().enumerate() {
            write_lock(to, fmt!("ring{index}"), figures)?;
        }
        Ok(())
    }
}

fn write_lock(
    to: &mut fmt::Formatter<'_>,
    name: fmt::Arguments<'_>,
    figures: LockFigures,
) -> fmt::Result {
    write!(to, "{name:10} {:>12} ", figures.taken)?;
    match figures.contended {
        Some(contended) => writeln!(to, "{contended:>12}"),
        // See `MeasuredLock`.
        None => writeln!(to, "in /proc/lock_stat"),
    }
}

/// The last troubles, oldest first.
struct FaultsText(Arc<Rings>);

impl Text for FaultsText {
    type OwnerModule = LocalModule;

    fn write(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let history = self.0.device().events().lock().history();
        for noticed in history.iter() {
            let microseconds = noticed.at / 1000;
            let (seconds, rest) = (microseconds / 1_000_000, microseconds % 1_000_000);
            to.write_fmt(fmt!("{seconds}.{rest:06} {}", noticed.trouble.name()))?;
            match noticed.ring {
                Some(ring) => writeln!(to, " ring {ring}")?,
                None => writeln!(to)?,
            }
        }
        Ok(())
    }
}
