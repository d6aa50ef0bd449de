// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Takes devices from the host and puts together the functions that the guest sees.

use std::io;
use std::path::Path;
use std::sync::Arc;

use kvm_bindings::{kvm_create_device, kvm_device_type_KVM_DEV_TYPE_VFIO};
use kvm_ioctls::VmFd;
use thiserror::Error;
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSIX_IRQ_INDEX,
    VFIO_REGION_INFO_FLAG_MMAP,
};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioDeviceFd, VfioError, VfioRegionInfoCap};
use vm_memory::GuestMemoryBackend;

use super::bars::{BarShape, PAGE, mapped};
use super::config_space::{self, BarPart, ConfigSpace, MsixCapability};
use super::function::{AssignedFunction, Mapping, Parts};
use super::host_device::{HostDevice, HostDeviceError, PciAddress};
use super::msix::Msix;
use crate::machine::interrupts::{InterruptRouter, KvmMsiSink};
use crate::machine::memory::Memory;
use crate::pci::header::HEADER_TYPE;

const CONTAINER: &str = "/dev/vfio/vfio";
const BARS: usize = 0x10;
const IO_BAR: u8 = 0b1;

/// A device that cannot be assigned.
#[derive(Debug, Error)]
pub enum AssignError {
    /// The host does not give it away.
    #[error(transparent)]
    Host(#[from] HostDeviceError),
    /// Named twice.
    #[error("PCI device {0} is given twice with --vfio")]
    Twice(PciAddress),
    /// VFIO is not there.
    #[error("{path} is not there: load VFIO with `modprobe vfio-pci vfio_iommu_type1`")]
    NoVfio {
        /// What is not there.
        path: String,
    },
    /// Not for us.
    #[error("{path} may not be opened: run lockstorm as root, or `chown` that file to your user")]
    NoPermission {
        /// What may not be opened.
        path: String,
    },
    /// Somebody else has it.
    #[error("IOMMU group {group} is in use by another program, so PCI device {address} is too")]
    Busy {
        /// Which device.
        address: PciAddress,
        /// The group's number.
        group: u32,
    },
    /// An IOMMU of another kind.
    #[error("the host's VFIO offers no IOMMU of type 1, version 2: `modprobe vfio_iommu_type1`")]
    NoType1v2,
    /// Guest memory cannot be pinned.
    #[error(
        "the guest's memory cannot be pinned for PCI devices: {0}; all of it must stay in memory, \
         so it must fit, and `ulimit -l` must allow for it"
    )]
    Memory(#[source] VfioError),
    /// No MSI-X.
    #[error("PCI device {0} has no MSI-X, and lockstorm passes no other interrupts on")]
    NoMsix(PciAddress),
    /// A bridge.
    #[error("PCI device {0} is a bridge: only endpoints can be assigned")]
    Bridge(PciAddress),
    /// Its registers make no sense.
    #[error("PCI device {address} is broken: {what}")]
    Broken {
        /// Which device.
        address: PciAddress,
        /// What about it.
        what: String,
    },
    /// A BAR cannot be mapped.
    #[error("BAR {bar} of PCI device {address} cannot be mapped: {source}")]
    Map {
        /// Which device.
        address: PciAddress,
        /// Which BAR.
        bar: u8,
        /// What the host said.
        source: io::Error,
    },
    /// KVM knows no VFIO.
    #[error("KVM cannot work together with VFIO: {0}")]
    Kvm(kvm_ioctls::Error),
    /// Anything else.
    #[error("PCI device {address} cannot be opened through VFIO: {source}")]
    Vfio {
        /// Which device.
        address: PciAddress,
        /// What VFIO says.
        source: VfioError,
    },
}

/// Assigns the host's devices at `addresses` to the guest of `vm`, whose memory is `memory`. Their
/// interrupts go by `router`.
pub fn assign(
    addresses: &[PciAddress],
    vm: &Arc<VmFd>,
    memory: &Memory,
    router: &Arc<InterruptRouter>,
) -> Result<Vec<Arc<AssignedFunction>>, AssignError> {
    let mut hosts = Vec::new();
    for (index, &address) in addresses.iter().enumerate() {
        if addresses[..index].contains(&address) {
            return Err(AssignError::Twice(address));
        }
        hosts.push(HostDevice::find(Path::new("/sys"), address)?);
    }
    if hosts.is_empty() {
        return Ok(Vec::new());
    }
    let container = Arc::new(open_container(vm)?);
    // Behind those of memory.
    let mut slot = memory.num_regions() as u32;
    let mut functions = Vec::new();
    for host in &hosts {
        let device = VfioDevice::new(&host.folder, container.clone(), false)
            .map_err(|source| refused(host, source))?;
        if functions.is_empty() {
            // A container takes mappings once it has a device.
            //
            // SAFETY: the memory is shared with a guest as it is with the device: Rust code reaches
            // it only through vm-memory's volatile accesses. It is unmapped no earlier than the
            // devices are released, after which they access nothing.
            unsafe { container.vfio_map_guest_memory(memory) }.map_err(AssignError::Memory)?;
        }
        let sink = KvmMsiSink::new(Arc::clone(router));
        let function = put_together(host.address, device, vm, sink, &mut slot)?;
        functions.push(Arc::new(function));
    }
    Ok(functions)
}

