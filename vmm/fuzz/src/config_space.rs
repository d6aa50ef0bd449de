// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arbitrary::{Arbitrary, Unstructured};
use lockstorm::machine::bus::{Bus, BusDevice};
use lockstorm::machine::layout::{BAR_WINDOW_32, BAR_WINDOW_64};
use lockstorm::pci::{ConfigPorts, Ecam, MemoryBar, PciFunction, Segment, Windows};
use lockstorm_device_model::Config;

use crate::bus::Function;
use crate::device::steps;

/// An access by a guest.
#[derive(Arbitrary, Debug)]
enum Access {
    EcamRead {
        offset: u32,
        width: u8,
    },
    EcamWrite {
        offset: u32,
        data: [u8; 8],
        width: u8,
    },
    PortRead {
        offset: u8,
        width: u8,
    },
    PortWrite {
        offset: u8,
        data: [u8; 4],
        width: u8,
    },
    /// A write to configuration space where a device is.
    Write {
        slot: u8,
        register: u8,
        data: [u8; 8],
        width: u8,
    },
    /// A BAR is placed in one of the windows, by page, or anywhere.
    Place {
        slot: u8,
        msix: bool,
        page: u8,
        high: bool,
    },
    PlaceAnywhere {
        slot: u8,
        msix: bool,
        address: u64,
    },
    Command {
        slot: u8,
        command: u8,
    },
    Reset {
        slot: u8,
    },
    MemoryRead {
        address: u64,
        width: u8,
    },
    MemoryWrite {
        address: u64,
        data: [u8; 8],
        width: u8,
    },
    BarRead {
        slot: u8,
        msix: bool,
        offset: u16,
        width: u8,
    },
    BarWrite {
        slot: u8,
        msix: bool,
        offset: u16,
        data: [u8; 8],
        width: u8,
    },
}

struct Machine {
    bus: Arc<Bus>,
    windows: Windows,
    functions: Vec<Arc<Function>>,
    ecam: Ecam,
    ports: ConfigPorts,
    probed: Arc<AtomicBool>,
}

/// Configuration space by both ways, and BARs that move over each other.
pub fn config_space(data: &[u8]) {
    let mut plan = Unstructured::new(data);
    let Ok(vectors) = plan.int_in_range(2..=2048) else {
        return;
    };
    let machine = Machine::new(vectors);
    for access in steps::<Access>(&mut plan) {
        machine.take(&access);
        machine.check();
    }
}

fn windows() -> Windows {
    Windows::new(
        BAR_WINDOW_32.start..BAR_WINDOW_32.end(),
        BAR_WINDOW_64.start..BAR_WINDOW_64.end(),
    )
    .unwrap()
}

impl Machine {
    /// A bus with three devices, one of which has `vectors` vectors.
    fn new(vectors: u16) -> Self {
        let bus = Arc::new(Bus::default());
        let mut segment = Segment::new(Arc::clone(&bus), windows());
        let probed = Arc::new(AtomicBool::new(false));
        let functions: Vec<_> = [Some(vectors), None, None]
            .into_iter()
            .zip(1..)
            .map(|(vectors, id)| {
                let config = Config {
                    rings: 1,
                    vectors,
                    ..Config::default()
                };
                Arc::new(Function::new(id, config, Arc::clone(&probed)))
            })
            .collect();
        for function in &functions {
            segment
                .add(Arc::clone(function) as Arc<dyn PciFunction>)
                .unwrap();
        }
        let segment = Arc::new(segment);
        Self {
            bus,
            windows: windows(),
            functions,
            ecam: Ecam::new(Arc::clone(&segment)),
            ports: ConfigPorts::new(segment),
            probed,
        }
    }

