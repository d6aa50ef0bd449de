// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The ACPI tables: a hardware-reduced platform (ACPI 6.5 §4.1) with COM1 and a PCIe host bridge.

use acpi_tables::aml::{self, AddressSpaceCacheable};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};

use super::layout;
use crate::devices::power;

const OEM_ID: [u8; 6] = *b"LOCKST";
const OEM_TABLE_ID: [u8; 8] = *b"LOCKSTRM";
const OEM_REVISION: u32 = 1;

/// IA-PC boot architecture flags (ACPI 6.5 §5.2.9.3): neither VGA nor CMOS clock nor, by absence
/// of their flags, 8042 keyboard controller and other legacy devices.
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_RTC: u16 = 1 << 5;

/// The tables as they go into guest memory.
#[derive(Debug)]
pub struct Tables {
    /// All tables, to be put at [`layout::ACPI`]'s start.
    pub image: Vec<u8>,
    /// Guest-physical address of the RSDP.
    pub rsdp: u64,
}

/// Builds the tables of a machine with `cpus` vCPUs whose APIC ids count from 0.
pub fn tables(cpus: u8) -> Tables {
    let mut image = Vec::new();
    let dsdt = place(&mut image, &dsdt());
    let fadt = place(&mut image, &fadt(dsdt));
    let madt = place(&mut image, &madt(cpus));
    let mcfg = place(&mut image, &mcfg());
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for table in [fadt, madt, mcfg] {
        xsdt.add_entry(table);
    }
    let xsdt = place(&mut image, &xsdt);
    let rsdp = place(&mut image, &Rsdp::new(OEM_ID, xsdt));
    Tables { image, rsdp }
}

/// Appends `table` and returns where it comes to lie.
fn place(image: &mut Vec<u8>, table: &dyn Aml) -> u64 {
    image.resize(image.len().next_multiple_of(16), 0);
    let address = layout::ACPI.start + image.len() as u64;
    table.to_aml_bytes(image);
    address
}

fn fadt(dsdt: u64) -> impl Aml {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Wbinvd)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_RTC).into();
    fadt.reset_reg = port(layout::POWER_PORT + power::RESET);
    fadt.reset_value = power::RESET_VALUE;
    fadt.sleep_control_reg = port(layout::POWER_PORT + power::SLEEP_CONTROL);
    fadt.sleep_status_reg = port(layout::POWER_PORT + power::SLEEP_STATUS);
    fadt.finalize()
}

fn port(port: u16) -> GAS {
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        port.into(),
    )
}

fn madt(cpus: u8) -> impl Aml {
    let controller = LocalInterruptController::Address(layout::LOCAL_APIC);
    let mut madt = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, controller);
    for id in 0..cpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IO_APIC, 0));
    madt
}

fn mcfg() -> impl Aml {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(layout::ECAM.start, 0, 0, layout::LAST_BUS);
    mcfg
}

fn dsdt() -> impl Aml {
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let devices = [com1(), host_bridge(), ecam_reservation()].concat();
    dsdt.append_slice(&aml::Scope::raw("_SB_".into(), devices));
    let soft_off = &power::SLEEP_TYPE_SOFT_OFF;
    let mut s5 = Vec::new();
    aml::Name::new("_S5_".into(), &aml::Package::new(vec![soft_off])).to_aml_bytes(&mut s5);
    dsdt.append_slice(&s5);
    dsdt
}

fn com1() -> Vec<u8> {
    let ports = aml::IO::new(
        layout::COM1_PORT,
        layout::COM1_PORT,
        1,
        layout::COM1_PORTS as u8,
    );
    // Consumed, edge-triggered, active high, not shared.
    let interrupt = aml::Interrupt::new(true, true, false, false, layout::COM1_GSI);
    device("COM1", "PNP0501", &[], vec![&ports, &interrupt])
}

fn host_bridge() -> Vec<u8> {
    let (low, high) = (layout::BAR_WINDOW_32, layout::BAR_WINDOW_64);
    let (low_start, low_last) = (low.start as u32, (low.end() - 1) as u32);
    let (port, ports) = (layout::PCI_CONFIG_PORT, layout::PCI_CONFIG_PORTS as u8);
    let uncached = AddressSpaceCacheable::NotCacheable;
    let buses = aml::AddressSpace::new_bus_number(0u16, layout::LAST_BUS.into());
    let ports = aml::IO::new(port, port, 1, ports);
    let low = aml::AddressSpace::new_memory(uncached, true, low_start, low_last, None);
    let high = aml::AddressSpace::new_memory(uncached, true, high.start, high.end() - 1, None);
    // A PCI Express bridge that older systems may take for a PCI one; segment 0, root bus 0.
    let compatible = aml::EISAName::new("PNP0A03");
    let more: [&dyn Aml; 4] = [
        &named("_CID", &compatible),
        &named("_SEG", &aml::ZERO),
        &named("_BBN", &aml::ZERO),
        &operating_system_control(),
    ];
    device("PCI0", "PNP0A08", &more, vec![&buses, &ports, &low, &high])
}

