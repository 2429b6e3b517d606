//! The event source mapping that feeds the replicator, as Lambda reports it.

use millrace_shared::change::latest_stream_command;
use millrace_shared::error_chain::error_chain;

use crate::lambda_client::LambdaClient;

/// A precondition of a backfill that the event source mapping does not meet.
#[derive(Debug, thiserror::Error)]
pub enum MappingNotReadyError {
    /// No mapping of the replicator reads the stream.
    #[error(
        "{function} has no event source mapping for {stream}: deploy it before a backfill, or concurrent changes are \
         lost; aws lambda list-event-source-mappings --function-name {function} lists those that it has"
    )]
    Missing {
        /// The replicator's name.
        function: String,
        /// The stream's ARN.
        stream: String,
    },
    /// The replicator's mapping reads a former stream of the table.
    #[error(
        "the event source mapping {uuid} of {function} reads {reads}, a former stream of the table: deploy with the \
         latest stream {stream} (parameter SourceStreamArn of infra/replication.yaml), which {} prints, or changes are \
         lost; the former stream can be read for 24 hours",
        latest_stream_command(stream)
    )]
    FormerStream {
        /// The mapping's UUID.
        uuid: String,
        /// The replicator's name.
        function: String,
        /// The ARN of the stream that the mapping reads.
        reads: String,
        /// The ARN of the table's latest stream.
        stream: String,
    },
    /// The replicator's mapping reads the stream of another table.
    #[error(
        "the event source mapping {uuid} of {function} reads {reads}, the stream of another table: deploy with the \
         latest stream {stream} of the table (parameter SourceStreamArn of infra/replication.yaml), which {} prints, or no \
         change reaches the replicas",
        latest_stream_command(stream)
    )]
    OtherTable {
        /// The mapping's UUID.
        uuid: String,
        /// The replicator's name.
        function: String,
        /// The ARN of the stream that the mapping reads.
        reads: String,
        /// The ARN of the table's latest stream.
        stream: String,
    },
    /// The mapping is not enabled.
    #[error(
        "the event source mapping {uuid} of {function} is {state}: enable it before a backfill with \
         aws lambda update-event-source-mapping --uuid {uuid} --enabled, or concurrent changes are lost"
    )]
    NotEnabled {
        /// The mapping's UUID.
        uuid: String,
        /// The replicator's name.
        function: String,
        /// The mapping's state.
        state: String,
    },
    /// The mapping did not start from `TRIM_HORIZON`, so it skipped the records that were in the stream when it was
    /// created.
    #[error(
        "the event source mapping {uuid} of {function} started from {position}, not from TRIM_HORIZON: \
         it may have skipped changes that a backfill would undo; run repair instead"
    )]
    NotTrimHorizon {
        /// The mapping's UUID.
        uuid: String,
        /// The replicator's name.
        function: String,
        /// The mapping's starting position.
        position: String,
    },
    /// The mappings cannot be listed.
    #[error("cannot list the event source mappings of {stream}: {reason}")]
    Unknown {
        /// The stream's ARN.
        stream: String,
        /// The error.
        reason: String,
    },
}

impl MappingNotReadyError {
    /// Returns whether a retry may succeed without a change to the deployment.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}

/// The replicator's event source mappings.
#[derive(Debug, Clone)]
pub struct ReplicatorMappings {
    client: LambdaClient,
    function: String,
}

impl ReplicatorMappings {
    /// Creates a client for the mappings of the function with this name.
    #[must_use]
    pub fn new(client: LambdaClient, function: String) -> Self {
        Self { client, function }
    }

