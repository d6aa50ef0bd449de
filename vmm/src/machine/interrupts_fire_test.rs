// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The sink against a KVM that takes its time: what was written to an eventfd is injected when
//! chance wants it, with the message that the route holds then.

use super::*;

/// What KVM does with irqfds, at its slowest.
#[derive(Default)]
struct SlowKvm {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    routes: BTreeMap<u32, MsiMessage>,
    irqfds: BTreeMap<u32, EventFd>,
    injected: Vec<MsiMessage>,
}

impl State {
    /// Injects what waits for `gsi`.
    fn work(&mut self, gsi: u32) {
        if self.irqfds[&gsi].read().is_ok() {
            let message = self.routes.get(&gsi).expect("an irqfd without a route");
            self.injected.push(*message);
        }
    }
}

impl SlowKvm {
    /// Lets the worker come to one of the irqfds.
    fn work(&self, chance: usize) {
        let mut state = self.state.lock().unwrap();
        let gsis: Vec<u32> = state.irqfds.keys().copied().collect();
        if let Some(&gsi) = gsis.get(chance % gsis.len().max(1)) {
            state.work(gsi);
        }
    }

    fn injected(&self) -> Vec<MsiMessage> {
        std::mem::take(&mut self.state.lock().unwrap().injected)
    }
}

impl IrqChip for SlowKvm {
    fn set_routes(&self, routes: &[Route]) -> Result<(), errno::Error> {
        let messages = routes.iter().filter_map(|route| match *route {
            Route::Message { gsi, message } => Some((gsi, message)),
            Route::Pin { .. } => None,
        });
        self.state.lock().unwrap().routes = messages.collect();
        Ok(())
    }

    fn assign(&self, gsi: u32, trigger: &EventFd) -> Result<(), errno::Error> {
        let trigger = trigger.try_clone().unwrap();
        let before = self.state.lock().unwrap().irqfds.insert(gsi, trigger);
        assert!(before.is_none(), "GSI {gsi} has an irqfd already");
        Ok(())
    }

    fn deassign(&self, gsi: u32, _trigger: &EventFd) -> Result<(), errno::Error> {
        let mut state = self.state.lock().unwrap();
        state.work(gsi);
        state.irqfds.remove(&gsi).expect("an irqfd to take away");
        Ok(())
    }

    fn signal(&self, message: MsiMessage) -> Result<(), errno::Error> {
        self.state.lock().unwrap().injected.push(message);
        Ok(())
    }
}

const VECTORS: usize = 5;

/// What was raised, and what of it has not come out yet.
#[derive(Default)]
struct Ledger {
    current: [MsiMessage; VECTORS],
    owed: [bool; VECTORS],
}

impl Ledger {
    fn book(&mut self, injected: Vec<MsiMessage>) {
        for message in injected {
            let vector = (message.data >> 16) as usize;
            assert_eq!(message, self.current[vector], "a stale message");
            let owed = std::mem::take(&mut self.owed[vector]);
            assert!(owed, "vector {vector} came without a reason");
        }
    }
}

#[test]
fn updates_under_fire_lose_nothing_and_nothing_strays() {
    for seed in 1..=50_u64 {
        let kvm = Arc::new(SlowKvm::default());
        let router = Arc::new(InterruptRouter::new(kvm.clone()));
        let mut sink = KvmMsiSink::new(router.clone());
        let mut ledger = Ledger::default();
        let mut state = seed;
        let mut chance = |below: u64| {
            // xorshift64: any sequence will do.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 20) % below
        };
        for step in 0..2000_u32 {
            let vector = chance(VECTORS as u64) as usize;
            match chance(16) {
                0 => {
                    sink.release();
                    ledger.book(kvm.injected());
                    assert_eq!(ledger.owed, [false; VECTORS], "after release");
                }
                1 | 2 => {
                    sink.settle(vector as u16);
                    ledger.book(kvm.injected());
                    assert!(!ledger.owed[vector], "vector {vector} after settle");
                }
                3..=8 => kvm.work(chance(VECTORS as u64) as usize),
                kind => {
                    let message = match kind {
                        9 | 10 => MsiMessage {
                            address: 0xfee0_0000,
                            data: (vector as u32) << 16 | step,
                        },
                        _ => ledger.current[vector],
                    };
                    // A vector that was never raised has no message of its own yet.
                    if message != MsiMessage::default() {
                        sink.raise(vector as u16, message);
                        // Whatever has come out by now has the old message.
                        ledger.book(kvm.injected());
                        if message != ledger.current[vector] {
                            assert!(!ledger.owed[vector], "lost with its message");
                        }
                        ledger.current[vector] = message;
                        ledger.owed[vector] = true;
                    }
                }
            }
            ledger.book(kvm.injected());
        }
        drop(sink);
        ledger.book(kvm.injected());
        assert_eq!(ledger.owed, [false; VECTORS], "seed {seed}");
        assert_eq!(router.lost().count(), 0);
        let state = kvm.state.lock().unwrap();
        assert!(state.routes.is_empty() && state.irqfds.is_empty());
    }
}
