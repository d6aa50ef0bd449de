// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::sync::{Arc, Mutex};

use lockstorm_device_model::MsiMessage;

use super::*;

const COMMAND: u16 = 0x04;
const MEMORY_WINDOW: u16 = 0x20;
const BRIDGE_CONTROL: u16 = 0x3e;
const LINK_CONTROL: u16 = 0x50;
const LINK_STATUS: u16 = 0x52;
const SLOT_CONTROL: u16 = 0x58;
const SLOT_STATUS: u16 = 0x5a;
const MSI_CONTROL: u16 = 0x82;

/// Slot Control: the interrupt, and the events that Linux wants to hear of where there is a button.
const LISTEN: u16 = 0x1021;
/// Slot Control: the power light, with the attention light off.
const ON: u16 = 0x1c0;
const BLINKING: u16 = 0x2c0;
const OFF: u16 = 0x3c0;
/// Slot Status.
const BUTTON: u16 = 0x001;
const PRESENCE: u16 = 0x008;
const COMPLETED: u16 = 0x010;
const LINK_STATE: u16 = 0x100;
const OCCUPIED: u16 = 0x040;

/// What a port did with its interrupt.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<&'static str>>>);

impl MsiSink for Recorder {
    fn raise(&mut self, vector: u16, _message: MsiMessage) {
        assert_eq!(vector, 0);
        self.0.lock().unwrap().push("raise");
    }
    fn release(&mut self) {
        self.0.lock().unwrap().push("release");
    }
}

struct Bench {
    slot: Slot,
    recorder: Recorder,
}

impl Bench {
    /// A slot whose guest does not listen.
    fn new() -> Self {
        let recorder = Recorder::default();
        Self {
            slot: Slot::new(3, Box::new(recorder.clone())),
            recorder,
        }
    }

    /// A slot whose guest has set up what Linux does.
    fn listening() -> Self {
        let mut bench = Self::new();
        bench.write(COMMAND, 0x6);
        bench.write(MSI_CONTROL, 1);
        bench.write(SLOT_CONTROL, LISTEN | OFF);
        bench
    }

    /// The same with a device in it that is used.
    fn using() -> Self {
        let mut bench = Self::listening();
        bench.slot.put_in();
        bench.clear();
        bench.light(BLINKING);
        bench.light(ON);
        bench
    }

    /// The guest writes, and takes note that its command has completed.
    fn write(&mut self, register: u16, value: u16) -> Effects {
        let effects = self.slot.write(register, &value.to_le_bytes());
        if register == SLOT_CONTROL {
            self.slot.write(SLOT_STATUS, &COMPLETED.to_le_bytes());
        }
        effects
    }

    fn light(&mut self, light: u16) -> Effects {
        self.write(SLOT_CONTROL, LISTEN | light)
    }

    /// The guest clears the events that there are, and gives them.
    fn clear(&mut self) -> u16 {
        let events = self.read(SLOT_STATUS) & !OCCUPIED;
        self.write(SLOT_STATUS, events);
        self.did();
        events
    }

    fn read(&self, register: u16) -> u16 {
        let mut data = [0; 2];
        self.slot.registers().read(register, &mut data);
        u16::from_le_bytes(data)
    }

    fn link_is_up(&self) -> bool {
        self.read(LINK_STATUS) & 1 << 13 != 0
    }

    /// What was done with the interrupt since the last call.
    fn did(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.recorder.0.lock().unwrap())
    }
}

#[test]
fn a_device_comes_and_goes_with_its_link_and_one_interrupt_each() {
    let mut bench = Bench::listening();
    bench.slot.put_in();
    assert_eq!(bench.did(), ["raise"]);
    assert_eq!(bench.read(SLOT_STATUS), OCCUPIED | PRESENCE | LINK_STATE);
    assert!(bench.link_is_up());
    assert_eq!(bench.clear(), PRESENCE | LINK_STATE);
    bench.slot.take_out();
    assert_eq!(bench.did(), ["raise"]);
    assert_eq!(bench.read(SLOT_STATUS), PRESENCE | LINK_STATE);
    assert!(!bench.link_is_up());
}

