//! Scenarios of unique emails: two users write, move and delete records with the same emails while every call of every
//! write may be paused for any number of steps.
//!
//! The API's table runs as in production, on the embedded engine; a scenario decides which write advances by how many
//! calls, when time passes and when TTL removes items. After each step no email has records of two users. At the end
//! every email with a live record is refused to another user, and every other email is free and leaves no item that
//! does not expire.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::StalledStreamProtectionConfig;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use millrace_shared::clock::Clock;
use millrace_shared::table::{IdempotencyRecord, NonceSource, UserTable, WriteError};
use millrace_shared::user::Timestamp;
use millrace_shared::user::email::Email;
use millrace_shared::user::expiry::ExpiresAt;
use millrace_shared::user::id::UserId;
use millrace_shared::user::precondition::Precondition;
use millrace_shared::user::{FieldPatch, User, UserKey, UserName, UserPatch, UserProfile};
use proptest::bool::weighted;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::Union;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use time::{Duration, OffsetDateTime};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use super::http_connector;
use crate::users_api::service::{NOW, UsersService};

const USERS: [&str; 2] = ["ada", "eve"];
const SECONDS: [i64; 2] = [1, 2];
const EMAILS: usize = 2;
const EMAILS_TABLE: &str = "Emails";
/// The maximum number of calls of a write; one that makes more never ends.
const MAX_CALLS: usize = 100;

/// A write of the API.
#[derive(Debug, Clone, Copy)]
enum EmailWrite {
    Create { email: usize, ends: Option<u8>, once: bool },
    Replace { email: Option<usize>, ends: Option<u8> },
    Move { email: Option<usize> },
    End { ends: Option<u8> },
    Delete,
}

#[derive(Debug, Clone, Copy)]
enum EmailAction {
    /// Starts a write of a record and advances it by the given number of calls, or to its end.
    Start { user: usize, second: usize, write: EmailWrite, calls: Option<u8> },
    /// Advances a paused write.
    Go { task: usize, calls: Option<u8> },
    /// Advances the clock.
    Pass { seconds: u8 },
    /// TTL removes the expired items of both tables.
    Expire,
}

/// The features of a scenario: if every action were always possible, the same kind would rarely occur twice in a row.
#[derive(Debug, Clone, Copy)]
struct EmailFeatures {
    /// Records expire, and time passes.
    ends: bool,
    /// Records change their emails.
    moves: bool,
    /// Creates have idempotency keys.
    once: bool,
}

fn action_lists() -> impl Strategy<Value = Vec<EmailAction>> {
    let features = (weighted(0.4), weighted(0.4), weighted(0.3));
    let features = features.prop_map(|(ends, moves, once)| EmailFeatures { ends, moves, once });
    features.prop_flat_map(|features| vec(act(features), 4..18))
}

fn act(features: EmailFeatures) -> impl Strategy<Value = EmailAction> {
    let EmailFeatures { ends, moves, once } = features;
    let often = |is_so: bool, weight: f64| if is_so { weighted(weight).boxed() } else { Just(false).boxed() };
    let email = move || often(moves, 0.2).prop_map(usize::from);
    let some_email = move || option::weighted(0.8, email());
    let until = move || (often(ends, 0.5), 1..20_u8).prop_map(|(ends, after)| ends.then_some(after));
    let create =
        (email(), until(), often(once, 0.5)).prop_map(|(email, ends, once)| EmailWrite::Create { email, ends, once });
    let mut writes = vec![(5, create.boxed()), (4, Just(EmailWrite::Delete).boxed())];
    if moves {
        let replace = (some_email(), until()).prop_map(|(email, ends)| EmailWrite::Replace { email, ends });
        let change = some_email().prop_map(|email| EmailWrite::Move { email });
        writes.extend([(2, replace.boxed()), (2, change.boxed())]);
    }
    if ends {
        writes.push((2, until().prop_map(|ends| EmailWrite::End { ends }).boxed()));
    }
    // The first call reads; the one after it is the transaction in most writes.
    let calls = || prop_oneof![4 => Just(None), 3 => Just(Some(1)), 1 => (0..5_u8).prop_map(Some)];
    let start = (0..USERS.len(), 0..SECONDS.len(), Union::new_weighted(writes), calls());
    let mut acts = vec![
        (6, start.prop_map(|(user, second, write, calls)| EmailAction::Start { user, second, write, calls }).boxed()),
        (1, (0..4_usize, calls()).prop_map(|(task, calls)| EmailAction::Go { task, calls }).boxed()),
    ];
    if ends {
        acts.push((1, (1..15_u8).prop_map(|seconds| EmailAction::Pass { seconds }).boxed()));
        acts.push((1, Just(EmailAction::Expire).boxed()));
    }
    Union::new_weighted(acts)
}

/// The HTTP client of one write: each call waits for a permit.
#[derive(Clone)]
struct EmailSchedule {
    turn: Arc<Semaphore>,
    arrived: Arc<Notify>,
    client: http_connector::SimWire,
}

impl fmt::Debug for EmailSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turns")
    }
}

