//! A function's event source mapping on one of the streams, with the state machine of the simulator: the records that it
//! reads and delivers, and the failure object that it writes for a discarded batch.

use std::collections::BTreeSet;
use std::time::Duration;

use millrace_event_source_mapping::settings::MappingSettings;
use millrace_event_source_mapping::state::{
    DiscardReason, MappingAction, MappingState, RecordEntry, ShardId, hash_key,
};
use serde_json::json;
use time::OffsetDateTime;

use super::action::{SimFeatures, SimFunction};
use super::source::SimSource;

#[derive(Debug)]
pub(super) struct SimMapping {
    pub(super) function: SimFunction,
    pub(super) stream: usize,
    /// The body of each record is its index in [`SimSource::records`].
    pub(super) machine: MappingState<usize>,
    pub(super) received: BTreeSet<usize>,
}

impl SimMapping {
    /// Creates a mapping that starts at the oldest record.
    pub(super) fn new(function: SimFunction, stream: usize, features: &SimFeatures) -> Self {
        let settings = MappingSettings {
            batch_size: features.batch,
            window: Duration::ZERO,
            lanes: features.lanes,
            max_retries: features.retries,
            max_age: features.age.map(Duration::from_secs),
            bisect: features.bisect,
            partial_responses: true,
            first_back_off: Duration::from_secs(1),
            longest_back_off: Duration::from_secs(4),
            ..MappingSettings::default()
        };
        Self { function, stream, machine: MappingState::new(settings), received: BTreeSet::new() }
    }

    /// Reads up to `count` records of every readable shard. Returns the number of records, and whether a shard ended.
    pub(super) fn read(&mut self, source: &SimSource, count: usize, now: OffsetDateTime) -> (usize, bool) {
        let shards = &source.streams[self.stream].shards;
        for (shard, its) in shards.iter().enumerate() {
            self.machine.open(name_of(shard), its.parent.map(name_of), None);
        }
        let (mut read, mut ended) = (0, false);
        for (name, after) in self.machine.readable() {
            let shard: usize = name.parse().unwrap();
            let mut page = Vec::new();
            for (position, record) in source.records.iter().enumerate() {
                let here = record.stream == self.stream && record.shard == shard && !record.trimmed;
                if here && after.is_none_or(|after| record.number > after) && page.len() < count {
                    self.received.insert(position);
                    page.push(RecordEntry {
                        number: record.number,
                        key_hash: hash_key(source.table.key(record.item).as_str()),
                        at: Some(record.at),
                        size_bytes: record.json.len(),
                        wanted: self.function == SimFunction::Replicator || record.is_expiry(),
                        body: position,
                    });
                }
            }
            if page.is_empty() && shards[shard].closed {
                self.machine.close(&name);
                ended = true;
            }
            read += page.len();
            self.machine.receive(&name, page, now);
        }
        (read, ended)
    }
}

fn name_of(shard: usize) -> ShardId {
    shard.to_string().into()
}

/// The Lambda event with these records.
pub(super) fn event<'r>(records: impl Iterator<Item = &'r str>) -> String {
    let mut event = String::from(r#"{"Records":["#);
    for (position, record) in records.enumerate() {
        event.push_str(if position == 0 { "" } else { "," });
        event.push_str(record);
    }
    event.push_str("]}");
    event
}

/// The key and the body of the object that Lambda writes for a discarded batch. AWS has been observed to write the
/// event as an object and as a string.
pub(super) fn envelope(
    function: SimFunction,
    step: &MappingAction<usize>,
    reason: DiscardReason,
    event: &str,
    count: usize,
) -> (String, Vec<u8>) {
    let condition = match reason {
        DiscardReason::RetryAttemptsExhausted => "RetryAttemptsExhausted",
        DiscardReason::RecordAgeExceeded => "RecordAgeExceeded",
    };
    let payload = if count.is_multiple_of(2) { event.to_owned() } else { json!(event).to_string() };
    let (name, shard, size) = (function.name(), &step.shard, step.records.len());
    let body = format!(
        r#"{{"requestContext":{{"requestId":"{count}","functionArn":"arn:aws:lambda:eu-west-1:123456789012:function:{name}:live","condition":"{condition}","approximateInvokeCount":{}}},"version":"1.0","timestamp":"2026-11-24T08:00:00Z","DDBStreamBatchInfo":{{"shardId":"{shard}","batchSize":{size}}},"payload":{payload}}}"#,
        step.invocations
    );
    (format!("aws/lambda/{name}/{shard}/2026/11/24/2026-11-24T08.00.00-{count:05}"), body.into_bytes())
}
