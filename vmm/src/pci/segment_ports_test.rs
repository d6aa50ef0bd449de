// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Root ports, and the functions behind them.

use std::sync::atomic::Ordering;

use super::tests::{Function, HIGH, NoSink, at, look, setup};
use super::*;
use crate::pci::Light;

const COMMAND: u64 = 0x04;
const BAR0: u64 = 0x10;
const BAR2: u64 = 0x18;
const BUSES: u64 = 0x18;
const MEMORY_WINDOW: u64 = 0x20;
const PREFETCHABLE_WINDOW: u64 = 0x24;
const PREFETCHABLE_HIGH: u64 = 0x28;
const BRIDGE_CONTROL: u64 = 0x3e;
const SLOT_CONTROL: u64 = 0x58;
/// Slot Control: all that a guest listens to, and the power light.
const ON: u16 = 0x11e9;
const BLINKING: u16 = 0x12e9;
const OFF: u16 = 0x13e9;
const IDENTITY: [u8; 4] = [0x34, 0x12, 0x56, 0x45];

/// The host bridge and `ports` ports, in slots 1 and on. As Linux leaves them, port N leads to bus N
/// and has 2 MiB of memory for it.
fn with_ports(ports: u8) -> Segment {
    let (mut segment, _) = setup(0);
    for number in 1..=ports {
        segment
            .add_port(RootPort::new(number, Box::new(NoSink)))
            .unwrap();
        let slot = u64::from(number);
        segment.write(at(slot, BUSES), &[0, number, number]);
        segment.write(at(slot, MEMORY_WINDOW), &window(number).concat());
        segment.write(at(slot, COMMAND), &[0b110]);
        segment.write(at(slot, SLOT_CONTROL), &OFF.to_le_bytes());
    }
    segment
}

/// First and last MiB of port `number`'s window, as the registers have them.
fn window(number: u8) -> [[u8; 2]; 2] {
    let base = 0xc000 + 0x20 * u16::from(number);
    [base, base + 0x10].map(u16::to_le_bytes)
}

/// The address that the window begins at.
fn first(number: u8) -> u64 {
    u64::from(u16::from_le_bytes(window(number)[0])) << 16
}

/// A configuration address behind a port.
fn behind(bus: u64, register: u64) -> u64 {
    bus << BUS_SHIFT | register
}

fn port(segment: &Segment, number: u8) -> &RootPort {
    let mut ports = segment.ports();
    ports.find(|port| port.number() == number).unwrap()
}

/// Puts a function behind port `number`, which takes it into use with its BAR 0 at `address`.
fn put_in(segment: &Segment, number: u8, address: u64) -> Arc<Function> {
    let function = Function::new();
    assert!(segment.put_in(port(segment, number), function.clone()));
    light(segment, number, BLINKING);
    let bus = number.into();
    segment.write(behind(bus, BAR0), &(address as u32).to_le_bytes());
    segment.write(behind(bus, COMMAND), &[0b10]);
    light(segment, number, ON);
    function.heard();
    function
}

fn light(segment: &Segment, number: u8, light: u16) {
    let address = at(number.into(), SLOT_CONTROL);
    segment.write(address, &light.to_le_bytes());
}

fn identity(segment: &Segment, address: u64) -> [u8; 4] {
    let mut data = [0; 4];
    segment.read(address, &mut data);
    data
}

#[test]
fn a_function_behind_a_port_is_device_0_of_its_bus_and_nothing_else() {
    let segment = with_ports(2);
    put_in(&segment, 2, first(2));
    segment.write(at(2, BUSES), &[0, 5, 9]);
    for (address, answers) in [
        (behind(5, 0), true),
        // Neither another device nor another function, nor on the buses that are further on.
        (behind(5, (FUNCTIONS as u64) << REGISTER_BITS), false),
        (behind(5, 1 << REGISTER_BITS), false),
        (behind(6, 0), false),
        (behind(9, 0), false),
        // Nor where it was before, nor behind the empty port.
        (behind(2, 0), false),
        (behind(1, 0), false),
        (behind(255, 0), false),
        (behind(256 + 5, 0), false),
    ] {
        let expected = if answers { IDENTITY } else { [0xff; 4] };
        assert_eq!(identity(&segment, address), expected, "{address:#x}");
        segment.write(address, &[0; 4]);
    }
    // The port itself is on the root bus.
    assert_eq!(identity(&segment, at(2, 0)), [0x36, 0x1b, 0x0c, 0x00]);
}

