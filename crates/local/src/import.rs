//! Import of items into a table: [`import`] reads an export of DynamoDB to S3, or files with one item per line, and
//! writes the items in batches.
//!
//! The files are read as a stream ([`ImportSource`]), so that their size does not matter for memory. Every line is an
//! item in DynamoDB JSON, `{"Item":{"pk":{"S":"a"}}}` as in an export, or `{"pk":{"S":"a"}}`. Plain JSON is rejected,
//! since it does not distinguish a set from a list, nor binary from text.
//!
//! Batches are written one after the other, so that of several lines with one key the last one wins. The first invalid
//! line ends the import. Its error names the file, the line, the attribute and the fix, and the number of items that
//! were written before.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use millrace_shared::change::CanonicalKey;
use millrace_shared::error_chain::error_chain;
use millrace_shared::raw_item::RawItem;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::template::TableResource;

mod line;
mod progress;
mod source;
#[cfg(test)]
mod tests;

pub use line::ImportItemError;
use line::{ImportedItem, KeyAttributes};
pub use progress::ImportProgress;
pub use source::{ImportSource, ImportSourceError};

/// The maximum number of items of a `BatchWriteItem` request.
const BATCH_ITEMS: usize = 25;
/// A batch with at least this many bytes is written before it has [`BATCH_ITEMS`] items; a request may have 16 MB.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Number of batches that are read ahead.
const BATCHES_AHEAD: usize = 4;
/// Number of attempts to write a batch that is throttled.
const TRIES: u32 = 10;
/// The delay after the first attempt, which doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_millis(50);

/// An import that ends before the last line.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file cannot be read, or does not contain what the export's manifest says.
    #[error("{problem}; {}", written_text(*written))]
    Source {
        /// The file and its problem.
        problem: ImportSourceError,
        /// Number of items that were written before.
        written: u64,
    },
    /// A line does not contain an item of the table.
    #[error("{}:{line}: {problem}; {}", path.display(), written_text(*written))]
    Item {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// The problem of the line.
        problem: ImportItemError,
        /// Number of items that were written before.
        written: u64,
    },
    /// The table cannot be written.
    #[error("cannot write to table {table}: {reason}; {}", written_text(*written))]
    Table {
        /// The name of the table.
        table: String,
        /// The error.
        reason: String,
        /// Number of items that were written before.
        written: u64,
    },
}

impl ImportError {
    /// Returns the number of items that were written before the error.
    #[must_use]
    pub fn written(&self) -> u64 {
        match self {
            Self::Source { written, .. } | Self::Item { written, .. } | Self::Table { written, .. } => *written,
        }
    }
}

fn written_text(written: u64) -> String {
    match written {
        0 => "no item was written".to_owned(),
        1 => "1 item was written before".to_owned(),
        many => format!("{many} items were written before"),
    }
}

/// The result of a complete import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportOutcome {
    /// Number of lines with an item, each of which was written.
    pub items: u64,
    /// Number of those that replaced an item of an earlier line with the same key.
    pub replaced: u64,
    /// The duration.
    pub took: Duration,
}

/// An item and the line that contains it.
struct LocatedItem {
    path: PathBuf,
    line: u64,
    item: ImportedItem,
}

/// Items with different keys that are written in one request.
#[derive(Default)]
struct ImportBatch {
    items: Vec<LocatedItem>,
    keys: HashSet<CanonicalKey>,
    bytes: usize,
    /// Number of bytes that were read from the files when the batch was complete.
    bytes_read: u64,
    /// Number of items that have the key of an earlier line.
    replaced: u64,
}

/// A message of the thread that reads the files.
enum ReadBatch {
    Items(ImportBatch),
    Invalid { path: PathBuf, line: u64, problem: ImportItemError },
    Unreadable(ImportSourceError),
}

