//! The compression of an object, which the file extension of its key names.
//!
//! zstd uses a fifth of gzip's CPU time for about the same size. `aws dynamodb import-table`, Athena and
//! DuckDB read both and choose by the extension. zstd frames carry a checksum of their content, as gzip members do by
//! definition.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, Read, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use zstd::stream::raw::{self, Operation as _};
use zstd::stream::zio::Writer;
use zstd::zstd_safe::CParameter;

/// Level 1: one search table, and matches of at least 7 bytes. Rows repeat whole attribute names and values, so shorter
/// matches cost more literals than they save: in comparison with level 3 and tables of a similar size, rows of records
/// take 0.6 to 0.9 of the time and are 0 to 11% smaller; those whose items are mostly prose are 3 to 6% larger
/// (docs/benchmarks.md).
const ZSTD_LEVEL: i32 = 1;
/// zstd's window and its search table, as powers of two. The table fits in a core's caches and is twice that of the
/// level, which saves 3 to 5% of prose; a reader needs a window of 512 KiB.
const ZSTD_WINDOW_LOG: u32 = 19;
const ZSTD_HASH_LOG: u32 = 15;
/// The largest window that a reader accepts: 8 MiB. The archive writes no frame with a larger one; the limit bounds the
/// reader's memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Content is passed to the encoder in chunks of about this size.
pub(super) const CHUNK_BYTES: usize = 512 * 1024;

/// A compression that the archive supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// zstd, level 1.
    #[default]
    Zstd,
    /// gzip, level 6, for readers that support no other format.
    Gzip,
}

/// A name that is not a supported compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {0:?}: expected zstd or gzip")]
pub struct UnknownCompressionError(String);

impl Compression {
    /// Parses `zstd` or `gzip`.
    ///
    /// # Errors
    /// [`UnknownCompressionError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, UnknownCompressionError> {
        match text {
            "zstd" => Ok(Self::Zstd),
            "gzip" => Ok(Self::Gzip),
            _ => Err(UnknownCompressionError(text.to_owned())),
        }
    }

    /// Returns the extension of an object's key, by which readers choose the decoder.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Zstd => "zst",
            Self::Gzip => "gz",
        }
    }

    pub(super) fn encoder<W: Write>(self, sink: W) -> io::Result<RowEncoder<W>> {
        match self {
            Self::Zstd => {
                let context = CONTEXT.take().map_or_else(new_context, |mut used| used.reinit().map(|()| used))?;
                Ok(RowEncoder::Zstd(Writer::new(sink, context)))
            }
            // The header contains neither a time nor a name, so the same rows produce the same bytes.
            Self::Gzip => Ok(RowEncoder::Gzip(GzEncoder::new(sink, flate2::Compression::new(6)))),
        }
    }

    pub(super) fn decoder<R: BufRead>(self, source: R) -> io::Result<RowDecoder<R>> {
        match self {
            Self::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Ok(RowDecoder::Zstd(decoder))
            }
            Self::Gzip => Ok(RowDecoder::Gzip(Box::new(MultiGzDecoder::new(source)))),
        }
    }
}

thread_local! {
    /// The zstd context of the last object that was compressed on this thread. Its memory, more than a megabyte, is
    /// used again; the bytes of an object do not depend on the objects before it.
    static CONTEXT: Cell<Option<raw::Encoder<'static>>> = const { Cell::new(None) };
}

fn new_context() -> io::Result<raw::Encoder<'static>> {
    let mut context = raw::Encoder::new(ZSTD_LEVEL)?;
    context.set_parameter(CParameter::ChecksumFlag(true))?;
    context.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_LOG))?;
    context.set_parameter(CParameter::HashLog(ZSTD_HASH_LOG))?;
    Ok(context)
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        })
    }
}

/// Compresses into a sink as one zstd frame or one gzip member. Several consecutive frames would also be a valid file
/// (RFC 8878, section 3), but not every reader continues after the first, and such a reader does not report the data
/// that it ignored.
pub(super) enum RowEncoder<W: Write> {
    Zstd(Writer<W, raw::Encoder<'static>>),
    Gzip(GzEncoder<W>),
}

impl<W: Write> RowEncoder<W> {
    /// Compresses a chunk of content.
    pub(super) fn write_all(&mut self, content: &[u8]) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => encoder.write_all(content),
            Self::Gzip(encoder) => encoder.write_all(content),
        }
    }

    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Zstd(mut encoder) => {
                encoder.finish()?;
                let (sink, context) = encoder.into_inner();
                CONTEXT.set(Some(context));
                Ok(sink)
            }
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

