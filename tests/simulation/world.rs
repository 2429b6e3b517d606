//! The state of a running scenario ([`SimState`]): the functions with their stores, and the scheduler that polls them.
//!
//! Each task is a future that advances only when the scenario says so, from one call at the fault injector to the next.
//! The functions are the production code; the stream, the clock and the order of events are simulated.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use millrace_archive::Compression;
use millrace_archive::store::ArchiveStore;
use millrace_archive::writer::ArchiveWriter;
use millrace_archiver::ArchiverHandler;
use millrace_event_source_mapping::response::FunctionResponse;
use millrace_event_source_mapping::state::{ActionId, ActionKind, DiscardReason};
use millrace_maintenance::MaintenanceHandler;
use millrace_maintenance::deployment::DeployedReplicator;
use millrace_maintenance::failure_bucket::FailureBucket;
use millrace_maintenance::failure_record::FunctionNames;
use millrace_maintenance::mapping::ReplicatorMappings;
use millrace_maintenance::task::TaskResponse;
use millrace_replicator::ReplicatorHandler;
use millrace_shared::invocation::Invocation;
use millrace_shared::quarantine::Quarantine;
use millrace_shared::revision::SequenceNumber;
use millrace_shared::table::RestoreTable;
use millrace_shared::table_reader::TableReader;
use millrace_sinks::archive::ArchiveSink;
use millrace_sinks::postgres::PostgresSchema;
use millrace_sinks::{Replica, Sink, SinkSetting, TransformedSink};
use millrace_transform::columns::TableColumns;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::action::{SimFeatures, SimFunction};
use super::cloud::{ARCHIVE, FAILURES, SOURCE};
use super::fault_injector::FaultInjector;
use super::mapping::{SimMapping, envelope, event};
use super::memory_replica::BoundedKey;
use super::source::{SimSource, SourceWrite};
use super::stage::SimStage;
use super::table::SimTable;

/// The time that an invocation has. Enough for anything that does not hang.
const INVOCATION: Duration = Duration::from_mins(1);
/// The first pause for which the clock advances while a task waits for nothing but a retry.
const PAUSE: Duration = Duration::from_millis(50);
/// The maximum number of calls of one task; a task that makes more is in an infinite loop.
const MAX_CALLS: usize = 4_000;
/// The maximum number of invocations of one task run; a run that takes more never ends.
const MAX_INVOCATIONS: usize = 20;

/// The compression of archive objects.
const COMPRESSION: Compression = Compression::Gzip;

/// The environment variables that enable the sinks in the replicator's configuration.
const SETTINGS: [SinkSetting; 3] = [
    SinkSetting { sink: "wide", variable: "WIDE", stores_items: true },
    SinkSetting { sink: "small", variable: "SMALL", stores_items: true },
    SinkSetting { sink: millrace_sinks::archive::NAME, variable: "ARCHIVE_BUCKET", stores_items: false },
];

/// The setting that contains the rules of a replica, for errors.
const RULES: &str = "REPLICATION /replicas/0/attributes";

/// The role of a task in the scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskRole {
    /// An invocation by a mapping, which waits for the response.
    Delivery {
        mapping: usize,
        ticket: ActionId,
    },
    /// An additional invocation whose response is ignored.
    Stray,
    Maintenance,
}

pub(super) struct SimTask {
    pub(super) role: TaskRole,
    /// The records of the event, in order.
    records: Vec<usize>,
    future: LocalBoxFuture<'static, Option<String>>,
}

/// The progress of a task after a poll.
enum LostInvocation {
    On,
    /// It waits for time to pass, or forever.
    Nowhere,
    ToItsEnd,
}

