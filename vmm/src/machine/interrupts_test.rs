// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The router and the sink against a recorder in KVM's place.

use super::*;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    /// The messages in the table; the pins are checked on the spot.
    Routes(Vec<(u32, u32)>),
    Assign(u32),
    Deassign(u32),
    /// The data of a message that went without a route.
    Signal(u32),
}

/// Records what is asked of it, and refuses the message data `0xbad`, in a table or without one.
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

    fn signal(&self, message: MsiMessage) -> Result<(), errno::Error> {
        if message.data == 0xbad {
            return Err(errno::Error::new(libc::EINVAL));
        }
        self.calls.lock().unwrap().push(Call::Signal(message.data));
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
fn without_irqfds_each_message_is_sent_and_nothing_set_up() {
    let recorder = Arc::new(Recorder::default());
    let router = Arc::new(InterruptRouter::new(recorder.clone()).without_irqfds());
    let mut sink = KvmMsiSink::new(router.clone());
    sink.raise(7, message(0x31));
    sink.raise(7, message(0x32));
    assert_eq!(recorder.take(), [Call::Signal(0x31), Call::Signal(0x32)]);
    sink.raise(7, message(0xbad));
    assert_eq!((recorder.take(), router.lost().count()), (vec![], 1));
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
    assert_eq!(router.lost().count(), 2);
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
    assert_eq!(router.lost().count(), 2);
}

#[test]
fn a_refused_irqfd_gives_its_route_back_and_loses_nothing() {
    let (recorder, router) = setup(true);
    let mut sink = KvmMsiSink::new(router.clone());
    sink.raise(0, message(1));
    assert_eq!(
        recorder.take(),
        [
            Call::Routes(vec![(24, 1)]),
            Call::Routes(vec![]),
            Call::Signal(1)
        ]
    );
    assert_eq!(router.lost().count(), 0);
}

#[test]
fn more_vectors_than_routes_lose_nothing() {
    let (recorder, router) = setup(false);
    let mut devices: Vec<_> = (0..3).map(|_| KvmMsiSink::new(router.clone())).collect();
    for device in &mut devices {
        for vector in 0..2048 {
            device.raise(vector, message(vector.into()));
        }
    }
    let calls = recorder.take();
    let count = |wanted: fn(&Call) -> bool| calls.iter().filter(|call| wanted(call)).count();
    assert_eq!(count(|call| matches!(call, Call::Assign(_))), MAX_MESSAGES);
    let signalled = count(|call| matches!(call, Call::Signal(_)));
    assert_eq!(signalled, 3 * 2048 - MAX_MESSAGES);
    assert_eq!(router.lost().count(), 0);
    // Room that one device gives back is there for the others.
    devices[0].release();
    devices[2].raise(2047, message(7));
    assert!(matches!(
        recorder.take()[..],
        [.., Call::Routes(_), Call::Assign(24)]
    ));
}

#[test]
fn a_masked_vector_loses_its_irqfd_and_keeps_its_route() {
    let (recorder, router) = setup(false);
    let mut sink = KvmMsiSink::new(router);
    sink.settle(0);
    assert_eq!(recorder.take(), [], "a vector that was never raised");
    sink.raise(0, message(1));
    recorder.take();
    sink.settle(0);
    sink.settle(0);
    assert_eq!(recorder.take(), [Call::Deassign(24)]);
    sink.raise(0, message(1));
    assert_eq!(recorder.take(), [Call::Assign(24)]);
    sink.settle(0);
    sink.raise(0, message(2));
    assert_eq!(
        recorder.take(),
        [
            Call::Deassign(24),
            Call::Routes(vec![(24, 2)]),
            Call::Assign(24)
        ]
    );
    sink.settle(0);
    sink.release();
    assert_eq!(
        recorder.take(),
        [Call::Deassign(24), Call::Routes(vec![])],
        "what is gone is not taken away again"
    );
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