#[test]
fn there_is_no_second_interrupt_before_all_events_are_cleared() {
    let mut bench = Bench::listening();
    bench.slot.put_in();
    bench.slot.take_out();
    bench.slot.put_in();
    assert_eq!(bench.did(), ["raise"]);
    // Presence does not interrupt, so the link's event is all that there is to be told.
    bench.write(SLOT_STATUS, PRESENCE);
    bench.slot.take_out();
    assert_eq!(bench.did(), [""; 0]);
    bench.write(SLOT_STATUS, LINK_STATE);
    bench.slot.put_in();
    assert_eq!(bench.did(), ["raise"]);
}

#[test]
fn a_command_completes_at_once_and_interrupts_who_wants_to_know() {
    let mut bench = Bench::listening();
    for (control, interrupts) in [
        (LISTEN | OFF, &[][..]),
        (LISTEN | OFF | 0x10, &["raise"]),
        // The same once more is a command too.
        (LISTEN | OFF | 0x10, &["raise"]),
        (0x10, &[]),
    ] {
        bench.slot.write(SLOT_CONTROL, &u16::to_le_bytes(control));
        assert_eq!(bench.read(SLOT_STATUS), COMPLETED, "{control:#x}");
        assert_eq!(bench.did(), interrupts, "{control:#x}");
        bench.clear();
    }
}

#[test]
fn what_happened_while_nobody_listened_is_told_when_somebody_does() {
    let ways = [
        (SLOT_CONTROL, LISTEN | OFF),
        (MSI_CONTROL, 1),
        (COMMAND, 0x6),
    ];
    for last in ways {
        let mut bench = Bench::new();
        bench.slot.put_in();
        for (register, value) in ways.into_iter().filter(|way| *way != last) {
            bench.write(register, value);
        }
        assert_eq!(bench.did(), [""; 0], "without {last:x?}");
        bench.write(last.0, last.1);
        assert_eq!(bench.did(), ["raise"], "with {last:x?}");
    }
}

#[test]
fn a_port_that_may_not_interrupt_any_more_gives_its_route_back() {
    for (register, value) in [(MSI_CONTROL, 0), (COMMAND, 0x2)] {
        let mut bench = Bench::listening();
        bench.write(register, value);
        assert_eq!(bench.did(), ["release"]);
        bench.write(register, value);
        bench.slot.put_in();
        assert_eq!(bench.did(), [""; 0]);
    }
}

#[test]
fn the_guest_lets_go_by_turning_the_power_light_off() {
    let mut bench = Bench::using();
    assert_eq!(bench.slot.ask(), Ok(Asked::Waiting));
    assert_eq!(bench.clear(), BUTTON);
    assert!(bench.slot.leaving() && bench.slot.used());
    assert!(!bench.light(BLINKING).released);
    assert!(bench.light(OFF).released);
    assert!(!bench.slot.used());
    bench.slot.take_out();
    // It may turn the light on and off as it likes now.
    assert!(!bench.light(ON).released && !bench.light(OFF).released);
    assert!(!bench.slot.leaving() && !bench.slot.used());
}

#[test]
fn a_guest_that_turns_the_light_on_again_keeps_the_device() {
    let mut bench = Bench::using();
    bench.slot.ask().unwrap();
    bench.light(BLINKING);
    bench.light(ON);
    assert!(!bench.slot.leaving() && bench.slot.used());
    // It turns the device off for reasons of its own.
    assert!(!bench.light(OFF).released);
    assert_eq!(bench.slot.ask(), Ok(Asked::Unused));
}

#[test]
fn asking_again_does_not_press_the_button_again() {
    let mut bench = Bench::using();
    for _ in 0..3 {
        assert_eq!(bench.slot.ask(), Ok(Asked::Waiting));
    }
    assert_eq!(bench.did(), ["raise"]);
    bench.clear();
    bench.light(BLINKING);
    assert_eq!(bench.slot.ask(), Ok(Asked::Waiting));
    assert_eq!(bench.read(SLOT_STATUS), OCCUPIED);
}