pub(super) struct SimState<'s, S> {
    pub(super) stage: &'s S,
    pub(super) injector: FaultInjector,
    pub(super) features: SimFeatures,
    pub(super) source: SimSource,
    pub(super) mappings: Vec<SimMapping>,
    pub(super) tasks: Vec<SimTask>,
    pub(super) now: OffsetDateTime,
    pub(super) replicator: Rc<ReplicatorHandler>,
    pub(super) archiver: ArchiverHandler,
    pub(super) maintenance: Rc<MaintenanceHandler>,
    /// The same handler, configured with only the first of the two sinks.
    pub(super) partial: Rc<MaintenanceHandler>,
    pub(super) replicas: [BoundedKey; 2],
    /// By record: whether each function's mapping has completed it.
    pub(super) settled: Vec<[bool; 2]>,
    /// Sinks and items that an incident outside of the guarantees affected.
    pub(super) untrusted: BTreeSet<(usize, usize)>,
    /// Sinks that lost their data and have not been backfilled since.
    pub(super) unfilled: BTreeSet<usize>,
    /// The oldest stream whose records may still be delivered again.
    pub(super) again_from: usize,
    pub(super) lose_answers: usize,
    pub(super) fail_recordings: usize,
    pub(super) discarded: usize,
    pub(super) runs_started: usize,
    /// The responses of the completed task runs, each from the last invocation of its run.
    pub(super) runs: Rc<RefCell<Vec<TaskResponse>>>,
}

impl<'s, S: SimStage> SimState<'s, S> {
    pub(super) fn new(stage: &'s S, injector: FaultInjector, features: SimFeatures) -> Self {
        let (dynamodb, s3, lambda) = stage.clients();
        let [wide, small] = stage.replicas();
        let replicas = [BoundedKey::new("wide", wide, false), BoundedKey::new("small", small, true)];
        stage.deploy(features.archive_is_sink());
        let compression = COMPRESSION;
        let archive = ArchiveStore::new(s3.clone(), ARCHIVE.to_owned());
        let quarantine = |function| Quarantine::new(s3.clone(), FAILURES.to_owned(), function);
        let maintenance = |known: &[BoundedKey]| MaintenanceHandler {
            admin_database: None,
            postgres_schema: PostgresSchema::default(),
            source: TableReader::new(dynamodb.clone(), SOURCE),
            restore_table: RestoreTable::new(dynamodb.clone(), SOURCE.to_owned()),
            replicas: (0..known.len()).map(|sink| replica(known, &stage.table(), sink)).collect(),
            mappings: ReplicatorMappings::new(lambda.clone(), SimFunction::Replicator.name().to_owned()),
            deployment: DeployedReplicator::new(
                lambda.clone(),
                SimFunction::Replicator.name().to_owned(),
                SETTINGS.to_vec(),
            ),
            failures: FailureBucket::new(s3.clone(), FAILURES.to_owned()),
            archive: Some(archive.clone()),
            compression,
            parquet_columns: Vec::new(),
            declared_columns: TableColumns::default(),
            functions: FunctionNames { replicator: "replicator".to_owned(), archiver: Some("archiver".to_owned()) },
        };
        let (whole, partial) = (Rc::new(maintenance(&replicas)), Rc::new(maintenance(&replicas[..1])));
        let mut world = Self {
            stage,
            injector,
            features,
            source: SimSource::new(stage.table()),
            mappings: Vec::new(),
            tasks: Vec::new(),
            now: OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap(),
            replicator: Rc::new(replicator(&replicas, &stage.table(), s3.clone(), &features)),
            archiver: ArchiverHandler::new(ArchiveWriter::new(archive, compression), quarantine("archiver")),
            maintenance: whole,
            partial,
            replicas,
            settled: Vec::new(),
            untrusted: BTreeSet::new(),
            unfilled: BTreeSet::new(),
            again_from: 0,
            lose_answers: 0,
            fail_recordings: 0,
            discarded: 0,
            runs_started: 0,
            runs: Rc::default(),
        };
        world.map_stream();
        world
    }

    /// Ends the replicator's execution environment, and with it all of its in-memory state.
    pub(super) fn restart_replicator(&mut self) {
        let (_, s3, _) = self.stage.clients();
        self.replicator = Rc::new(replicator(&self.replicas, &self.source.table, s3, &self.features));
    }

    /// Creates a mapping on the latest stream for both functions, or for the replicator alone if the archive is its
    /// sink.
    pub(super) fn map_stream(&mut self) {
        let stream = self.source.streams.len() - 1;
        self.stage.relabel(&self.source.streams[stream].label);
        let reads = |function: &SimFunction| *function == SimFunction::Replicator || !self.features.archive_is_sink();
        for function in SimFunction::BOTH.into_iter().filter(reads) {
            self.mappings.push(SimMapping::new(function, stream, &self.features));
        }
    }

