//! Scenarios of idempotent creates: two instances of the API create, replace, delete and read the same records over one
//! cache, and an instance may end at any call.
//!
//! The replica scenarios write to their source directly and do not run the API, so the API's cache has these scenarios.
//! The API runs as in production, on the embedded engine and a real cache server. A scenario decides by how many steps
//! each request advances: a call to a table is two steps, its effect and its response. An instance that ends loses its
//! requests and its pending invalidations, so a create may be in the table although no instance has invalidated the
//! cache; its client then repeats it with the same idempotency key at the other instance. No read may return a state of
//! the record that is older than a write to which an instance had responded before the read began.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration as Pause;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::StalledStreamProtectionConfig;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use millrace_api::cache::{CacheAside, CacheTimeouts};
use millrace_api::config::ApiConfig;
use millrace_shared::cache::Cache;
use millrace_shared::clock::Clock;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use time::{Duration, OffsetDateTime};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use super::http_connector;
use crate::cache::servers;
use crate::users_api::service::{ApiHandle, JSON, NOW, ServiceResponse, UsersService, config_with};

const INSTANCES: usize = 2;
const RECORDS: usize = 2;
/// The record that the create with each idempotency key creates.
const RECORD_OF_KEY: [usize; 3] = [0, 0, 1];
/// The maximum number of steps of a request; one that takes more never ends.
const MAX_STEPS: usize = 100;
/// Timeouts that are longer than any load on the machine could delay a call.
const PATIENT: CacheTimeouts = CacheTimeouts { call: Pause::from_secs(5), cooldown: Pause::from_millis(1) };

/// A request to the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CreateCall {
    /// A create with this idempotency key.
    Create {
        key: usize,
    },
    Replace {
        record: usize,
    },
    Delete {
        record: usize,
    },
    Read {
        record: usize,
    },
}

impl CreateCall {
    fn record(self) -> usize {
        match self {
            Self::Create { key } => RECORD_OF_KEY[key],
            Self::Replace { record } | Self::Delete { record } | Self::Read { record } => record,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum CreateAction {
    /// Starts a request and advances it by the given number of steps, or to its end.
    Start { instance: usize, call: CreateCall, steps: Option<u8> },
    /// Advances a paused request.
    Go { task: usize, steps: Option<u8> },
    /// Ends an instance and replaces it with a new one.
    End { instance: usize },
    /// Advances the clock.
    Pass { seconds: u8 },
}

fn action_lists() -> impl Strategy<Value = Vec<CreateAction>> {
    let record = || 0..RECORDS;
    let call = prop_oneof![
        5 => (0..RECORD_OF_KEY.len()).prop_map(|key| CreateCall::Create { key }),
        1 => record().prop_map(|record| CreateCall::Replace { record }),
        1 => record().prop_map(|record| CreateCall::Delete { record }),
        6 => record().prop_map(|record| CreateCall::Read { record }),
    ];
    // A create consists of its claim and its transaction: after the third step the transaction has taken effect.
    let steps = || prop_oneof![5 => Just(None), 2 => Just(Some(3)), 1 => (0..6_u8).prop_map(Some)];
    let start =
        (0..INSTANCES, call, steps()).prop_map(|(instance, call, steps)| CreateAction::Start { instance, call, steps });
    let act = prop_oneof![
        12 => start,
        2 => (0..4_usize, steps()).prop_map(|(task, steps)| CreateAction::Go { task, steps }),
        2 => (0..INSTANCES).prop_map(|instance| CreateAction::End { instance }),
        1 => prop_oneof![Just(1), Just(31)].prop_map(|seconds| CreateAction::Pass { seconds }),
    ];
    vec(act, 4..20)
}

/// The HTTP client of one request: each call waits for a permit before its effect and before its response.
#[derive(Clone)]
struct CallSchedule {
    turn: Arc<Semaphore>,
    arrived: Arc<Notify>,
    client: http_connector::SimWire,
}

impl CallSchedule {
    async fn wait(&self) {
        self.arrived.notify_one();
        self.turn.acquire().await.unwrap().forget();
    }
}

impl fmt::Debug for CallSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turns")
    }
}

impl HttpClient for CallSchedule {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for CallSchedule {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let turns = self.clone();
        HttpConnectorFuture::new(async move {
            turns.wait().await;
            let response = http_connector::forward(&turns.client, request).await;
            turns.wait().await;
            response
        })
    }
}

/// A request in progress.
struct CreateTask {
    instance: usize,
    call: CreateCall,
    turns: CallSchedule,
    work: JoinHandle<ServiceResponse>,
    /// The oldest state of its record that it may return, if it is a read.
    oldest: usize,
    /// The state that it has brought its record to.
    wrote: Option<usize>,
}

/// Counts of the events that these scenarios are meant to cover.
#[derive(Default)]
struct Coverage {
    ended_after_landing: Cell<u32>,
    repeated: Cell<u32>,
    from_cache: Cell<u32>,
}

fn see(count: &Cell<u32>) {
    count.set(count.get() + 1);
}

struct CreateSimulation<'s> {
    service: &'s UsersService,
    config: &'s ApiConfig,
    cache: &'s Cache,
    client: http_connector::SimWire,
    coverage: &'s Coverage,
    /// Makes the records and idempotency keys of this scenario unique.
    number: usize,
    now: OffsetDateTime,
    instances: [CacheAside; INSTANCES],
    tasks: Vec<CreateTask>,
    /// Requests of instances that have ended: they never advance, and their destructors do not run before the
    /// scenario's end.
    lost: Vec<CreateTask>,
    /// The versions that each record has had, starting with its first state, in which it is missing.
    states: [Vec<Option<u64>>; RECORDS],
    /// The oldest state of each record that a read that begins now may return.
    oldest: [usize; RECORDS],
}

