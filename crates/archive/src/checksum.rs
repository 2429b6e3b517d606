//! Verification of an object as a whole: its bytes and row count are compared with its metadata. [`verify_object()`].
//!
//! Rows are not parsed, so this is several times as fast as reading them. It serves a program that has written an
//! object and must confirm that the object is intact before it removes the inputs.

use std::collections::HashMap;
use std::io::{BufReader, Read};

use millrace_shared::hash::Sha256Hasher;

use super::read::HashingReader;
use super::{ArchiveKey, CorruptObject, CorruptionKind, ObjectMetadata};

const BLOCK_BYTES: usize = 64 * 1024;

/// Reads an object to its end and returns its metadata, which the content has been verified to match.
///
/// # Errors
/// [`CorruptObject`] if the key, the metadata, the bytes or the row count is not that of a valid archive object.
#[expect(clippy::implicit_hasher, reason = "the AWS SDK returns metadata as this type")]
pub fn verify_object<R: Read>(
    object: &str,
    metadata: &HashMap<String, String>,
    source: R,
) -> Result<ObjectMetadata, CorruptObject> {
    let proven = || {
        let name = ArchiveKey::parse(object)?;
        let stated = ObjectMetadata::parse(metadata).map_err(CorruptionKind::Metadata)?;
        let source = BufReader::with_capacity(BLOCK_BYTES, HashingReader { source, digest: Sha256Hasher::new() });
        let mut decoder = name.compression().decoder(source).map_err(CorruptionKind::Content)?;
        let (mut block, mut rows, mut last) = (vec![0; BLOCK_BYTES], 0, b'\n');
        loop {
            let read = decoder.read(&mut block).map_err(CorruptionKind::Content)?;
            let Some(byte) = block[..read].last() else { break };
            rows += memchr::memchr_iter(b'\n', &block[..read]).count() as u64;
            last = *byte;
        }
        if last != b'\n' {
            return Err(CorruptionKind::UnterminatedRow);
        }
        if rows != stated.rows {
            return Err(CorruptionKind::Rows(rows, stated.rows));
        }
        let sha256: [u8; 32] = decoder.source().get_ref().digest.clone().finish();
        if sha256 == stated.sha256 { Ok(stated) } else { Err(CorruptionKind::Sha256) }
    };
    proven().map_err(|kind| CorruptObject { object: object.to_owned(), row: None, kind })
}
