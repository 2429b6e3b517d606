//! Transformation of replicated items: pure functions that compute the item that a replica stores from a source item.
//!
//! An [`ItemTransform`] consists of a [`RowFilter`], which selects items by patterns over their images, and of
//! [`AttributeSettings`], which select, hash, truncate and rename attributes. Every writer of a replica applies it: the
//! replicator to the images of the stream, and the maintenance tasks to the items of the source table.
//!
//! # Example
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use millrace_shared::change::ItemImage;
//! use millrace_transform::{AttributePath, AttributeSettings, HashKey, ItemTransform, RowFilter, TransformSettings};
//! use serde_json::json;
//! use serde_json::value::RawValue;
//!
//! let path = |text| AttributePath::parse(text).unwrap();
//! let settings = TransformSettings {
//!     filter: Some(RowFilter::parse(&[json!({"status": {"S": [{"anything-but": ["draft"]}]}})]).unwrap()),
//!     attributes: AttributeSettings {
//!         include: Some(vec![path("id"), path("status"), path("email")]),
//!         hash: BTreeMap::from([(path("email"), "pii".to_owned())]),
//!         ..AttributeSettings::default()
//!     },
//! };
//! let keys = BTreeMap::from([("pii".to_owned(), HashKey::new(b"a key of 32 bytes from a secret.").unwrap())]);
//! let transform = ItemTransform::new(&settings, &keys).unwrap();
//!
//! let image = r#"{"id":{"S":"7"},"status":{"S":"paid"},"email":{"S":"ada@example.com"},"phone":{"S":"1"}}"#;
//! let image = ItemImage::parse(serde_json::from_str::<&RawValue>(image)?).unwrap();
//! let replicated = transform.apply(&["id".to_owned()], image)?.expect("the item matches");
//! assert!(replicated.starts_with(r#"{"id":{"S":"7"},"status":{"S":"paid"},"email":{"S":""#));
//! assert!(!replicated.contains("ada@example.com") && !replicated.contains("phone"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Architecture invariant: nothing in this crate reads a clock, the environment or a network.

pub mod attribute_path;
pub mod attribute_rules;
pub mod batch_transform;
pub mod columns;
pub mod item_transform;
pub mod row_filter;
mod value_hash;

pub use attribute_path::{AttributePath, PathStep};
pub use attribute_rules::{AttributeSettings, RuleProblem};
pub use item_transform::{ItemTransform, TransformError, TransformSettings};
pub use row_filter::{PatternProblem, RowFilter};
pub use value_hash::{HashKey, HashKeyError};
