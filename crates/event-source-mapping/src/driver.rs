//! Driver of one mapping: reads the stream, performs the actions of the state machine, and reports their results to it.
//!
//! Reading and deciding run on one task, so the state machine needs no lock; invocations run concurrently with them.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodbstreams::types::Record;
use futures::FutureExt as _;
use millrace_shared::change::ItemKey;
use millrace_shared::invocation::Invocation;
use millrace_shared::revision::SequenceNumber;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::on_failure_destination::DiscardedBatch;
use super::reader::{ShardPage, ShardReader};
use super::response::FunctionResponse;
use super::state::{ActionId, ActionKind, MappingAction, MappingState, RecordEntry, ShardId, ShardPosition, hash_key};
use super::{MappingConfig, event};
use millrace_shared::clock::new_uuid;

/// The interval at which a stream is polled, which is also the longest time until a written record is read.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// The interval at which an idle stream is polled if each write is signalled: long enough to cost nothing, short enough
/// for a write that another process made.
const SIGNALLED_POLL_EVERY: Duration = Duration::from_secs(1);
/// The interval at which the list of shards is read.
const SHARDS_EVERY: Duration = Duration::from_secs(5);
/// The delay after a failed read.
const AFTER_FAULT: Duration = Duration::from_secs(1);
/// Time limit for invocations in flight at a stop; the records of unfinished ones are redelivered after a restart.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A record's event JSON, as an element of `Records`.
type RecordJson = Arc<str>;

/// The result of a task that performed an action.
enum TaskResult {
    Completed(ActionId, Option<FunctionResponse>),
    Recorded(ActionId, bool),
}

/// A caller that waits until all records that were in the stream at the time of the call are settled.
struct DrainRequest {
    done: oneshot::Sender<()>,
    /// The position that each shard must reach; `None` until every shard has been read to its end.
    until: Option<BTreeMap<ShardId, Option<SequenceNumber>>>,
}

pub(super) struct MappingDriver {
    mapping: Arc<MappingConfig>,
    machine: MappingState<RecordJson>,
    reader: ShardReader,
    saved: BTreeMap<ShardId, ShardPosition>,
    tasks: JoinSet<TaskResult>,
    drains: Vec<DrainRequest>,
    writes: Option<watch::Receiver<()>>,
    shards_at: Instant,
    /// The time of the last read.
    read_at: Instant,
    poll_at: Instant,
}

impl MappingDriver {
    pub(super) fn new(mapping: MappingConfig, machine: MappingState<RecordJson>, reader: ShardReader) -> Self {
        let now = Instant::now();
        Self {
            saved: mapping.from.clone(),
            writes: mapping.writes.clone(),
            mapping: Arc::new(mapping),
            machine,
            reader,
            tasks: JoinSet::new(),
            drains: Vec::new(),
            shards_at: now,
            read_at: now,
            poll_at: now,
        }
    }