/// Writes the items of the source to the table, and reports the progress.
///
/// # Errors
/// [`ImportError`]; the items of the lines before it are in the table then.
pub async fn import(
    source: ImportSource,
    client: &Client,
    table: &TableResource,
    progress: ImportProgress,
) -> Result<ImportOutcome, ImportError> {
    let started = Instant::now();
    let keys = KeyAttributes::from_table(table);
    let (sender, mut batches) = mpsc::channel(BATCHES_AHEAD);
    // Ends when the receiver is dropped.
    let reader = tokio::task::spawn_blocking(move || read(source, &keys, &sender));
    let writer = BatchWriter { client, table: &table.name };
    let (mut items, mut replaced) = (0, 0);
    let mut failure = None;
    while let Some(batch) = batches.recv().await {
        let written = match batch {
            ReadBatch::Items(batch) => {
                let (count, bytes) = (batch.items.len() as u64, batch.bytes_read);
                replaced += batch.replaced;
                writer.write(batch.items, items).await.map(|()| (count, bytes))
            }
            ReadBatch::Invalid { path, line, problem } => {
                Err(ImportError::Item { path, line, problem, written: items })
            }
            ReadBatch::Unreadable(problem) => Err(ImportError::Source { problem, written: items }),
        };
        match written {
            Ok((count, bytes)) => {
                items += count;
                progress.report(items, bytes);
            }
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    drop(batches);
    progress.end();
    if let Err(panic) = reader.await {
        let (table, reason) = (table.name.clone(), panic.to_string());
        return Err(ImportError::Table { table, reason, written: items });
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(ImportOutcome { items, replaced, took: started.elapsed() }),
    }
}

/// Parses an item of this table from DynamoDB JSON, with the checks of an import.
///
/// # Errors
/// [`ImportItemError`], which names the attribute, its value and the fix.
pub fn parse_table_item(text: &str, table: &TableResource) -> Result<RawItem, ImportItemError> {
    let missing = || ImportItemError::Syntax("the text is empty".to_owned());
    let (_, item) = line::parse_item(text)?.ok_or_else(missing)?;
    check_table_item(&item, table)?;
    Ok(item)
}

/// Checks that an item has the key of this table and not more bytes than an item may have; returns its key.
///
/// # Errors
/// [`ImportItemError`], which names the attribute, its value and the fix.
pub fn check_table_item(item: &RawItem, table: &TableResource) -> Result<CanonicalKey, ImportItemError> {
    KeyAttributes::from_table(table).check_item(item).map(|(key, _)| key)
}

/// A sample that cannot be read completely.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// A file cannot be read.
    #[error(transparent)]
    Source(#[from] ImportSourceError),
    /// A line does not contain an item.
    #[error("{}:{line}: {problem}", path.display())]
    Item {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// The problem of the line.
        problem: ImportItemError,
    },
}

/// Returns the first items of files, at most `most`, each as DynamoDB JSON. They may be of any table.
///
/// # Errors
/// [`SampleError`] if a file cannot be read, or a line before the last of these items is not an item.
pub fn sample_items(mut source: ImportSource, most: usize) -> Result<Vec<String>, SampleError> {
    let mut items = Vec::new();
    while items.len() < most {
        let Some(line) = source.next_line()? else { break };
        match line::parse_item(line.text) {
            Ok(Some((text, _))) => items.push(text.to_owned()),
            // An empty line.
            Ok(None) => continue,
            Err(problem) => {
                return Err(SampleError::Item { path: line.path.to_owned(), line: line.number, problem });
            }
        }
        source.count_item();
    }
    Ok(items)
}

/// Reads the files line by line and sends the items in batches, until the receiver is dropped or a line is invalid.
fn read(mut source: ImportSource, keys: &KeyAttributes, batches: &mpsc::Sender<ReadBatch>) {
    let mut batch = ImportBatch::default();
    let mut known = KnownKeys::default();
    let ended = loop {
        let line = match source.next_line() {
            Ok(Some(line)) => line,
            Ok(None) => break None,
            Err(problem) => break Some(ReadBatch::Unreadable(problem)),
        };
        let item = match ImportedItem::parse(line.text, keys) {
            Ok(Some(item)) => item,
            // An empty line.
            Ok(None) => continue,
            Err(problem) => {
                let (path, line) = (line.path.to_owned(), line.number);
                break Some(ReadBatch::Invalid { path, line, problem });
            }
        };
        let (path, number) = (line.path.to_owned(), line.number);
        source.count_item();
        let is_full = batch.items.len() == BATCH_ITEMS || batch.bytes >= BATCH_BYTES;
        // A request may not contain a key twice.
        if is_full || batch.keys.contains(&item.key) {
            batch.bytes_read = source.bytes_read();
            if batches.blocking_send(ReadBatch::Items(std::mem::take(&mut batch))).is_err() {
                return;
            }
        }
        batch.replaced += u64::from(!known.insert(&item.key));
        batch.keys.insert(item.key.clone());
        batch.bytes += item.bytes;
        batch.items.push(LocatedItem { path, line: number, item });
    };
    batch.bytes_read = source.bytes_read();
    // The items before an invalid line are written, so that the number in the error is that of the lines before it.
    if !batch.items.is_empty() && batches.blocking_send(ReadBatch::Items(batch)).is_err() {
        return;
    }
    if let Some(last) = ended {
        // The receiver is dropped only after an error of the table, which is then the one that is reported.
        let _ = batches.blocking_send(last);
    }
}

/// The keys of all lines so far, as fingerprints of 64 bits: about 20 bytes of memory for each item.
#[derive(Default)]
struct KnownKeys(HashSet<u64>);

impl KnownKeys {
    /// Adds a key; returns false if it is known.
    fn insert(&mut self, key: &CanonicalKey) -> bool {
        let mut hasher = DefaultHasher::new();
        key.as_str().hash(&mut hasher);
        self.0.insert(hasher.finish())
    }
}

struct BatchWriter<'a> {
    client: &'a Client,
    table: &'a str,
}

impl BatchWriter<'_> {
    /// Writes a batch; `before` is the number of items that have been written.
    async fn write(&self, items: Vec<LocatedItem>, before: u64) -> Result<(), ImportError> {
        let mut requests: Vec<WriteRequest> = Vec::with_capacity(items.len());
        for located in &items {
            let put = PutRequest::builder().set_item(Some(located.item.attributes.clone())).build();
            let put = put.map_err(|error| self.failed(error.to_string(), before))?;
            requests.push(WriteRequest::builder().put_request(put).build());
        }
        let mut delay = FIRST_DELAY;
        for _ in 0..TRIES {
            let unprocessed = requests.len() as u64;
            let written = before + items.len() as u64 - unprocessed;
            let response = self.client.batch_write_item().request_items(self.table, requests).send().await;
            let response = match response {
                Ok(response) => response,
                // The message concerns one item, and does not say which.
                Err(error) if error.code() == Some("ValidationException") => {
                    return self.write_one_by_one(items, before).await;
                }
                Err(error) => return Err(self.failed(error_chain(&error), written)),
            };
            let left = response.unprocessed_items.and_then(|mut left| left.remove(self.table)).unwrap_or_default();
            if left.is_empty() {
                return Ok(());
            }
            requests = left;
            tokio::time::sleep(delay).await;
            delay *= 2;
        }
        let written = before + items.len() as u64 - requests.len() as u64;
        Err(self.failed(format!("{} items are still throttled after {TRIES} attempts", requests.len()), written))
    }

    /// Writes the items of a batch that was rejected, up to the one that is the reason.
    async fn write_one_by_one(&self, items: Vec<LocatedItem>, before: u64) -> Result<(), ImportError> {
        for (written, located) in (before..).zip(items) {
            let LocatedItem { path, line, item } = located;
            let put = self.client.put_item().table_name(self.table).set_item(Some(item.attributes)).send().await;
            if let Err(error) = put {
                if error.code() != Some("ValidationException") {
                    return Err(self.failed(error_chain(&error), written));
                }
                let reason = error.message().unwrap_or("no reason given").to_owned();
                return Err(ImportError::Item { path, line, problem: ImportItemError::Rejected(reason), written });
            }
        }
        Ok(())
    }

    fn failed(&self, reason: String, written: u64) -> ImportError {
        ImportError::Table { table: self.table.to_owned(), reason, written }
    }
}

/// The attributes of an item in the type of the SDK.
type Attributes = HashMap<String, AttributeValue>;