    fn take(&self, access: &Access) {
        match *access {
            Access::EcamRead { offset, width } => {
                let offset = u64::from(offset) & 0xf_ffff;
                self.ecam
                    .read(offset, &mut [0; 8][..usize::from(width % 9)]);
            }
            Access::EcamWrite {
                offset,
                data,
                width,
            } => {
                let offset = u64::from(offset) & 0xf_ffff;
                self.ecam.write(offset, &data[..usize::from(width % 9)]);
            }
            Access::PortRead { offset, width } => {
                let data = &mut [0; 4][..usize::from(width % 5)];
                self.ports.read((offset % 8).into(), data);
            }
            Access::PortWrite {
                offset,
                data,
                width,
            } => {
                self.ports
                    .write((offset % 8).into(), &data[..usize::from(width % 5)]);
            }
            Access::Write {
                slot,
                register,
                data,
                width,
            } => {
                self.write(slot, register.into(), &data[..usize::from(width % 9)]);
            }
            Access::Place {
                slot,
                msix,
                page,
                high,
            } => {
                let window = if high && msix {
                    BAR_WINDOW_64
                } else {
                    BAR_WINDOW_32
                };
                let end = window.end() - 0x1_0000 * u64::from(page & 1);
                let address = match page & 2 {
                    0 => window.start + u64::from(page >> 2) * 0x1000,
                    _ => end - u64::from(page >> 2) * 0x1000,
                };
                self.place(slot, msix, address);
            }
            Access::PlaceAnywhere {
                slot,
                msix,
                address,
            } => self.place(slot, msix, address),
            Access::Command { slot, command } => self.write(slot, 0x04, &[command]),
            Access::Reset { slot } => self.write(slot, 0x54, &[1]),
            Access::MemoryRead { address, width } => {
                self.bus
                    .read(address, &mut [0; 8][..usize::from(width % 9)]);
            }
            Access::MemoryWrite {
                address,
                data,
                width,
            } => {
                let _ = self.bus.write(address, &data[..usize::from(width % 9)]);
            }
            Access::BarRead {
                slot,
                msix,
                offset,
                width,
            } => {
                let bar = self.bar(slot, msix);
                let data = &mut [0; 8][..usize::from(width % 9)];
                self.bus.read(bar.address.wrapping_add(offset.into()), data);
            }
            Access::BarWrite {
                slot,
                msix,
                offset,
                data,
                width,
            } => {
                let bar = self.bar(slot, msix);
                let data = &data[..usize::from(width % 9)];
                let _ = self
                    .bus
                    .write(bar.address.wrapping_add(offset.into()), data);
            }
        }
    }

    fn bar(&self, slot: u8, msix: bool) -> MemoryBar {
        let function = &self.functions[usize::from(slot) % self.functions.len()];
        function.bars()[usize::from(msix)]
    }

    fn write(&self, slot: u8, register: u64, data: &[u8]) {
        let slot = u64::from(slot) % self.functions.len() as u64 + 1;
        self.ecam.write(slot << 15 | register, data);
    }

    fn place(&self, slot: u8, msix: bool, address: u64) {
        if msix {
            self.write(slot, 0x18, &address.to_le_bytes());
        } else {
            self.write(slot, 0x10, &address.to_le_bytes()[..4]);
        }
    }

    /// Every BAR answers where its function says, if it may and nothing else does, and nowhere
    /// else.
    fn check(&self) {
        let all: Vec<(usize, MemoryBar)> = (0..)
            .zip(&self.functions)
            .flat_map(|(function, of)| of.bars().into_iter().map(move |bar| (function, bar)))
            .collect();
        let wants = |bar: &MemoryBar| bar.enabled && self.windows.contain(bar);
        self.probed.store(true, Ordering::Relaxed);
        for (index, (function, bar)) in all.iter().enumerate() {
            let of = &self.functions[*function];
            let told = of.decoding()[usize::from(bar.index / 2)];
            if !wants(bar) {
                assert_eq!(told, None, "{bar:x?} answers");
                continue;
            }
            assert!(told.is_none_or(|address| address == bar.address));
            let alone = all.iter().enumerate().all(|(other, (_, that))| {
                other == index
                    || !wants(that)
                    || that.address > bar.address + (bar.size - 1)
                    || bar.address > that.address + (that.size - 1)
            });
            assert!(told.is_some() || !alone, "{bar:x?} does not answer");
            if told.is_some() {
                for address in [bar.address, bar.address + bar.size - 1] {
                    let mut byte = [0];
                    self.bus.read(address, &mut byte);
                    assert_eq!(byte[0], of.tag(bar.index), "{bar:x?}");
                }
            }
        }
        self.probed.store(false, Ordering::Relaxed);
        for slot in 1..=self.functions.len() as u64 {
            let mut identity = [0; 4];
            self.ecam.read(slot << 15, &mut identity);
            assert_eq!(identity, [0x34, 0x12, 0x56, 0x45]);
        }
    }
}