    /// Applies a write to the source.
    pub(super) async fn report_progress(
        &mut self,
        item: usize,
        what: SourceWrite,
        poison: Option<super::source::PoisonKind>,
        gap: u8,
    ) {
        self.source.report_progress(item, what, poison, gap, self.now);
        self.settled.push([false; 2]);
        let image = self.source.items[item].map(|kind| self.source.table.image(item, kind));
        self.stage.write(item, image).await;
    }

    fn invocation(&self) -> Invocation {
        invocation(self.now)
    }

    /// The function that archives the items that TTL removes.
    pub(super) fn archiving_function(&self) -> SimFunction {
        if self.features.archive_is_sink() { SimFunction::Replicator } else { SimFunction::Archiver }
    }

    /// Invokes a function with records.
    pub(super) fn deliver(&mut self, function: SimFunction, records: Vec<usize>, role: TaskRole) {
        if self.features.archive_is_sink() {
            let record = |position: usize| &self.source.records[position];
            let is_superseded = |(at, position): (usize, &usize)| {
                let later = records[at + 1..].iter().any(|later| record(*later).item == record(*position).item);
                record(*position).is_expiry() && later
            };
            let superseded = records.iter().enumerate().filter(|one| is_superseded(*one)).count();
            self.injector.see_many("archive sink: a removal superseded in its batch", superseded);
        }
        let event = event(records.iter().map(|position| self.source.records[*position].json.as_str()));
        let event = RawValue::from_string(event).unwrap();
        let invocation = self.invocation();
        let future = match function {
            SimFunction::Replicator => {
                let replicator = Rc::clone(&self.replicator);
                async move { spelled(replicator.handle(&event, &invocation).await.ok()) }.boxed_local()
            }
            SimFunction::Archiver => {
                let archiver = self.archiver.clone();
                async move { spelled(archiver.handle(&event, &invocation).await.ok()) }.boxed_local()
            }
        };
        self.tasks.push(SimTask { role, records, future });
    }

    /// Starts a maintenance task.
    pub(super) fn order(&mut self, order: &str) {
        self.order_to(Rc::clone(&self.maintenance), order);
    }

    /// Starts a maintenance task with this handler. A failed invocation ends the run.
    pub(super) fn order_to(&mut self, maintenance: Rc<MaintenanceHandler>, order: &str) {
        self.start_run(maintenance, order, 0);
    }

    /// Starts a task run: invokes the task repeatedly, each time with the last cursor, until it is done. Like the state
    /// machine, it retries up to `retries` failed invocations.
    pub(super) fn start_run(&mut self, maintenance: Rc<MaintenanceHandler>, request: &str, retries: usize) {
        self.runs_started += 1;
        let mut request: Value = serde_json::from_str(request).unwrap();
        request["run_id"] = json!(format!("run-{}", self.runs_started));
        let (now, injector, runs) = (self.now, self.injector.clone(), Rc::clone(&self.runs));
        let future = async move {
            let mut failures = 0;
            for _ in 0..MAX_INVOCATIONS {
                let payload = RawValue::from_string(request.to_string()).unwrap();
                match maintenance.handle(&payload, &invocation(now)).await {
                    Ok(response) if response.done => {
                        let output = spelled(Some(&response));
                        runs.borrow_mut().push(response);
                        return output;
                    }
                    Ok(response) => {
                        injector.see("task: continued from its cursor");
                        request["cursor"] = json!(response.cursor);
                    }
                    Err(_) if failures < retries => {
                        injector.see("task: retried after a failed invocation");
                        failures += 1;
                    }
                    Err(_) => return None,
                }
            }
            None
        };
        self.spawn_maintenance(future.boxed_local());
    }

