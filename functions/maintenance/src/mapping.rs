//! The event source mapping that feeds the replicator, as Lambda tells of it.

use aws_sdk_lambda::Client;
use aws_sdk_lambda::types::EventSourcePosition;
use shared::table_reader::error_chain;

/// Why a replica must not be filled now.
#[derive(Debug, thiserror::Error)]
pub enum MappingNotReady {
    /// Nobody reads the stream for the replicator.
    #[error(
        "no event source mapping feeds {function} from {stream}: deploy it before a backfill, or what changes meanwhile is lost"
    )]
    Missing {
        /// The replicator.
        function: String,
        /// The stream.
        stream: String,
    },
    /// It does not deliver.
    #[error(
        "the event source mapping {uuid} of {function} is {state}: enable it before a backfill, or what changes meanwhile is lost"
    )]
    NotEnabled {
        /// The mapping.
        uuid: String,
        /// The replicator.
        function: String,
        /// What it is instead.
        state: String,
    },
    /// It has skipped what was in the stream when it began.
    #[error(
        "the event source mapping {uuid} of {function} started from {position}, not from TRIM_HORIZON: it may have passed over changes that a backfill would undo; use repair instead"
    )]
    NotTrimHorizon {
        /// The mapping.
        uuid: String,
        /// The replicator.
        function: String,
        /// Where it began.
        position: String,
    },
    /// Lambda does not tell.
    #[error("Lambda does not list the event source mappings of {stream}: {reason}")]
    Unknown {
        /// The stream.
        stream: String,
        /// Why.
        reason: String,
    },
}

/// The replicator's mappings.
#[derive(Debug, Clone)]
pub struct ReplicatorMappings {
    client: Client,
    function: String,
}

impl ReplicatorMappings {
    /// Those of the function with this name.
    #[must_use]
    pub fn new(client: Client, function: String) -> Self {
        Self { client, function }
    }

    /// Whether every change of the stream reaches the replicator: its mapping is enabled and began at the oldest record.
    ///
    /// # Errors
    /// [`MappingNotReady`], which says what to do about it.
    pub async fn ensure_delivers_all(&self, stream_arn: &str) -> Result<(), MappingNotReady> {
        let mut pages = self.client.list_event_source_mappings().event_source_arn(stream_arn).into_paginator().send();
        while let Some(page) = pages.next().await {
            let unknown = |reason| MappingNotReady::Unknown { stream: stream_arn.to_owned(), reason };
            let page = page.map_err(|error| unknown(error_chain(&error)))?;
            for mapping in page.event_source_mappings() {
                if mapping.function_arn().is_none_or(|arn| !is_of(arn, &self.function)) {
                    continue;
                }
                let (uuid, function) = (mapping.uuid().unwrap_or_default().to_owned(), self.function.clone());
                let state = mapping.state().unwrap_or("in no state");
                if state != "Enabled" {
                    return Err(MappingNotReady::NotEnabled { uuid, function, state: state.to_owned() });
                }
                return match mapping.starting_position() {
                    Some(EventSourcePosition::TrimHorizon) => Ok(()),
                    other => {
                        let position = other.map_or("nowhere", EventSourcePosition::as_str).to_owned();
                        Err(MappingNotReady::NotTrimHorizon { uuid, function, position })
                    }
                };
            }
        }
        Err(MappingNotReady::Missing { function: self.function.clone(), stream: stream_arn.to_owned() })
    }
}

/// Whether an ARN is that of the function, with or without a qualifier (an alias or a version).
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
