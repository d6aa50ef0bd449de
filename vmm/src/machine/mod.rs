// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The machine: memory, vCPUs, interrupt controllers, boot and run control.

pub mod acpi;
pub mod bus;
pub mod bzimage;
pub mod clock;
pub mod command_line;
mod cpuid;
pub mod events;
pub mod exits;
pub mod interrupts;
pub mod kernel;
pub mod layout;
pub mod lent_memory;
pub mod memory;
pub mod pvh;
pub mod run_control;
mod vcpu;
pub mod vcpus;

use std::io;
use std::sync::Arc;

use kvm_ioctls::{Cap, Kvm, VmFd};
use thiserror::Error;

use bus::Bus;
use exits::ExitCounts;
use memory::Memory;
use vcpu::Vcpu;

/// KVM's interface has had this version since 2007.
const KVM_API_VERSION: i32 = 12;

/// Why there is no machine.
#[derive(Debug, Error)]
pub enum Error {
    /// No KVM on this host.
    #[error(
        "there is no /dev/kvm: load kvm-intel or kvm-amd, or run `scripts/boot.sh --accel nested`"
    )]
    NoKvm,
    /// KVM is there, but not for this user.
    #[error(
        "no permission for /dev/kvm: add yourself to its group (`sudo usermod -aG kvm $USER`, then \
         log in again), or run `scripts/boot.sh --accel nested`"
    )]
    NoPermission,
    /// KVM is there, but not the CPU for it.
    #[error(
        "this machine's KVM cannot run a stock kernel: its CPU shows neither vmx nor svm; run \
         `scripts/boot.sh --accel nested`"
    )]
    NoVirtualization,
    /// Some other failure to open it.
    #[error("cannot open /dev/kvm: {0}")]
    Open(#[source] io::Error),
    /// KVM lacks something that the machine is built on.
    #[error("this KVM has no {0}")]
    Missing(&'static str),
    /// KVM refuses to set something up.
    #[error("KVM refuses to {step}: {source}")]
    Kvm {
        /// What was tried.
        step: &'static str,
        /// What KVM said.
        source: kvm_ioctls::Error,
    },
    /// KVM does not take the guest's memory.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// A vCPU cannot be set up.
    #[error(transparent)]
    Vcpu(#[from] vcpu::Error),
    /// The CPUID does not fit.
    #[error("cannot describe the vCPUs' CPUID: {0:?}")]
    Cpuid(vmm_sys_util::fam::Error),
}

/// A machine before it runs: devices are added to its buses, images to its memory.
pub struct Machine {
    /// The virtual machine.
    pub vm: Arc<VmFd>,
    /// Its RAM.
    pub memory: Memory,
    /// Its I/O ports.
    pub ports: Arc<Bus>,
    /// Its memory-mapped devices.
    pub mmio: Arc<Bus>,
    /// Exits of its vCPUs, by their number.
    pub exits: Arc<[ExitCounts]>,
    kvm: Kvm,
    cpus: u8,
}

impl Machine {
    /// A machine with `cpus` vCPUs (1 to [`layout::CPUS_MAX`]) and `memory` as its RAM.
    pub fn new(cpus: u8, memory: Memory) -> Result<Self, Error> {
        let kvm = open_kvm()?;
        let vm = create_vm(&kvm)?;
        memory::attach(&vm, &memory)?;
        let step = |step| move |source| Error::Kvm { step, source };
        vm.set_tss_address(layout::KVM_TSS as usize)
            .map_err(step("set the TSS address"))?;
        vm.create_irq_chip()
            .map_err(step("create the interrupt controllers"))?;
        Ok(Self {
            vm: Arc::new(vm),
            memory,
            ports: Arc::default(),
            mmio: Arc::default(),
            exits: (0..cpus).map(|_| ExitCounts::default()).collect(),
            kvm,
            cpus,
        })
    }

    /// Creates the vCPUs; the first begins at `entry`, the others wait for it to start them.
    pub fn create_vcpus(&self, entry: u64) -> Result<Vec<Vcpu>, Error> {
        let step = |step| move |source| Error::Kvm { step, source };
        let supported = cpuid::supported(&self.kvm).map_err(step("list the CPUID it supports"))?;
        let mut vcpus = Vec::new();
        for id in 0..self.cpus {
            let fd = self
                .vm
                .create_vcpu(id.into())
                .map_err(step("create a vCPU"))?;
            let vcpu = Vcpu::new(id, fd, self);
            vcpu.reset(&cpuid::for_vcpu(&supported, id, self.cpus).map_err(Error::Cpuid)?)?;
            vcpus.push(vcpu);
        }
        if let Some(first) = vcpus.first() {
            first.enter_at(entry)?;
        }
        Ok(vcpus)
    }
}

fn open_kvm() -> Result<Kvm, Error> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => Error::NoKvm,
        libc::EACCES | libc::EPERM => Error::NoPermission,
        errno => Error::Open(io::Error::from_raw_os_error(errno)),
    })?;
    if !cpu_runs_guests() {
        return Err(Error::NoVirtualization);
    }
    if kvm.get_api_version() != KVM_API_VERSION {
        return Err(Error::Missing("stable interface (version 12)"));
    }
    for (capability, name) in [
        (Cap::Irqchip, "in-kernel interrupt controllers"),
        (Cap::Irqfd, "irqfd"),
        (Cap::IrqRouting, "interrupt routing"),
        (Cap::SignalMsi, "KVM_SIGNAL_MSI"),
        (Cap::Ioeventfd, "ioeventfd"),
        (Cap::UserMemory, "user memory regions"),
    ] {
        if !kvm.check_extension(capability) {
            return Err(Error::Missing(name));
        }
    }
    Ok(kvm)
}

fn create_vm(kvm: &Kvm) -> Result<VmFd, Error> {
    loop {
        match kvm.create_vm() {
            // A signal while KVM allocates.
            Err(error) if error.errno() == libc::EINTR => {}
            result => {
                return result.map_err(|source| Error::Kvm {
                    step: "create a VM",
                    source,
                });
            }
        }
    }
}

/// Whether the CPU has vmx or svm. There are KVMs that do without, but they emulate what a stock
/// kernel does first, and fail or crawl.
fn cpu_runs_guests() -> bool {
    // Without a /proc there is nothing to be known, and nothing speaks against it.
    let Ok(cpus) = std::fs::read_to_string("/proc/cpuinfo") else {
        return true;
    };
    cpus.lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| {
            line.split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        })
}
