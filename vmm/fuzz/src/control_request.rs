// SPDX-License-Identifier: Apache-2.0 OR MIT

use lockstorm::control::Request;

/// Longest text of an error; a reply has one.
const ERROR: usize = 4096;

/// A line from a client of the control socket.
pub fn control_request(data: &[u8]) {
    match Request::parse(data) {
        Ok((request, _)) => {
            let line = serde_json::to_vec(&request).unwrap();
            let (again, id) = Request::parse(&line).unwrap();
            assert_eq!((again, id), (request, None));
        }
        Err(malformed) => {
            let length = malformed.error.len();
            assert!(length <= ERROR + data.len(), "{length} bytes of error");
        }
    }
}
