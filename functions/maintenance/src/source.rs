//! The table that the replicas mirror: its items, and the label of its latest stream.

use std::collections::BTreeMap;

use millrace_shared::change::{CanonicalKey, replace_stream_steps, stream_on_command};
use millrace_shared::raw_item::RawItem;
use millrace_shared::revision::StreamLabel;
use millrace_shared::shell;
use millrace_shared::table_reader::{ImagePage, ScanPage, ScanSegment, SourceDescription, TableReadError, TableReader};
use serde_json::{Map, Value};

/// Error of the source table.
#[derive(Debug, thiserror::Error)]
pub enum SourceTableError {
    /// A request to the table failed.
    #[error("SOURCE_TABLE: {0}")]
    Table(#[from] TableReadError),
    /// The table has never had a stream, so its changes have no revisions.
    #[error("SOURCE_TABLE: table {0} has no stream: turn it on with {command}", command = stream_on_command(.0))]
    NoStream(String),
    /// The stream is disabled, so no change reaches the replicas.
    #[error(
        "SOURCE_TABLE: the latest stream {0} is disabled: turn a new one on with {command}, and deploy with its ARN",
        command = stream_on_command(table_of(.0))
    )]
    StreamDisabled(String),
    /// The stream contains no new images, so no change can be applied to a replica.
    #[error("SOURCE_TABLE: stream {arn} has the view {view}, without new images: {}", replace_stream_steps(arn))]
    StreamWithoutImages {
        /// The stream's ARN.
        arn: String,
        /// The stream's view type.
        view: String,
    },
}

/// A key of a request that is not a key of the source table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{field} is a key of {found}, but the key of {expected}: set it to DynamoDB JSON such as \
     {example}, as in millrace task {task} --{field} {quoted}",
    quoted = shell::quote(example)
)]
pub struct OtherKeyError {
    /// The field of the request.
    field: &'static str,
    /// The task.
    task: &'static str,
    /// The names and types of the attributes of the given key.
    found: String,
    /// The table, with the names and types of its key attributes.
    expected: String,
    /// A key of the table.
    example: String,
}

/// Returns the name of the table of a stream.
fn table_of(stream_arn: &str) -> &str {
    let name = stream_arn.split_once(":table/").and_then(|(_, rest)| rest.split('/').next());
    name.unwrap_or(stream_arn)
}

/// The latest stream of the source table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStream {
    /// The stream's label.
    pub label: StreamLabel,
    /// The stream's ARN.
    pub arn: String,
    /// The stream's view type; `None` if the stream is disabled.
    view: Option<String>,
}

impl SourceStream {
    /// Verifies that changes can be applied to replicas: the stream is enabled, with new images.
    ///
    /// # Errors
    /// [`SourceTableError`], whose message says how to replace the stream.
    pub fn ensure_new_images(&self) -> Result<(), SourceTableError> {
        match self.view.as_deref() {
            Some("NEW_IMAGE" | "NEW_AND_OLD_IMAGES") => Ok(()),
            Some(view) => Err(SourceTableError::StreamWithoutImages { arn: self.arn.clone(), view: view.to_owned() }),
            None => Err(SourceTableError::StreamDisabled(self.arn.clone())),
        }
    }
}

/// The source table.
#[derive(Debug, Clone)]
pub struct SourceTable {
    table: TableReader,
    description: SourceDescription,
    key_names: Vec<String>,
}

impl SourceTable {
    /// Opens the table and reads its description.
    ///
    /// # Errors
    /// [`SourceTableError`] if the description cannot be read.
    pub async fn open(table: TableReader) -> Result<Self, SourceTableError> {
        let description = table.describe().await?;
        Ok(Self { table, key_names: description.key_names(), description })
    }

    /// Returns the description that was read when the table was opened.
    #[must_use]
    pub fn description(&self) -> &SourceDescription {
        &self.description
    }

    /// Returns the table's name as it appears in its ARN, and therefore in the stream's ARN and the archive's keys,
    /// even if the function is configured with an ARN instead of a name.
    #[must_use]
    pub fn table_name(&self) -> &str {
        self.description.arn.split_once(":table/").map_or(self.table.name(), |(_, name)| name)
    }

