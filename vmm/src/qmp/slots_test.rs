// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Slots of a QEMU that does what a test wants it to do.

use std::thread;

use vmm_sys_util::tempdir::TempDir;

use super::super::monitor::tests::FakeQemu;
use super::*;
use crate::devices::evgen;
use crate::machine::clock::Clock;

struct Stand {
    slots: QemuSlots,
    qemu: FakeQemu,
    folder: TempDir,
}

impl Stand {
    /// A machine with that many devices from the start and two slots.
    fn new(devices: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let clock = Clock::new(Instant::now());
        let evgen = Arc::new(evgen::without_kvm(devices, Config::default(), &clock));
        let server = Arc::new(VfioUserServer::start(Vec::new(), false).unwrap());
        let path = folder.as_path().to_owned();
        let ports = PortsOfQemu {
            count: 2,
            usual: Config::default(),
            socket: Box::new(move |device| path.join(device.to_string())),
        };
        let monitor = folder.as_path().join("qmp");
        let slots = QemuSlots::new(evgen, server, ports, &monitor).unwrap();
        let qemu = FakeQemu::new(&monitor);
        // It is listened to a moment after it has been greeted.
        wait_until(|| {
            !matches!(
                slots.monitor.execute("x", &json!({}), Duration::ZERO),
                Err(QmpError::NotThere { .. })
            )
        });
        let mut stand = Self {
            slots,
            qemu,
            folder,
        };
        stand.qemu.hear();
        stand
    }

    /// Does `command` while QEMU answers to the one that it hears of with `answer`.
    fn with_answer<T: Send>(
        &mut self,
        answer: &Value,
        command: impl FnOnce(&QemuSlots) -> T + Send,
    ) -> (String, Value, T) {
        let (slots, qemu) = (&self.slots, &mut self.qemu);
        thread::scope(|scope| {
            let done = scope.spawn(|| command(slots));
            let (name, arguments, id) = qemu.hear();
            let mut answer = answer.clone();
            answer["id"] = id.into();
            qemu.say(&answer);
            (name, arguments, done.join().unwrap())
        })
    }

    fn plug(&mut self, slot: Option<u8>) -> Plugged {
        let answer = json!({ "return": {} });
        let (_, _, plugged) = self.with_answer(&answer, |slots| slots.plug(None, None, slot));
        plugged.unwrap()
    }

    fn deleted(&mut self, device: usize) {
        self.qemu
            .say(&json!({"event": "DEVICE_DELETED", "data": {"device": id(device)}}));
        wait_until(|| !self.is_here(device));
        wait_until(|| !self.folder.as_path().join(device.to_string()).exists());
    }

    fn is_here(&self, device: usize) -> bool {
        let occupants = self.slots.shared.occupants();
        occupants.values().any(|known| known.device == device)
    }
}

fn wait_until(done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(10));
        thread::sleep(Duration::from_millis(1));
    }
}

