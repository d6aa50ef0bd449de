// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `lockstorm boot`: puts the machine together, runs it and tells how it ended.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use thiserror::Error;

use crate::cli::{Boot, Msi};
use crate::console::input::ConsoleInput;
use crate::console::output::{self, ConsoleOutput};
use crate::console::tell;
use crate::control::{Commands, ControlServer, Endpoint, EndpointError};
use crate::devices::evgen::{AddError, EvgenHost, StartError, Wiring};
use crate::devices::exit::ExitDevice;
use crate::devices::hot_plug::{SegmentSlots, Slots};
use crate::devices::power::PowerRegisters;
use crate::devices::serial::SerialPort;
use crate::machine::bus::{BusDevice, RangeError};
use crate::machine::clock::Clock;
use crate::machine::command_line::{self, Arguments};
use crate::machine::events::{Event, Events};
use crate::machine::interrupts::{InterruptRouter, KvmMsiSink};
use crate::machine::run_control::RunControl;
use crate::machine::vcpus::{self, Vcpus};
use crate::machine::{self, Machine, kernel, layout, memory, pvh};
use crate::open_files;
use crate::pci::vfio::{AssignError, AssignedFunction, assign};
use crate::pci::{ConfigPorts, Ecam, RootPort, Segment, SegmentError, WindowError, Windows};
use crate::run_loop::RunLoop;
use crate::signals;
use crate::supervisor::{Ending, status};