    /// Verifies that a key of a request, which `field` of this task contains, has the attributes of the table's key.
    ///
    /// # Errors
    /// [`OtherKeyError`], which names both key schemas and contains no value of the key.
    pub fn check_key(&self, field: &'static str, task: &'static str, key: &CanonicalKey) -> Result<(), OtherKeyError> {
        let given: BTreeMap<String, Map<String, Value>> = serde_json::from_str(key.as_str()).unwrap_or_default();
        let given = given.into_iter().map(|(name, value)| (name, value.keys().next().cloned().unwrap_or_default()));
        let given: BTreeMap<String, String> = given.collect();
        let expected = &self.description.key;
        if given == expected.iter().cloned().collect() {
            return Ok(());
        }
        let names = |key: &mut dyn Iterator<Item = (&String, &String)>| {
            key.map(|(name, kind)| format!("{name:?} ({kind})")).collect::<Vec<_>>().join(", ")
        };
        let example = expected.iter().map(|(name, kind)| {
            let value = match kind.as_str() {
                "N" => "1",
                "B" => "AA==",
                _ => "a",
            };
            format!("{}:{{\"{kind}\":\"{value}\"}}", Value::from(name.as_str()))
        });
        Err(OtherKeyError {
            field,
            task,
            found: names(&mut given.iter()),
            expected: format!(
                "table {} is {}",
                self.table_name(),
                names(&mut expected.iter().map(|(name, kind)| (name, kind)))
            ),
            example: format!("{{{}}}", example.collect::<Vec<_>>().join(",")),
        })
    }

    /// Reads the latest stream, as of now.
    ///
    /// # Errors
    /// [`SourceTableError`] if the description cannot be read, or the table has no stream.
    pub async fn stream(&self) -> Result<SourceStream, SourceTableError> {
        let description = self.table.describe().await?;
        let view = description.stream_view.clone();
        let stream = description.stream_label().zip(description.stream_arn);
        let stream = stream.map(|(label, arn)| SourceStream { label, arn, view });
        stream.ok_or_else(|| SourceTableError::NoStream(self.table_name().to_owned()))
    }

    /// Reads the name of the attribute by which TTL removes items; `None` if TTL is not enabled.
    ///
    /// # Errors
    /// [`SourceTableError`] if it cannot be read.
    pub async fn ttl_attribute(&self) -> Result<Option<String>, SourceTableError> {
        Ok(self.table.ttl_attribute().await?)
    }

    /// Reads the items with these keys; also returns the read capacity units that this consumed.
    ///
    /// # Errors
    /// [`SourceTableError`] if not all of them can be read.
    pub async fn read(&self, keys: &[CanonicalKey]) -> Result<(Vec<Option<RawItem>>, f64), SourceTableError> {
        let found = self.table.read(keys).await?;
        Ok((found.items, found.units))
    }

    /// Reads a page of a segment.
    ///
    /// # Errors
    /// [`SourceTableError`] if the page cannot be read.
    pub async fn scan(&self, segment: ScanSegment, after: Option<&CanonicalKey>) -> Result<ScanPage, SourceTableError> {
        Ok(self.table.scan(segment, after, &self.key_names, None).await?)
    }

    /// Reads a page of a segment, as the service's own JSON.
    ///
    /// # Errors
    /// [`SourceTableError`] if the page cannot be read.
    pub async fn scan_images(
        &self,
        segment: ScanSegment,
        after: Option<&CanonicalKey>,
    ) -> Result<ImagePage, SourceTableError> {
        Ok(self.table.scan_images(segment, after, &self.key_names).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_is_disabled_or_without_new_images_is_refused_with_the_commands() {
        let arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/Orders/stream/2026-11-01T08:00:00.000";
        let label = StreamLabel::parse("2026-11-01T08:00:00.000").unwrap();
        let refusal = |view: Option<&str>| {
            let stream = SourceStream { label, arn: arn.to_owned(), view: view.map(str::to_owned) };
            stream.ensure_new_images().map_err(|error| error.to_string())
        };
        for view in ["NEW_IMAGE", "NEW_AND_OLD_IMAGES"] {
            assert_eq!(refusal(Some(view)), Ok(()));
        }
        let on = stream_on_command("Orders");
        assert!(on.contains("--table-name Orders") && on.contains("StreamViewType=NEW_AND_OLD_IMAGES"), "{on}");
        for (view, named) in [(None, "is disabled"), (Some("KEYS_ONLY"), "KEYS_ONLY"), (Some("OLD_IMAGE"), "OLD_IMAGE")]
        {
            let error_text = refusal(view).unwrap_err();
            assert!([arn, named, &on].iter().all(|part| error_text.contains(part)), "{error_text}");
        }
    }
}