    /// Reconciles some items of a replica without comparing first.
    pub(super) fn repair_all(&mut self, sink: usize, items: Vec<usize>) {
        let table = &self.source.table;
        let ailing =
            |item| millrace_maintenance::repair::StaleKey { key: table.key(item).clone(), record_revision: None };
        let ailing: Vec<_> = items.into_iter().map(ailing).collect();
        let replica = replica(&self.replicas, &self.source.table, sink);
        let table = self.maintenance.source.clone();
        let (injector, invocation) = (self.injector.clone(), self.invocation());
        let future = async move {
            let source = millrace_maintenance::source::SourceTable::open(table).await.ok()?;
            let mended =
                millrace_maintenance::repair::reconcile_keys(&source, &*replica, &ailing, &invocation).await.ok()?;
            if mended.iter().any(|mended| matches!(mended, millrace_maintenance::repair::RepairOutcome::Failed(_))) {
                injector.see("repair: left an item");
            }
            Some(String::new())
        };
        self.spawn_maintenance(future.boxed_local());
    }

    fn spawn_maintenance(&mut self, future: LocalBoxFuture<'static, Option<String>>) {
        self.tasks.push(SimTask { role: TaskRole::Maintenance, records: Vec::new(), future });
    }

    /// Polls a task until it has reached the fault injector and all of its effects in progress have ended.
    async fn poll(&mut self, at: usize) -> LostInvocation {
        self.injector.open();
        let (task, injector) = (&mut self.tasks[at], &self.injector);
        let output = poll_fn(|context| match task.future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if injector.progress().1 => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
        });
        match output.await {
            Some(output) => {
                let task = self.tasks.remove(at);
                self.end(&task, output);
                LostInvocation::ToItsEnd
            }
            None if self.injector.progress().0 => LostInvocation::On,
            None => LostInvocation::Nowhere,
        }
    }

    /// Advances a task by the given number of calls.
    pub(super) async fn step(&mut self, at: usize, times: usize) {
        for _ in 0..times {
            if !matches!(self.poll(at).await, LostInvocation::On) {
                return;
            }
        }
    }

    /// Runs a task to completion; a task that hangs ends when its deadline has passed, or crashes.
    pub(super) async fn run(&mut self, at: usize) {
        let mut idle = 0;
        for _ in 0..MAX_CALLS {
            match self.poll(at).await {
                LostInvocation::ToItsEnd => return,
                LostInvocation::On => idle = 0,
                LostInvocation::Nowhere => {
                    // Short pauses do not wake a task whose call gets no response: advance past its deadline at once.
                    idle = if self.injector.is_silent() { 5.max(idle + 1) } else { idle + 1 };
                    match idle {
                        1..=4 => self.stage.pass(PAUSE * 4_u32.pow(idle - 1)).await,
                        5 => {
                            self.injector.see("delivery: time up");
                            self.stage.pass(INVOCATION).await;
                        }
                        _ => break,
                    }
                }
            }
        }
        self.crash(at, false);
    }

    /// Crashes a task.
    pub(super) fn crash(&mut self, at: usize, keep: bool) {
        let task = self.tasks.remove(at);
        self.injector.see(match task.role {
            TaskRole::Maintenance => "maintenance: crashed",
            TaskRole::Delivery { .. } | TaskRole::Stray => "delivery: crashed",
        });
        self.injector.keep_what_is_dropped(keep);
        drop(task.future);
        self.injector.keep_what_is_dropped(false);
        if let TaskRole::Delivery { mapping, ticket } = task.role {
            self.mappings[mapping].machine.invocation_completed(ticket, None, self.now);
        }
    }

    /// Processes the end of a task, with its response or without one.
    fn end(&mut self, task: &SimTask, output: Option<String>) {
        let TaskRole::Delivery { mapping, ticket } = task.role else {
            let contains = |what: &str| output.as_ref().is_some_and(|output| output.contains(what));
            if contains("\"redrive.skipped\"") {
                self.injector.see("redrive: left a failure");
            }
            if contains("\"redrive.rows\"") {
                self.injector.see("redrive: rows for the archive");
            }
            return;
        };
        self.injector.see("delivery");
        if self.lose_answers > 0 {
            self.lose_answers -= 1;
            self.injector.see("delivery: response lost");
            self.mappings[mapping].machine.invocation_completed(ticket, None, self.now);
            return;
        }
        let response = output.map(|body| FunctionResponse::read(&body));
        let from = match &response {
            Some(FunctionResponse::Done) => task.records.len(),
            Some(FunctionResponse::Failures(numbers)) => {
                self.injector.see("delivery: answered in part");
                let number = SequenceNumber::parse(&numbers[0]).unwrap();
                task.records.iter().position(|position| self.source.records[*position].number == number).unwrap()
            }
            Some(FunctionResponse::Malformed) | None => {
                self.injector.see("delivery: failed whole");
                0
            }
        };
        let function = self.mappings[mapping].function as usize;
        task.records[..from].iter().for_each(|position| self.settled[*position][function] = true);
        self.mappings[mapping].machine.invocation_completed(ticket, response.as_ref(), self.now);
    }

    /// Starts every action of a mapping that is due now.
    pub(super) async fn start(&mut self, mapping: usize) -> bool {
        let mut started = false;
        while let Some(step) = self.mappings[mapping].machine.next(self.now) {
            started = true;
            let function = self.mappings[mapping].function;
            let records: Vec<usize> = step.records.iter().map(|entry| entry.body).collect();
            match step.work {
                ActionKind::Deliver => {
                    self.deliver(function, records, TaskRole::Delivery { mapping, ticket: step.ticket });
                }
                ActionKind::Discard(_) if self.fail_recordings > 0 => {
                    self.fail_recordings -= 1;
                    self.injector.see("given up: not recorded");
                    self.mappings[mapping].machine.discard_completed(step.ticket, false, self.now);
                }
                ActionKind::Discard(reason) => {
                    self.injector.see(match reason {
                        DiscardReason::RecordAgeExceeded => "given up: age",
                        DiscardReason::RetryAttemptsExhausted => "given up: retries",
                    });
                    self.discarded += 1;
                    let event = event(records.iter().map(|position| self.source.records[*position].json.as_str()));
                    let (key, body) = envelope(function, &step, reason, &event, self.discarded);
                    self.stage.put_object(FAILURES, &key, body).await;
                    for position in &records {
                        self.settled[*position][function as usize] = true;
                    }
                    self.mappings[mapping].machine.discard_completed(step.ticket, true, self.now);
                }
            }
        }
        started
    }

    /// Runs every task to completion.
    pub(super) async fn run_all(&mut self) {
        while !self.tasks.is_empty() {
            self.run(0).await;
        }
    }
}

