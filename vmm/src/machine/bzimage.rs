// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Gets the ELF kernel out of a bzImage (Linux boot protocol 2.08 and newer).

use std::io::{self, Read};

use thiserror::Error;

/// The largest kernel that is unpacked, in bytes. Stock kernels have about 60 MiB.
const KERNEL_MAX: u64 = 512 << 20;
/// The largest look-back window of zstd that is accepted, in bytes: what `zstd -22 --ultra`, with
/// which kernels are packed, uses. The decoder holds that much.
const ZSTD_WINDOW_MAX: u64 = 128 << 20;

// Fields of the setup header, by offset in the file.
const SETUP_SECTS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

const SECTOR: usize = 512;
const VERSION_WITH_PAYLOAD: u16 = 0x0208;

/// How a kernel may be packed, and how to tell.
const FORMATS: [(&[u8], &str); 7] = [
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    (&[0x1f, 0x8b], "gzip"),
    (&[0xfd, b'7', b'z', b'X', b'Z'], "xz"),
    (b"BZh", "bzip2"),
    (&[0x5d, 0, 0], "lzma"),
    (&[0x89, b'L', b'Z', b'O'], "lzo"),
    (&[0x02, 0x21, 0x4c, 0x18], "lz4"),
];

/// Why there is no ELF kernel to be had.
#[derive(Debug, Error)]
pub enum Error {
    /// The image ends before its setup header does, or where the payload should be.
    #[error("the bzImage is cut short")]
    Truncated,
    /// Older than protocol 2.08 (2008).
    #[error(
        "the bzImage has boot protocol {0:#06x}, older than 2.08, and does not say where its kernel is"
    )]
    Protocol(u16),
    /// Packed in a format that is not read here.
    #[error(
        "the bzImage is packed with {0}; only zstd and gzip are read: unpack it with the kernel \
         source's scripts/extract-vmlinux and pass the vmlinux"
    )]
    Format(&'static str),
    /// The packed data are damaged.
    #[error("the bzImage's kernel does not unpack: {0}")]
    Damaged(#[source] io::Error),
    /// More than the limit comes out.
    #[error("the bzImage's kernel is larger than {} MiB", KERNEL_MAX >> 20)]
    TooLarge,
}

/// Tells whether `head`, a file's beginning, is one of a bzImage.
pub fn is_bzimage(head: &[u8]) -> bool {
    head.get(MAGIC..)
        .is_some_and(|rest| rest.starts_with(b"HdrS"))
}

/// Unpacks the kernel in `image`.
pub fn extract(image: &[u8]) -> Result<Vec<u8>, Error> {
    let payload = payload(image)?;
    let format = FORMATS.iter().find(|(magic, _)| payload.starts_with(magic));
    match format.map_or("an unknown format", |(_, name)| name) {
        "zstd" => unpack_zstd(payload),
        "gzip" => unpack(flate2::read::GzDecoder::new(payload)),
        other => Err(Error::Format(other)),
    }
}

fn payload(image: &[u8]) -> Result<&[u8], Error> {
    let version = u16::from_le_bytes(field(image, VERSION)?);
    if version < VERSION_WITH_PAYLOAD {
        return Err(Error::Protocol(version));
    }
    // 0 means 4 for the sake of very old kernels.
    let setup_sectors = match field(image, SETUP_SECTS)? {
        [0] => 4,
        [sectors] => usize::from(sectors),
    };
    let offset = u32::from_le_bytes(field(image, PAYLOAD_OFFSET)?) as usize;
    let length = u32::from_le_bytes(field(image, PAYLOAD_LENGTH)?) as usize;
    let start = (setup_sectors + 1) * SECTOR + offset;
    image.get(start..start + length).ok_or(Error::Truncated)
}

fn field<const N: usize>(image: &[u8], at: usize) -> Result<[u8; N], Error> {
    image
        .get(at..)
        .and_then(|rest| rest.first_chunk().copied())
        .ok_or(Error::Truncated)
}

fn unpack_zstd(payload: &[u8]) -> Result<Vec<u8>, Error> {
    if zstd_window(payload)? > ZSTD_WINDOW_MAX {
        return Err(Error::Damaged(io::Error::other("zstd window too large")));
    }
    let decoder = ruzstd::decoding::StreamingDecoder::new(payload)
        .map_err(|error| Error::Damaged(io::Error::other(error)))?;
    unpack(decoder)
}

/// The look-back window that a zstd frame asks for (RFC 8878 §3.1.1.1); 0 if it is the content's
/// size, which [`unpack`] limits.
fn zstd_window(frame: &[u8]) -> Result<u64, Error> {
    const SINGLE_SEGMENT: u8 = 1 << 5;
    let [descriptor, window] = field(frame, 4)?;
    if descriptor & SINGLE_SEGMENT != 0 {
        return Ok(0);
    }
    let base = 1 << (10 + (window >> 3));
    Ok(base + base / 8 * u64::from(window & 7))
}

fn unpack(packed: impl Read) -> Result<Vec<u8>, Error> {
    let mut kernel = Vec::new();
    packed
        .take(KERNEL_MAX + 1)
        .read_to_end(&mut kernel)
        .map_err(Error::Damaged)?;
    if kernel.len() as u64 > KERNEL_MAX {
        return Err(Error::TooLarge);
    }
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A bzImage of two setup sectors whose payload lies `0x10` into the protected-mode part.
    fn image(version: u16, payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 3 * SECTOR + 0x10];
        image[SETUP_SECTS] = 2;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[VERSION..VERSION + 2].copy_from_slice(&version.to_le_bytes());
        image[PAYLOAD_OFFSET] = 0x10;
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4]
            .copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(data).unwrap();
        // The kernel's build appends the unpacked size.
        let mut packed = packed.finish().unwrap();
        packed.extend((data.len() as u32).to_le_bytes());
        packed
    }

    fn zstd(data: &[u8]) -> Vec<u8> {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        let mut packed = ruzstd::encoding::compress_to_vec(data, level);
        packed.extend((data.len() as u32).to_le_bytes());
        packed
    }

    #[test]
    fn both_formats_unpack() {
        let kernel: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
        for packed in [gzip(&kernel), zstd(&kernel)] {
            let image = image(0x020f, &packed);
            assert!(is_bzimage(&image));
            assert!(extract(&image).unwrap() == kernel);
        }
    }

    #[test]
    fn bad_images_are_told_apart() {
        let gzip = gzip(b"kernel");
        let zstd = zstd(&[7; 5000]);
        let huge_window = [&zstd[..4], &[0, 0xff], &zstd[6..]].concat();
        for (image, expected) in [
            (image(0x0207, &gzip), "0x0207"),
            (
                image(0x020f, &[0xfd, b'7', b'z', b'X', b'Z', 0]),
                "packed with xz",
            ),
            (image(0x020f, b""), "unknown format"),
            (image(0x020f, &gzip[..gzip.len() / 2]), "does not unpack"),
            (image(0x020f, &zstd[..zstd.len() / 2]), "does not unpack"),
            (image(0x020f, &huge_window), "window too large"),
            (image(0x020f, &gzip)[..PAYLOAD_LENGTH].to_vec(), "cut short"),
            (
                image(0x020f, &gzip)[..3 * SECTOR + 0x12].to_vec(),
                "cut short",
            ),
        ] {
            let error = extract(&image).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
        }
        assert!(!is_bzimage(b"#!/bin/sh"));
    }
}
