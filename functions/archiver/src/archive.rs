//! The archive's format, both ways: rows to an object of the bucket, and back.
//!
//! An object holds the items that TTL removed from one table in one hour and one batch, as JSON lines, compressed:
//!
//! ```text
//! archive/<table>/dt=YYYY-MM-DD/hr=HH/<digest>.ndjson.zst      (or .gz)
//! {"Item":{…DynamoDB JSON…},"Metadata":{"Revision":"<label>#<number>","RemovedAt":"<RFC 3339>","EventId":"…"}}
//! ```
//!
//! - The hour is that of the record, in UTC, never the clock's. The digest is over the (key, revision) of the rows, so
//!   the same rows get the same key and the same bytes, in whatever order and however often they came: a batch that
//!   is delivered again overwrites what it wrote.
//! - Rows are sorted by (key, revision) and stand there once. A batch that Lambda slices differently the second time
//!   repeats rows in another object: whoever reads several objects reads them through [`MergeIterator`], which drops the
//!   repetitions and, because each object is sorted, holds one row of each.
//! - A row is one line: an image goes out as the bytes it came in, unless these hold a line break. No number is
//!   parsed on the way.
//! - Compacted objects hold the same rows in fewer and larger files, by the day: [`CompactedKey`]. [`ArchiveKey`] is a key of
//!   either layout.
//! - The object's metadata is its [`ObjectMetadata`]; the format's number in it is [`FORMAT`].
//!
//! Architecture invariant: nothing here does I/O of its own, reads a clock or knows a user. [`select`] decides which
//! records of a batch become rows, [`write()`] makes the object, [`RowReader`] reads it back and refuses damage by name;
//! [`ObjectWriter`] and [`checksum()`] are for objects too large to be held.

mod checksum;
mod compacted;
mod compression;
mod items;
mod key;
mod merge;
mod object_metadata;
mod read;
mod row;
mod select;
#[cfg(test)]
mod tests;
mod write;

pub use checksum::verify_object;
pub use compacted::{ArchiveKey, COMPACTED, CompactedKey, UnrecognizedKey};
pub use compression::{Compression, UnknownCompression};
pub use items::ItemWriter;
pub use key::{ARCHIVE, ArchiveDay, ArchiveHour, NotAnObjectKey, ObjectKey};
pub use merge::MergeIterator;
pub use object_metadata::{FORMAT, ObjectMetadata};
pub use read::{CorruptObject, CorruptionKind, KeyNames, RowReader};
pub use row::{ArchiveRow, ArchivedRow, ItemText};
pub use select::{ArchiveBatch, HourPartition, MissingOldImageError, RejectedRecord, rows_from_removals};
pub use write::{EncodedObject, ObjectWriter, write};
