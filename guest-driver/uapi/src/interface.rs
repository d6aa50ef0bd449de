// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note

//! `/dev/evgenN`, as programs see it: what `read` gives and which `ioctl`s there are.
//!
//! `read` fills the buffer with whole events, oldest first, and gives the number of bytes filled.
//! Each event is [`EVENT_SIZE`] bytes, exactly as the device wrote it (its datasheet, "Events");
//! [`Record`] takes it apart. With no event pending `read` sleeps, or fails with `EAGAIN` on a file
//! opened with `O_NONBLOCK`. Other errors:
//!
//! | errno | when |
//! |---|---|
//! | `EINVAL` | the buffer is shorter than one event |
//! | `EFAULT` | the buffer cannot be written; no event is lost |
//! | `EINTR`, restarted | a signal came before any event did |
//! | `ENODEV` | the device is gone, or was given up because it had not been well for 5 seconds |
//!
//! `poll` and `epoll` say `POLLIN` and `POLLRDNORM` while an event is pending, `POLLERR` and `POLLHUP`
//! once the device is gone, and never `POLLOUT`: nothing can be written, and no `ioctl` waits for room.
//!
//! An `ioctl` that is none of those below fails with `ENOTTY`. One that waits until others have done
//! with the device fails with `EINTR` if a signal comes first. It has done nothing then, and is
//! restarted if the signal's handler says so. All are the same for 32-bit programs.
//!
//! `/proc/PID/fdinfo/FD` names the device (`evgen-device`), how many events were read from the file
//! (`evgen-events-read`), and how often a `read` slept (`evgen-sleeps`).
//!
//! The programs see this file as a crate, the kernel module includes it by path: only `core` and
//! only what the kernel's rustc (1.85) knows.

/// Size in bytes of one event in what `read` gives.
pub const EVENT_SIZE: usize = 64;
/// Size in bytes of an event's payload.
pub const PAYLOAD_SIZE: usize = 32;
/// Rings that a device may have at most.
pub const MAX_RINGS: usize = 8;
/// Devices that the driver takes at a time, at most: `/dev/evgen0` to `/dev/evgen63`.
pub const MAX_DEVICES: usize = 64;

/// Ways to misbehave that the device knows; its datasheet numbers them.
pub const FAULTS: usize = 15;

/// [`Record::source`]: added with [`ADD`].
pub const SOURCE_DRIVER: u16 = 0;
/// [`Record::source`]: made by the device for a doorbell, that is for [`INJECT`].
pub const SOURCE_DOORBELL: u16 = 1;
/// [`Record::source`]: made by the device because the host asked for it.
pub const SOURCE_INJECT: u16 = 2;
/// [`Record::source`]: made by the device in a storm.
pub const SOURCE_STORM: u16 = 3;
/// Number of sources.
pub const SOURCES: usize = 4;
/// [`Record::ring`] of an event that came from no ring ([`SOURCE_DRIVER`]).
pub const NO_RING: u16 = 0xffff;

/// `ioctl`: adds an event to the end of the device's list; the argument points to an [`AddEvent`].
/// `EINVAL` if a reserved field is not zero, `ENOMEM`, `EFAULT`, `EINTR`, `ENODEV`.
pub const ADD: u32 = ioc(IOC_WRITE, 1, size_of::<AddEvent>());
/// `ioctl`: rings a doorbell, upon which the device makes an event; the argument points to a `u32`,
/// the ring. Nobody tells whether a device that is in trouble heard it: [`RingCounters::generated`]
/// does. `EINVAL` if there is no such ring, `EFAULT`, `EINTR`, `ENODEV`.
pub const INJECT: u32 = ioc(IOC_WRITE, 2, size_of::<u32>());
/// `ioctl`: fills in the [`Counters`] that the argument points to. While the device does not answer
/// this sleeps. `EFAULT`, `EINTR`, `ENODEV`.
pub const COUNTERS: u32 = ioc(IOC_READ, 3, size_of::<Counters>());

