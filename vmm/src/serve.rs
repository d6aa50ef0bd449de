// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `lockstorm serve`: evgen devices for another VMM, and perhaps that VMM as a part of the run.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use thiserror::Error;

use crate::cli::Serve;
use crate::console::input::ConsoleInput;
use crate::console::output::{self, ConsoleOutput};
use crate::console::tell;
use crate::control::{Commands, ControlServer, Endpoint, EndpointError};
use crate::devices::evgen::{AddError, EvgenHost, StartError, Wiring};
use crate::devices::exit::ExitDevice;
use crate::devices::hot_plug::{HotPlug, SegmentSlots};
use crate::machine::clock::Clock;
use crate::machine::command_line::{self, Arguments};
use crate::machine::events::{Event, Events};
use crate::machine::memory::Memory;
use crate::machine::run_control::RunControl;
use crate::open_files;
use crate::other_vmm::{OtherVmm, Ports};
use crate::qmp::{PortsOfQemu, QemuSlots};
use crate::rate_limit::Occurrences;
use crate::run_loop::RunLoop;
use crate::signals;
use crate::socket_file::{SocketError, SocketFile};
use crate::supervisor::{Ending, Rules, status};
use crate::vfio_user::{EventfdSink, Eventfds, Interrupts, Served, VfioUserServer};

/// The first port of the guest's exit device, where a PC as QEMU emulates it has nothing else.
const EXIT_PORT: u16 = 0x5e0;

