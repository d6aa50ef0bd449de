// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Slots of QEMU's: what is put in is a device of ours that QEMU reaches over vfio-user.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lockstorm_device_model::Config;
use serde_json::{Value, json};

use super::monitor::{Happening, Monitor, QmpError};
use crate::devices::evgen::{EvgenFunction, EvgenHost, Wiring};
use crate::devices::hot_plug::{HotPlug, HotPlugError, Plugged, Slot};
use crate::machine::memory::Memory;
use crate::pci::{PciFunction, SlotView};
use crate::socket_file::{SocketError, SocketFile};
use crate::vfio_user::{Interrupts, MessageSink, Messages, Served, VfioUserServer};

/// How long QEMU may take for a change. It greets the device meanwhile, and on a busy machine the guest
/// is in its way.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take to tell of its ports.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// A guest that was asked to let go of a device has either begun to after that time, or has not heard:
/// then it may be asked again. Before, asking again would take it back.
const ASK_INTERVAL: Duration = Duration::from_secs(10);
/// The kind of QEMU's errors that says so.
const NO_SUCH_DEVICE: &str = "DeviceNotFound";

/// QEMU's root ports, and what a device is like that is put behind one.
pub struct PortsOfQemu {
    /// How many there are: their ids are `port1`, `port2` and so on, and so are their slots' numbers.
    pub count: u8,
    /// What a device is like unless asked for otherwise.
    pub usual: Config,
    /// The socket of a device, by the device's number.
    pub socket: Box<dyn Fn(usize) -> PathBuf + Send + Sync>,
}

/// Devices in QEMU's slots, asked for by its monitor.
pub struct QemuSlots {
    shared: Arc<Shared>,
    monitor: Monitor,
    ports: PortsOfQemu,
}

/// What the monitor's thread has to do with.
///
/// The lock covers which device is in which slot. Commands take it, in any thread, and the monitor's
/// thread when QEMU tells that a device is gone; so nobody waits for QEMU with it locked. Inside it
/// devices are locked.
struct Shared {
    evgen: Arc<EvgenHost>,
    server: Arc<VfioUserServer>,
    occupants: Mutex<BTreeMap<u8, Occupant>>,
}

/// A device in a slot. QEMU knows it by the id `evgen` and its number.
struct Occupant {
    device: usize,
    function: Arc<EvgenFunction>,
    /// When the guest was asked to let go of it, if it was.
    asked: Option<Instant>,
}

impl QemuSlots {
    /// For devices of `evgen`, which `server` serves. QEMU's monitor may connect at `monitor`.
    pub fn new(
        evgen: Arc<EvgenHost>,
        server: Arc<VfioUserServer>,
        ports: PortsOfQemu,
        monitor: &Path,
    ) -> Result<Self, SocketError> {
        let shared = Arc::new(Shared {
            evgen,
            server,
            occupants: Mutex::default(),
        });
        let listener = {
            let shared = Arc::clone(&shared);
            move |happening| shared.hear(&happening)
        };
        Ok(Self {
            shared,
            monitor: Monitor::start(monitor, Box::new(listener))?,
            ports,
        })
    }

    /// A device that QEMU can reach, and that is in no slot yet.
    fn make(&self, rings: Option<u8>, vectors: Option<u16>) -> Result<Occupant, HotPlugError> {
        let usual = self.ports.usual;
        let config = Config {
            rings: rings.unwrap_or(usual.rings),
            vectors: vectors.or(usual.vectors),
            ..usual
        };
        let messages = Arc::<Messages>::default();
        let wiring = Wiring {
            sink: Box::new(MessageSink(Arc::clone(&messages))),
            // There is none before QEMU lends it.
            memory: Memory::default(),
            doorbells: None,
        };
        let (device, function) = self.shared.evgen.add(config, wiring)?;
        let socket = SocketFile::create("vfio-user socket", &(self.ports.socket)(device));
        let socket = socket.inspect_err(|_| function.take_out())?;
        let served = Served {
            socket,
            device: Arc::clone(&function),
            interrupts: Interrupts::Messages(messages),
        };
        self.shared.server.serve(device, served);
        Ok(Occupant {
            device,
            function,
            asked: None,
        })
    }

    /// The slot to use: `slot`, or any, if nothing is in it.
    fn free_slot(&self, slot: Option<u8>) -> Result<u8, HotPlugError> {
        let last = self.ports.count;
        let occupants = self.shared.occupants();
        let Some(slot) = slot else {
            let free = (1..=last).find(|slot| !occupants.contains_key(slot));
            return free.ok_or(HotPlugError::Full { last });
        };
        match occupants.get(&slot) {
            Some(&Occupant { device, .. }) => Err(HotPlugError::Taken { slot, device }),
            None if (1..=last).contains(&slot) => Ok(slot),
            None => Err(HotPlugError::NoSuchSlot { slot, last }),
        }
    }