#[test]
fn whatever_bus_numbers_a_guest_writes_one_function_answers_or_none() {
    let segment = with_ports(2);
    let functions = [1, 2].map(|number| put_in(&segment, number, first(number)));
    for (buses, answering) in [
        ([[0, 1, 1], [0, 2, 2]], [(1, Some(0)), (2, Some(1))]),
        // Both the same: the first.
        ([[0, 3, 3], [0, 3, 3]], [(3, Some(0)), (4, None)]),
        // One inside the other's range.
        ([[0, 1, 255], [0, 2, 2]], [(1, Some(0)), (2, Some(1))]),
        // The root bus cannot be behind a port.
        ([[0, 0, 0], [0, 0, 255]], [(1, None), (2, None)]),
        ([[0, 4, 3], [9, 255, 255]], [(4, None), (255, Some(1))]),
    ] {
        for (slot, buses) in (1..).zip(buses) {
            segment.write(at(slot, BUSES), &buses);
        }
        for function in &functions {
            function.widths.lock().unwrap().clear();
        }
        for (bus, expected) in answering {
            segment.write(behind(bus, 0x3c), &[0x5a]);
            let mut data = [0];
            segment.read(behind(bus, 0x3c), &mut data);
            let here = expected.map_or(0xff, |_| 0x5a);
            assert_eq!(data, [here], "{buses:?}, bus {bus}");
            let reached = functions.each_ref().map(|function| {
                let mut widths = function.widths.lock().unwrap();
                !std::mem::take(&mut *widths).is_empty()
            });
            let only = [0, 1].map(|function| expected == Some(function));
            assert_eq!(reached, only, "{buses:?}, bus {bus}");
        }
        assert_eq!(identity(&segment, 0), [0x36, 0x1b, 0x08, 0x00]);
    }
}

#[test]
fn a_bar_answers_where_all_that_leads_to_it_passes_accesses_on() {
    let segment = with_ports(1);
    let address = first(1) + 0x1_0000;
    let function = put_in(&segment, 1, address);
    assert_eq!(look(&segment, address), 0);

    // The port's window moves away or is closed; or its Memory Space Enable is clear.
    let [base, limit] = window(1);
    let back = [base, limit].concat();
    for (register, away, back) in [
        (MEMORY_WINDOW, window(7).concat(), back.clone()),
        (MEMORY_WINDOW, [limit, base].concat(), back),
        (COMMAND, vec![0b100], vec![0b110]),
    ] {
        segment.write(at(1, register), &away);
        assert_eq!(function.heard(), [(0, None)], "{register:#x}");
        assert_eq!(look(&segment, address), 0xff);
        segment.write(at(1, register), &back);
        assert_eq!(function.heard(), [(0, Some(address))], "{register:#x}");
        assert_eq!(look(&segment, address), 0);
    }

    // Out of the window on its own.
    for elsewhere in [first(7), first(1) + 0x20_0000, 0] {
        segment.write(behind(1, BAR0), &(elsewhere as u32).to_le_bytes());
        assert_eq!(function.heard(), [(0, None)], "{elsewhere:#x}");
        segment.write(behind(1, BAR0), &(address as u32).to_le_bytes());
        function.heard();
    }
}

#[test]
fn windows_on_top_of_each_other_lead_each_access_to_one_function() {
    let segment = with_ports(2);
    segment.write(at(2, MEMORY_WINDOW), &window(1).concat());
    let one = put_in(&segment, 1, first(1));
    let other = put_in(&segment, 2, first(1));
    let place = |address: u64| {
        segment.write(behind(2, BAR0), &(address as u32).to_le_bytes());
        other.heard()
    };
    assert_eq!(place(first(1) + 0x2000), [(0, Some(first(1) + 0x2000))]);
    assert_eq!(place(first(1)), [(0, None)]);
    // The one that is in the way goes.
    segment.write(behind(1, COMMAND), &[0]);
    assert_eq!(one.heard(), [(0, None)]);
    assert_eq!(other.heard(), [(0, Some(first(1)))]);
}

