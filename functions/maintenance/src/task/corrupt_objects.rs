//! Counts and reports the objects that a scan could not read, in the same way for every task.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::task_run::TaskRun;
use crate::archive_scan::ScanStats;
use crate::progress::CountOutcome;

#[derive(Serialize)]
struct CorruptObjectEntry<'a> {
    object: &'a str,
    outcome: &'static str,
    reason: String,
}

/// Reports corrupt and unrecognized objects. Only the first segment reports them, because every segment scans the same
/// objects.
pub(super) fn report_corrupt_objects<P: Default + Serialize + DeserializeOwned>(
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
    for damage in &seen.corrupt {
        task_run.report(&CorruptObjectEntry { object: &damage.object, outcome: "corrupt", reason: damage.to_string() });
    }
    for object in &seen.unrecognized {
        let reason = "not written by the archiver or a compaction".to_owned();
        task_run.report(&CorruptObjectEntry { object, outcome: "unrecognized", reason });
    }
}
