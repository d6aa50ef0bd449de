// SPDX-License-Identifier: Apache-2.0 OR MIT

//! COM1: a 16550A whose output goes to the console and whose input comes from the user.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kvm_ioctls::VmFd;
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::console::output::ConsoleWriter;
use crate::machine::bus::{BusDevice, Outcome};
use crate::machine::layout;

/// Input that waits for the guest to read; what exceeds it is dropped.
const INPUT_MAX: usize = 1 << 16;

/// The serial port.
///
/// The lock covers the registers and the waiting input. vCPU threads take it, and the input thread.
/// The console's queue is locked inside it.
pub struct SerialPort {
    uart: Mutex<Uart>,
}

struct Uart {
    registers: Serial<Interrupt, NoEvents, ConsoleWriter>,
    input: VecDeque<u8>,
}

struct Interrupt(EventFd);

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

impl SerialPort {
    /// A port that raises [`layout::COM1_GSI`] of `vm` and writes to `console`.
    pub fn new(vm: &VmFd, console: ConsoleWriter) -> io::Result<Self> {
        let interrupt = EventFd::new(EFD_NONBLOCK)?;
        vm.register_irqfd(&interrupt, layout::COM1_GSI)
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        Ok(Self::with_interrupt(interrupt, console))
    }

    fn with_interrupt(interrupt: EventFd, console: ConsoleWriter) -> Self {
        let registers = Serial::new(Interrupt(interrupt), console);
        Self {
            uart: Mutex::new(Uart {
                registers,
                input: VecDeque::new(),
            }),
        }
    }

    /// Hands `bytes` to the guest, in order, as fast as it reads them.
    pub fn receive(&self, bytes: &[u8]) {
        let mut uart = self.lock();
        let room = INPUT_MAX.saturating_sub(uart.input.len()).min(bytes.len());
        uart.input.extend(&bytes[..room]);
        uart.refill();
    }

    fn lock(&self) -> MutexGuard<'_, Uart> {
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Uart {
    /// Moves waiting input into the receive FIFO as far as there is room.
    fn refill(&mut self) {
        let count = self.registers.fifo_capacity().min(self.input.len());
        if count == 0 {
            return;
        }
        let bytes: Vec<u8> = self.input.iter().take(count).copied().collect();
        // In loop-back mode the port takes nothing: the input waits. The interrupt cannot fail:
        // the eventfd's count is read by KVM at once.
        let taken = self.registers.enqueue_raw_bytes(&bytes).unwrap_or(0);
        self.input.drain(..taken);
    }
}

impl BusDevice for SerialPort {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut uart = self.lock();
        for (register, byte) in (offset as u8..).zip(data) {
            *byte = uart.registers.read(register);
        }
        uart.refill();
    }

    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        let mut uart = self.lock();
        for (register, byte) in (offset as u8..).zip(data) {
            // The console never fails, and the interrupt cannot (see `refill`).
            let _ = uart.registers.write(register, *byte);
        }
        Outcome::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::output::ConsoleOutput;
    use crate::machine::events::Events;

    const DATA: u64 = 0;
    const INTERRUPT_ENABLE: u64 = 1;
    const LINE_STATUS: u64 = 5;

    #[test]
    fn long_input_arrives_whole_and_raises_the_interrupt() {
        let (events, _receiver) = Events::channel();
        let console = ConsoleOutput::start(None).unwrap();
        let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
        let raised = interrupt.try_clone().unwrap();
        let port = SerialPort::with_interrupt(interrupt, console.writer(events));
        port.write(INTERRUPT_ENABLE, &[1]);
        let typed: Vec<u8> = (0..1000u32).map(|value| value as u8).collect();
        port.receive(&typed);
        assert!(raised.read().is_ok());
        let read = |register| {
            let mut byte = [0];
            port.read(register, &mut byte);
            byte[0]
        };
        let mut received = Vec::new();
        while read(LINE_STATUS) & 1 != 0 {
            received.push(read(DATA));
        }
        assert_eq!(received, typed);
    }

    #[test]
    fn input_that_nobody_reads_is_bounded() {
        let (events, _receiver) = Events::channel();
        let console = ConsoleOutput::start(None).unwrap();
        let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
        let port = SerialPort::with_interrupt(interrupt, console.writer(events));
        for _ in 0..10 {
            port.receive(&[7; INPUT_MAX / 2]);
        }
        assert!(port.lock().input.len() <= INPUT_MAX);
    }
}