    pub(super) async fn run(
        mut self,
        mut drain_requests: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        loop {
            if Instant::now() >= self.poll_at {
                self.read().await;
            }
            while let Some(step) = self.machine.next(self.mapping.clock.now()) {
                self.start(step);
            }
            self.save();
            self.serve_drains();
            let wake_at = self.wake_at();
            tokio::select! {
                // A message and a dropped sender both mean stop.
                _ = &mut stopped => break,
                Some(done) = drain_requests.recv() => {
                    self.drains.push(DrainRequest { done, until: None });
                    self.poll_at = Instant::now();
                }
                Some(done) = self.tasks.join_next() => self.handle_result(done),
                // Many writes in a row are read together.
                () = next_write(&mut self.writes) => self.poll_at = self.poll_at.min(self.read_at + POLL_EVERY),
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
        let finish = async {
            while let Some(done) = self.tasks.join_next().await {
                self.handle_result(done);
            }
        };
        if tokio::time::timeout(STOP_TIMEOUT, finish).await.is_err() {
            tracing::warn!(mapping = self.mapping.name, "stopped with invocations in flight, to be redelivered");
        }
        self.save();
    }

    /// Each action runs on its own thread: a function's future stays on one thread, as on Lambda.
    fn start(&mut self, step: MappingAction<RecordJson>) {
        let (mapping, runtime) = (Arc::clone(&self.mapping), tokio::runtime::Handle::current());
        self.tasks.spawn_blocking(move || runtime.block_on(perform(&mapping, &step)));
    }

    fn wake_at(&self) -> Instant {
        let now = self.mapping.clock.now();
        let due = self.machine.wake_at().map(|time| Duration::try_from(time - now).unwrap_or(Duration::ZERO));
        due.map_or(self.poll_at, |wait| self.poll_at.min(Instant::now() + wait))
    }

    fn handle_result(&mut self, done: Result<TaskResult, tokio::task::JoinError>) {
        let now = self.mapping.clock.now();
        match done {
            Ok(TaskResult::Completed(ticket, response)) => {
                self.machine.invocation_completed(ticket, response.as_ref(), now);
            }
            Ok(TaskResult::Recorded(ticket, done)) => drop(self.machine.discard_completed(ticket, done, now)),
            // Panics are caught inside the task, and no code aborts it.
            Err(error) => tracing::error!(mapping = self.mapping.name, %error, "the task of an invocation failed"),
        }
    }

    /// Reads a page of every readable shard.
    async fn read(&mut self) {
        let requested = self.drains.len();
        self.read_at = Instant::now();
        self.poll_at = self.read_at + POLL_EVERY;
        if Instant::now() >= self.shards_at {
            match self.reader.shards().await {
                Ok(shards) => self.open(shards),
                Err(error) => return self.back_off(&error),
            }
        }
        let mut at_the_end = true;
        let readable = self.machine.readable();
        for (shard, after) in &readable {
            match self.reader.page(shard, *after).await {
                Ok(page) => {
                    at_the_end &= page.records.is_empty();
                    self.take(shard, &page);
                }
                Err(error) => return self.back_off(&error),
            }
        }
        if !at_the_end {
            self.poll_at = Instant::now();
        }
        let open = self.machine.checkpoints().values().filter(|checkpoint| !checkpoint.drained).count();
        if at_the_end && readable.len() >= open {
            let until: BTreeMap<_, _> = readable.into_iter().collect();
            for drain in self.drains.iter_mut().take(requested).filter(|drain| drain.until.is_none()) {
                drain.until = Some(until.clone());
            }
            // Everything is read, and every write that follows is signalled.
            if self.writes.is_some() && self.shards_at > Instant::now() {
                self.poll_at = self.read_at + SIGNALLED_POLL_EVERY;
            }
        }
    }

    fn open(&mut self, shards: Vec<(ShardId, Option<ShardId>)>) {
        self.shards_at = Instant::now() + SHARDS_EVERY;
        for (shard, parent) in shards {
            let from = self.mapping.from.get(&shard);
            self.machine.open(shard, parent, from);
        }
    }

    fn back_off(&mut self, error: &str) {
        tracing::warn!(mapping = self.mapping.name, error, "cannot read the stream, retrying");
        self.poll_at = Instant::now() + AFTER_FAULT;
    }

    fn take(&mut self, shard: &ShardId, page: &ShardPage) {
        let entries: Vec<_> = page.records.iter().filter_map(|record| self.entry(record)).collect();
        self.machine.receive(shard, entries, self.mapping.clock.now());
        if page.ended {
            self.machine.close(shard);
            // The shard's children may exist by now.
            self.shards_at = Instant::now();
        }
    }

    fn entry(&self, record: &Record) -> Option<RecordEntry<RecordJson>> {
        let change = record.dynamodb()?;
        let number = change.sequence_number().and_then(|text| SequenceNumber::parse(text).ok());
        let Some(number) = number else {
            tracing::error!(mapping = self.mapping.name, "a record without a sequence number cannot be delivered");
            return None;
        };
        let json = event::encode(record, &self.mapping.stream_arn).to_string();
        let at = change
            .approximate_creation_date_time()
            .and_then(|time| OffsetDateTime::from_unix_timestamp_nanos(time.as_nanos()).ok());
        Some(RecordEntry {
            number,
            key_hash: event::keys(record).map_or(0, |keys| hash_key(&canonical(&keys.to_string()))),
            at,
            size_bytes: json.len() + 1,
            wanted: !event::is_noop(record) && self.mapping.filter.matches(&json),
            body: json.into(),
        })
    }

    fn save(&mut self) {
        let Some(file) = &self.mapping.checkpoints else { return };
        let now = self.machine.checkpoints();
        if now.is_empty() || now == self.saved {
            return;
        }
        match file.save(&self.mapping.stream_arn, &now) {
            Ok(()) => self.saved = now,
            Err(error) => tracing::warn!(mapping = self.mapping.name, %error, "a restart may redeliver records"),
        }
    }

    fn serve_drains(&mut self) {
        if self.drains.is_empty() {
            return;
        }
        let checkpoints = self.machine.checkpoints();
        let settled = |(shard, until): (&ShardId, &Option<SequenceNumber>)| {
            checkpoints.get(shard).is_none_or(|checkpoint| checkpoint.lanes.iter().all(|lane| lane >= until))
        };
        let is_done = |drain: &mut DrainRequest| drain.until.as_ref().is_some_and(|until| until.iter().all(settled));
        for drain in self.drains.extract_if(.., is_done) {
            // The caller may no longer wait.
            let _ = drain.done.send(());
        }
    }
}

/// Waits for the next signal of a write; forever if writes are not signalled.
async fn next_write(writes: &mut Option<watch::Receiver<()>>) {
    let is_written = match writes {
        Some(writes) => writes.changed().await.is_ok(),
        None => false,
    };
    // Without a sender, no write is signalled any more.
    if !is_written {
        std::future::pending::<()>().await;
    }
}

/// Returns the canonical form of an item's key, so that 1 and 1.0 share a lane.
fn canonical(keys: &str) -> String {
    let raw: Option<&RawValue> = serde_json::from_str(keys).ok();
    let key = raw.and_then(|raw| ItemKey::parse(raw).ok());
    key.map_or_else(|| keys.to_owned(), |key| key.canonical().to_string())
}

async fn perform(mapping: &MappingConfig, step: &MappingAction<RecordJson>) -> TaskResult {
    let event = payload(step);
    match step.work {
        ActionKind::Deliver => TaskResult::Completed(step.ticket, deliver(mapping, step, &event).await),
        ActionKind::Discard(_) => TaskResult::Recorded(step.ticket, discard(mapping, step, &event).await),
    }
}

fn payload(step: &MappingAction<RecordJson>) -> Box<RawValue> {
    let records: Vec<&str> = step.records.iter().map(|entry| entry.body.as_ref()).collect();
    let text = format!(r#"{{"Records":[{}]}}"#, records.join(","));
    RawValue::from_string(text).expect("the records were encoded as JSON")
}

async fn deliver(
    mapping: &MappingConfig,
    step: &MappingAction<RecordJson>,
    event: &RawValue,
) -> Option<FunctionResponse> {
    let now = mapping.clock.now();
    let invocation = Invocation::new(now, Instant::now(), mapping.timeout, new_uuid(now).to_string());
    let invoked = AssertUnwindSafe(mapping.invoke.invoke(event, invocation)).catch_unwind();
    let failure = match tokio::time::timeout(mapping.timeout, invoked).await {
        Ok(Ok(Ok(body))) => return Some(FunctionResponse::read(&body)),
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(_)) => "the function panicked".to_owned(),
        Err(_) => format!("no response within {} s", mapping.timeout.as_secs()),
    };
    tracing::warn!(
        function = mapping.function,
        batch.records = step.records.len(),
        invocations = step.invocations,
        error = failure,
        "invocation failed"
    );
    None
}

/// Writes a discarded batch to the on-failure destination. Returns true if it was written, or if the mapping has no
/// destination.
async fn discard(mapping: &MappingConfig, step: &MappingAction<RecordJson>, event: &RawValue) -> bool {
    let (ActionKind::Discard(reason), [first, ..], [.., last]) = (step.work, &step.records[..], &step.records[..])
    else {
        return true;
    };
    let given_up = DiscardedBatch {
        mapping: &mapping.name,
        function_arn: &mapping.function_arn,
        shard: &step.shard,
        stream_arn: &mapping.stream_arn,
        reason,
        invocations: step.invocations,
        range: [first.number.to_string(), last.number.to_string()],
        times: [first.at, last.at],
        count: step.records.len(),
        payload: event,
    };
    let Some(destination) = &mapping.on_failure else {
        tracing::error!(
            function = mapping.function,
            batch.records = step.records.len(),
            stream.position = %first.number,
            "records dropped: the mapping has no on-failure destination"
        );
        return true;
    };
    let now = mapping.clock.now();
    let put = given_up.put(destination, now, new_uuid(now)).await;
    match &put {
        Ok(key) => {
            tracing::warn!(function = mapping.function, batch.records = step.records.len(), key, "batch discarded");
        }
        Err(error) => {
            tracing::warn!(bucket = destination.name(), error, "cannot write the discarded batch, retrying");
        }
    }
    put.is_ok()
}
