// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the guest's CPUs say about themselves: what KVM supports, plus one socket whose cores are
//! the vCPUs, one thread each.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

// Leaf 1, EBX and ECX.
const INITIAL_APIC_ID_SHIFT: u32 = 24;
const LOGICAL_CPUS_SHIFT: u32 = 16;
const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
// Leaf 1, EDX: more than one logical CPU in the package.
const HTT: u32 = 1 << 28;

/// Topology leaf: sub-leaves name a level's type in ECX bits 15:8.
const TOPOLOGY: u32 = 0xb;
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// What KVM on this host supports for any guest.
pub fn supported(kvm: &Kvm) -> Result<CpuId, kvm_ioctls::Error> {
    let mut cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    // KVM leaves this bit to us: it needs the in-kernel local APIC, which the machine has.
    if kvm.check_extension(Cap::TscDeadlineTimer) {
        for entry in cpuid.as_mut_slice() {
            if entry.function == 1 {
                entry.ecx |= TSC_DEADLINE;
            }
        }
    }
    Ok(cpuid)
}

/// `supported` for the vCPU with APIC id `id` of `cpus`.
pub fn for_vcpu(supported: &CpuId, id: u8, cpus: u8) -> Result<CpuId, vmm_sys_util::fam::Error> {
    let (id, cpus) = (u32::from(id), u32::from(cpus));
    let id_bits = cpus.next_power_of_two().trailing_zeros();
    let mut entries: Vec<_> = supported
        .as_slice()
        .iter()
        // These describe the host's topology, and newer ones would win over leaf 0xb.
        .filter(|entry| ![TOPOLOGY, 0x1f, 0x8000_0026].contains(&entry.function))
        .copied()
        .collect();
    for entry in &mut entries {
        match entry.function {
            0x1 => {
                entry.ebx &= 0xffff;
                entry.ebx |= id << INITIAL_APIC_ID_SHIFT | cpus << LOGICAL_CPUS_SHIFT;
                entry.ecx |= X2APIC | HYPERVISOR;
                entry.edx = if cpus > 1 {
                    entry.edx | HTT
                } else {
                    entry.edx & !HTT
                };
            }
            // Caches: cores in the package (31:26); level 3 is shared by all, the others by none.
            0x4 => {
                let level = entry.eax >> 5 & 7;
                let sharing = if level == 3 { cpus - 1 } else { 0 };
                entry.eax = entry.eax & 0x3fff | (cpus - 1) << 26 | sharing << 14;
            }
            // AMD: the number of cores, and how many bits of the APIC id number them.
            0x8000_0008 => entry.ecx = id_bits << 12 | (cpus - 1),
            // AMD: as leaf 4, for the caches.
            0x8000_001d => {
                let level = entry.eax >> 5 & 7;
                let sharing = if level == 3 { cpus - 1 } else { 0 };
                entry.eax = entry.eax & 0x3fff | sharing << 14;
            }
            // AMD: APIC id, core id with one thread per core, one node.
            0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (id, id, 0),
            _ => {}
        }
    }
    let level = |index, shift, count, kind: u32| kvm_cpuid_entry2 {
        function: TOPOLOGY,
        index,
        flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: kind << 8 | index,
        edx: id,
        ..Default::default()
    };
    entries.push(level(0, 0, 1, LEVEL_THREAD));
    entries.push(level(1, id_bits, cpus, LEVEL_CORE));
    entries.push(level(2, 0, 0, 0));
    CpuId::from_entries(&entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topology_is_the_vcpus() {
        let host = |function, eax, ebx, ecx, edx| kvm_cpuid_entry2 {
            function,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        };
        let supported = CpuId::from_entries(&[
            host(0x0, 0xd, 1, 2, 3),
            host(0x1, 0, 0x3f40_0800, 0, 0),
            host(0xb, 7, 64, 0x201, 0x3f),
            host(0x8000_0008, 0x3030, 0, 0x603f, 0),
            host(0x8000_001e, 0x3f, 0x11f, 3, 0),
        ])
        .unwrap();
        let cpuid = for_vcpu(&supported, 2, 3).unwrap();
        let find = |function, index| {
            let mut entries = cpuid.as_slice().iter();
            entries
                .find(|entry| (entry.function, entry.index) == (function, index))
                .unwrap()
        };
        assert_eq!(find(1, 0).ebx, 0x0203_0800);
        assert_eq!(find(1, 0).ecx, X2APIC | HYPERVISOR);
        assert_eq!(find(1, 0).edx, HTT);
        let core = find(0xb, 1);
        assert_eq!((core.eax, core.ebx, core.ecx, core.edx), (2, 3, 0x201, 2));
        assert_eq!(find(0xb, 0).ebx, 1);
        assert_eq!(find(0x8000_0008, 0).ecx, 0x2002);
        assert_eq!((find(0x8000_001e, 0).eax, find(0x8000_001e, 0).ebx), (2, 2));
        assert_eq!(find(0, 0).eax, 0xd);
    }
}
