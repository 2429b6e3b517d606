//! The archiver: writes the items that TTL removed to S3, and acknowledges them once S3 has confirmed the write.
//!
//! It is invoked by the table's stream, filtered to TTL removals, and does not know the user record: an item is
//! archived as the bytes that the stream carried. [`archive`] is the pure format (encoding and decoding), [`store`]
//! accesses the bucket, and [`handler`] processes a batch.
//!
//! Not included: deduplication by key. The replicator reduces a batch to the latest change of each item; here every
//! removal is a row.
//!
//! # Example
//!
//! Write the archive object of one removal, and read its row back:
//!
//! ```
//! use std::collections::HashMap;
//!
//! use archiver::archive::{ArchiveHour, ArchiveRow, Compression, KeyNames, RowReader, write};
//! use serde_json::value::RawValue;
//! use shared::change::ItemKey;
//! use shared::revision::Revision;
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
//! let object = write("Users", ArchiveHour::of(removed_at), vec![row], Compression::Zstd)?;
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

pub mod archive;
pub mod config;
pub mod handler;
pub mod store;

pub use config::connect;
pub use handler::{ArchiverError, ArchiverHandler};
