//! The task runs that the console started: [`TaskRuns`]. A run is a loop of invocations, as in the state machine on AWS,
//! with one segment. The last [`RETAINED`] runs are retained.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_local::import::{ImportOutcome, ImportSource};
use millrace_local::stack::LocalStack;
use millrace_local::template::TableResource;
use millrace_maintenance::MaintenanceHandler;
use millrace_maintenance::task::TaskResponse;
use millrace_shared::clock::{Clock, new_uuid};
use millrace_shared::invocation::Invocation;
use serde_json::value::to_raw_value;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// The number of runs that are retained.
const RETAINED: usize = 20;
/// The number of runs that may be in progress.
const IN_PROGRESS: usize = 3;
/// The field of a request that says whether it writes.
const DRY_RUN: &str = "dry_run";
/// The name of an import among the tasks, and the interval at which its progress is reported.
const IMPORT: &str = "import";
const IMPORT_PROGRESS: std::time::Duration = std::time::Duration::from_millis(300);
/// The time of an invocation: short, so that progress is shown and a cancellation takes effect.
const TURN: std::time::Duration = std::time::Duration::from_secs(20);
/// The maximum length of the shown report, in lines and in bytes of an object.
const REPORT_LINES: usize = 200;
const REPORT_BYTES: u64 = 256 * 1024;
const REPORT_OBJECTS: i32 = 20;

/// The state of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RunState {
    Running,
    Done,
    Cancelled,
    Failed(String),
}

/// A run of a task.
#[derive(Debug, Clone)]
pub(crate) struct TaskRunView {
    pub(crate) id: String,
    pub(crate) task: String,
    pub(crate) request: String,
    pub(crate) started: OffsetDateTime,
    pub(crate) state: RunState,
    pub(crate) progress: String,
    pub(crate) differences: u64,
    pub(crate) problems: u64,
    pub(crate) report: Vec<String>,
    pub(crate) cancelled: bool,
}

impl TaskRunView {
    /// Returns the request of the same run for real, if this was a dry run that has ended without an error.
    pub(crate) fn for_real(&self) -> Option<Map<String, Value>> {
        let mut request: Map<String, Value> = serde_json::from_str(&self.request).ok()?;
        // The reports of two runs with one ID would overwrite each other.
        request.remove("run_id");
        let is_dry_run = request.insert(DRY_RUN.to_owned(), false.into()) == Some(true.into());
        (is_dry_run && self.state == RunState::Done).then_some(request)
    }
}

/// The last runs.
#[derive(Debug, Default)]
pub(crate) struct TaskRuns(Mutex<VecDeque<TaskRunView>>);

impl TaskRuns {
    fn runs(&self) -> MutexGuard<'_, VecDeque<TaskRunView>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the runs, the newest first.
    pub(crate) fn all(&self) -> Vec<TaskRunView> {
        self.runs().iter().rev().cloned().collect()
    }

    pub(crate) fn get(&self, id: &str) -> Option<TaskRunView> {
        self.runs().iter().find(|run| run.id == id).cloned()
    }

    /// Ends a run after its current invocation.
    pub(crate) fn cancel(&self, id: &str) {
        self.update(id, |run| run.cancelled = true);
    }

    fn update(&self, id: &str, change: impl FnOnce(&mut TaskRunView)) {
        if let Some(run) = self.runs().iter_mut().find(|run| run.id == id) {
            change(run);
        }
    }

    /// Starts a task and returns the ID of the run.
    ///
    /// # Errors
    /// Fails if too many runs are in progress.
    pub(crate) fn start(
        self: &Arc<Self>,
        maintenance: Arc<MaintenanceHandler>,
        task: &'static str,
        mut request: Map<String, Value>,
        clock: &Clock,
    ) -> Result<String, String> {
        let id = self.begin(task, Value::Object(request.clone()).to_string(), clock)?;
        request.insert("task".to_owned(), task.into());
        request.insert("run_id".to_owned(), id.clone().into());
        let (runs, run_id, clock, runtime) = (Arc::clone(self), id.clone(), clock.clone(), Handle::current());
        // The future of a task stays on one thread, as on Lambda.
        tokio::task::spawn_blocking(move || {
            runtime.block_on(async {
                let state = runs.run(&maintenance, request, &run_id, &clock).await;
                let report = report(&maintenance, &run_id).await;
                runs.update(&run_id, |run| {
                    run.report = report;
                    run.state = state;
                });
            });
        });
        Ok(id)
    }

