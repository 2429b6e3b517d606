//! The rules with which the items of a replica were written, recorded in the failure bucket: [`TransformHistory`].
//! [`transform_record`](millrace_shared::transform_record) describes the records.

use std::time::Duration;

use millrace_shared::metric;
use millrace_shared::s3::{S3Bucket, S3Error};
use millrace_shared::table_reader::ScanSegment;
use millrace_shared::transform_record::{NO_RULES, PREFIX, TransformRecords, TransformState};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

/// The time limit of a record; Lambda limits the whole start to 10 seconds.
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// The result of the repair of a segment, for the rules in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairRecord {
    /// The segment has no items of other rules: it is recorded, or every segment has been before.
    Confirmed,
    /// The segment may have items of other rules, because its repair began too early.
    TooEarly {
        /// The time from which on a repair has to begin.
        repair_from: OffsetDateTime,
    },
    /// The rules of the repair are not in use.
    Unused,
}

/// The recorded rules of the replicas.
#[derive(Debug, Clone)]
pub struct TransformHistory {
    bucket: S3Bucket,
}

impl TransformHistory {
    /// Creates a client of the records in the failure bucket.
    #[must_use]
    pub fn new(bucket: S3Bucket) -> Self {
        Self { bucket }
    }

    /// Returns the state of a replica whose rules have this digest; `None` if it stores items as they are.
    ///
    /// # Errors
    /// [`S3Error`] if the records cannot be listed.
    pub async fn state(&self, replica: &str, digest: Option<&str>) -> Result<TransformState, S3Error> {
        let objects = self.bucket.list(&format!("{PREFIX}{replica}/")).await?;
        let records = objects.iter().map(|object| (object.key.as_str(), object.modified));
        Ok(TransformRecords::new(replica, records).state(digest.unwrap_or(NO_RULES)))
    }

    /// Records that the replicator starts with these rules, and returns the state before.
    ///
    /// # Errors
    /// [`S3Error`] if the records cannot be listed or written.
    pub async fn record_start(&self, replica: &str, digest: Option<&str>) -> Result<TransformState, S3Error> {
        let state = self.state(replica, digest).await?;
        if state == TransformState::Unused {
            self.put(&format!("{PREFIX}{replica}/current/{}", digest.unwrap_or(NO_RULES))).await?;
        }
        Ok(state)
    }

    /// Records that a task writes with these rules, if they are not in use.
    ///
    /// # Errors
    /// [`S3Error`] if the records cannot be listed or written. The task must then not write.
    pub async fn record_write(&self, replica: &str, digest: Option<&str>) -> Result<(), S3Error> {
        if self.state(replica, digest).await? == TransformState::Unused {
            self.put(&format!("{PREFIX}{replica}/written/{}", digest.unwrap_or(NO_RULES))).await?;
        }
        Ok(())
    }

    /// Records that a repair which began at `began` has completed a segment with these rules. One that began too early is
    /// not recorded, nor is one with rules that the replicator has not started with.
    ///
    /// # Errors
    /// [`S3Error`] if the records cannot be listed or written.
    pub async fn record_repair(
        &self,
        replica: &str,
        digest: Option<&str>,
        ScanSegment { segment, total_segments }: ScanSegment,
        began: OffsetDateTime,
    ) -> Result<RepairRecord, S3Error> {
        match self.state(replica, digest).await? {
            TransformState::Confirmed => {}
            TransformState::Unused => return Ok(RepairRecord::Unused),
            TransformState::Unrepaired { repair_from } if began < repair_from => {
                return Ok(RepairRecord::TooEarly { repair_from });
            }
            TransformState::Unrepaired { .. } => {
                let digest = digest.unwrap_or(NO_RULES);
                let began = began.unix_timestamp();
                self.put(&format!("{PREFIX}{replica}/repaired/{digest}/{total_segments}-{segment}-{began}")).await?;
            }
        }
        Ok(RepairRecord::Confirmed)
    }

    /// Records that the replicator starts with these rules, or continues with them, and reports a replica that may
    /// contain items of other rules, in the log and by the metric `OutdatedReplicas`: at every start, and later only if
    /// other rules have been recorded meanwhile. A failure is also logged.
    ///
    /// # Errors
    /// The reason if the rules are not recorded by the deadline. The replicator must then not write with them: if it
    /// did, and started with the former rules again, these would count as confirmed.
    pub async fn report_rules(
        &self,
        replica: &str,
        digest: Option<&str>,
        is_start: bool,
        deadline: Instant,
    ) -> Result<(), String> {
        // The future of a request of the SDK is large.
        let error = match timeout_at(deadline, Box::pin(self.record_start(replica, digest))).await {
            Ok(Ok(TransformState::Confirmed)) => return Ok(()),
            Ok(Ok(TransformState::Unrepaired { .. })) if !is_start => return Ok(()),
            Ok(Ok(TransformState::Unrepaired { .. } | TransformState::Unused)) => {
                metric::OUTDATED_REPLICAS.increment([replica], 1);
                tracing::warn!(
                    sink = replica,
                    "the replica may contain items of other rules: run repair over all segments"
                );
                return Ok(());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "S3 did not respond in time".to_owned(),
        };
        tracing::warn!(sink = replica, error, "cannot compare the rules of the replica with those of the last start");
        Err(error)
    }

    async fn put(&self, key: &str) -> Result<(), S3Error> {
        self.bucket.put(key, "application/json", b"{}".to_vec()).await
    }
}