/// `ioctl`: rings a doorbell later; the argument points to a [`DeferredInjection`]. Each call makes
/// one event, however many wait. `EINVAL` if there is no such ring or the time is too long, `EBUSY` if
/// [`DEFERRED_MAX`] injections wait already, `ENOMEM`, `EFAULT`, `EINTR`, `ENODEV`.
pub const INJECT_DEFERRED: u32 = ioc(IOC_WRITE, 4, size_of::<DeferredInjection>());
/// `ioctl`: takes the oldest event out of the list, as a `read` of [`EVENT_SIZE`] bytes that never
/// waits; the argument points to that many bytes. `EAGAIN` if there is none, `EFAULT` (the event is
/// not lost), `EINTR`, `ENODEV`.
pub const GET_EVENT: u32 = ioc(IOC_READ, 5, EVENT_SIZE);
/// `ioctl`: waits until every event was read; the argument points to a `u32`, for how many
/// milliseconds at most. That it was so at one moment does not say that it still is. `ETIMEDOUT` if
/// it was not in that time, `EINTR` if a signal came first (never restarted: it would wait the
/// whole time once more), `ENOMEM`, `EFAULT`, `ENODEV`. More than [`i32::MAX`] is for ever.
pub const WAIT_DRAINED: u32 = ioc(IOC_WRITE, 6, size_of::<u32>());
/// `ioctl`: lets a ring gather events before it interrupts; the argument points to a [`Coalescing`].
/// Holds until it is set again or the device is unbound, over resets too. While the device does not
/// answer this sleeps. `EINVAL` if there is no such ring or a figure is out of range, `EFAULT`, `EINTR`,
/// `ENODEV`.
pub const SET_COALESCING: u32 = ioc(IOC_WRITE, 7, size_of::<Coalescing>());
/// `ioctl`, without an argument: resets the device and sets it up anew; returns when it runs again.
/// No event that it had delivered is lost. `EINTR` if a signal came first (never restarted: the reset
/// goes on, and another one is hardly wanted), `ENODEV`.
pub const RESET: u32 = ioc(IOC_NONE, 8, 0);

/// Most injections of one device that wait for their time.
pub const DEFERRED_MAX: u32 = 64;
/// Longest time in milliseconds for which an injection can be deferred.
pub const DEFERRED_MILLISECONDS_MAX: u32 = 60_000;
/// Largest [`Coalescing::events`].
pub const COALESCING_EVENTS_MAX: u32 = 65_535;
/// Largest [`Coalescing::microseconds`].
pub const COALESCING_MICROSECONDS_MAX: u32 = 1_000_000;

const IOC_NONE: u32 = 0;
const IOC_WRITE: u32 = 1;
const IOC_READ: u32 = 2;

/// `_IOC` of `<asm-generic/ioctl.h>` with the type letter `E`.
const fn ioc(direction: u32, number: u32, size: usize) -> u32 {
    direction << 30 | (size as u32) << 16 | (b'E' as u32) << 8 | number
}

/// Argument of [`ADD`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct AddEvent {
    /// Kind of the event.
    pub kind: u16,
    /// Must be zero.
    pub reserved: [u16; 3],
    /// Payload of the event.
    pub payload: [u8; PAYLOAD_SIZE],
}

/// Argument of [`INJECT_DEFERRED`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct DeferredInjection {
    /// Ring whose doorbell is rung.
    pub ring: u32,
    /// In how many milliseconds, 0 to [`DEFERRED_MILLISECONDS_MAX`].
    pub milliseconds: u32,
}

/// Argument of [`SET_COALESCING`]. If either figure is 0, or `events` is 1, every event interrupts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Coalescing {
    /// The ring.
    pub ring: u32,
    /// How many events are worth an interrupt, 0 to [`COALESCING_EVENTS_MAX`].
    pub events: u32,
    /// After how many microseconds fewer are worth one too, 0 to [`COALESCING_MICROSECONDS_MAX`].
    pub microseconds: u32,
    /// Must be zero.
    pub reserved: u32,
}

/// What is counted for each ring: by the device since it was powered on, by the driver since the
/// device was bound.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Device: events made for this ring.
    pub generated: u64,
    /// Device: of these, the ones written to this ring as they should be.
    pub delivered: u64,
    /// Device: of these, the ones not written.
    pub dropped: u64,
    /// Device: of these, the ones that a fault of the device spoiled.
    pub faulted: u64,
    /// Device: second copies of events, which a fault of the device made.
    pub extra: u64,
    /// Driver: intact events taken from the ring, second copies among them.
    pub received: u64,
    /// Driver: events from this ring that left the list unread, because it was full.
    pub evicted: u64,
    /// Driver: what was taken from the ring and thrown away, because it was no event: its checksum
    /// was wrong, or its source none that a device has.
    pub bad_checksum: u64,
    /// Driver: intact events whose sequence number did not rise: copies, or come too late.
    pub out_of_order: u64,
}

