// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What a client's commands do to its device. Neither reads nor writes the socket.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use lockstorm_device_model::abi::identity::MSIX_BAR;
use rustix::io::Errno;
use serde_json::{Map, Value, json};
use thiserror::Error;
use tracing::warn;

use super::dma::{REGIONS_MAX, Region, Regions};
use super::interrupts::{Interrupts, is_eventfd};
use super::message::{Header, MAX_TRANSFER, Reader, Writer, command};
use super::messages::{Unasked, hide_msix};
use crate::devices::evgen::EvgenFunction;
use crate::machine::memory::Memory;
use crate::pci::PciFunction;
use crate::rate_limit::Occurrences;

/// File descriptors that may come with a message. The client hears of it.
pub(super) const MAX_FDS: usize = 16;
/// The protocol's major version, and its minor one too: there is no other.
const VERSION: u16 = 0;
const PAGE_SIZE: u64 = 4096;

/// Indexes of regions and of kinds of interrupts, and their flags, are those of `<linux/vfio.h>`.
mod vfio {
    pub const REGIONS: usize = 9;
    pub const CONFIG_REGION: usize = 7;
    pub const REGION_READ_WRITE: u32 = 0b11;
    pub const IRQS: u32 = 5;
    pub const MSIX_IRQ: u32 = 2;
    pub const DEVICE_RESET_PCI: u32 = 0b11;
    pub const IRQ_EVENTFD_MASKABLE: u32 = 0b11;
    pub const DATA_NONE: u32 = 1 << 0;
    pub const DATA_EVENTFD: u32 = 1 << 2;
    pub const ACTION_MASK: u32 = 1 << 3;
    pub const ACTION_UNMASK: u32 = 1 << 4;
    pub const ACTION_TRIGGER: u32 = 1 << 5;
    pub const UNMAP_ALL: u32 = 1 << 1;
}

/// Bytes of configuration space.
const CONFIG_SIZE: u64 = 256;
/// Of an entry of the MSI-X table, and where its Vector Control is.
const ENTRY_SIZE: u64 = 16;
const ENTRY_CONTROL: u64 = 12;

/// A client with which there is nothing more to be done.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Broken {
    /// Something else than the first message there has to be.
    #[error("its first command is {0}, and not the one that agrees on the protocol's version (1)")]
    NoVersion(u16),
    /// Another protocol.
    #[error("it speaks version {0} of the protocol, and not version {VERSION}")]
    Version(u16),
    /// An answer to nothing.
    #[error("it answers a write to its memory that it was not asked for")]
    Unasked,
}

/// A device with its client.
pub struct Session {
    device: Arc<EvgenFunction>,
    interrupts: Interrupts,
    /// Vectors that the client knows of.
    vectors: u16,
    /// Of the device's regions, in bytes; 0 for those that are not there.
    sizes: [u64; vfio::REGIONS],
    memory: Regions,
    agreed: bool,
    refused: Occurrences,
}

impl Session {
    /// The device in its state at power-on, for a new client. `interrupts` is the way that the device's
    /// sink has.
    pub fn begin(device: Arc<EvgenFunction>, interrupts: Interrupts) -> Self {
        device.reset();
        let vectors = device.with_device(|device, _, _| device.stats().raised.len() as u16);
        // One that was taken out has none, and a client that does not know of MSI-X knows of none.
        let vectors = vectors.unwrap_or(0);
        let vectors = if interrupts.hide_msix() { 0 } else { vectors };
        let mut sizes = [0; vfio::REGIONS];
        sizes[vfio::CONFIG_REGION] = CONFIG_SIZE;
        for bar in device.bars() {
            sizes[usize::from(bar.index)] = bar.size;
        }
        Self {
            device,
            interrupts,
            vectors,
            sizes,
            memory: Regions::default(),
            agreed: false,
            refused: Occurrences::new(),
        }
    }

    /// Does what a message asks for; gives the reply, if the client wants one.
    pub fn take(
        &mut self,
        header: &Header,
        body: &[u8],
        files: Vec<OwnedFd>,
    ) -> Result<Option<Vec<u8>>, Broken> {
        let result = match header.command {
            command::VERSION if !self.agreed => self.agree(body)?,
            other if !self.agreed => return Err(Broken::NoVersion(other)),
            _ if header.answers() => {
                let answered = self.interrupts.answered();
                return answered.map(|()| None).map_err(|Unasked| Broken::Unasked);
            }
            command::DMA_MAP => self.map(body, files),
            command::DMA_UNMAP => self.unmap(body),
            command::GET_INFO => info(body),
            command::GET_REGION_INFO => self.region_info(body),
            command::GET_IRQ_INFO => self.irq_info(body),
            command::SET_IRQS => self.set_irqs(body, files),
            command::REGION_READ => self.read(body),
            command::REGION_WRITE => self.write(body),
            command::RESET => {
                self.device.reset();
                Ok(Vec::new())
            }
            // Those of migration, above all. They are there to be refused.
            _ => Err(Errno::NOSYS),
        };
        Ok(header.wants_reply().then(|| header.reply(result)))
    }

