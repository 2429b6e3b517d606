//! Concurrent scan of two tables that matches their items by key.

use std::collections::HashMap;

use futures::future::try_join;
use millrace_shared::change::CanonicalKey;
use millrace_shared::raw_item::RawItem;
use millrace_shared::replica_item::ReplicaItem;
use millrace_shared::table_reader::ScanSegment;
use millrace_sinks::{ExpectedItem, Replica};
use millrace_transform::TransformError;
use serde::{Deserialize, Serialize};

use super::difference::CandidateDifference;
use crate::reconcile::is_in_sync;
use crate::repair::ReconcileError;
use crate::source::SourceTable;

/// The scan position of a side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ScanPosition {
    /// Not started.
    #[default]
    Start,
    /// After this key.
    After(CanonicalKey),
    /// At the end.
    End,
}

impl ScanPosition {
    fn key(&self) -> Option<&CanonicalKey> {
        match self {
            Self::After(key) => Some(key),
            Self::Start | Self::End => None,
        }
    }

    fn from_next(next: Option<CanonicalKey>) -> Self {
        next.map_or(Self::End, Self::After)
    }
}

/// Counts of the items seen between two checkpoints.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct ScanCounts {
    pub(super) source: usize,
    pub(super) items: usize,
    pub(super) tombstones: usize,
    pub(super) equal: usize,
}

/// Scan of a source and a replica.
pub(super) struct MergeJoin<'w> {
    source: &'w SourceTable,
    replica: &'w dyn Replica,
    segment: ScanSegment,
    source_at: ScanPosition,
    replica_at: ScanPosition,
    /// Items of each side that have not been matched yet; those of the source as the replica has to store them.
    unmatched_source: HashMap<CanonicalKey, Result<RawItem, TransformError>>,
    unmatched_replica: HashMap<CanonicalKey, ReplicaItem>,
    /// Matched items that differ.
    candidates: Vec<CandidateDifference>,
    counts: ScanCounts,
    /// Numbers of pages read, of the source and of the replica.
    pages: (usize, usize),
}

impl<'w> MergeJoin<'w> {
    pub(super) fn new(
        source: &'w SourceTable,
        replica: &'w dyn Replica,
        segment: ScanSegment,
        source_at: ScanPosition,
        replica_at: ScanPosition,
    ) -> Self {
        let (alone_in_source, unmatched_replica) = (HashMap::new(), HashMap::new());
        let (candidates, counts) = (Vec::new(), ScanCounts::default());
        Self {
            source,
            replica,
            segment,
            source_at,
            replica_at,
            unmatched_source: alone_in_source,
            unmatched_replica,
            candidates,
            counts,
            pages: (0, 0),
        }
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.source_at == ScanPosition::End && self.replica_at == ScanPosition::End
    }

    pub(super) fn positions(&self) -> (ScanPosition, ScanPosition) {
        (self.source_at.clone(), self.replica_at.clone())
    }

    /// Returns the number of pages read since the last checkpoint, of the side of which more were read.
    pub(super) fn pages(&self) -> usize {
        self.pages.0.max(self.pages.1)
    }

    /// Reads a page of each side, or only of the side that is behind; returns the read capacity units consumed from the
    /// source.
    pub(super) async fn advance(&mut self) -> Result<f64, ReconcileError> {
        // The side with more unmatched items is ahead.
        let (ahead, behind) = (self.unmatched_source.len(), self.unmatched_replica.len());
        let read_source =
            self.source_at != ScanPosition::End && (ahead <= behind || self.replica_at == ScanPosition::End);
        let read_replica =
            self.replica_at != ScanPosition::End && (behind <= ahead || self.source_at == ScanPosition::End);
        let (source, replica) = (self.source, self.replica);
        let (source_after, replica_after) = (self.source_at.key(), self.replica_at.key());
        let segment = self.segment;
        let of_source = async move {
            if read_source {
                Ok::<_, ReconcileError>(Some(source.scan(segment, source_after).await?))
            } else {
                Ok(None)
            }
        };
        let of_replica = async move {
            if read_replica {
                Ok::<_, ReconcileError>(Some(replica.scan(segment, replica_after).await?))
            } else {
                Ok(None)
            }
        };
        let (of_source, of_replica) = try_join(of_source, of_replica).await?;
        let mut spent = 0.0;
        if let Some(page) = of_source {
            spent = page.units;
            self.pages.0 += 1;
            self.source_at = ScanPosition::from_next(page.next);
            self.counts.source += page.items.len();
            for (key, item) in page.items {
                // An item that the filter leaves out counts as absent.
                let Some(item) = self.replica.expected(&key, item).transpose() else { continue };
                match self.unmatched_replica.remove(&key) {
                    Some(held) => self.compare(key, &held, item),
                    None => drop(self.unmatched_source.insert(key, item)),
                }
            }
        }
        if let Some(page) = of_replica {
            self.pages.1 += 1;
            self.replica_at = ScanPosition::from_next(page.next);
            for (key, held) in page.items {
                if held.item().is_none() {
                    // A tombstone counts as no item: if the source has the item, it stays unmatched and is looked up.
                    self.counts.tombstones += 1;
                    continue;
                }
                self.counts.items += 1;
                match self.unmatched_source.remove(&key) {
                    Some(item) => self.compare(key, &held, item),
                    None => drop(self.unmatched_replica.insert(key, held)),
                }
            }
        }
        Ok(spent)
    }

    fn compare(&mut self, key: CanonicalKey, held: &ReplicaItem, item: Result<RawItem, TransformError>) {
        if item.as_ref().is_ok_and(|item| is_in_sync(Some(held), Some(item))) {
            self.counts.equal += 1;
        } else {
            self.candidates.extend(CandidateDifference::compare(key, Some(held), item.map(Some)));
        }
    }

    /// Looks up the unmatched items; returns the candidates, and the counts since the last checkpoint.
    pub(super) async fn resolve_unmatched(&mut self) -> Result<(Vec<CandidateDifference>, ScanCounts), ReconcileError> {
        let (source_only, replica_only) =
            (std::mem::take(&mut self.unmatched_source), std::mem::take(&mut self.unmatched_replica));
        let wanted: Vec<CanonicalKey> = source_only.keys().cloned().collect();
        let unwanted: Vec<CanonicalKey> = replica_only.keys().cloned().collect();
        let (source, replica) = (self.source, self.replica);
        let of_replica = async { replica.read(&wanted).await.map_err(ReconcileError::from) };
        let of_source = async { source.read(&unwanted).await.map_err(ReconcileError::from) };
        let (held, (items, _)) = try_join(of_replica, of_source).await?;
        for ((key, item), held) in source_only.into_iter().zip(held.items) {
            match held {
                Some(held) => self.compare(key, &held, item),
                None => self.candidates.extend(CandidateDifference::compare(key, None, item.map(Some))),
            }
        }
        for ((key, held), item) in replica_only.into_iter().zip(items) {
            // A key that exists in the source is compared only once, when the source's own scan reaches it, in
            // whichever segment.
            let expected: ExpectedItem = item.map_or(Ok(None), |item| self.replica.expected(&key, item));
            if matches!(expected, Ok(None)) {
                self.candidates.extend(CandidateDifference::compare(key, Some(&held), Ok(None)));
            }
        }
        self.pages = (0, 0);
        Ok((std::mem::take(&mut self.candidates), std::mem::take(&mut self.counts)))
    }
}
