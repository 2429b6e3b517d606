//! Lambda's event source mapping in small, in two layers.
//!
//! [`state`] decides: pure, deterministic, without a clock of its own, over records of any type. It cuts batches,
//! reads answers, splits, retries, gives up and keeps the checkpoints; it serves simulators as well as this process.
//! [`EventSourceMapping`] does: it polls one table's stream with the official SDK, makes Lambda's event JSON of the records,
//! filters, invokes a function (in this process or over HTTP) and writes what was given up to the on-failure bucket.
//!
//! Every setting is the template's. Two things differ from AWS: windows may be capped (see
//! [`settings::MappingSettings::of`]), and the back-off between retries is short, since somebody sits in front of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shared::clock::Clock;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub mod checkpoints;
mod driver;
pub(crate) mod event;
pub mod filter;
pub mod invoke;
mod lane;
pub mod on_failure_destination;
pub(crate) mod reader;
pub mod response;
pub mod settings;
pub mod state;

use checkpoints::CheckpointFile;
use driver::MappingDriver;
use filter::RecordFilter;
use invoke::StreamFunction;
use on_failure_destination::FailureDestination;
use reader::ShardReader;
use settings::MappingSettings;
use state::{MappingState, ShardId, ShardPosition};

/// What a mapping is made of.
pub struct MappingConfig {
    /// Its name, in logs, checkpoints and the keys of on-failure objects.
    pub name: String,
    /// How it delivers.
    pub settings: MappingSettings,
    /// What it wants.
    pub filter: RecordFilter,
    /// The stream it reads.
    pub stream_arn: String,
    /// Start with what is written from now on, instead of with the oldest record.
    pub from_latest: bool,
    /// A client of that stream.
    pub streams: aws_sdk_dynamodbstreams::Client,
    /// The function's name.
    pub function: String,
    /// The function.
    pub invoke: Arc<dyn StreamFunction>,
    /// How long an invocation may take.
    pub timeout: Duration,
    /// Where given-up batches go.
    pub on_failure: Option<FailureDestination>,
    /// How far a former run got.
    pub from: BTreeMap<ShardId, ShardPosition>,
    /// Where its checkpoints are kept, if they outlive the process.
    pub checkpoints: Option<CheckpointFile>,
    /// The time.
    pub clock: Clock,
}

/// A running mapping. Dropping it ends it too, in the middle of whatever it does.
pub struct EventSourceMapping {
    drains: mpsc::UnboundedSender<oneshot::Sender<()>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl EventSourceMapping {
    /// Starts reading.
    #[must_use]
    pub fn start(mapping: MappingConfig) -> Self {
        let reader = ShardReader::new(mapping.streams.clone(), mapping.stream_arn.clone(), mapping.from_latest);
        let machine = MappingState::new(mapping.settings.clone());
        let (drains, asked) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(MappingDriver::new(mapping, machine, reader).run(asked, stopped));
        Self { drains, stop, task }
    }

    /// Waits until every record that is in the stream now is settled; for ever if a function refuses one for ever.
    pub async fn drained(&self) {
        let (done, waiting) = oneshot::channel();
        if self.drains.send(done).is_ok() {
            // An error means that the pump has stopped: nothing is left to wait for.
            let _ = waiting.await;
        }
    }

    /// Stops delivering, and waits for the invocations in flight.
    pub async fn stop(self) {
        // An error means that it has stopped by itself.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}