    fn agree(&mut self, body: &[u8]) -> Result<Result<Vec<u8>, Errno>, Broken> {
        let mut fields = Reader(body);
        let (Ok(major), Ok(_minor)) = (fields.u16(), fields.u16()) else {
            return Ok(Err(Errno::INVAL));
        };
        if major != VERSION {
            return Err(Broken::Version(major));
        }
        let Some(proposed) = capabilities(fields.rest()) else {
            return Ok(Err(Errno::INVAL));
        };
        self.agreed = true;
        let ours = [
            ("max_msg_fds", MAX_FDS as u64),
            ("max_data_xfer_size", MAX_TRANSFER as u64),
            ("max_dma_maps", REGIONS_MAX as u64),
            ("pgsizes", PAGE_SIZE),
        ];
        let agreed: Map<_, _> = ours
            .into_iter()
            .filter(|(name, _)| proposed.contains_key(*name))
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        let mut reply = Writer::default();
        reply.u16(VERSION).u16(VERSION);
        let text = json!({ "capabilities": agreed }).to_string();
        reply.bytes(text.as_bytes()).bytes(&[0]);
        Ok(Ok(reply.0))
    }

    fn map(&mut self, body: &[u8], mut files: Vec<OwnedFd>) -> Result<Vec<u8>, Errno> {
        let mut fields = Reader(body);
        let _argsz = fields.u32()?;
        let region = Region {
            flags: fields.u32()?,
            offset: fields.u64()?,
            address: fields.u64()?,
            size: fields.u64()?,
        };
        if files.len() > 1 {
            return Err(Errno::INVAL);
        }
        let mapped = self.memory.map(region, files.pop());
        if let Err(error) = mapped
            && let Some(so_far) = self.refused.add()
        {
            let Region { address, size, .. } = region;
            let hint = match error {
                Errno::OPNOTSUPP => ": it is neither a memfd nor a file on tmpfs",
                _ => "",
            };
            warn!(
                "{size:#x} bytes of the client's memory at {address:#x} cannot be used, {so_far} \
                 such so far: {error}{hint}"
            );
        }
        mapped?;
        self.device.set_memory(self.memory.memory().clone());
        Ok(Vec::new())
    }

    fn unmap(&mut self, body: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut fields = Reader(body);
        let _argsz = fields.u32()?;
        let flags = fields.u32()?;
        let (address, size) = (fields.u64()?, fields.u64()?);
        if flags & vfio::UNMAP_ALL != 0 {
            self.memory = Regions::default();
        } else {
            self.memory.unmap(address, size)?;
        }
        self.device.set_memory(self.memory.memory().clone());
        let mut reply = Writer::default();
        reply.u32(24).u32(flags).u64(address).u64(size);
        Ok(reply.0)
    }

    fn region_info(&self, body: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut fields = Reader(body);
        let (_argsz, _flags, index) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let size = *self.sizes.get(index as usize).ok_or(Errno::INVAL)?;
        let flags = u32::from(size > 0) * vfio::REGION_READ_WRITE;
        let mut reply = Writer::default();
        reply.u32(32).u32(flags).u32(index).u32(0);
        reply.u64(size).u64(0);
        Ok(reply.0)
    }

    fn irq_info(&self, body: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut fields = Reader(body);
        let (_argsz, _flags, index) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let (flags, count) = match index {
            vfio::MSIX_IRQ => (vfio::IRQ_EVENTFD_MASKABLE, u32::from(self.vectors)),
            0..vfio::IRQS => (0, 0),
            _ => return Err(Errno::INVAL),
        };
        let mut reply = Writer::default();
        reply.u32(16).u32(flags).u32(index).u32(count);
        Ok(reply.0)
    }

