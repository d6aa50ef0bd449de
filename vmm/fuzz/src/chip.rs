// SPDX-License-Identifier: Apache-2.0 OR MIT

//! KVM's side of interrupts, as far as a router sees it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use lockstorm::machine::interrupts::{IrqChip, Route};
use lockstorm_device_model::MsiMessage;
use vmm_sys_util::errno;
use vmm_sys_util::eventfd::EventFd;

/// Lines of a table that has no messages: the pins of I/O APIC and PICs.
const PINS: usize = 40;
const EINVAL: i32 = 22;

/// Routes, irqfds, and the messages that came of them.
#[derive(Default)]
pub struct Chip {
    routes: BTreeMap<u32, MsiMessage>,
    irqfds: BTreeMap<u32, EventFd>,
    arrived: Vec<MsiMessage>,
    /// Interrupts that should not have arrived.
    pub lost: usize,
}

impl Chip {
    /// As with KVM's x2APIC format: the upper half of an address has no low byte.
    pub fn refuses(message: MsiMessage) -> bool {
        message.address >> 32 & 0xff != 0
    }

    /// The messages sent since the last call.
    pub fn arrived(&mut self) -> Vec<MsiMessage> {
        for (gsi, irqfd) in &self.irqfds {
            let count = irqfd.read().unwrap_or(0) as usize;
            self.arrived.extend(vec![self.routes[gsi]; count]);
        }
        std::mem::take(&mut self.arrived)
    }

    /// Nothing is set aside for anybody.
    pub fn assert_empty(&self) {
        assert!(self.irqfds.is_empty() && self.routes.is_empty());
    }
}

/// The router's handle.
pub struct Handle(pub Arc<Mutex<Chip>>);

impl IrqChip for Handle {
    fn set_routes(&self, routes: &[Route]) -> Result<(), errno::Error> {
        let mut chip = self.0.lock().unwrap();
        let messages = routes.iter().filter_map(|route| match *route {
            Route::Message { gsi, message } => Some((gsi, message)),
            Route::Pin { .. } => None,
        });
        let table: BTreeMap<u32, MsiMessage> = messages.collect();
        assert_eq!(table.len() + PINS, routes.len(), "a GSI is there twice");
        if table.values().any(|message| Chip::refuses(*message)) {
            return Err(errno::Error::new(EINVAL));
        }
        for gsi in chip.irqfds.keys() {
            assert_eq!(
                table.get(gsi),
                chip.routes.get(gsi),
                "a route changed under fire"
            );
        }
        chip.routes = table;
        Ok(())
    }

    fn assign(&self, gsi: u32, trigger: &EventFd) -> Result<(), errno::Error> {
        let mut chip = self.0.lock().unwrap();
        assert!(chip.routes.contains_key(&gsi), "GSI {gsi} has no route");
        let old = chip.irqfds.insert(gsi, trigger.try_clone().unwrap());
        assert!(old.is_none(), "GSI {gsi} has two irqfds");
        Ok(())
    }

    fn deassign(&self, gsi: u32, _trigger: &EventFd) -> Result<(), errno::Error> {
        let mut chip = self.0.lock().unwrap();
        let irqfd = chip.irqfds.remove(&gsi).expect("an irqfd that is assigned");
        let count = irqfd.read().unwrap_or(0) as usize;
        let message = chip.routes[&gsi];
        chip.arrived.extend(vec![message; count]);
        Ok(())
    }

    fn signal(&self, message: MsiMessage) -> Result<(), errno::Error> {
        if Chip::refuses(message) {
            return Err(errno::Error::new(EINVAL));
        }
        self.0.lock().unwrap().arrived.push(message);
        Ok(())
    }
}