/// Argument of [`COUNTERS`]. Everything but what is marked "Device:" is one consistent snapshot, in
/// which `received + added == read + evicted + pending` always holds (sums over the rings, and
/// `added_evicted` is part of evicted). The device's own figures are read just before it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Number of rings; the rest of `ring` is zero.
    pub rings: u32,
    /// Most events that the list holds.
    pub list_bound: u32,
    /// Per ring.
    pub ring: [RingCounters; MAX_RINGS],
    /// Events added with [`ADD`].
    pub added: u64,
    /// Of these, the ones that left the list unread.
    pub added_evicted: u64,
    /// Events given out by `read`.
    pub read: u64,
    /// Events in the list now.
    pub pending: u64,
    /// Events that had to leave the list unread although it was not full, because the driver had no
    /// memory for more just then. They count as evicted too.
    pub evicted_early: u64,
    /// Injections deferred with [`INJECT_DEFERRED`].
    pub deferred: u64,
    /// Of these, the ones whose doorbell was rung.
    pub deferred_rung: u64,
    /// Of these, the ones that wait for their time.
    pub deferred_pending: u64,
    /// Times that a ring's interrupt handler ran.
    pub interrupts: u64,
    /// Times that a ring's interrupt handler found nothing to take. Messages that merge on their
    /// way cause some of them, spurious interrupts all others.
    pub empty_interrupts: u64,
    /// Times that the status interrupt handler ran.
    pub status_interrupts: u64,
    /// What went wrong with the device, and was found.
    pub faults: FaultCounters,
    /// Device: how often each fault came about, by its number in the datasheet.
    pub came_about: [u64; FAULTS],
}

/// What the driver noticed of the device's misbehaviour, beside what it counts per ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounters {
    /// Times that events waited in a ring and no interrupt told of them, so the watchdog took them.
    pub lost_interrupts: u64,
    /// Times that a used index could not be.
    pub bad_index: u64,
    /// Times that a used element could not be.
    pub bad_element: u64,
    /// Times that a ring was turned off and on again, with the device as it was.
    pub ring_restarts: u64,
    /// Times that a ring was given up, because it was wrong even when it had been turned off.
    pub rings_lost: u64,
    /// Times that the device was found reset, though nobody had told it to.
    pub self_resets: u64,
    /// Times that the device's heartbeat stood still.
    pub hangs: u64,
    /// Times that the device stayed busy for longer than a reset may take.
    pub stuck_busy: u64,
    /// Times that the device answered with all ones, as what is gone from the bus does.
    pub unreachable: u64,
    /// Times that the driver reset the device and set it up anew, [`RESET`] included.
    pub device_restarts: u64,
}

/// An event as `read` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Number among the events of the same ring and source, from 0.
    pub sequence: u64,
    /// Nanoseconds: device time, or the kernel's monotonic time for [`SOURCE_DRIVER`].
    pub timestamp: u64,
    /// Who made it: one of the `SOURCE_` constants.
    pub source: u16,
    /// What it is; its maker chose.
    pub kind: u16,
    /// Ring it came through, or [`NO_RING`].
    pub ring: u16,
    /// The device's own; of no meaning to programs.
    pub flags: u16,
    /// Whatever its maker put in.
    pub payload: [u8; PAYLOAD_SIZE],
    /// Whether the checksum fits the rest.
    pub intact: bool,
}

impl Record {
    /// Takes one event apart.
    pub fn parse(bytes: &[u8; EVENT_SIZE]) -> Self {
        let word = |offset: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[offset..offset + 8]);
            u64::from_le_bytes(word)
        };
        let half = |offset: usize| u16::from_le_bytes([bytes[offset], bytes[offset + 1]]);
        let mut payload = [0; PAYLOAD_SIZE];
        payload.copy_from_slice(&bytes[24..56]);
        // FNV-1a over 64-bit words, written from the datasheet on purpose: with the device's own
        // function, one mistake there would hide on both sides.
        let checksum = (0..7).fold(0xcbf2_9ce4_8422_2325_u64, |hash, index| {
            (hash ^ word(index * 8)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self {
            sequence: word(0),
            timestamp: word(8),
            source: half(16),
            kind: half(18),
            ring: half(20),
            flags: half(22),
            payload,
            intact: checksum == word(56),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_the_datasheets() {
        let mut bytes = [0; EVENT_SIZE];
        for (value, byte) in (0..56).zip(bytes.iter_mut()) {
            *byte = value;
        }
        bytes[56..].copy_from_slice(&0x161e_e68f_e44b_adbf_u64.to_le_bytes());
        assert!(Record::parse(&bytes).intact);
        bytes[24] ^= 1;
        assert!(!Record::parse(&bytes).intact);
    }

    #[test]
    fn ioctl_numbers_never_change() {
        assert_eq!(
            [ADD, INJECT, COUNTERS, INJECT_DEFERRED],
            [0x4028_4501, 0x4004_4502, 0x8368_4503, 0x4008_4504]
        );
        assert_eq!(
            [GET_EVENT, WAIT_DRAINED, SET_COALESCING, RESET],
            [0x8040_4505, 0x4004_4506, 0x4010_4507, 0x0000_4508]
        );
    }
}
