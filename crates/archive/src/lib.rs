//! The archive format: encoding rows as an object of the bucket, and decoding an object into rows.
//!
//! An object contains the items that TTL removed from one table in one hour and one batch, as compressed JSON lines:
//!
//! ```text
//! archive/<table>/dt=YYYY-MM-DD/hr=HH/<digest>.ndjson.zst      (or .gz)
//! {"Item":{…DynamoDB JSON…},"Metadata":{"Revision":"<label>#<number>","RemovedAt":"<RFC 3339>","EventId":"…"}}
//! ```
//!
//! - The hour is the UTC hour of the stream record, not of the clock. The digest is computed over the (key, revision)
//!   of the rows. The same rows therefore always produce the same key and the same bytes, regardless of their order and
//!   of repetitions: a batch that Lambda redelivers overwrites the object that it wrote before.
//! - Rows are sorted by (key, revision), and each row occurs once per object. If Lambda slices a batch differently on
//!   redelivery, rows are repeated in another object. Read several objects through [`MergeIterator`], which drops the
//!   repetitions and, because each object is sorted, keeps only one row per object in memory.
//! - A row is one line. An image is written as the bytes that were received, unless they contain a line break. Numbers
//!   are never parsed.
//! - Compacted objects contain the same rows in fewer and larger files, partitioned by day: [`CompactedKey`].
//!   [`ArchiveKey`] is a key of either layout.
//! - The object's metadata is an [`ObjectMetadata`]; its format number is [`FORMAT`].
//!
//! Architecture invariant: apart from [`store`] and [`writer`], which access the bucket, this crate does no I/O, and it
//! does not read a clock and does not know the user record.
//! [`rows_from_removals`] decides which records of a batch become rows, [`write()`] encodes an object, and
//! [`RowReader`] decodes it and rejects a corrupt object with a specific error. [`ObjectWriter`] and
//! [`verify_object()`] process objects that are too large for memory.
//!
//! # Example
//!
//! Write the archive object of one removal, and read its row back:
//!
//! ```
//! use std::collections::HashMap;
//!
//! use millrace_archive::{ArchiveHour, ArchiveRow, Compression, KeyNames, RowReader, write};
//! use serde_json::value::RawValue;
//! use millrace_shared::change::ItemKey;
//! use millrace_shared::revision::Revision;
//! use time::OffsetDateTime;
//!
//! let key: Box<RawValue> = serde_json::from_str(r#"{"user_id": {"S": "ada"}}"#)?;
//! let key = ItemKey::parse(&key)?;
//! let removed_at = OffsetDateTime::from_unix_timestamp(1_795_356_000)?;
//! let row = ArchiveRow {
//!     key: key.canonical(),
//!     revision: Revision::parse("2026-06-27T00:48:05.899#100000000000000000001")?,
//!     removed_at,
//!     event_id: None,
//!     item: r#"{"user_id": {"S": "ada"}, "name": {"S": "Ada"}}"#,
//! };
//! let object = write("Users", ArchiveHour::from_datetime(removed_at), vec![row], Compression::Zstd)?;
//!
//! let metadata = object.description.encode()?.map(|(name, value)| (name.to_owned(), value));
//! let metadata = HashMap::from(metadata);
//! let names = KeyNames::new(["user_id"]);
//! let rows = RowReader::open(&object.key.to_string(), &metadata, names, object.bytes.as_slice())?;
//! let rows = rows.collect::<Result<Vec<_>, _>>()?;
//! assert_eq!(rows.len(), 1);
//! assert!(rows[0].item.get().contains("Ada"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod checksum;
mod compacted;
mod compression;
pub mod config;
mod items;
mod key;
mod merge;
mod object_metadata;
mod read;
mod row;
mod select;
pub mod store;
#[cfg(test)]
mod tests;
mod write;
pub mod writer;

pub use checksum::verify_object;
pub use compacted::{ArchiveKey, COMPACTED, CompactedKey, UnrecognizedKeyError};
pub use compression::{Compression, UnknownCompressionError};
pub use items::ItemWriter;
pub use key::{ARCHIVE, ArchiveDay, ArchiveHour, ObjectKey, ObjectKeyError};
pub use merge::MergeIterator;
pub use object_metadata::{FORMAT, ObjectMetadata};
pub use read::{CorruptObject, CorruptionKind, KeyNames, RowReader};
pub use row::{ArchiveRow, ArchivedRow, ItemText};
pub use select::{
    ArchiveBatch, HourPartition, MissingOldImageError, RejectedRecord, require_old_images, rows_from_changes,
    rows_from_removals,
};
pub use write::{EncodedObject, ObjectWriter, write};