impl HttpClient for EmailSchedule {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for EmailSchedule {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let turns = self.clone();
        HttpConnectorFuture::new(async move {
            turns.arrived.notify_one();
            turns.turn.acquire().await.unwrap().forget();
            http_connector::forward(&turns.client, request).await
        })
    }
}

/// A write in progress.
struct EmailTask {
    turns: EmailSchedule,
    work: JoinHandle<()>,
}

impl EmailTask {
    /// Waits for the next call; returns whether the write has ended instead.
    async fn settled(&mut self) -> bool {
        tokio::select! {
            biased;
            ended = &mut self.work => { ended.unwrap(); true }
            () = self.turns.arrived.notified() => false,
        }
    }

    async fn go(&mut self, calls: Option<u8>) -> bool {
        for _ in 0..calls.map_or(MAX_CALLS, usize::from) {
            self.turns.turn.add_permits(1);
            if self.settled().await {
                return true;
            }
        }
        assert!(calls.is_some(), "a write goes round for ever");
        false
    }
}

struct EmailSimulation<'s> {
    service: &'s UsersService,
    client: http_connector::SimWire,
    /// Makes the users and emails of this scenario unique.
    number: usize,
    now: OffsetDateTime,
    tasks: Vec<EmailTask>,
    started: usize,
}

fn table(client: Client) -> UserTable {
    UserTable::new(client, "Users".to_owned(), "EmailIndex".to_owned())
        .with_unique_emails(Some(EMAILS_TABLE), NonceSource::new(Clock::system()))
}