    /// Has QEMU ask the guest for a device, unless it was asked within that time.
    fn ask(&self, device: usize, interval: Duration) -> Result<(), HotPlugError> {
        let set = |asked| {
            let mut occupants = self.shared.occupants();
            let occupant = occupants.values_mut().find(|known| known.device == device);
            occupant.map(|occupant| std::mem::replace(&mut occupant.asked, asked))
        };
        let Some(before) = set(Some(Instant::now())) else {
            self.shared.evgen.check(Some(&[device]))?;
            return Err(HotPlugError::Fixed { device });
        };
        if before.is_some_and(|before| before.elapsed() < interval) {
            set(before);
            return Ok(());
        }
        let arguments = json!({ "id": id(device) });
        match self.monitor.execute("device_del", &arguments, PATIENCE) {
            Ok(_) => Ok(()),
            // It has gone by itself, or was never there.
            Err(QmpError::Refused { class, .. }) if class == NO_SUCH_DEVICE => {
                self.shared.withdraw(|known| known == device);
                Ok(())
            }
            Err(error) => {
                set(before);
                Err(error.into())
            }
        }
    }

    /// The buses behind QEMU's ports, by slot, as far as the guest has given them numbers and QEMU
    /// tells of them.
    fn buses(&self) -> BTreeMap<u8, u8> {
        let looked = self.monitor.execute("query-pci", &json!({}), LOOK_PATIENCE);
        let buses = looked.unwrap_or_default();
        let buses = buses.as_array().into_iter().flatten();
        let devices = buses.filter_map(|bus| bus.get("devices")?.as_array());
        devices.flatten().filter_map(port_and_bus).collect()
    }
}

/// The slot that a device of QEMU's leads to, if it is one of our ports, and the bus there.
fn port_and_bus(device: &Value) -> Option<(u8, u8)> {
    let slot = device.get("qdev_id")?.as_str()?.strip_prefix("port")?;
    let bus = device.pointer("/pci_bridge/bus/secondary")?.as_u64()?;
    let bus = u8::try_from(bus).ok().filter(|bus| *bus > 0)?;
    Some((slot.parse().ok()?, bus))
}

fn id(device: usize) -> String {
    format!("evgen{device}")
}

impl HotPlug for QemuSlots {
    fn plug(
        &self,
        rings: Option<u8>,
        vectors: Option<u16>,
        slot: Option<u8>,
    ) -> Result<Plugged, HotPlugError> {
        let slot = self.free_slot(slot)?;
        let occupant = self.make(rings, vectors)?;
        let device = occupant.device;
        let path = (self.ports.socket)(device);
        self.shared.occupants().insert(slot, occupant);
        let arguments = json!({
            "driver": "vfio-user-pci",
            "id": id(device),
            "bus": format!("port{slot}"),
            "socket": { "type": "unix", "path": path },
        });
        match self.monitor.execute("device_add", &arguments, PATIENCE) {
            Ok(_) => Ok(Plugged { device, slot }),
            Err(error) => {
                // One that QEMU may put in yet stays.
                if !matches!(error, QmpError::Late { .. }) {
                    self.shared.withdraw(|known| known == device);
                }
                Err(error.into())
            }
        }
    }

    fn unplug(&self, device: usize) -> Result<(), HotPlugError> {
        self.ask(device, ASK_INTERVAL)
    }

    /// QEMU's ports can tell the guest of it by no other way than the attention button, and have the
    /// slot taken until the guest lets go of what is left there.
    fn pull(&self, device: usize) -> Result<(), HotPlugError> {
        // Once is enough: nobody has a use for it any more.
        self.ask(device, Duration::MAX)?;
        let occupants = self.shared.occupants();
        if let Some(occupant) = occupants.values().find(|known| known.device == device) {
            occupant.function.take_out();
        }
        Ok(())
    }

    fn slots(&self) -> Vec<Slot> {
        let buses = self.buses();
        let occupants = self.shared.occupants();
        let slots = 1..=self.ports.count;
        slots
            .map(|number| {
                let occupant = occupants.get(&number);
                let bars = occupant.map(|occupant| occupant.function.bars());
                Slot {
                    number,
                    device: occupant.map(|occupant| occupant.device),
                    view: SlotView {
                        occupied: occupant.is_some(),
                        // Its driver has turned on the decoding of its BARs.
                        used: bars.into_iter().flatten().any(|bar| bar.enabled),
                        leaving: occupant.is_some_and(|occupant| occupant.asked.is_some()),
                        power: None,
                        attention: None,
                        bus: buses.get(&number).copied(),
                    },
                }
            })
            .collect()
    }
}

impl Shared {
    fn hear(&self, happening: &Happening) {
        match happening {
            Happening::Deleted(name) => self.withdraw(|device| id(device) == *name),
            Happening::Kept(name) => {
                let mut occupants = self.occupants();
                let kept = occupants
                    .values_mut()
                    .find(|known| id(known.device) == *name);
                if let Some(occupant) = kept {
                    occupant.asked = None;
                }
            }
            Happening::Gone => self.withdraw(|_| true),
        }
    }

    /// Takes those devices out of their slots, with their sockets.
    fn withdraw(&self, which: impl Fn(usize) -> bool) {
        let gone: BTreeMap<_, _> = {
            let mut occupants = self.occupants();
            let (gone, stay): (_, BTreeMap<_, _>) = std::mem::take(&mut *occupants)
                .into_iter()
                .partition(|(_, occupant)| which(occupant.device));
            *occupants = stay;
            gone
        };
        for Occupant {
            device, function, ..
        } in gone.into_values()
        {
            function.take_out();
            self.server.dismiss(device);
        }
    }

    fn occupants(&self) -> MutexGuard<'_, BTreeMap<u8, Occupant>> {
        self.occupants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "slots_test.rs"]
mod tests;