/// KVM is told of the devices: it must know that there are some.
fn open_container(vm: &VmFd) -> Result<VfioContainer, AssignError> {
    let mut device = kvm_create_device {
        type_: kvm_device_type_KVM_DEV_TYPE_VFIO,
        ..kvm_create_device::default()
    };
    let device = vm.create_device(&mut device).map_err(AssignError::Kvm)?;
    let device = Arc::new(VfioDeviceFd::new_from_kvm(device));
    VfioContainer::new(Some(device)).map_err(|error| match error {
        VfioError::OpenContainer(source) => not_opened(CONTAINER.to_owned(), &source),
        _ => AssignError::NoType1v2,
    })
}

fn not_opened(path: String, error: &io::Error) -> AssignError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => AssignError::NoPermission { path },
        // ENOENT, ENODEV and ENXIO alike.
        _ => AssignError::NoVfio { path },
    }
}

fn refused(host: &HostDevice, error: VfioError) -> AssignError {
    let (address, group) = (host.address, host.group);
    match error {
        VfioError::OpenGroup(source, _) if source.raw_os_error() == Some(libc::EBUSY) => {
            AssignError::Busy { address, group }
        }
        VfioError::OpenGroup(source, _) => not_opened(format!("/dev/vfio/{group}"), &source),
        VfioError::ContainerSetIOMMU(_) => AssignError::NoType1v2,
        source => AssignError::Vfio { address, source },
    }
}

fn put_together(
    address: PciAddress,
    device: VfioDevice,
    vm: &Arc<VmFd>,
    sink: KvmMsiSink,
    slot: &mut u32,
) -> Result<AssignedFunction, AssignError> {
    let mut space = [0xff; config_space::SIZE];
    device.region_read(VFIO_PCI_CONFIG_REGION_INDEX, &mut space, 0);
    if space[..4] == [0xff; 4] {
        let what = "its configuration space cannot be read".to_owned();
        return Err(AssignError::Broken { address, what });
    }
    if space[HEADER_TYPE] & 0x7f != 0 {
        return Err(AssignError::Bridge(address));
    }
    let capability = MsixCapability::find(&space).ok_or(AssignError::NoMsix(address))?;
    let vectors = device.get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX);
    if vectors.is_none_or(|vectors| vectors.count != u32::from(capability.vectors)) {
        return Err(AssignError::NoMsix(address));
    }
    let bars = bars_of(address, &device, &space)?;
    let msix = Msix::new(capability.vectors, sink);
    let parts = [
        (capability.table, msix.table_size()),
        (capability.pending, msix.pending_size()),
    ];
    for (BarPart { bar, offset }, size) in parts {
        let fits = bars
            .get(usize::from(bar))
            .copied()
            .flatten()
            .is_some_and(|shape| offset + size <= shape.size);
        if !fits {
            let what = format!("its MSI-X table or pending bits are not in a memory BAR ({bar})");
            return Err(AssignError::Broken { address, what });
        }
    }
    let mut mappings = Vec::new();
    for (bar, shape) in (0_u8..).zip(bars) {
        let Some(shape) = shape else { continue };
        let trapped: Vec<_> = parts
            .iter()
            .filter(|(part, _)| part.bar == bar)
            .map(|(part, size)| part.offset..part.offset + size)
            .collect();
        for range in mapped(&mappable(&device, bar, shape), &trapped) {
            let mapping = Mapping::new(&device, bar, range, *slot);
            mappings.push(mapping.map_err(|source| AssignError::Map {
                address,
                bar,
                source,
            })?);
            *slot += 1;
        }
    }
    Ok(AssignedFunction::new(Parts {
        address,
        device,
        vm: Arc::clone(vm),
        capability,
        config: ConfigSpace::new(&space, bars, capability),
        msix,
        mappings,
    }))
}

/// The memory BARs, as the device's configuration space and VFIO tell of them.
fn bars_of(
    address: PciAddress,
    device: &VfioDevice,
    space: &[u8; config_space::SIZE],
) -> Result<[Option<BarShape>; 6], AssignError> {
    let mut bars = [None; 6];
    let mut upper_half = false;
    for (index, bar) in (0_u32..).zip(&mut bars) {
        let kind = space[BARS + 4 * index as usize] & 0xf;
        let size = device.get_region_size(VFIO_PCI_BAR0_REGION_INDEX + index);
        if std::mem::take(&mut upper_half) || size == 0 || kind & IO_BAR != 0 {
            continue;
        }
        let shape = BarShape { size, kind };
        upper_half = shape.is_64_bit();
        let sound = size.is_power_of_two()
            && size >= 16
            && if upper_half {
                index < 5
            } else {
                size < 1 << 32
            };
        if !sound {
            let what = format!("its BAR {index} has {size:#x} bytes and is of kind {kind:#x}");
            return Err(AssignError::Broken { address, what });
        }
        *bar = Some(shape);
    }
    Ok(bars)
}

/// What of a BAR can be mapped, by what VFIO says.
fn mappable(device: &VfioDevice, bar: u8, shape: BarShape) -> Vec<std::ops::Range<u64>> {
    let region = u32::from(bar);
    if device.get_region_flags(region) & VFIO_REGION_INFO_FLAG_MMAP == 0 || shape.size < PAGE {
        return Vec::new();
    }
    let mut parts = device.get_region_caps(region).into_iter();
    let parts = parts.find_map(|capability| match capability {
        VfioRegionInfoCap::SparseMmap(parts) => Some(parts.areas),
        _ => None,
    });
    match parts {
        None => std::iter::once(0..shape.size).collect(),
        Some(areas) => areas
            .iter()
            .map(|area| area.offset..area.offset.saturating_add(area.size).min(shape.size))
            .collect(),
    }
}