impl EmailSimulation<'_> {
    fn key(&self, user: usize, second: usize) -> UserKey {
        let id = UserId::parse(format!("{}-{}", USERS[user], self.number)).unwrap();
        UserKey { id, timestamp: Timestamp::parse(SECONDS[second]).unwrap() }
    }

    fn email(&self, email: usize) -> String {
        format!("{}-{}@example.com", ["shared", "other"][email], self.number)
    }

    fn profile(&self, email: Option<usize>, ends: Option<u8>) -> UserProfile {
        let email = email.map(|email| Email::parse(self.email(email)).unwrap());
        UserProfile {
            name: UserName::parse("A").unwrap(),
            email,
            status: None,
            attributes: None,
            expires_at: self.ends(ends),
        }
    }

    fn ends(&self, ends: Option<u8>) -> Option<ExpiresAt> {
        ends.map(|after| ExpiresAt::parse(self.now.unix_timestamp() + i64::from(after), self.now).unwrap())
    }

    async fn start(&mut self, key: UserKey, write: EmailWrite, calls: Option<u8>) {
        let turns =
            EmailSchedule { turn: Arc::new(Semaphore::new(0)), arrived: Arc::default(), client: self.client.clone() };
        // A paused call is not a stalled stream, however long the pause lasts.
        let config = self.service.dynamodb.config().to_builder().http_client(turns.clone());
        let config = config.retry_config(RetryConfig::disabled()).timeout_config(TimeoutConfig::disabled());
        let config = config.stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        let client = Client::from_conf(config.build());
        let (table, now) = (table(client), self.now);
        let profile = match write {
            EmailWrite::Create { email, ends, .. } => self.profile(Some(email), ends),
            EmailWrite::Replace { email, ends } => self.profile(email, ends),
            EmailWrite::Move { .. } | EmailWrite::End { .. } | EmailWrite::Delete => self.profile(None, None),
        };
        let edits = match write {
            EmailWrite::Move { email } => {
                let email = email.map(|email| Email::parse(self.email(email)).unwrap());
                UserPatch { email: email.map_or(FieldPatch::Remove, FieldPatch::Set), ..UserPatch::default() }
            }
            EmailWrite::End { ends } => UserPatch {
                expires_at: self.ends(ends).map_or(FieldPatch::Remove, FieldPatch::Set),
                ..UserPatch::default()
            },
            EmailWrite::Create { .. } | EmailWrite::Replace { .. } | EmailWrite::Delete => UserPatch::default(),
        };
        self.started += 1;
        let attempt = IdempotencyRecord {
            id: format!("{}-{}", self.number, self.started),
            fingerprint: String::new(),
            owner: format!("{}-{}", self.number, self.started),
        };
        let work = tokio::spawn(async move {
            let free = Precondition::default();
            let written = match write {
                EmailWrite::Create { once: false, .. } => table.create(&User::created(key, profile, now), now).await,
                EmailWrite::Create { .. } => {
                    let user = User::created(key, profile, now);
                    table.create_idempotent("Idempotency", &attempt, &user, now).await.map(drop)
                }
                EmailWrite::Replace { .. } => table.replace(key, profile, &free, now).await.map(drop),
                EmailWrite::Move { .. } | EmailWrite::End { .. } => {
                    table.patch(&key, &edits, &free, now).await.map(drop)
                }
                EmailWrite::Delete => table.delete(&key, &free, now).await.map(drop),
            };
            if let Err(WriteError::Fault(fault)) = written {
                panic!("{fault:?}");
            }
        });
        let mut task = EmailTask { turns, work };
        if !task.settled().await && !task.go(calls).await {
            self.tasks.push(task);
        }
    }

    async fn apply_action(&mut self, act: EmailAction) {
        match act {
            EmailAction::Start { user, second, write, calls } => self.start(self.key(user, second), write, calls).await,
            EmailAction::Go { .. } if self.tasks.is_empty() => {}
            EmailAction::Go { task, calls } => {
                let at = task % self.tasks.len();
                if self.tasks[at].go(calls).await {
                    self.tasks.remove(at);
                }
            }
            EmailAction::Pass { seconds } => self.now += Duration::seconds(seconds.into()),
            EmailAction::Expire => self.expire().await,
        }
    }

    async fn expire(&self) {
        for key in self.keys() {
            let Some(item) = self.service.item(key.id.as_str(), key.timestamp.seconds().unsigned_abs()).await else {
                continue;
            };
            if self.is_past(item.get("expires_at")) {
                let delete = self.service.dynamodb.delete_item().table_name("Users");
                delete.set_key(Some(millrace_shared::item::key(&key))).send().await.unwrap();
            }
        }
        for item in self.reservations().await.into_values().flatten() {
            if self.is_past(item.get("expires_at")) {
                let key = item.into_iter().filter(|(name, _)| ["email", "record"].contains(&name.as_str())).collect();
                let delete = self.service.dynamodb.delete_item().table_name(EMAILS_TABLE).set_key(Some(key));
                delete.send().await.unwrap();
            }
        }
    }

    fn is_past(&self, ends: Option<&AttributeValue>) -> bool {
        ends.is_some_and(|ends| ends.as_n().unwrap().parse::<i64>().unwrap() <= self.now.unix_timestamp())
    }

    async fn reservations(&self) -> BTreeMap<String, Vec<millrace_shared::item::AttributeMap>> {
        let mut found = BTreeMap::new();
        for email in (0..EMAILS).map(|email| self.email(email)) {
            let query = self.service.dynamodb.query().table_name(EMAILS_TABLE).consistent_read(true);
            let query = query.key_condition_expression("email = :email");
            let query = query.expression_attribute_values(":email", AttributeValue::S(email.clone()));
            found.insert(email, query.send().await.unwrap().items.unwrap_or_default());
        }
        found
    }

    /// The users with a live record of each email.
    async fn owners(&self) -> BTreeMap<String, BTreeSet<String>> {
        let users = table(self.service.dynamodb.clone()).read_batch(&self.keys(), self.now).await.unwrap().users;
        let mut owners = BTreeMap::<_, BTreeSet<String>>::new();
        for user in users {
            if let Some(email) = user.profile.email {
                owners.entry(email.as_str().to_owned()).or_default().insert(user.key.id.to_string());
            }
        }
        owners
    }

    fn keys(&self) -> Vec<UserKey> {
        let each = (0..USERS.len()).flat_map(|user| (0..SECONDS.len()).map(move |second| (user, second)));
        each.map(|(user, second)| self.key(user, second)).collect()
    }

    async fn check_invariants(&self) -> Result<(), String> {
        match self.owners().await.into_iter().find(|(_, users)| users.len() > 1) {
            Some((email, _)) => Err(format!("two users have {email}")),
            None => Ok(()),
        }
    }

    async fn finish(&mut self) -> Result<(), String> {
        for mut task in std::mem::take(&mut self.tasks) {
            task.go(None).await;
            self.check_invariants().await?;
        }
        let (owners, reservations) = (self.owners().await, self.reservations().await);
        for (email, second) in (0..EMAILS).zip(1..) {
            let email = self.email(email);
            let is_had = owners.contains_key(&email);
            if !is_had
                && let Some(left) = reservations[&email].iter().find(|item| !self.is_past(item.get("expires_at")))
            {
                return Err(format!("nobody has {email}, and this is left of it: {left:?}"));
            }
            let id = UserId::parse(format!("zoe-{}", self.number)).unwrap();
            let key = UserKey { id, timestamp: Timestamp::parse(second).unwrap() };
            let mut profile = self.profile(None, None);
            profile.email = Some(Email::parse(email.to_uppercase()).unwrap());
            let zoe = User::created(key, profile, self.now);
            match (is_had, table(self.service.dynamodb.clone()).create(&zoe, self.now).await) {
                (true, Err(WriteError::EmailTaken)) | (false, Ok(())) => {}

                (true, other) => return Err(format!("another user takes {email}, which is had: {other:?}")),
                (false, other) => return Err(format!("nobody can take {email}, which is free: {other:?}")),
            }
        }
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
    let service = runtime.block_on(UsersService::start());
    let numbers = std::cell::Cell::new(0);
    let ended = runner.run(&action_lists(), |acts| {
        numbers.set(numbers.get() + 1);
        let client = http_connector::wire();
        let mut world = EmailSimulation {
            service: &service,
            client,
            number: numbers.get(),
            now: NOW,
            tasks: Vec::new(),
            started: 0,
        };
        runtime.block_on(async {
            for act in acts {
                world.apply_action(act).await;
                world.check_invariants().await.map_err(TestCaseError::fail)?;
            }
            world.finish().await.map_err(TestCaseError::fail)
        })
    });
    ended.unwrap_or_else(|error| panic!("{error}"));
}