/// Why the run did not come about.
#[derive(Debug, Error)]
pub enum Error {
    /// Arguments that the guest cannot be given.
    #[error(transparent)]
    CommandLine(#[from] command_line::Error),
    /// Images that cannot be booted.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// The console log cannot be written.
    #[error("cannot write --console-log {path}: {source}", path = path.display())]
    ConsoleLog {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The control socket's path will not do.
    #[error(transparent)]
    Control(#[from] EndpointError),
    /// No guest memory.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// No machine.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// No boot data.
    #[error(transparent)]
    BootData(#[from] pvh::Error),
    /// No evgen devices.
    #[error(transparent)]
    Evgen(#[from] StartError),
    /// An evgen device cannot be made.
    #[error(transparent)]
    Device(#[from] AddError),
    /// A device of the host cannot be assigned.
    #[error(transparent)]
    Vfio(#[from] AssignError),
    /// A device has no place on a bus.
    #[error(transparent)]
    Bus(#[from] RangeError),
    /// A function has no place on the PCI bus.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// No place for BARs.
    #[error(transparent)]
    Windows(#[from] WindowError),
    /// No vCPU threads.
    #[error(transparent)]
    Vcpus(#[from] vcpus::Error),
    /// No handler for the signal that makes a vCPU leave the guest.
    #[error("cannot install the vCPUs' signal handler: {0}")]
    Signal(vmm_sys_util::errno::Error),
    /// The host gives no thread, no eventfd or the like.
    #[error("cannot set up {what}: {source}")]
    Host {
        /// For what it is needed.
        what: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

impl Error {
    /// The exit status that tells of it.
    pub fn status(&self) -> u8 {
        match self {
            Self::CommandLine(_)
            | Self::Kernel(_)
            | Self::ConsoleLog { .. }
            | Self::Control(_)
            | Self::Segment(SegmentError::NoPlace) => status::USAGE,
            _ => status::UNAVAILABLE,
        }
    }

    fn host(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Host { what, source }
    }
}

/// Boots a guest as `options` say and returns how its run ended. Times count from `start`.
pub fn boot(options: &Boot, start: Instant) -> Result<Ending, Error> {
    open_files::raise_limit();
    let (events, inbox) = Events::channel();
    signals::watch(events.clone()).map_err(Error::host("the signals"))?;
    // Before the console log is emptied: it may be that of the machine that has the control socket.
    let endpoint = options
        .guest
        .control
        .as_deref()
        .map(Endpoint::open)
        .transpose()?;
    let (memory, entry) = load(options)?;
    let log = options.guest.console_log.as_ref().map(|path| {
        output::create_log(path).map_err(|source| Error::ConsoleLog {
            path: path.clone(),
            source,
        })
    });

    let machine = Machine::new(options.cpus, memory)?;
    let console = ConsoleOutput::start(log.transpose()?).map_err(Error::host("the console"))?;
    let serial = SerialPort::new(&machine.vm, console.writer(events.clone()))
        .map_err(Error::host("the serial port"))?;
    let serial = Arc::new(serial);
    let run_control = RunControl::new(Clock::new(start)).map_err(Error::Signal)?;
    let run_control = Arc::new(run_control);
    let clock = run_control.clock();
    let Devices {
        evgen,
        hot_plug,
        assigned,
    } = add_devices(&machine, options, clock, events.clone())?;
    let exit = Arc::new(ExitDevice::new(clock.clone(), events.clone()));
    let ports: [(u16, u16, Arc<dyn BusDevice>); 3] = [
        (layout::COM1_PORT, layout::COM1_PORTS, serial.clone()),
        (layout::EXIT_PORT, layout::EXIT_PORTS, exit),
        (
            layout::POWER_PORT,
            layout::POWER_PORTS,
            Arc::new(PowerRegisters),
        ),
    ];
    for (port, count, device) in ports {
        machine.ports.insert(port.into(), count.into(), device)?;
    }
    let control = endpoint.map(|endpoint| {
        let events = events.clone();
        let on_quit = move || events.send(Event::Quit("`quit` on the control socket"));
        let commands = Commands::new(
            Arc::clone(&evgen),
            Box::new(hot_plug),
            Arc::clone(&run_control),
            Arc::clone(&machine.exits),
        );
        ControlServer::start(endpoint, Arc::new(commands), Box::new(on_quit))
    });
    let control = control
        .transpose()
        .map_err(Error::host("the control socket"))?;

    let vcpus = machine.create_vcpus(entry)?;
    let input = match options.guest.run {
        Some(_) => None,
        None => Some(
            ConsoleInput::start(move |keys: &[u8]| serial.receive(keys), events.clone())
                .map_err(Error::host("the console's input"))?,
        ),
    };
    let vcpus = Vcpus::start(vcpus, &run_control, &events)?;
    let rules = options.guest.rules();
    let mut run = RunLoop::new(rules, start, &evgen, &options.guest.storms);
    let ending = run.until_end(&inbox);
    run.storm.finish();
    // The guest first: it uses all the others.
    drop(vcpus);
    for function in assigned {
        function.release();
    }
    if ending.status == status::TIMEOUT {
        tell_where(&inbox);
    }
    drop(control);
    evgen.stop();
    drop(input);
    drop(console);
    if !run.timeline.is_empty() {
        tell(run.timeline);
    }
    Ok(run.storm.judge(ending))
}

/// Guest memory with everything in it that a kernel needs, and the kernel's entry point.
fn load(options: &Boot) -> Result<(memory::Memory, u64), Error> {
    let arguments = Arguments {
        exit_port: layout::EXIT_PORT,
        devices: options.devices.count,
        run: options.guest.run.as_deref(),
        append: options.guest.append.as_deref(),
    };
    let command_line = arguments.command_line()?;
    let memory = memory::create(options.mem)?;
    let kernel = kernel::load(&memory, &options.kernel)?;
    let initramfs = kernel::load_initramfs(&memory, options.mem, kernel, &options.initramfs)?;
    pvh::write_boot_data(&memory, options.mem, options.cpus, &command_line, initramfs)?;
    Ok((memory, kernel.entry))
}

/// What sits on the PCI buses.
struct Devices {
    evgen: Arc<EvgenHost>,
    hot_plug: SegmentSlots,
    /// Devices of the host, to be given back in the end.
    assigned: Vec<Arc<AssignedFunction>>,
}

/// Puts the PCI buses with their evgen devices, those of the host and slots into `machine`.
fn add_devices(
    machine: &Machine,
    options: &Boot,
    clock: &Clock,
    events: Events,
) -> Result<Devices, Error> {
    let router = InterruptRouter::new(machine.vm.clone());
    let router = Arc::new(match options.msi {
        Msi::Irqfd => router,
        Msi::Signal => router.without_irqfds(),
    });
    let config = options.devices.config();
    let evgen = EvgenHost::start(Arc::clone(router.lost()), clock, events)?;
    let (low, high) = (layout::BAR_WINDOW_32, layout::BAR_WINDOW_64);
    let windows = Windows::new(low.start..low.end(), high.start..high.end())?;
    let mut segment = Segment::new(Arc::clone(&machine.mmio), windows);
    let ports = (1..=options.ports).map(|number| {
        let sink = KvmMsiSink::new(Arc::clone(&router));
        RootPort::new(number, Box::new(sink))
    });
    let ports: Vec<_> = ports.collect();
    let assigned = assign(&options.vfio, &machine.vm, &machine.memory, &router)?;
    let (vm, memory) = (Arc::clone(&machine.vm), machine.memory.clone());
    let wiring = move || Wiring {
        sink: Box::new(KvmMsiSink::new(Arc::clone(&router))),
        memory: memory.clone(),
        doorbells: Some(vm.clone()),
    };
    for _ in 0..options.devices.count {
        let (_, function) = evgen.add(config, wiring())?;
        segment.add(function)?;
    }
    for function in &assigned {
        segment.add(function.clone())?;
    }
    for port in ports {
        segment.add_port(port)?;
    }
    let (evgen, segment) = (Arc::new(evgen), Arc::new(segment));
    let ecam = Arc::new(Ecam::new(Arc::clone(&segment)));
    machine
        .mmio
        .insert(layout::ECAM.start, layout::ECAM.length, ecam)?;
    machine.ports.insert(
        layout::PCI_CONFIG_PORT.into(),
        layout::PCI_CONFIG_PORTS.into(),
        Arc::new(ConfigPorts::new(Arc::clone(&segment))),
    )?;
    let slots = Slots {
        segment,
        wiring: Box::new(wiring),
        usual: config,
    };
    let hot_plug = SegmentSlots::new(Arc::clone(&evgen), Some(slots));
    Ok(Devices {
        evgen,
        hot_plug,
        assigned,
    })
}

/// A guest that hangs hangs somewhere.
fn tell_where(inbox: &Receiver<Event>) {
    for event in inbox.try_iter() {
        if let Event::Left(position) = event {
            tell(position);
        }
    }
}