    /// Verifies that every change of the stream reaches the replicator: its mapping is enabled and started from the
    /// oldest record.
    ///
    /// # Errors
    /// [`MappingNotReadyError`], whose message says what to do.
    pub async fn ensure_delivers_all(&self, stream_arn: &str) -> Result<(), MappingNotReadyError> {
        let mut pages = self.client.mappings_of_stream(stream_arn);
        while let Some(page) = pages.next().await {
            let unknown = |reason| MappingNotReadyError::Unknown { stream: stream_arn.to_owned(), reason };
            let page = page.map_err(|error| unknown(error_chain(&error)))?;
            for mapping in &page {
                if mapping.function_arn.as_deref().is_none_or(|arn| !is_of(arn, &self.function)) {
                    continue;
                }
                let (uuid, function) = (mapping.uuid.clone().unwrap_or_default(), self.function.clone());
                let state = mapping.state.as_deref().unwrap_or("in an unknown state");
                if state != "Enabled" {
                    return Err(MappingNotReadyError::NotEnabled { uuid, function, state: state.to_owned() });
                }
                return match mapping.starting_position.as_deref() {
                    Some("TRIM_HORIZON") => Ok(()),
                    other => {
                        let position = other.unwrap_or("an unknown position").to_owned();
                        Err(MappingNotReadyError::NotTrimHorizon { uuid, function, position })
                    }
                };
            }
        }
        let (function, stream) = (self.function.clone(), stream_arn.to_owned());
        Err(self.reading_elsewhere(stream_arn).await?.unwrap_or(MappingNotReadyError::Missing { function, stream }))
    }

    /// Verifies that the replicator does not read a former stream of the table, or another table's, instead of this
    /// one. A replicator without any mapping passes.
    ///
    /// # Errors
    /// [`MappingNotReadyError`], whose message has the command that prints the ARN to deploy with.
    pub async fn ensure_reads_latest(&self, stream_arn: &str) -> Result<(), MappingNotReadyError> {
        self.reading_elsewhere(stream_arn).await?.map_or(Ok(()), Err)
    }

    /// Returns the mapping of the replicator that reads another stream, if none reads this one. A former stream of the
    /// same table takes precedence.
    async fn reading_elsewhere(&self, stream_arn: &str) -> Result<Option<MappingNotReadyError>, MappingNotReadyError> {
        let table = |arn: &str| arn.split_once("/stream/").map(|(table, _)| table.to_owned());
        let unknown = |reason| MappingNotReadyError::Unknown { stream: stream_arn.to_owned(), reason };
        let mut elsewhere = None;
        let mut pages = self.client.mappings_of_function(&self.function);
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| unknown(error_chain(&error)))?;
            for mapping in &page {
                let is_ours = mapping.function_arn.as_deref().is_some_and(|arn| is_of(arn, &self.function));
                let Some(reads) = mapping.event_source_arn.as_deref().filter(|arn| is_ours && arn.contains("/stream/"))
                else {
                    continue;
                };
                if reads == stream_arn {
                    return Ok(None);
                }
                let (uuid, function) = (mapping.uuid.clone().unwrap_or_default(), self.function.clone());
                let (reads, stream) = (reads.to_owned(), stream_arn.to_owned());
                if table(&reads) == table(stream_arn) {
                    elsewhere = Some(MappingNotReadyError::FormerStream { uuid, function, reads, stream });
                } else if elsewhere.is_none() {
                    elsewhere = Some(MappingNotReadyError::OtherTable { uuid, function, reads, stream });
                }
            }
        }
        Ok(elsewhere)
    }
}

/// Returns whether an ARN names the function, with or without a qualifier (an alias or a version).
fn is_of(arn: &str, function: &str) -> bool {
    arn.split_once(":function:").is_some_and(|(_, name)| name.split(':').next() == Some(function))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_known_by_its_arn_with_and_without_a_qualifier() {
        let arn = "arn:aws:lambda:eu-west-1:123456789012:function:stack-Replicator-1";
        assert!(is_of(arn, "stack-Replicator-1") && is_of(&format!("{arn}:live"), "stack-Replicator-1"));
        assert!(!is_of(arn, "stack-Replicator") && !is_of("stack-Replicator-1", "stack-Replicator-1"));
    }
}