    /// The client keeps the table that the guest sees, and tells of vectors by what it does here:
    /// one with an eventfd is not masked, one without is. Only the device knows what is pending.
    fn set_irqs(&mut self, body: &[u8], files: Vec<OwnedFd>) -> Result<Vec<u8>, Errno> {
        let mut fields = Reader(body);
        let _argsz = fields.u32()?;
        let (flags, index) = (fields.u32()?, fields.u32()?);
        let (start, count) = (fields.u32()?, fields.u32()?);
        let end = start.checked_add(count).ok_or(Errno::INVAL)?;
        let vectors = match index {
            vfio::MSIX_IRQ => u32::from(self.vectors),
            0..vfio::IRQS => 0,
            _ => return Err(Errno::INVAL),
        };
        if end > vectors {
            return Err(Errno::INVAL);
        }
        // Both fit, like the number of vectors.
        let range = start as u16..end as u16;
        const TAKE: u32 = vfio::DATA_NONE | vfio::ACTION_TRIGGER;
        const GIVE: u32 = vfio::DATA_EVENTFD | vfio::ACTION_TRIGGER;
        const MASK: u32 = vfio::DATA_NONE | vfio::ACTION_MASK;
        const UNMASK: u32 = vfio::DATA_NONE | vfio::ACTION_UNMASK;
        match flags {
            TAKE if count == 0 => self.take_eventfds(0..self.vectors),
            TAKE => range.for_each(|vector| self.interrupts.signal(vector)),
            GIVE if files.is_empty() => self.take_eventfds(range),
            GIVE if files.len() == count as usize && files.iter().all(is_eventfd) => {
                self.interrupts.give(range.start, files);
                self.mask(range, false);
            }
            MASK => self.mask(range, true),
            UNMASK => self.mask(range, false),
            _ => return Err(Errno::INVAL),
        }
        Ok(Vec::new())
    }

    fn take_eventfds(&self, range: Range<u16>) {
        self.mask(range.clone(), true);
        self.interrupts.keep(|vector| !range.contains(&vector));
    }

    fn mask(&self, range: Range<u16>, masked: bool) {
        let control = u32::from(masked).to_ne_bytes();
        for vector in range {
            let place = u64::from(vector) * ENTRY_SIZE + ENTRY_CONTROL;
            self.device.bar_write(MSIX_BAR, place, &control);
        }
    }

    fn read(&self, body: &[u8]) -> Result<Vec<u8>, Errno> {
        let access = self.access(&mut Reader(body))?;
        let mut data = vec![0; access.count as usize];
        match access.region {
            // It fits: `access` has seen that it is inside.
            vfio::CONFIG_REGION => {
                self.device.config_read(access.offset as u16, &mut data);
                if self.interrupts.hide_msix() {
                    hide_msix(&self.device, access.offset as u16, &mut data);
                }
            }
            bar => self.device.bar_read(bar as u8, access.offset, &mut data),
        }
        let mut reply = access.reply();
        reply.bytes(&data);
        Ok(reply.0)
    }

    fn write(&self, body: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut fields = Reader(body);
        let access = self.access(&mut fields)?;
        let data = fields.rest();
        if data.len() != access.count as usize {
            return Err(Errno::INVAL);
        }
        match access.region {
            // Where the BARs are is the client's business.
            vfio::CONFIG_REGION => drop(self.device.config_write(access.offset as u16, data)),
            bar => drop(self.device.bar_write(bar as u8, access.offset, data)),
        }
        Ok(access.reply().0)
    }

    fn access(&self, fields: &mut Reader) -> Result<Access, Errno> {
        let access = Access {
            offset: fields.u64()?,
            region: fields.u32()? as usize,
            count: fields.u32()?,
        };
        let size = *self.sizes.get(access.region).ok_or(Errno::INVAL)?;
        let end = access.offset.checked_add(access.count.into());
        let inside = end.is_some_and(|end| end <= size);
        if inside && access.count as usize <= MAX_TRANSFER {
            Ok(access)
        } else {
            Err(Errno::INVAL)
        }
    }
}

impl Drop for Session {
    /// The client is gone. What the device has counted stays until the next one comes.
    fn drop(&mut self) {
        let _ = self.device.with_device(|device, _, _| device.stop_storm());
        self.device.set_memory(Memory::default());
        self.interrupts.keep(|_| false);
    }
}

/// An access to a region that is there.
struct Access {
    offset: u64,
    region: usize,
    count: u32,
}

impl Access {
    fn reply(&self) -> Writer {
        let mut reply = Writer::default();
        reply
            .u64(self.offset)
            .u32(self.region as u32)
            .u32(self.count);
        reply
    }
}

fn info(body: &[u8]) -> Result<Vec<u8>, Errno> {
    let _argsz = Reader(body).u32()?;
    let mut reply = Writer::default();
    reply.u32(16).u32(vfio::DEVICE_RESET_PCI);
    reply.u32(vfio::REGIONS as u32).u32(vfio::IRQS);
    Ok(reply.0)
}

/// What a client says of itself: JSON that ends in a zero byte, or nothing.
fn capabilities(text: &[u8]) -> Option<Map<String, Value>> {
    if text.is_empty() {
        return Some(Map::new());
    }
    let text = text.strip_suffix(&[0])?;
    let Value::Object(mut said) = serde_json::from_slice(text).ok()? else {
        return None;
    };
    match said.remove("capabilities") {
        None => Some(Map::new()),
        Some(Value::Object(capabilities)) => Some(capabilities),
        Some(_) => None,
    }
}