/// `_OSC` (ACPI 6.5 §6.2.11.3; PCI Firmware Specification 3.3 §4.5.1): the system may handle hot-plug
/// by the ports themselves, and so PCI Express capabilities. There is nothing else to be handled.
fn operating_system_control() -> Code {
    /// Of the first word.
    const UNRECOGNIZED_UUID: u32 = 1 << 2;
    const CAPABILITIES_MASKED: u32 = 1 << 4;
    /// Of the third word.
    const NATIVE_HOT_PLUG: u32 = 1 << 0;
    const EXPRESS_CAPABILITIES: u32 = 1 << 4;

    let (uuid, words, status) = (aml::Arg(0), aml::Arg(3), aml::Path::new("CDW1"));
    let (wanted, granted) = (aml::Path::new("CDW3"), aml::Local(0));
    let host_bridge = aml::Uuid::new("33db4d5b-1ff7-401c-9657-7441c03dd766");
    let mask = NATIVE_HOT_PLUG | EXPRESS_CAPABILITIES;

    let status_field = aml::CreateDWordField::new(&status, &words, &0_u8);
    let wanted_field = aml::CreateDWordField::new(&wanted, &words, &8_u8);
    let is_host_bridge = aml::Equal::new(&uuid, &host_bridge);
    let grant = aml::And::new(&granted, &wanted, &mask);
    let is_less = aml::NotEqual::new(&granted, &wanted);
    let say_less = aml::Or::new(&status, &status, &CAPABILITIES_MASKED);
    let if_less = aml::If::new(&is_less, vec![&say_less]);
    let answer = aml::Store::new(&wanted, &granted);
    let if_host_bridge = aml::If::new(
        &is_host_bridge,
        vec![&wanted_field, &grant, &if_less, &answer],
    );
    let say_unknown = aml::Or::new(&status, &status, &UNRECOGNIZED_UUID);
    let otherwise = aml::Else::new(vec![&say_unknown]);
    let result = aml::Return::new(&words);
    let body: Vec<&dyn Aml> = vec![&status_field, &if_host_bridge, &otherwise, &result];
    let mut code = Vec::new();
    aml::Method::new("_OSC".into(), 4, true, body).to_aml_bytes(&mut code);
    Code(code)
}

/// The PCI firmware specification (§4.1.2) wants the ECAM range to be a motherboard resource.
fn ecam_reservation() -> Vec<u8> {
    let (start, length) = (layout::ECAM.start as u32, layout::ECAM.length as u32);
    let range = aml::Memory32Fixed::new(true, start, length);
    device("MBRD", "PNP0C02", &[], vec![&range])
}

/// A device with an id, resources and `more` objects.
fn device(name: &str, id: &str, more: &[&dyn Aml], resources: Vec<&dyn Aml>) -> Vec<u8> {
    let (id, resources) = (
        aml::EISAName::new(id),
        aml::ResourceTemplate::new(resources),
    );
    let objects = [
        named("_HID", &id),
        named("_UID", &aml::ZERO),
        named("_CRS", &resources),
    ];
    let objects = objects.iter().map(|object| object as &dyn Aml);
    let children = objects.chain(more.iter().copied()).collect();
    let mut code = Vec::new();
    aml::Device::new(name.into(), children).to_aml_bytes(&mut code);
    code
}

/// Objects that are code already.
struct Code(Vec<u8>);

impl Aml for Code {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

fn named(name: &str, object: &dyn Aml) -> aml::Name {
    aml::Name::new(name.into(), object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u32_at(image: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(image[at..at + 4].try_into().unwrap())
    }

    fn u64_at(image: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(image[at..at + 8].try_into().unwrap())
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    /// Follows the pointers as a kernel does, from the RSDP on.
    fn walk(tables: &Tables) -> Vec<(String, Vec<u8>)> {
        let image = &tables.image;
        let offset = |address: u64| (address - layout::ACPI.start) as usize;
        let table = |address: u64| {
            let at = offset(address);
            let bytes = image[at..at + u32_at(image, at + 4) as usize].to_vec();
            assert_eq!(sum(&bytes), 0, "checksum of {:?}", &bytes[..4]);
            bytes
        };
        let rsdp = &image[offset(tables.rsdp)..];
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        assert_eq!((sum(&rsdp[..20]), sum(&rsdp[..36])), (0, 0));
        let xsdt = table(u64_at(rsdp, 24));
        let mut found: Vec<_> = xsdt[36..]
            .chunks(8)
            .map(|entry| table(u64_at(entry, 0)))
            .collect();
        let dsdt = found
            .iter()
            .find(|table| table.starts_with(b"FACP"))
            .unwrap();
        found.push(table(u64_at(dsdt, 140)));
        let name = |table: &[u8]| String::from_utf8(table[..4].to_vec()).unwrap();
        found
            .into_iter()
            .map(|table| (name(&table), table))
            .collect()
    }

    #[test]
    fn tables_are_reachable_and_whole() {
        for cpus in 1..=layout::CPUS_MAX {
            let tables = tables(cpus);
            assert!(tables.image.len() as u64 <= layout::ACPI.length);
            let found = walk(&tables);
            let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["FACP", "APIC", "MCFG", "DSDT"]);
            // One 8-byte entry per CPU and 12 bytes of I/O APIC after the 44-byte header.
            assert_eq!(found[1].1.len(), 44 + 8 * usize::from(cpus) + 12);
            assert_eq!(u64_at(&found[2].1, 44), layout::ECAM.start);
        }
    }

    #[test]
    fn fadt_names_the_power_registers() {
        let found = walk(&tables(1));
        let fadt = &found[0].1;
        assert_eq!(u32_at(fadt, 112) & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10);
        let base = u64::from(layout::POWER_PORT);
        for (at, register) in [
            (116, power::RESET),
            (244, power::SLEEP_CONTROL),
            (256, power::SLEEP_STATUS),
        ] {
            assert_eq!(fadt[at], 1, "I/O space");
            assert_eq!(u64_at(fadt, at + 4), base + u64::from(register));
        }
        assert_eq!(fadt[128], power::RESET_VALUE);
    }
}