/// Decompresses while it is read. Both decoders read to the end of the source, so bytes after the last frame are
/// reported as corruption instead of being ignored.
pub(super) enum RowDecoder<R: BufRead> {
    Zstd(zstd::Decoder<'static, R>),
    Gzip(Box<MultiGzDecoder<R>>),
}

impl<R: BufRead> RowDecoder<R> {
    pub(super) fn source(&self) -> &R {
        match self {
            Self::Zstd(decoder) => decoder.get_ref(),
            Self::Gzip(decoder) => decoder.get_ref(),
        }
    }
}

impl<R: BufRead> Read for RowDecoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_compression_is_read_by_its_name_alone() {
        for compression in [Compression::Zstd, Compression::Gzip] {
            assert_eq!(Compression::parse(&compression.to_string()), Ok(compression));
        }
        for text in ["", "ZSTD", "zst", "brotli"] {
            assert_eq!(Compression::parse(text), Err(UnknownCompressionError(text.to_owned())));
        }
    }

    #[test]
    fn content_of_many_pieces_is_one_frame_that_a_small_window_reads() {
        let mut encoder = Compression::Zstd.encoder(Vec::new()).unwrap();
        for _ in 0..9 {
            encoder.write_all(&vec![b'a'; CHUNK_BYTES]).unwrap();
        }
        let bytes = encoder.finish().unwrap();
        assert_eq!(zstd::zstd_safe::find_frame_compressed_size(&bytes), Ok(bytes.len()));
        let mut decoder = zstd::Decoder::with_buffer(bytes.as_slice()).unwrap();
        decoder.window_log_max(ZSTD_WINDOW_LOG).unwrap();
        assert_eq!(io::copy(&mut decoder, &mut io::sink()).unwrap(), 9 * CHUNK_BYTES as u64);
    }

    proptest! {
        /// Every context compresses the same: the one of the encoder of the crate `zstd`, a new one, and one that was
        /// used for other content. It also does not matter in which pieces the content is written.
        #[test]
        fn a_used_context_compresses_as_a_new_one(
            contents in prop::collection::vec((0..400_000_usize, 1..2_000_usize, 0..7_u8), 1..4),
            piece in 1..300_000_usize,
        ) {
            for (length, period, seed) in contents {
                let mixed = |index: usize| (index % period * 31 + index / 1_000 * usize::from(seed)).to_le_bytes()[0];
                let content: Vec<u8> = (0..length).map(mixed).collect();
                let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL).unwrap();
                encoder.include_checksum(true).unwrap();
                encoder.window_log(ZSTD_WINDOW_LOG).unwrap();
                encoder.set_parameter(CParameter::HashLog(ZSTD_HASH_LOG)).unwrap();
                encoder.write_all(&content).unwrap();
                let expected = encoder.finish().unwrap();
                let mut abandoned = Compression::Zstd.encoder(Vec::new()).unwrap();
                abandoned.write_all(b"abandoned").unwrap();
                drop(abandoned);
                for _ in 0..2 {
                    let mut encoder = Compression::Zstd.encoder(Vec::new()).unwrap();
                    content.chunks(piece).for_each(|piece| encoder.write_all(piece).unwrap());
                    prop_assert!(encoder.finish().unwrap() == expected, "{} bytes", length);
                }
            }
        }
    }

    #[test]
    fn objects_of_several_frames_are_read_to_their_end() {
        for compression in [Compression::Zstd, Compression::Gzip] {
            let part = |content: &[u8]| {
                let mut encoder = compression.encoder(Vec::new()).unwrap();
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            };
            let bytes = [part(b"one\n"), part(b""), part(b"two\n")].concat();
            let mut content = String::new();
            compression.decoder(bytes.as_slice()).unwrap().read_to_string(&mut content).unwrap();
            assert_eq!(content, "one\ntwo\n", "{compression}");
        }
    }

    #[test]
    fn compressed_content_round_trips_and_trailing_bytes_are_an_error() {
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
