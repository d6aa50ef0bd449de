// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A storm in one word, to send it and to repeat it.
//!
//! `storm1.` and then, in base64url without padding, a checksum of 8 bytes and the storm's file in
//! its shortest form, deflated.

use std::io::{Read, Write};

use data_encoding::BASE64URL_NOPAD;
use flate2::Compression;
use flate2::bufread::DeflateDecoder;
use flate2::write::DeflateEncoder;

use super::progress::Digest;
use super::{Storm, StormError};

/// Longest token, in characters. Those of the longest files are shorter.
pub const MAX_TOKEN: usize = 60 * 1024;

const MARK: &str = "storm1.";
const SUM: usize = 8;
/// Longest file in a token: a little longer than one that is written by hand may get in its
/// shortest form, as that has no hexadecimal numbers.
const MAX_TEXT: u64 = 256 * 1024;

impl Storm {
    /// The token that repeats this storm: on a device with as many rings and the same number, it
    /// gives the same events, byte for byte.
    pub fn token(&self) -> String {
        encode(&self.to_toml())
    }

    /// The storm that a token stands for. Any text will do, of any length.
    pub fn from_token(token: &str) -> Result<Self, StormError> {
        let bad = |what| Err(StormError::Token(what));
        if token.len() > MAX_TOKEN {
            return bad("it is longer than any");
        }
        let Some(code) = token.strip_prefix(MARK) else {
            return bad("it does not begin with `storm1.`");
        };
        let Ok(bytes) = BASE64URL_NOPAD.decode(code.as_bytes()) else {
            return bad("part of it is missing, or no base64url");
        };
        let Some((expected, packed)) = bytes.split_at_checked(SUM) else {
            return bad("part of it is missing");
        };
        let mut text = String::new();
        let mut decoder = DeflateDecoder::new(packed).take(MAX_TEXT);
        if decoder.read_to_string(&mut text).is_err() {
            return bad("part of it is missing or changed");
        }
        if !decoder.into_inner().into_inner().is_empty() {
            return bad("it is too long");
        }
        if sum(&text) != expected {
            return bad("its checksum is wrong: part of it is missing or changed");
        }
        Self::read(&text)
    }
}

fn encode(text: &str) -> String {
    let mut encoder = DeflateEncoder::new(sum(text).to_vec(), Compression::best());
    // Memory takes all that is written.
    let _ = encoder.write_all(text.as_bytes());
    let bytes = encoder.finish().unwrap_or_default();
    format!("{MARK}{}", BASE64URL_NOPAD.encode(&bytes))
}

/// As over the events of a storm, but byte by byte.
fn sum(text: &str) -> [u8; SUM] {
    let mut digest = Digest::default();
    for byte in text.bytes() {
        digest.add(byte.into());
    }
    digest.value().to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_long_token_nor_a_short_one_of_a_long_file_is_read() {
        let file = "[[phase]]\npattern = 'trace'\ntrace = [[0, 0]]\n#";
        let padded = |length| encode(&format!("{file}{}", "x".repeat(length)));
        assert!(Storm::from_token(&padded(250_000)).is_ok());
        let bomb = padded(300_000);
        assert!(bomb.len() < 1000, "{}", bomb.len());
        assert!(matches!(
            Storm::from_token(&bomb),
            Err(StormError::Token(_))
        ));
        let error = Storm::from_token(&"storm1.".repeat(MAX_TOKEN)).unwrap_err();
        assert_eq!(error, StormError::Token("it is longer than any"));
    }
}
