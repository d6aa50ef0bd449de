// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The router and the sink against a recorder in KVM's place.

use super::*;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    /// The messages in the table; the pins are checked on the spot.
    Routes(Vec<(u32, u32)>),
    Assign(u32),
    Deassign(u32),
}

/// Records what is asked of it, and refuses every table with the message data `0xbad`.
#[derive(Default)]
struct Recorder {
    calls: Mutex<Vec<Call>>,
    refuse_irqfds: bool,
}

impl Recorder {
    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

impl IrqChip for Recorder {
    fn set_routes(&self, routes: &[Route]) -> Result<(), errno::Error> {
        let (pins, messages): (Vec<Route>, Vec<Route>) = routes
            .iter()
            .partition(|route| matches!(route, Route::Pin { .. }));
        assert_eq!(pins.len(), 40, "all pins stay in the table");
        let messages: Vec<(u32, u32)> = messages
            .into_iter()
            .map(|route| match route {
                Route::Message { gsi, message } => (gsi, message.data),
                Route::Pin { gsi, .. } => (gsi, 0),
            })
            .collect();
        if messages.iter().any(|&(_, data)| data == 0xbad) {
            return Err(errno::Error::new(libc::EINVAL));
        }
        self.calls.lock().unwrap().push(Call::Routes(messages));
        Ok(())
    }

    fn assign(&self, gsi: u32, _trigger: &EventFd) -> Result<(), errno::Error> {
        if self.refuse_irqfds {
            return Err(errno::Error::new(libc::ENOSPC));
        }
        self.calls.lock().unwrap().push(Call::Assign(gsi));
        Ok(())
    }

    fn deassign(&self, gsi: u32, _trigger: &EventFd) -> Result<(), errno::Error> {
        self.calls.lock().unwrap().push(Call::Deassign(gsi));
        Ok(())
    }
}

fn message(data: u32) -> MsiMessage {
    MsiMessage {
        address: 0xfee0_0000,
        data,
    }
}

fn setup(refuse_irqfds: bool) -> (Arc<Recorder>, Arc<InterruptRouter>) {
    let recorder = Arc::new(Recorder {
        refuse_irqfds,
        ..Recorder::default()
    });
    let router = Arc::new(InterruptRouter::new(recorder.clone()));
    (recorder, router)
}

#[test]
fn a_vector_is_routed_before_its_irqfd_and_only_when_first_raised() {
    let (recorder, router) = setup(false);
    let mut sink = KvmMsiSink::new(router);
    assert_eq!(recorder.take(), []);
    for _ in 0..3 {
        sink.raise(7, message(0x31));
    }
    assert_eq!(
        recorder.take(),
        [Call::Routes(vec![(24, 0x31)]), Call::Assign(24)]
    );
    assert_eq!(sink.lines[&7].trigger.read().unwrap(), 3);
}

#[test]
fn a_changed_message_goes_in_between_deassign_and_assign() {
    let (recorder, router) = setup(false);
    let mut sink = KvmMsiSink::new(router);
    sink.raise(0, message(0x31));
    sink.raise(1, message(0x32));
    recorder.take();
    sink.raise(0, message(0x41));
    assert_eq!(
        recorder.take(),
        [
            Call::Deassign(24),
            Call::Routes(vec![(24, 0x41), (25, 0x32)]),
            Call::Assign(24)
        ]
    );
}

#[test]
fn release_leaves_nothing_and_gsis_come_back() {
    let (recorder, router) = setup(false);
    let mut sink = KvmMsiSink::new(router.clone());
    let mut other = KvmMsiSink::new(router);
    sink.raise(0, message(1));
    other.raise(0, message(2));
    sink.raise(1, message(3));
    recorder.take();
    sink.release();
    sink.release();
    assert_eq!(
        recorder.take(),
        [
            Call::Deassign(24),
            Call::Deassign(26),
            Call::Routes(vec![(25, 2)])
        ]
    );
    sink.raise(5, message(4));
    assert_eq!(
        recorder.take(),
        [Call::Routes(vec![(24, 4), (25, 2)]), Call::Assign(24)]
    );
    drop((sink, other));
    assert_eq!(recorder.take().last(), Some(&Call::Routes(vec![])));
}

#[test]
fn a_message_that_kvm_refuses_harms_no_other_vector() {
    let (recorder, router) = setup(false);
    let mut sink = KvmMsiSink::new(router.clone());
    sink.raise(0, message(1));
    sink.raise(1, message(0xbad));
    sink.raise(0, message(0xbad));
    assert_eq!(router.failures(), 2);
    recorder.take();
    sink.raise(0, message(2));
    sink.raise(1, message(3));
    assert_eq!(
        recorder.take(),
        [
            Call::Routes(vec![(24, 2)]),
            Call::Assign(24),
            Call::Routes(vec![(24, 2), (25, 3)]),
            Call::Assign(25)
        ]
    );
    assert_eq!(router.failures(), 2);
}

#[test]
fn a_refused_irqfd_gives_its_route_back() {
    let (recorder, router) = setup(true);
    let mut sink = KvmMsiSink::new(router.clone());
    sink.raise(0, message(1));
    assert_eq!(
        recorder.take(),
        [Call::Routes(vec![(24, 1)]), Call::Routes(vec![])]
    );
    assert_eq!(router.failures(), 1);
}

#[test]
fn a_full_table_is_an_error_and_no_gsi_is_out_of_range() {
    let (_, router) = setup(false);
    for _ in 0..MAX_MESSAGES {
        assert!(router.allocate(message(1)).unwrap() < KVM_MAX_IRQ_ROUTES as u32);
    }
    assert!(matches!(
        router.allocate(message(1)),
        Err(InterruptError::Full)
    ));
    router.free([100]).unwrap();
    assert_eq!(router.allocate(message(1)).unwrap(), 100);
}