    /// Adds a run that is in progress, and returns its ID.
    fn begin(&self, task: &'static str, request: String, clock: &Clock) -> Result<String, String> {
        let now = clock.now();
        let id = format!("console-{}", new_uuid(now));
        let mut runs = self.runs();
        if runs.iter().filter(|run| run.state == RunState::Running).count() >= IN_PROGRESS {
            return Err(format!("{IN_PROGRESS} tasks are running: wait until one of them has ended, or cancel it"));
        }
        if runs.len() == RETAINED
            && let Some(position) = runs.iter().position(|run| run.state != RunState::Running)
        {
            runs.remove(position);
        }
        runs.push_back(TaskRunView {
            id: id.clone(),
            task: task.to_owned(),
            request,
            started: now,
            state: RunState::Running,
            progress: String::new(),
            differences: 0,
            problems: 0,
            report: Vec::new(),
            cancelled: false,
        });
        Ok(id)
    }

    /// Starts an import and returns the ID of the run. Items that were written before a cancellation remain.
    ///
    /// # Errors
    /// Fails if too many runs are in progress.
    pub(crate) fn start_import(
        self: &Arc<Self>,
        stack: Arc<LocalStack>,
        source: ImportSource,
        table: TableResource,
        clock: &Clock,
    ) -> Result<String, String> {
        let request = json!({"table": table.name, "path": source.path().display().to_string()}).to_string();
        let id = self.begin(IMPORT, request, clock)?;
        let (runs, run_id) = (Arc::clone(self), id.clone());
        tokio::spawn(async move {
            let written = Arc::new(AtomicU64::new(0));
            let import = stack.import_counted(source, &table, Arc::clone(&written));
            let mut import = std::pin::pin!(import);
            let ended = loop {
                tokio::select! {
                    outcome = &mut import => break Some(outcome),
                    () = tokio::time::sleep(IMPORT_PROGRESS) => {
                        let items = written.load(Ordering::Relaxed);
                        runs.update(&run_id, |run| run.progress = format!("{items} items written"));
                        if runs.get(&run_id).is_none_or(|run| run.cancelled) {
                            break None;
                        }
                    }
                }
            };
            runs.update(&run_id, |run| {
                run.state = match ended {
                    None => RunState::Cancelled,
                    Some(Err(error)) => RunState::Failed(error.to_string()),
                    Some(Ok(outcome)) => {
                        let ImportOutcome { items, replaced, .. } = outcome;
                        run.progress =
                            format!("{items} items written, {replaced} of them in place of an earlier line's item");
                        RunState::Done
                    }
                };
            });
        });
        Ok(id)
    }

    async fn run(
        &self,
        maintenance: &MaintenanceHandler,
        mut request: Map<String, Value>,
        id: &str,
        clock: &Clock,
    ) -> RunState {
        loop {
            let now = clock.now();
            let invocation = Invocation::new(now, Instant::now(), TURN, new_uuid(now).to_string());
            let payload = match to_raw_value(&request) {
                Ok(payload) => payload,
                Err(error) => return RunState::Failed(error.to_string()),
            };
            let response = match Box::pin(maintenance.handle(&payload, &invocation)).await {
                Ok(response) => response,
                Err(error) => return RunState::Failed(error.to_string()),
            };
            let TaskResponse { done, cursor, progress, differences, problems, .. } = response;
            self.update(id, |run| {
                run.progress = progress.to_string();
                (run.differences, run.problems) = (differences, problems);
            });
            if done {
                return RunState::Done;
            }
            if self.get(id).is_none_or(|run| run.cancelled) {
                return RunState::Cancelled;
            }
            request.insert("cursor".to_owned(), json!(cursor));
        }
    }
}

/// Returns the first lines of a run's report; a report that cannot be read is one line that says why.
pub(crate) async fn report(maintenance: &MaintenanceHandler, id: &str) -> Vec<String> {
    let objects = match maintenance.failures.list(&format!("reports/{id}/"), None, REPORT_OBJECTS).await {
        Ok(objects) => objects,
        Err(error) => return vec![format!("the report cannot be read: {error}")],
    };
    let mut lines = Vec::new();
    for object in objects {
        if millrace_maintenance::task::summary::is_result(&object.key) {
            continue;
        }
        lines.push(format!("# {}", object.key));
        if object.size_bytes > REPORT_BYTES {
            lines.push(format!("({} KB: read it from the failure bucket)", object.size_bytes / 1024));
            continue;
        }
        match maintenance.failures.get(&object.key).await {
            Ok(Some(body)) => lines.extend(String::from_utf8_lossy(&body).lines().map(str::to_owned)),
            Ok(None) => {}
            Err(error) => lines.push(format!("(cannot be read: {error})")),
        }
        if lines.len() > REPORT_LINES {
            lines.truncate(REPORT_LINES);
            lines.push(format!("(the first {REPORT_LINES} lines)"));
            break;
        }
    }
    lines
}