fn invocation(now: OffsetDateTime) -> Invocation {
    Invocation { now, deadline: Instant::now() + INVOCATION, request_id: "1".to_owned() }
}

/// Returns a replica with its rules.
fn replica(replicas: &[BoundedKey], table: &SimTable, sink: usize) -> Box<dyn Replica> {
    match table.rules(sink) {
        Some(rules) => Box::new(TransformedSink::new(replicas[sink].clone(), Arc::clone(rules), RULES.to_owned())),
        None => Box::new(replicas[sink].clone()),
    }
}

fn sink(replicas: &[BoundedKey], table: &SimTable, sink: usize) -> Box<dyn Sink> {
    match table.rules(sink) {
        Some(rules) => Box::new(TransformedSink::new(replicas[sink].clone(), Arc::clone(rules), RULES.to_owned())),
        None => Box::new(replicas[sink].clone()),
    }
}

fn replicator(
    replicas: &[BoundedKey; 2],
    table: &SimTable,
    s3: aws_sdk_s3::Client,
    features: &SimFeatures,
) -> ReplicatorHandler {
    let mut sinks: Vec<Box<dyn Sink>> = (0..replicas.len()).map(|position| sink(replicas, table, position)).collect();
    if features.archive_is_sink() {
        let archive = ArchiveStore::new(s3.clone(), ARCHIVE.to_owned());
        sinks.push(Box::new(ArchiveSink::new(ArchiveWriter::new(archive, COMPRESSION))));
    }
    ReplicatorHandler::new(sinks, Quarantine::new(s3, FAILURES.to_owned(), "replicator"))
}

fn spelled(response: Option<impl serde::Serialize>) -> Option<String> {
    response.map(|response| serde_json::to_string(&response).unwrap())
}
