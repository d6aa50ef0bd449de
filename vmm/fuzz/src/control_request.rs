// SPDX-License-Identifier: Apache-2.0 OR MIT

use lockstorm::control::Request;

/// A line from a client of the control socket.
pub fn control_request(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(data) {
        let line = serde_json::to_vec(&request).unwrap();
        assert_eq!(serde_json::from_slice::<Request>(&line).unwrap(), request);
    }
}