impl CreateSimulation<'_> {
    fn id(&self) -> String {
        format!("ada-{}", self.number)
    }

    fn instance(cache: &Cache) -> CacheAside {
        CacheAside::new(cache.clone(), "Users", PATIENT)
    }

    async fn start(&mut self, instance: usize, call: CreateCall, steps: Option<u8>) -> Result<(), String> {
        let is_same = |task: &CreateTask| (task.instance, task.call) == (instance, call);
        if matches!(call, CreateCall::Read { .. })
            && let Some(held) = self.tasks.iter().position(is_same)
        {
            // A second identical read in the same instance would wait for the first one.
            self.go(held, None).await?;
        }
        let turns =
            CallSchedule { turn: Arc::new(Semaphore::new(0)), arrived: Arc::default(), client: self.client.clone() };
        let config = self.service.dynamodb.config().to_builder().http_client(turns.clone());
        let config = config.retry_config(RetryConfig::disabled()).timeout_config(TimeoutConfig::disabled());
        let config = config.stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        let cache = Some(self.instances[instance].clone());
        let api =
            ApiHandle(millrace_api::app(self.config, Client::from_conf(config.build()), cache, Clock::fixed(self.now)));
        let (id, number, record) = (self.id(), self.number, call.record());
        let work = tokio::spawn(async move {
            let path = format!("/users/{id}/{record}");
            match call {
                CreateCall::Create { key } => {
                    let body = format!(r#"{{"user_id":"{id}","timestamp":{record},"name":"{key}"}}"#);
                    let header = format!("\"{number}-{key}\"");
                    api.send("POST", "/users", &[JSON, ("idempotency-key", &header)], &body).await
                }
                CreateCall::Replace { .. } => api.put(&path, r#"{"name":"Eve"}"#).await,
                CreateCall::Delete { .. } => api.delete(&path).await,
                CreateCall::Read { .. } => api.get(&path).await,
            }
        });
        let oldest = self.oldest[record];
        self.tasks.push(CreateTask { instance, call, turns, work, oldest, wrote: None });
        let at = self.tasks.len() - 1;
        // Advances the request to its first call, before which nothing has taken effect.
        if !self.settled(at).await? {
            self.go(at, steps).await?;
        }
        Ok(())
    }

    /// Advances a request by the given number of steps, or to its end.
    async fn go(&mut self, at: usize, steps: Option<u8>) -> Result<(), String> {
        for _ in 0..steps.map_or(MAX_STEPS, usize::from) {
            self.tasks[at].turns.turn.add_permits(1);
            if self.settled(at).await? {
                return Ok(());
            }
        }
        if steps.is_some() { Ok(()) } else { Err("a request never ends".to_owned()) }
    }

    /// Waits for a request's next step; if the request ends instead, checks its response.
    async fn settled(&mut self, at: usize) -> Result<bool, String> {
        let task = &mut self.tasks[at];
        let response = tokio::select! {
            biased;
            response = &mut task.work => Some(response.unwrap()),
            () = task.turns.arrived.notified() => None,
        };
        let record = task.call.record();
        if !matches!(task.call, CreateCall::Read { .. }) {
            let stored = self.service.item(&format!("ada-{}", self.number), record as u64).await;
            let version = stored.map(|item| item["version"].as_n().unwrap().parse().unwrap());
            if self.states[record].last() != Some(&version) {
                self.states[record].push(version);
                self.tasks[at].wrote = Some(self.states[record].len() - 1);
            }
        }
        let Some(response) = response else { return Ok(false) };
        let task = self.tasks.remove(at);
        self.check(&task, &response).map(|()| true)
    }

    /// The newest state with this version.
    fn state_of(&self, record: usize, version: Option<u64>) -> Option<usize> {
        self.states[record].iter().rposition(|state| *state == version)
    }

    /// Checks the response of a read; records the state after a write.
    fn check(&mut self, task: &CreateTask, response: &ServiceResponse) -> Result<(), String> {
        let record = task.call.record();
        let (call, status, text) = (task.call, response.status, &response.text);
        let version = match (call, status) {
            (CreateCall::Read { .. }, 404) => None,
            (CreateCall::Read { .. }, 200) | (CreateCall::Create { .. }, 201) => Some(response.version()),
            (CreateCall::Read { .. }, _) | (_, 500..) => return Err(format!("{call:?} is answered {status} {text}")),
            // The state that another write has brought the record to does not concern this one.
            _ => {
                self.oldest[record] = self.oldest[record].max(task.wrote.unwrap_or_default());
                return Ok(());
            }
        };
        let state = self.state_of(record, version);
        let state = state.ok_or_else(|| format!("{call:?} returns {version:?}, which the table never had"))?;
        if matches!(call, CreateCall::Create { .. }) {
            if task.wrote.is_none() {
                see(&self.coverage.repeated);
            }
            self.oldest[record] = self.oldest[record].max(state);
            return Ok(());
        }
        if response.json["source"] == "cache" {
            see(&self.coverage.from_cache);
        }
        if state < task.oldest {
            let (versions, instance) = (&self.states[record], task.instance);
            let newer = versions[task.oldest];
            return Err(format!(
                "instance {instance} returns the stale version {version:?} of record {record} after a response of a \
                 write that left {newer:?}; it had {versions:?}"
            ));
        }
        Ok(())
    }

    async fn apply_action(&mut self, act: CreateAction) -> Result<(), String> {
        self.now += Duration::SECOND;
        match act {
            CreateAction::Start { instance, call, steps } => self.start(instance, call, steps).await?,
            CreateAction::Go { .. } if self.tasks.is_empty() => {}
            CreateAction::Go { task, steps } => self.go(task % self.tasks.len(), steps).await?,
            CreateAction::End { instance } => {
                let of_it = |task: &mut CreateTask| task.instance == instance;
                for task in self.tasks.extract_if(.., of_it) {
                    if task.wrote.is_some() {
                        see(&self.coverage.ended_after_landing);
                    }
                    self.lost.push(task);
                }
                self.instances[instance] = Self::instance(self.cache);
            }
            CreateAction::Pass { seconds } => self.now += Duration::seconds(seconds.into()),
        }
        Ok(())
    }

    /// Completes every request that can still end; then every instance reads every record twice, the second time from
    /// the cache if the cache contains it.
    async fn finish(&mut self) -> Result<(), String> {
        while !self.tasks.is_empty() {
            self.go(0, None).await?;
        }
        for record in 0..RECORDS {
            for instance in (0..INSTANCES).chain(0..INSTANCES) {
                self.start(instance, CreateCall::Read { record }, None).await?;
            }
        }
        self.lost.iter().for_each(|task| task.work.abort());
        Ok(())
    }
}

/// Runs scenarios until one fails, and shrinks that one.
pub(super) fn all_end_right(seed: u64, count: u32) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: count, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (service, cache) = runtime.block_on(async { (UsersService::start().await, servers::cache().await) });
    let config = config_with("Users", &[("IDEMPOTENCY_TABLE", "Idempotency")]);
    let (numbers, coverage) = (Cell::new(0), Coverage::default());
    let ended = runner.run(&action_lists(), |acts| {
        numbers.set(numbers.get() + 1);
        let mut world = CreateSimulation {
            service: &service,
            config: &config,
            cache: &cache,
            client: http_connector::wire(),
            coverage: &coverage,
            number: numbers.get(),
            now: NOW,
            instances: std::array::from_fn(|_| CreateSimulation::instance(&cache)),
            tasks: Vec::new(),
            lost: Vec::new(),
            states: std::array::from_fn(|_| vec![None]),
            oldest: [0; RECORDS],
        };
        runtime.block_on(async {
            for act in acts {
                world.apply_action(act).await.map_err(TestCaseError::fail)?;
            }
            world.finish().await.map_err(TestCaseError::fail)
        })
    });
    ended.unwrap_or_else(|error| panic!("{error}"));
    let Coverage { ended_after_landing, repeated, from_cache } = coverage;
    for (what, count) in [
        ("an instance ended between a write's landing and its response", ended_after_landing),
        ("a create was repeated", repeated),
        ("a read was answered from the cache", from_cache),
    ] {
        assert!(count.get() > 0, "it never occurred that {what}");
    }
}
