//! Tasks on the archive: merge its objects, convert them to Parquet, restore items, export them, and verify that no row
//! is missing.

pub mod audit;
pub mod compact;
pub mod export_import_table;
pub mod export_parquet;
pub mod merge;
pub mod restore;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::request::{InvalidRequest, in_range};
use super::task_run::TaskRun;
use crate::archive_scan::ScanStats;
use crate::progress::CountOutcome;

/// Default content size of an object that a task writes: not more than a query engine reads at once, and large enough
/// for a small number of objects.
const TARGET_BYTES: u64 = 128 * 1024 * 1024;
const MIN_TARGET_BYTES: u64 = 1_024;
/// Maximum target size. An object is spooled to a file before it is uploaded. A Parquet file may have twice the bytes
/// of its items, and the function has 512 MB of `/tmp`.
const MAX_TARGET_BYTES: u64 = 192 * 1024 * 1024;

/// Validates the field `target_file_size_bytes`, and returns the target size in bytes.
fn target_bytes(given: Option<u64>) -> Result<u64, InvalidRequest> {
    let target = in_range("target_file_size_bytes", given, MIN_TARGET_BYTES..=MAX_TARGET_BYTES);
    target.map(|target| target.unwrap_or(TARGET_BYTES)).map_err(|mut error| {
        if let InvalidRequest::Value { wanted, .. } = &mut error {
            wanted.push_str(", so that each file fits into the 512 MB of /tmp");
        }
        error
    })
}

/// A report entry about an object that a scan could not read.
#[derive(Serialize)]
struct CorruptObjectEntry<'a> {
    object: &'a str,
    outcome: &'static str,
    reason: String,
}

/// Counts and reports the corrupt and unrecognized objects of a scan, in the same way for every task. Only the first
/// segment reports them, because every segment scans the same objects.
fn report_corrupt_objects<P: Default + Serialize + DeserializeOwned>(
    task_run: &mut TaskRun<P>,
    task: &str,
    seen: &ScanStats,
) {
    if task_run.segment().segment > 0 {
        return;
    }
    task_run.count(format!("{task}.objects"), seen.objects);
    task_run.count_as(CountOutcome::NotProcessed, format!("{task}.corrupt"), seen.corrupt.len());
    task_run.count_as(CountOutcome::NotProcessed, format!("{task}.unrecognized"), seen.unrecognized.len());
    for corrupt in &seen.corrupt {
        task_run.report(&CorruptObjectEntry {
            object: &corrupt.object,
            outcome: "corrupt",
            reason: corrupt.to_string(),
        });
    }
    for object in &seen.unrecognized {
        let reason = "not written by the archiver or a compaction".to_owned();
        task_run.report(&CorruptObjectEntry { object, outcome: "unrecognized", reason });
    }
}