/// Why nothing is served.
#[derive(Debug, Error)]
pub enum Error {
    /// An option that is about a guest which lockstorm does not run.
    #[error("{0} needs a VMM to run the guest: -- VMM …")]
    NeedsVmm(&'static str),
    /// Slots that nobody could have anything put into.
    #[error("--ports needs --control PATH: devices are put into slots by `lockstorm ctl plug`")]
    NeedsControl,
    /// Arguments that the guest cannot be given.
    #[error(transparent)]
    CommandLine(#[from] command_line::Error),
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
    /// A device's socket's path will not do.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// No evgen devices.
    #[error(transparent)]
    Evgen(#[from] StartError),
    /// An evgen device cannot be made.
    #[error(transparent)]
    Device(#[from] AddError),
    /// No handler for a signal.
    #[error("cannot install a signal handler: {0}")]
    Signal(vmm_sys_util::errno::Error),
    /// The VMM does not run.
    #[error("cannot run {}: {source}", program.display())]
    Vmm {
        /// Its name.
        program: OsString,
        /// What the host said.
        source: io::Error,
    },
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
            Self::NeedsVmm(_)
            | Self::NeedsControl
            | Self::CommandLine(_)
            | Self::ConsoleLog { .. }
            | Self::Control(_)
            | Self::Socket(_) => status::USAGE,
            _ => status::UNAVAILABLE,
        }
    }

    fn host(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Host { what, source }
    }
}

/// Serves devices as `options` say until the run ends; returns how it did. Times count from `start`.
pub fn serve(options: &Serve, start: Instant) -> Result<Ending, Error> {
    check(options)?;
    open_files::raise_limit();
    let (events, inbox) = Events::channel();
    signals::watch(events.clone()).map_err(Error::host("the signals"))?;
    let endpoint = options.guest.control.as_deref();
    let endpoint = endpoint.map(Endpoint::open).transpose()?;
    let clock = Clock::new(start);
    let run_control = RunControl::new(clock.clone()).map_err(Error::Signal)?;
    let (evgen, server) = devices(options, &clock, events.clone())?;
    let hot_plug = slots(options, &evgen, &server)?;
    let control = endpoint.map(|endpoint| {
        let events = events.clone();
        let on_quit = move || events.send(Event::Quit("`quit` on the control socket"));
        // There are no vCPUs here: a pause is one of the devices alone.
        let (evgen, run_control) = (Arc::clone(&evgen), Arc::new(run_control));
        let commands = Commands::new(evgen, hot_plug, run_control, Arc::new([]));
        ControlServer::start(endpoint, Arc::new(commands), Box::new(on_quit))
    });
    let control = control
        .transpose()
        .map_err(Error::host("the control socket"))?;
    let guest = match options.vmm.is_empty() {
        true => None,
        false => Some(Guest::start(options, &clock, &events)?),
    };
    if guest.is_none() {
        tell(format_args!(
            "{} at {}; Ctrl-C ends it",
            count(options.devices.count),
            options.socket.display()
        ));
    }
    let mut run = RunLoop::new(rules(options), start, &evgen, &options.guest.storms);
    let ending = run.until_end(&inbox);
    run.storm.finish();
    // The guest first: it uses all the others.
    drop(guest);
    drop(control);
    drop(server);
    evgen.stop();
    if !run.timeline.is_empty() {
        tell(run.timeline);
    }
    Ok(run.storm.judge(ending))
}

/// Without a VMM there is no guest that could be told anything.
fn check(options: &Serve) -> Result<(), Error> {
    let guest = &options.guest;
    if options.ports > 0 && guest.control.is_none() {
        return Err(Error::NeedsControl);
    }
    let of_a_guest = [
        ("--append", guest.append.is_some()),
        ("--run", guest.run.is_some()),
        ("--console-log", guest.console_log.is_some()),
        ("--storm", !guest.storms.is_empty()),
    ];
    match of_a_guest.into_iter().find(|(_, given)| *given) {
        Some((option, _)) if options.vmm.is_empty() => Err(Error::NeedsVmm(option)),
        _ => Ok(()),
    }
}

fn rules(options: &Serve) -> Rules {
    let rules = options.guest.rules();
    Rules {
        boot_timeout: rules.boot_timeout.filter(|_| !options.vmm.is_empty()),
        ..rules
    }
}

fn count(devices: u8) -> String {
    match devices {
        1 => "one evgen device".to_owned(),
        _ => format!("{devices} evgen devices"),
    }
}

/// The devices, and what serves them.
fn devices(
    options: &Serve,
    clock: &Clock,
    events: Events,
) -> Result<(Arc<EvgenHost>, Arc<VfioUserServer>), Error> {
    let lost = Arc::<Occurrences>::default();
    let evgen = EvgenHost::start(Arc::clone(&lost), clock, events)?;
    let mut served = Vec::new();
    for number in 0..options.devices.count {
        let eventfds = Arc::new(Eventfds::new(Arc::clone(&lost)));
        let wiring = Wiring {
            sink: Box::new(EventfdSink(Arc::clone(&eventfds))),
            // There is none before a client lends it.
            memory: Memory::default(),
            doorbells: None,
        };
        let (_, device) = evgen.add(options.devices.config(), wiring)?;
        let path = device_socket(&options.socket, number.into());
        served.push(Served {
            socket: SocketFile::create("vfio-user socket", &path)?,
            device,
            interrupts: Interrupts::Eventfds(eventfds),
        });
    }
    let announce = options.vmm.is_empty();
    let server = VfioUserServer::start(served, announce);
    let server = server.map_err(Error::host("the vfio-user sockets"))?;
    Ok((Arc::new(evgen), Arc::new(server)))
}

/// QEMU's slots, if it has any.
fn slots(
    options: &Serve,
    evgen: &Arc<EvgenHost>,
    server: &Arc<VfioUserServer>,
) -> Result<Box<dyn HotPlug>, Error> {
    if options.ports == 0 {
        return Ok(Box::new(SegmentSlots::new(Arc::clone(evgen), None)));
    }
    let socket = options.socket.clone();
    let ports = PortsOfQemu {
        count: options.ports,
        usual: options.devices.config(),
        socket: Box::new(move |device| device_socket(&socket, device)),
    };
    let (evgen, server) = (Arc::clone(evgen), Arc::clone(server));
    let monitor = with_suffix(&options.socket, "qmp");
    Ok(Box::new(QemuSlots::new(evgen, server, ports, &monitor)?))
}

/// The socket of a device, by its number.
fn device_socket(first: &Path, device: usize) -> PathBuf {
    match device {
        0 => first.to_owned(),
        _ => with_suffix(first, &device.to_string()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// A guest in the VMM that is a part of the run. What goes first stands first.
struct Guest {
    _vmm: OtherVmm,
    _input: Option<ConsoleInput>,
    _console: ConsoleOutput,
}

impl Guest {
    fn start(options: &Serve, clock: &Clock, events: &Events) -> Result<Self, Error> {
        let arguments = Arguments {
            exit_port: EXIT_PORT,
            devices: options.devices.count,
            run: options.guest.run.as_deref(),
            append: options.guest.append.as_deref(),
        };
        let arguments = arguments.command_line()?;
        let log = options.guest.console_log.as_ref().map(|path| {
            output::create_log(path).map_err(|source| Error::ConsoleLog {
                path: path.clone(),
                source,
            })
        });
        let socket = |what, suffix| SocketFile::create(what, &with_suffix(&options.socket, suffix));
        let ports = Ports {
            status: socket("socket of the exit status", "status")?,
            marks: socket("socket of the marks", "marks")?,
        };
        let console = ConsoleOutput::start(log.transpose()?).map_err(Error::host("the console"))?;
        let (vmm, stdin) = OtherVmm::start(
            &options.vmm,
            &arguments.to_string_lossy(),
            options.guest.run.is_none(),
            console.writer(events.clone()),
            (ports, ExitDevice::new(clock.clone(), events.clone())),
            events.clone(),
        )
        .map_err(|source| Error::Vmm {
            program: options.vmm.first().cloned().unwrap_or_default(),
            source,
        })?;
        let input = stdin
            .map(|mut stdin| {
                // A VMM that has gone takes no keys, which is told elsewhere.
                let guest = move |keys: &[u8]| drop(stdin.write_all(keys));
                ConsoleInput::start(guest, events.clone())
            })
            .transpose()
            .map_err(Error::host("the console's input"))?;
        Ok(Self {
            _vmm: vmm,
            _input: input,
            _console: console,
        })
    }
}
