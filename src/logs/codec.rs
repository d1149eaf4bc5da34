//! How closed segments are compressed.

use std::fs::File;
use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// The most memory that reading a Zstandard file may take, as a power of two of bytes: 16 MiB, where fanli itself needs 2 MiB.
const MOST_WINDOW: u32 = 24;

/// A way to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// gzip (RFC 1952): every tool reads it.
    Gzip,
    /// Zstandard (RFC 8878): several times as fast, and smaller.
    Zstd,
}

impl Codec {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Gzip, Self::Zstd];

    /// What names of compressed files end with.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }

    /// Compresses all of `from` into `to`; gives the file back.
    pub(super) fn pack(self, mut from: impl Read, to: File) -> io::Result<File> {
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(to, Compression::default());
                io::copy(&mut from, &mut encoder)?;
                encoder.finish()
            }
            Self::Zstd => {
                let mut encoder = zstd::Encoder::new(to, zstd::DEFAULT_COMPRESSION_LEVEL)?;
                encoder.include_checksum(true)?;
                io::copy(&mut from, &mut encoder)?;
                let mut file = encoder.finish()?;
                file.flush()?;
                Ok(file)
            }
        }
    }

    /// Reads what was compressed.
    pub fn unpack<'a>(self, from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(from)),
            Self::Zstd => {
                let mut decoder = zstd::Decoder::new(from)?;
                decoder.window_log_max(MOST_WINDOW)?;
                Box::new(decoder)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_unpacked() {
        let text = "GET /index.php 200\n".repeat(10_000);
        for codec in Codec::ALL {
            let file = codec.pack(text.as_bytes(), tempfile::tempfile().unwrap()).unwrap();
            assert!(file.metadata().unwrap().len() < 2_000);
            let mut file = file;
            io::Seek::rewind(&mut file).unwrap();
            let mut read = String::new();
            codec.unpack(file).unwrap().read_to_string(&mut read).unwrap();
            assert!(read == text, "{codec:?}");
        }
    }
}