#[test]
fn the_prefetchable_window_reaches_above_4_gib() {
    let segment = with_ports(1);
    let function = put_in(&segment, 1, first(1));
    let high = HIGH + 0x20_0000;
    segment.write(behind(1, BAR2), &high.to_le_bytes());
    assert_eq!(function.heard(), []);
    let low = ((high >> 16) as u16).to_le_bytes();
    let upper = ((high >> 32) as u32).to_le_bytes();
    segment.write(at(1, PREFETCHABLE_WINDOW), &[low, low].concat());
    segment.write(at(1, PREFETCHABLE_HIGH), &[upper, upper].concat());
    assert_eq!(function.heard(), [(2, Some(high))]);
    assert_eq!(look(&segment, high), 2);
}

#[test]
fn a_function_is_taken_out_when_the_guest_lets_go_of_it() {
    let segment = with_ports(1);
    let function = put_in(&segment, 1, first(1));
    segment.ask(port(&segment, 1)).unwrap();
    light(&segment, 1, BLINKING);
    assert!(port(&segment, 1).view().leaving);
    assert_eq!(look(&segment, first(1)), 0);
    light(&segment, 1, OFF);
    assert!(function.gone.load(Ordering::Relaxed));
    assert_eq!(function.heard(), [(0, None)]);
    assert_eq!(look(&segment, first(1)), 0xff);
    assert_eq!(identity(&segment, behind(1, 0)), [0xff; 4]);
    let view = port(&segment, 1).view();
    assert!(!view.occupied && !view.leaving && view.power == Some(Light::Off));

    // There is room for the next, with nothing left of the one before.
    let next = put_in(&segment, 1, first(1) + 0x4000);
    assert_eq!(look(&segment, first(1) + 0x4000), 0);
    assert_eq!(look(&segment, first(1)), 0xff);
    assert!(!next.gone.load(Ordering::Relaxed));
}

#[test]
fn what_is_let_go_of_goes_and_not_what_has_come_after_it() {
    let segment = with_ports(1);
    put_in(&segment, 1, first(1));
    let port = port(&segment, 1);
    segment.ask(port).unwrap();
    let written = port.config_write(SLOT_CONTROL as u16, &OFF.to_le_bytes());
    // Before the vCPU comes to it, somebody else has taken the function out and put in another.
    segment.take_out(port);
    let next = Function::new();
    assert!(segment.put_in(port, next.clone()));
    segment.remove(port, &written.released.unwrap());
    assert!(!next.gone.load(Ordering::Relaxed) && port.view().occupied);
}

#[test]
fn a_function_is_taken_out_whatever_the_guest_does_with_it() {
    let segment = with_ports(2);
    let function = put_in(&segment, 1, first(1));
    let other = put_in(&segment, 2, first(2));
    segment.take_out(port(&segment, 1));
    assert!(function.gone.load(Ordering::Relaxed));
    assert_eq!(look(&segment, first(1)), 0xff);
    assert_eq!(identity(&segment, behind(1, 0)), [0xff; 4]);
    // The slot of another is none of its business; and an empty one can be emptied.
    segment.take_out(port(&segment, 1));
    assert_eq!((look(&segment, first(2)), other.heard()), (0, vec![]));
    let full = segment.put_in(port(&segment, 2), Function::new());
    assert!(!full, "a slot holds one");
}

#[test]
fn a_link_that_goes_down_resets_the_function() {
    let segment = with_ports(1);
    let function = put_in(&segment, 1, first(1));
    segment.write(at(1, BRIDGE_CONTROL), &[0x40]);
    assert_eq!(function.heard(), [(0, None)]);
    assert_eq!(look(&segment, first(1)), 0xff);
    assert_eq!(identity(&segment, behind(1, 0)), [0xff; 4]);
    segment.write(at(1, BRIDGE_CONTROL), &[0]);
    assert_eq!(identity(&segment, behind(1, 0)), IDENTITY);
    assert_eq!(identity(&segment, behind(1, BAR0)), [0; 4]);
    assert_eq!(look(&segment, first(1)), 0xff);
}

#[test]
fn ports_take_places_as_functions_do() {
    let (mut segment, _functions) = setup(247);
    segment
        .add_port(RootPort::new(1, Box::new(NoSink)))
        .unwrap();
    let one_more = segment.add_port(RootPort::new(2, Box::new(NoSink)));
    assert!(matches!(one_more, Err(SegmentError::NoPlace)));
    assert!(segment.add(Function::new()).is_err());
}
