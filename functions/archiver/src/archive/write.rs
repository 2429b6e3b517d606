//! Rows to an object: sorted, named by what they are, compressed, and described.

use std::io;

use sha2::{Digest as _, Sha256};

use super::key::RowsDigest;
use super::row::LineWriter;
use super::{Compression, Description, Hour, ObjectKey, Row};

/// Lines are handed to the encoder in pieces of about this size: row by row costs a call into it each.
const PIECE_BYTES: usize = 64 * 1024;

/// An object, ready to be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Where it lies.
    pub key: ObjectKey,
    /// Its metadata.
    pub description: Description,
    /// Its bytes, compressed.
    pub bytes: Vec<u8>,
}

/// Makes the object of one table's rows of one hour.
///
/// The same rows give the same object, whatever order they come in and however often each does.
///
/// # Errors
/// If the encoder gives up, for want of memory, or a time lies outside of the years that RFC 3339 can write.
pub fn write(table: &str, hour: Hour, mut rows: Vec<Row<'_>>, compression: Compression) -> io::Result<Object> {
    rows.sort_unstable_by(Row::order);
    rows.dedup_by(|later, kept| later.is_named_as(kept));

    let mut encoder = compression.encoder()?;
    let mut digest = RowsDigest::default();
    let mut line = LineWriter::default();
    let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
    for row in &rows {
        digest.push(row.key, row.revision);
        line.push(row, &mut piece)?;
        if piece.len() >= PIECE_BYTES {
            encoder.write_all(&piece)?;
            piece.clear();
        }
    }
    encoder.write_all(&piece)?;
    let bytes = encoder.finish()?;

    let times = || rows.iter().map(|row| row.removed_at);
    let description = Description {
        rows: rows.len() as u64,
        first: times().min().unwrap_or(hour.start()),
        last: times().max().unwrap_or(hour.start()),
        sha256: Sha256::digest(&bytes).into(),
    };
    let key = ObjectKey { table: table.to_owned(), hour, digest: digest.finish(), compression };
    Ok(Object { key, description, bytes })
}
