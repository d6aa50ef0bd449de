// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A monitor, and a QEMU that says what a test wants it to say.

use std::sync::mpsc::{self, Receiver};

use vmm_sys_util::tempdir::TempDir;

use super::*;

const LONG: Duration = Duration::from_secs(10);

/// A monitor and what it has told of.
struct Stand {
    path: PathBuf,
    monitor: Monitor,
    heard: Receiver<Happening>,
    _folder: TempDir,
}

impl Stand {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.as_path().join("qmp");
        let (sender, heard) = mpsc::channel();
        let listener = move |happening| sender.send(happening).unwrap();
        Self {
            monitor: Monitor::start(&path, Box::new(listener)).unwrap(),
            path,
            heard,
            _folder: folder,
        }
    }

    /// Waits until commands can be given.
    fn wait(&self) {
        let begin = Instant::now();
        while lock(&self.monitor.shared.conversation).is_none() {
            assert!(begin.elapsed() < LONG, "no monitor");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn execute(monitor: &Monitor, patience: Duration) -> Result<Value, String> {
    let done = monitor.execute("stop", &json!({"a": 1}), patience);
    done.map_err(|error| error.to_string())
}

/// QEMU's side.
pub struct FakeQemu {
    lines: BufReader<UnixStream>,
}

impl FakeQemu {
    /// One that has said nothing.
    pub fn silent(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let lines = BufReader::new(stream);
        Self { lines }
    }

    /// One that has greeted, and been greeted.
    pub fn new(path: &Path) -> Self {
        let mut qemu = Self::silent(path);
        qemu.say(&json!({"QMP": {"version": {}, "capabilities": []}}));
        let (command, _, id) = qemu.hear();
        assert_eq!(command, "qmp_capabilities");
        qemu.say(&json!({"return": {}, "id": id}));
        qemu
    }

    pub fn say(&mut self, message: &Value) {
        self.say_raw(format!("{message}\r\n").as_bytes());
    }

    pub fn say_raw(&mut self, bytes: &[u8]) {
        // It may be sent away while it speaks.
        let _ = self.lines.get_mut().write_all(bytes);
    }

    /// The next command, its arguments and its id.
    pub fn hear(&mut self) -> (String, Value, u64) {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        let command: Value = serde_json::from_str(&line).unwrap();
        let name = command["execute"].as_str().unwrap().to_owned();
        let id = command["id"].as_u64().unwrap();
        (name, command["arguments"].clone(), id)
    }

    fn is_sent_away(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.lines.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn a_command_has_the_answer_with_its_id() {
    let stand = Stand::new();
    assert!(
        execute(&stand.monitor, LONG)
            .unwrap_err()
            .contains("-qmp unix:")
    );
    let mut qemu = FakeQemu::new(&stand.path);
    stand.wait();
    thread::scope(|scope| {
        let asked = scope.spawn(|| execute(&stand.monitor, LONG));
        let (command, arguments, id) = qemu.hear();
        assert_eq!((command.as_str(), arguments), ("stop", json!({"a": 1})));
        qemu.say(&json!({"event": "STOP", "data": {}}));
        qemu.say(&json!({"return": {"of": "another"}, "id": id + 1}));
        qemu.say(&json!({"return": {"of": "none"}}));
        qemu.say(&json!({"return": {"of": "it"}, "id": id}));
        assert_eq!(asked.join().unwrap().unwrap(), json!({"of": "it"}));

        let asked = scope.spawn(|| execute(&stand.monitor, LONG));
        let (_, _, id) = qemu.hear();
        qemu.say(&json!({"id": id, "error": {"class": "GenericError", "desc": "no bus"}}));
        let refused = asked.join().unwrap().unwrap_err();
        assert_eq!(refused, "QEMU does not do stop: no bus");
    });
}

#[test]
fn an_answer_is_waited_for_a_while_and_one_that_is_late_is_not_taken_for_the_next() {
    let stand = Stand::new();
    let mut qemu = FakeQemu::new(&stand.path);
    stand.wait();
    let late = execute(&stand.monitor, Duration::from_millis(10)).unwrap_err();
    assert!(late.contains("has not answered stop"), "{late}");
    let (_, _, first) = qemu.hear();
    // So many that they are not all kept.
    for _ in 0..100 {
        qemu.say(&json!({"return": {"of": "the first"}, "id": first}));
    }
    qemu.say(&json!({"event": "DEVICE_DELETED", "data": {"device": "evgen1"}}));
    let deleted = stand.heard.recv_timeout(LONG).unwrap();
    assert_eq!(deleted, Happening::Deleted("evgen1".to_owned()));
    thread::scope(|scope| {
        let asked = scope.spawn(|| execute(&stand.monitor, LONG));
        let (_, _, id) = qemu.hear();
        // Meanwhile those of before have been thrown away.
        thread::sleep(Duration::from_millis(20));
        qemu.say(&json!({"return": {"of": "the second"}, "id": id}));
        let answer = asked.join().unwrap();
        assert_eq!(answer.unwrap(), json!({"of": "the second"}));
    });
}

#[test]
fn when_a_qemu_goes_that_is_told_and_the_next_may_come() {
    let stand = Stand::new();
    for _ in 0..3 {
        let mut qemu = FakeQemu::new(&stand.path);
        stand.wait();
        thread::scope(|scope| {
            let asked = scope.spawn(|| execute(&stand.monitor, LONG));
            qemu.hear();
            qemu.say(&json!({"event": "DEVICE_UNPLUG_GUEST_ERROR", "data": {"device": "e"}}));
            drop(qemu);
            let gone = asked.join().unwrap().unwrap_err();
            assert!(gone.contains("closed its monitor"), "{gone}");
        });
        let heard = [(); 2].map(|()| stand.heard.recv_timeout(LONG).unwrap());
        assert_eq!(heard, [Happening::Kept("e".to_owned()), Happening::Gone]);
    }
}

#[test]
fn what_is_no_qemu_is_sent_away() {
    let stand = Stand::new();
    let endless = vec![b'x'; LINE_MAX as usize + 1];
    let greeting = b"{\"QMP\":{}}\n".to_vec();
    for said in [
        b"GET / HTTP/1.1\r\n".to_vec(),
        b"{}\n".to_vec(),
        b"\xff\n".to_vec(),
        endless.clone(),
        [greeting.clone(), endless].concat(),
        [greeting, b"{\"event\":1}\n".to_vec()].concat(),
    ] {
        let mut stranger = FakeQemu::silent(&stand.path);
        stranger.say_raw(&said);
        assert!(stranger.is_sent_away());
    }
    FakeQemu::new(&stand.path);
}

#[test]
fn the_end_waits_neither_for_a_qemu_nor_for_what_it_says() {
    let begin = Instant::now();
    let path = Stand::new().path;
    assert!(!path.exists());
    let stand = Stand::new();
    let _silent = FakeQemu::silent(&stand.path);
    drop(stand);
    let stand = Stand::new();
    let _qemu = FakeQemu::new(&stand.path);
    stand.wait();
    drop(stand);
    assert!(begin.elapsed() < PATIENCE);
}
