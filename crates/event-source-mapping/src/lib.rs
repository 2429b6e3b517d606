//! Simulator of AWS Lambda's event source mapping for DynamoDB streams, in two layers.
//!
//! [`state`] decides: it is pure and deterministic, takes the time as an argument, and accepts records of any type. It
//! forms batches, interprets responses, splits, retries and discards batches, and maintains the checkpoints.
//! [`EventSourceMapping`] does the I/O: it polls the stream of one table with the official SDK, encodes the records as
//! Lambda's event JSON, filters them, invokes a function (in this process or over HTTP), and writes discarded batches to
//! the on-failure bucket. README.md lists what of Lambda's mapping is reproduced, and from which sources.
//!
//! # Example
//!
//! A function that never accepts record 2. With bisection and one retry, only this record is discarded:
//!
//! ```
//! use millrace_event_source_mapping::response::FunctionResponse;
//! use millrace_event_source_mapping::settings::MappingSettings;
//! use millrace_event_source_mapping::state::{ActionKind, MappingState, RecordEntry, hash_key};
//! use millrace_shared::revision::SequenceNumber;
//! use time::OffsetDateTime;
//!
//! let mut now = OffsetDateTime::UNIX_EPOCH;
//! let settings = MappingSettings { bisect: true, max_retries: Some(1), ..MappingSettings::default() };
//! let mut mapping = MappingState::new(settings);
//! mapping.open("shard-1".into(), None, None);
//! let record = |number: u32| RecordEntry {
//!     number: SequenceNumber::parse(&number.to_string()).expect("a number"),
//!     key_hash: hash_key(&format!("item {number}")),
//!     at: Some(now),
//!     size_bytes: 100,
//!     wanted: true,
//!     body: number,
//! };
//! mapping.receive("shard-1", (1..=4).map(record), now);
//!
//! let (mut applied, mut discarded) = (Vec::new(), Vec::new());
//! while !mapping.is_idle() {
//!     let Some(action) = mapping.next(now) else {
//!         now = mapping.wake_at().expect("a retry is due");
//!         continue;
//!     };
//!     let numbers: Vec<u32> = action.records.iter().map(|record| record.body).collect();
//!     match action.work {
//!         ActionKind::Deliver if numbers.contains(&2) => mapping.invocation_completed(action.ticket, None, now),
//!         ActionKind::Deliver => {
//!             applied.extend(numbers);
//!             mapping.invocation_completed(action.ticket, Some(&FunctionResponse::Done), now)
//!         }
//!         ActionKind::Discard(_) => {
//!             discarded.extend(numbers);
//!             mapping.discard_completed(action.ticket, true, now)
//!         }
//!     };
//! }
//! assert_eq!((applied, discarded), (vec![1, 3, 4], vec![2]));
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millrace_shared::clock::Clock;
use millrace_shared::s3::S3Bucket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub mod checkpoints;
mod driver;
pub mod event;
pub mod filter;
pub mod invoke;
mod lane;
pub mod on_failure_destination;
pub mod reader;
pub mod response;
pub mod settings;
pub mod state;

use checkpoints::CheckpointFile;
use driver::MappingDriver;
use filter::RecordFilter;
use invoke::StreamFunction;
use reader::ShardReader;
use settings::MappingSettings;
use state::{MappingState, ShardId, ShardPosition};

/// Configuration of a mapping.
pub struct MappingConfig {
    /// The name of the mapping in logs, checkpoints and the keys of on-failure objects.
    pub name: String,
    /// The delivery settings.
    pub settings: MappingSettings,
    /// The filter that selects records.
    pub filter: RecordFilter,
    /// The stream that the mapping reads.
    pub stream_arn: String,
    /// Start with records that are written from now on, instead of the oldest record.
    pub from_latest: bool,
    /// A client for the stream.
    pub streams: aws_sdk_dynamodbstreams::Client,
    /// The name of the function, for log lines.
    pub function: String,
    /// The ARN of the function, for the objects of the on-failure destination.
    pub function_arn: String,
    /// The function.
    pub invoke: Arc<dyn StreamFunction>,
    /// The timeout of an invocation.
    pub timeout: Duration,
    /// The destination of discarded batches: the on-failure bucket.
    pub on_failure: Option<S3Bucket>,
    /// The positions that a former run reached.
    pub from: BTreeMap<ShardId, ShardPosition>,
    /// The file for checkpoints, if they are to outlive the process.
    pub checkpoints: Option<CheckpointFile>,
    /// The clock.
    pub clock: Clock,
    /// Signals each write to a table, if all writes to the stream's table are known: the stream is then read after a
    /// signal, and otherwise once per second. Without it, an idle stream is read every 50 ms.
    pub writes: Option<watch::Receiver<()>>,
}

/// A running mapping. Dropping it also stops it, without waiting for invocations in flight.
pub struct EventSourceMapping {
    drains: mpsc::UnboundedSender<oneshot::Sender<()>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl EventSourceMapping {
    /// Starts reading the stream.
    #[must_use]
    pub fn start(mapping: MappingConfig) -> Self {
        let reader = ShardReader::new(mapping.streams.clone(), mapping.stream_arn.clone(), mapping.from_latest);
        let machine = MappingState::new(mapping.settings.clone());
        let (drains, drain_requests) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(MappingDriver::new(mapping, machine, reader).run(drain_requests, stopped));
        Self { drains, stop, task }
    }

    /// Waits until every record that is in the stream now is settled. This never returns if a function rejects a record
    /// that is retried without limit.
    pub async fn wait_until_drained(&self) {
        let (done, waiting) = oneshot::channel();
        if self.drains.send(done).is_ok() {
            // An error means that the mapping has stopped: there is nothing left to wait for.
            let _ = waiting.await;
        }
    }

    /// Stops delivering, and waits for the invocations in flight.
    pub async fn stop(self) {
        // An error means that the mapping has already ended.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}