fn error<T: std::fmt::Debug>(result: Result<T, HotPlugError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_device_that_is_plugged_is_served_at_a_socket_that_qemu_is_told_of() {
    let mut stand = Stand::new(1);
    let done = json!({ "return": {} });
    let (command, arguments, plugged) =
        stand.with_answer(&done, |slots| slots.plug(Some(2), None, Some(2)));
    assert_eq!(plugged.unwrap(), Plugged { device: 1, slot: 2 });
    let path = stand.folder.as_path().join("1");
    assert_eq!(command, "device_add");
    let expected = json!({
        "driver": "vfio-user-pci", "id": "evgen1", "bus": "port2",
        "socket": { "type": "unix", "path": path },
    });
    assert_eq!(arguments, expected);
    assert!(path.exists());
    assert!(error(stand.slots.plug(None, None, Some(2))).contains("taken by device 1"));
    assert!(error(stand.slots.plug(None, None, Some(3))).contains("slots 1 to 2"));
    assert_eq!(stand.plug(None), Plugged { device: 2, slot: 1 });
    assert!(error(stand.slots.plug(None, None, None)).contains("all slots are taken"));
    stand.deleted(1);
    assert_eq!(stand.plug(None), Plugged { device: 3, slot: 2 });
}

#[test]
fn what_qemu_refuses_leaves_nothing_behind() {
    let mut stand = Stand::new(0);
    let no = json!({ "error": { "class": "GenericError", "desc": "Bus 'port1' not found" } });
    let (_, _, refused) = stand.with_answer(&no, |slots| slots.plug(None, None, None));
    assert_eq!(
        error(refused),
        "QEMU does not do device_add: Bus 'port1' not found"
    );
    wait_until(|| !stand.folder.as_path().join("0").exists());
    assert!(error(stand.slots.unplug(0)).contains("device 0 is gone"));
    assert_eq!(stand.plug(None).slot, 1);
    // One that the guest cannot be asked for stays as it is.
    for take_out in [QemuSlots::unplug, QemuSlots::pull] {
        let (_, _, refused) = stand.with_answer(&no, |slots| take_out(slots, 1));
        assert!(error(refused).contains("device_del"));
        stand.slots.shared.evgen.check(Some(&[1])).unwrap();
    }
}

#[test]
fn a_device_is_there_until_qemu_says_that_it_is_gone_and_the_guest_is_asked_once() {
    let mut stand = Stand::new(1);
    stand.plug(None);
    let (command, arguments, asked) =
        stand.with_answer(&json!({ "return": {} }), |slots| slots.unplug(1));
    asked.unwrap();
    assert_eq!(
        (command.as_str(), arguments),
        ("device_del", json!({ "id": "evgen1" }))
    );
    // That would take it back.
    stand.slots.unplug(1).unwrap();
    stand.slots.shared.evgen.check(Some(&[1])).unwrap();
    let leaving = |stand: &mut Stand| {
        let none = json!({ "return": [] });
        let (_, _, slots) = stand.with_answer(&none, |slots| slots.slots());
        (slots[0].device, slots[0].view.leaving)
    };
    assert_eq!(leaving(&mut stand), (Some(1), true));
    let kept = json!({"event": "DEVICE_UNPLUG_GUEST_ERROR", "data": {"device": "evgen1"}});
    stand.qemu.say(&kept);
    wait_until(|| stand.slots.shared.occupants()[&1].asked.is_none());
    assert_eq!(leaving(&mut stand), (Some(1), false));
    stand.deleted(1);
    assert_eq!(leaving(&mut stand), (None, false));
    assert!(error(stand.slots.unplug(1)).contains("device 1 is gone"));
    assert!(error(stand.slots.unplug(0)).contains("device 0 is not in a slot"));
    assert!(error(stand.slots.unplug(7)).contains("no device 7"));
}

#[test]
fn one_that_is_torn_out_is_gone_at_once_and_its_slot_is_free_when_the_guest_says_so() {
    let mut stand = Stand::new(0);
    stand.plug(None);
    let done = json!({ "return": {} });
    let (command, _, pulled) = stand.with_answer(&done, |slots| slots.pull(0));
    pulled.unwrap();
    assert_eq!(command, "device_del");
    assert!(stand.slots.shared.evgen.check(Some(&[0])).is_err() && stand.is_here(0));
    stand.deleted(0);
    // One that was asked for before needs no second word.
    stand.plug(None);
    stand.with_answer(&done, |slots| slots.unplug(1)).2.unwrap();
    stand.slots.pull(1).unwrap();
    assert!(stand.slots.shared.evgen.check(Some(&[1])).is_err());
}

#[test]
fn what_qemu_does_not_know_any_more_is_gone_and_all_of_it_when_it_goes() {
    let mut stand = Stand::new(0);
    for _ in 0..2 {
        stand.plug(None);
    }
    let gone = json!({ "error": { "class": NO_SUCH_DEVICE, "desc": "no" } });
    stand.with_answer(&gone, |slots| slots.unplug(0)).2.unwrap();
    assert!(!stand.is_here(0) && stand.is_here(1));
    let Stand { slots, qemu, .. } = stand;
    drop(qemu);
    wait_until(|| slots.shared.occupants().is_empty());
    assert!(error(slots.plug(None, None, None)).contains("-qmp unix:"));
}

#[test]
fn the_bus_behind_a_port_is_what_qemu_says() {
    for (device, expected) in [
        (
            json!({"qdev_id": "port2", "pci_bridge": {"bus": {"secondary": 7}}}),
            Some((2, 7)),
        ),
        (
            json!({"qdev_id": "port2", "pci_bridge": {"bus": {"secondary": 0}}}),
            None,
        ),
        (
            json!({"qdev_id": "port2", "pci_bridge": {"bus": {"secondary": 256}}}),
            None,
        ),
        (json!({"qdev_id": "port2"}), None),
        (
            json!({"qdev_id": "portal", "pci_bridge": {"bus": {"secondary": 7}}}),
            None,
        ),
        (json!({"qdev_id": "", "pci_bridge": 7}), None),
        (json!(7), None),
    ] {
        assert_eq!(port_and_bus(&device), expected, "{device}");
    }
}