#[test]
fn who_cannot_be_asked() {
    let busy = Err(AskError::Busy { slot: 3 });
    let deaf = Err(AskError::Deaf { slot: 3 });
    // Slot Control as the guest writes it once the device is in use.
    for (control, answer) in [
        (LISTEN | OFF, Ok(Asked::Unused)),
        (LISTEN | BLINKING, busy),
        (LISTEN | ON, Ok(Asked::Waiting)),
        // Reserved.
        (LISTEN | 0xc0, Ok(Asked::Waiting)),
        (ON, deaf),
        // The interrupt without the button, and the other way round.
        (ON | 0x1020, deaf),
        (ON | 0x1001, deaf),
        (OFF, Ok(Asked::Unused)),
    ] {
        let mut bench = Bench::using();
        bench.write(SLOT_CONTROL, control);
        assert_eq!(bench.slot.ask(), answer, "{control:#x}");
        assert_eq!(bench.slot.leaving(), answer == Ok(Asked::Waiting));
        bench.slot.take_out();
        assert_eq!(bench.slot.ask(), Ok(Asked::Unused), "empty, {control:#x}");
    }
}

#[test]
fn a_light_that_is_on_since_another_device_says_nothing_of_this_one() {
    let mut bench = Bench::using();
    bench.slot.take_out();
    bench.slot.put_in();
    assert!(!bench.slot.used());
    assert_eq!(bench.slot.ask(), Err(AskError::Busy { slot: 3 }));
    // The guest takes the one out of use, and then the other in.
    bench.light(OFF);
    bench.light(BLINKING);
    assert!(!bench.slot.used());
    bench.light(ON);
    assert!(bench.slot.used());
    assert_eq!(bench.slot.ask(), Ok(Asked::Waiting));
}

#[test]
fn before_the_guest_listens_firmware_has_found_the_device() {
    let mut bench = Bench::new();
    bench.slot.put_in();
    assert!(bench.slot.used());
    assert_eq!(bench.slot.ask(), Err(AskError::Deaf { slot: 3 }));
    assert_eq!(bench.read(SLOT_CONTROL), ON);
    bench.light(ON);
    assert_eq!(bench.slot.ask(), Ok(Asked::Waiting));
    // One that goes leaves an empty slot with its light off.
    let mut bench = Bench::new();
    bench.slot.put_in();
    bench.slot.take_out();
    assert_eq!(bench.read(SLOT_CONTROL), OFF);
}

#[test]
fn the_link_is_down_as_long_as_the_guest_wants_it() {
    for (register, down) in [(LINK_CONTROL, 0x10), (BRIDGE_CONTROL, 0x40)] {
        let mut bench = Bench::using();
        assert!(bench.write(register, down).link_down);
        assert!(!bench.link_is_up());
        assert_eq!(bench.clear(), LINK_STATE);
        assert!(!bench.write(register, down).link_down);
        // What is put in meanwhile has no link either.
        bench.slot.take_out();
        bench.slot.put_in();
        assert_eq!(bench.clear(), PRESENCE);
        assert!(!bench.write(register, 0).link_down);
        assert!(bench.link_is_up());
        assert_eq!(bench.clear(), LINK_STATE);
    }
    let mut empty = Bench::listening();
    assert!(!empty.write(LINK_CONTROL, 0x10).link_down);
    assert!(!empty.write(LINK_CONTROL, 0).link_down);
    assert_eq!(empty.read(SLOT_STATUS), 0);
}

#[test]
fn others_hear_of_a_write_that_changes_what_is_passed_on() {
    let mut bench = Bench::listening();
    for (register, value, changes) in [
        // It is closed until it ends behind its beginning.
        (MEMORY_WINDOW, 0xc000, false),
        (MEMORY_WINDOW + 2, 0xc010, true),
        (MEMORY_WINDOW + 2, 0xc01f, false),
        (MEMORY_WINDOW, 0xc010, true),
        (COMMAND, 0x6, false),
        (COMMAND, 0x4, true),
        (SLOT_CONTROL, LISTEN | ON, false),
    ] {
        let forwarding = bench.write(register, value).forwarding;
        assert_eq!(forwarding, changes, "{value:#x} to {register:#x}");
    }
}
