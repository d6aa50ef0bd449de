// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A device that does its MSI-X by itself, and a client that is not to know.

use super::*;
use crate::vfio_user::MessageSink;

const TYPE_REPLY: u32 = 1;

fn stand() -> Stand {
    let messages = Arc::<Messages>::default();
    let sink = MessageSink(Arc::clone(&messages));
    Stand::with(Box::new(sink), Interrupts::Messages(messages))
}

/// Lets vector `vector` have a message, and the device send it.
fn unmask(client: &mut Client, vector: u16) {
    let (entry, data) = (u64::from(vector) * 16, 0x4000 | u32::from(vector));
    for (offset, halves) in [(entry, [0xfee0_1000, 0]), (entry + 8, [data, 0])] {
        let written = client.write(MSIX_BAR.into(), offset, &words(&halves));
        written.unwrap();
    }
    client.open();
}

fn spurious(stand: &Stand, count: u32) {
    let fault = lockstorm_device_model::Fault::SpuriousInterrupt;
    stand.host.inject_fault(0, 1, fault, count).unwrap();
}

/// The next message, which writes an interrupt: its id and its data.
fn interrupt(client: &Client) -> (u16, u32) {
    let mut message = [0; 36];
    (&client.stream).read_exact(&mut message).unwrap();
    let mut fields = Reader(&message);
    let id = fields.u16().unwrap();
    assert_eq!(fields.u16().unwrap(), command::DMA_WRITE);
    assert_eq!([(); 3].map(|()| fields.u32().unwrap()), [36, 0, 0]);
    assert_eq!([(); 2].map(|()| fields.u64().unwrap()), [0xfee0_1000, 4]);
    (id, fields.u32().unwrap())
}

fn answer(client: &Client, id: u16) {
    let mut message = Writer::default();
    message.u16(id).u16(command::DMA_WRITE);
    message.u32(16).u32(TYPE_REPLY).u32(0);
    client.send_raw(&message.0, &[]);
}

#[test]
fn the_guest_sees_msix_and_the_client_does_not() {
    let stand = stand();
    let mut client = stand.client();
    let all = client.read(CONFIG, 0, 256).unwrap();
    assert_eq!(all[0x40], 0);
    for offset in (0..256).step_by(4) {
        let mut part = client.read(CONFIG, offset, 4).unwrap();
        if offset == 0x40 {
            assert_eq!(part[0], 0x11);
            part[0] = 0;
        }
        assert_eq!(all[offset as usize..][..4], part, "{offset:#x}");
    }
    assert_eq!(client.read(CONFIG, 0x3c, 8).unwrap()[4], 0);
    let info = client.call(command::GET_IRQ_INFO, &words(&[16, 0, MSIX, 0]), &[]);
    assert_eq!(info.unwrap()[12..], [0; 4], "no vectors");
    let give = client.call(command::SET_IRQS, &irqs(GIVE, MSIX, 0, 1), &[]);
    assert_eq!(give, Err(libc::EINVAL));
}

#[test]
fn interrupts_are_writes_to_memory_and_the_device_masks_them() {
    let stand = stand();
    let mut client = stand.client();
    let pending = |client: &mut Client| client.read(MSIX_BAR.into(), 0x1000, 8).unwrap()[0];
    spurious(&stand, 1);
    client.open();
    assert_eq!(pending(&mut client), 0b10, "it is masked, as at power-on");
    let address = client.write(MSIX_BAR.into(), 16, &words(&[0xfee0_1000, 0]));
    address.unwrap();
    // What pends goes when it is unmasked, maybe before the answer to that write.
    let write = [access(MSIX_BAR.into(), 24, 8), words(&[0x4001, 0])].concat();
    client.send(command::REGION_WRITE, NO_REPLY, &write, &[]);
    assert_eq!(interrupt(&client).1, 0x4001);
    answer(&client, 1);
    assert_eq!(pending(&mut client), 0);
    // More than may be unanswered are one, and none is lost.
    spurious(&stand, 1);
    let (id, _) = interrupt(&client);
    answer(&client, id);
    assert_eq!((id, stand.host.interrupts_lost()), (2, 0));
}

#[test]
fn a_client_that_answers_nothing_holds_nobody_up_and_one_that_answers_too_much_is_sent_away() {
    let stand = stand();
    let mut client = stand.client();
    unmask(&mut client, 1);
    for _ in 0..100 {
        spurious(&stand, 256);
    }
    drop(client);
    // The next one gets nothing that was meant for that.
    let mut client = stand.client();
    assert_eq!(client.read(MSIX_BAR.into(), 0x1000, 8).unwrap()[0], 0);
    answer(&client, 0);
    assert!(client.is_sent_away());
}

#[test]
fn a_device_comes_to_a_running_server_and_goes_with_its_socket_and_its_client() {
    let stand = stand();
    let path = stand.path.with_extension("more");
    for number in [5, 6] {
        let messages = Arc::<Messages>::default();
        let wiring = Wiring {
            sink: Box::new(MessageSink(Arc::clone(&messages))),
            memory: Memory::default(),
            doorbells: None,
        };
        let (_, device) = stand.host.add(Config::default(), wiring).unwrap();
        let served = Served {
            socket: SocketFile::create("socket", &path).unwrap(),
            device,
            interrupts: Interrupts::Messages(messages),
        };
        stand.server.serve(number, served);
        let stream = UnixStream::connect(&path).unwrap();
        let mut client = Client { stream, id: 0 };
        client.call(command::VERSION, &version(0, ""), &[]).unwrap();
        stand.server.dismiss(number);
        assert!(client.is_sent_away());
        wait_until("end of the socket", || !path.exists());
    }
    stand.client();
}
