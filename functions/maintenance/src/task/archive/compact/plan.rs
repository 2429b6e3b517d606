//! Selects the objects that are merged next. Pure functions.

use millrace_archive::{ArchiveHour, ArchiveKey};
use time::OffsetDateTime;

use crate::catalog::{self, ArchiveObject};
use crate::task::archive::merge::{FAN_IN, SortedRun};

/// The period whose objects are merged.
pub(super) struct MergePeriod {
    /// The first hour.
    pub(super) from: Option<ArchiveHour>,
    /// The end: only hours that start before this time.
    pub(super) to: OffsetDateTime,
    /// If true, each hour is merged separately.
    pub(super) hourly: bool,
}

impl MergePeriod {
    fn holds(&self, hour: ArchiveHour) -> bool {
        self.from.is_none_or(|from| hour >= from) && hour.start() < self.to
    }
}

/// Returns the next merge of a day's objects, or `None` if there is nothing left to merge.
///
/// Small runs are merged first, so that few merges read the large ones again.
pub(super) fn next(objects: &[ArchiveObject], period: &MergePeriod) -> Option<Vec<SortedRun>> {
    let hour = |object: &'_ ArchiveObject| match &object.name {
        ArchiveKey::Archived(key) if period.holds(key.hour) => Some(key.hour),
        _ => None,
    };
    let mut archived: Vec<_> = objects.iter().filter_map(|object| Some((hour(object)?, object))).collect();
    let mut runs = catalog::group_by_run(objects);
    let first = archived.iter().map(|(hour, _)| *hour).min();
    if period.hourly {
        archived.retain(|(hour, _)| Some(*hour) == first);
        runs.clear();
    }
    if archived.is_empty() && runs.len() < 2 {
        return None;
    }
    let mut all: Vec<(u64, SortedRun)> =
        archived.into_iter().map(|(_, object)| (object.bytes, vec![object.key.clone()])).collect();
    all.extend(runs);
    all.sort();
    all.truncate(FAN_IN);
    Some(all.into_iter().map(|(_, run)| run).collect())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn archived(hour: u8, nth: u32, bytes: u64) -> ArchiveObject {
        shelved(format!("archive/T/dt=2026-11-22/hr={hour:02}/{nth:032x}.ndjson.zst"), bytes)
    }

    fn compacted(run: u32, part: u32, bytes: u64) -> ArchiveObject {
        shelved(format!("compacted/T/dt=2026-11-22/{run:032x}-{part:05}.ndjson.zst"), bytes)
    }

    fn shelved(key: String, bytes: u64) -> ArchiveObject {
        ArchiveObject { name: ArchiveKey::parse(&key).unwrap(), key, bytes }
    }

    fn daily() -> MergePeriod {
        MergePeriod { from: None, to: datetime!(2026-11-23 0:00 UTC), hourly: false }
    }

    #[test]
    fn a_day_is_merged_until_one_run_is_left() {
        assert_eq!(next(&[], &daily()), None);
        assert_eq!(next(&[compacted(1, 1, 9), compacted(1, 0, 9)], &daily()), None, "one run is what is wanted");
        let (lone, part) = (archived(3, 1, 5), compacted(1, 0, 9));
        assert_eq!(next(std::slice::from_ref(&lone), &daily()), Some(vec![vec![lone.key.clone()]]));
        let late = next(&[lone.clone(), part.clone()], &daily()).unwrap();
        assert_eq!(late, [vec![lone.key], vec![part.key]]);
    }

    #[test]
    fn parts_of_a_run_are_read_one_after_the_other_and_the_smallest_runs_go_first() {
        let mut objects: Vec<_> = (0..40).map(|n| archived(1, n, 100 - u64::from(n))).collect();
        objects.extend([compacted(7, 1, 1), compacted(7, 0, 2)]);
        let plan = next(&objects, &daily()).unwrap();
        assert_eq!(plan.len(), FAN_IN);
        assert_eq!(plan[0], [objects[41].key.clone(), objects[40].key.clone()]);
        assert_eq!(plan[1], [objects[39].key.clone()]);
    }

    #[test]
    fn an_hour_is_merged_by_itself() {
        let objects = [archived(4, 1, 1), archived(3, 2, 1), archived(3, 3, 1), compacted(1, 0, 1), compacted(2, 0, 1)];
        let hourly = MergePeriod { hourly: true, ..daily() };
        assert_eq!(next(&objects, &hourly).unwrap(), [vec![objects[1].key.clone()], vec![objects[2].key.clone()]]);
        assert_eq!(next(&objects[3..], &hourly), None, "what is merged stays");
    }

    #[test]
    fn objects_outside_the_merge_period_are_not_merged() {
        let objects = [archived(2, 1, 1), archived(3, 2, 1), archived(4, 3, 1)];
        let from = Some(ArchiveHour::from_datetime(datetime!(2026-11-22 3:00 UTC)));
        let three = MergePeriod { from, to: datetime!(2026-11-22 4:00 UTC), hourly: false };
        assert_eq!(next(&objects, &three), Some(vec![vec![objects[1].key.clone()]]));
    }
}
