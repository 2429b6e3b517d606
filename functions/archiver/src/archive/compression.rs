//! How an object is compressed; its key's ending says it.
//!
//! zstd at level 3 takes a fifth of gzip's CPU at about its size, and `aws dynamodb import-table`, Athena and DuckDB
//! read both by the ending. zstd frames carry a checksum of their content, as gzip's do by definition.

use std::fmt;
use std::io::{self, BufRead, Read, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

const ZSTD_LEVEL: i32 = 3;
/// A reader refuses a frame that asks for a larger window than 8 MiB (frames of 512 KiB ask for that much; a stream at
/// level 3, as earlier versions wrote, for 2): its memory is bounded by this.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Content is handed to the encoder in pieces of about this size. zstd makes a frame of each: of a piece that lies in one
/// place it compresses twice as much a second as of a stream, and a reader needs a quarter of the window. The price is below 1% of size.
pub(super) const PIECE_BYTES: usize = 512 * 1024;

/// A compression of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// zstd, level 3.
    #[default]
    Zstd,
    /// gzip, level 6, for readers that know nothing else.
    Gzip,
}

/// A text that names no compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no compression: zstd and gzip are")]
pub struct UnknownCompression(String);

impl Compression {
    /// Reads `zstd` or `gzip`.
    ///
    /// # Errors
    /// [`UnknownCompression`] for anything else.
    pub fn parse(text: &str) -> Result<Self, UnknownCompression> {
        match text {
            "zstd" => Ok(Self::Zstd),
            "gzip" => Ok(Self::Gzip),
            _ => Err(UnknownCompression(text.to_owned())),
        }
    }

    /// The ending of an object's key, by which readers choose.
    #[must_use]
    pub fn ending(self) -> &'static str {
        match self {
            Self::Zstd => "zst",
            Self::Gzip => "gz",
        }
    }

    pub(super) fn encoder<W: Write>(self, sink: W) -> io::Result<Encoder<W>> {
        match self {
            Self::Zstd => {
                let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
                compressor.include_checksum(true)?;
                Ok(Encoder::Zstd(Frames { sink, compressor, frame: Vec::new(), is_empty: true }))
            }
            // No time and no name in the header: the same rows are the same bytes.
            Self::Gzip => Ok(Encoder::Gzip(GzEncoder::new(sink, flate2::Compression::new(6)))),
        }
    }

    /// An encoder that writes zstd as one frame, for readers of whom nobody says that they go on after the first.
    pub(super) fn stream_encoder<W: Write>(self, sink: W) -> io::Result<Encoder<W>> {
        match self {
            Self::Zstd => {
                let mut encoder = zstd::Encoder::new(sink, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Ok(Encoder::ZstdStream(encoder))
            }
            Self::Gzip => self.encoder(sink),
        }
    }

    pub(super) fn decoder<R: BufRead>(self, source: R) -> io::Result<Decoder<R>> {
        match self {
            Self::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Ok(Decoder::Zstd(decoder))
            }
            Self::Gzip => Ok(Decoder::Gzip(Box::new(MultiGzDecoder::new(source)))),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        })
    }
}

/// Compresses into a sink, a piece at a time.
pub(super) enum Encoder<W: Write> {
    Zstd(Frames<W>),
    ZstdStream(zstd::Encoder<'static, W>),
    Gzip(GzEncoder<W>),
}

/// A zstd frame a piece, one behind the other, which is a zstd file (RFC 8878, section 3).
pub(super) struct Frames<W> {
    sink: W,
    compressor: zstd::bulk::Compressor<'static>,
    frame: Vec<u8>,
    is_empty: bool,
}

impl<W: Write> Frames<W> {
    fn write_all(&mut self, content: &[u8]) -> io::Result<()> {
        self.frame.clear();
        self.frame.reserve(zstd::zstd_safe::compress_bound(content.len()));
        self.compressor.compress_to_buffer(content, &mut self.frame)?;
        self.is_empty = false;
        self.sink.write_all(&self.frame)
    }

    fn finish(mut self) -> io::Result<W> {
        if self.is_empty {
            self.write_all(&[])?;
        }
        Ok(self.sink)
    }
}

impl<W: Write> Encoder<W> {
    /// Adds a piece.
    pub(super) fn write_all(&mut self, content: &[u8]) -> io::Result<()> {
        match self {
            Self::Zstd(_) if content.is_empty() => Ok(()),
            Self::Zstd(frames) => frames.write_all(content),
            Self::ZstdStream(encoder) => encoder.write_all(content),
            Self::Gzip(encoder) => encoder.write_all(content),
        }
    }

    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Zstd(frames) => frames.finish(),
            Self::ZstdStream(encoder) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

/// Decompresses as it is read. Both decoders read on to the end of the source, so bytes after the last frame are
/// damage, not silence.
pub(super) enum Decoder<R: BufRead> {
    Zstd(zstd::Decoder<'static, R>),
    Gzip(Box<MultiGzDecoder<R>>),
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn source(&self) -> &R {
        match self {
            Self::Zstd(decoder) => decoder.get_ref(),
            Self::Gzip(decoder) => decoder.get_ref(),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compression_is_read_by_its_name_alone() {
        for compression in [Compression::Zstd, Compression::Gzip] {
            assert_eq!(Compression::parse(&compression.to_string()), Ok(compression));
        }
        for text in ["", "ZSTD", "zst", "brotli"] {
            assert_eq!(Compression::parse(text), Err(UnknownCompression(text.to_owned())));
        }
    }

    #[test]
    fn a_stream_is_one_frame_whatever_its_size_and_pieces_are_a_frame_each() {
        let piece = vec![b'a'; PIECE_BYTES];
        let frames = |mut encoder: Encoder<Vec<u8>>| {
            for _ in 0..3 {
                encoder.write_all(&piece).unwrap();
            }
            let (bytes, mut at, mut frames) = (encoder.finish().unwrap(), 0, 0);
            while at < bytes.len() {
                at += zstd::zstd_safe::find_frame_compressed_size(&bytes[at..]).unwrap();
                frames += 1;
            }
            frames
        };
        assert_eq!(frames(Compression::Zstd.stream_encoder(Vec::new()).unwrap()), 1);
        assert_eq!(frames(Compression::Zstd.encoder(Vec::new()).unwrap()), 3);
    }

    #[test]
    fn what_was_compressed_is_read_back_and_bytes_behind_it_are_not_overlooked() {
        for compression in [Compression::Zstd, Compression::Gzip] {
            let mut encoder = compression.encoder(Vec::new()).unwrap();
            encoder.write_all(b"one row\n").unwrap();
            let mut bytes = encoder.finish().unwrap();
            let mut content = String::new();
            compression.decoder(bytes.as_slice()).unwrap().read_to_string(&mut content).unwrap();
            assert_eq!(content, "one row\n");

            bytes.extend_from_slice(b"garbage");
            let read = compression.decoder(bytes.as_slice()).unwrap().read_to_string(&mut content);
            assert!(read.is_err(), "{compression}");
        }
    }
}
