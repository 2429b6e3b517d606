//! The replication lag, which is measured for each sink.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use millrace_replicator::ReplicatorHandler;
use millrace_shared::metric::REPLICATION_LAG;
use millrace_sinks::dynamodb::DynamoDbSink;
use millrace_sinks::{Sink, SinkName};
use serde_json::Value;

use super::events::{EventBuilder, event};
use super::rig::{ReplicationRig, invocation};
use crate::faults::troubled::{FaultySink, SinkFault};
use crate::log_capture::logged;

const COPY: &str = "UsersCopy";
const STAGING: &str = "UsersStaging";
/// The changes of the rig are one second older than its invocations.
const AGE: f64 = 1_000.0;

/// A metrics recorder that keeps the lags with the sinks that they belong to.
#[derive(Default, Clone)]
struct RecordedLags(Arc<Mutex<Vec<(String, f64)>>>);

/// The lags of one sink.
struct LagOfSink(RecordedLags, String);

impl HistogramFn for LagOfSink {
    fn record(&self, value: f64) {
        self.0.0.lock().unwrap().push((self.1.clone(), value));
    }
}

impl Recorder for RecordedLags {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        assert_eq!(key.name(), REPLICATION_LAG.name());
        let labels: Vec<_> = key.labels().map(|label| (label.key(), label.value())).collect();
        let [("sink", sink)] = labels[..] else { panic!("{labels:?}") };
        Histogram::from_arc(Arc::new(LagOfSink(self.clone(), sink.to_owned())))
    }
}

/// A replicator with the replicas `copy` and `staging`, of which the second has these faults.
async fn replicator(rig: &ReplicationRig, faults: impl IntoIterator<Item = SinkFault>) -> ReplicatorHandler {
    for table in [COPY, STAGING] {
        rig.create_table(table, &[("user_id", "S"), ("timestamp", "N")]).await;
    }
    let sink = |table: &str, name: &str| {
        let sink = DynamoDbSink::new(rig.dynamodb.clone(), table, 8, time::Duration::days(8));
        sink.with_name(SinkName::parse(name).unwrap(), name.to_owned())
    };
    let sinks: Vec<Box<dyn Sink>> =
        vec![Box::new(sink(COPY, "copy")), Box::new(FaultySink::new(sink(STAGING, "staging"), faults))];
    rig.replicator_with(sinks)
}

/// The lags that a delivery records, and the lag in its log line. The batch arrives this long after the usual time.
async fn deliver(replicator: &ReplicatorHandler, users: &[EventBuilder], later: u32) -> (Vec<(String, f64)>, Value) {
    let recorded = RecordedLags::default();
    let log = {
        let _recording = metrics::set_default_local_recorder(&recorded);
        let mut invocation = invocation();
        invocation.now += Duration::from_secs(later.into());
        logged(async { drop(replicator.handle(&event(users), &invocation).await.unwrap()) }).await
    };
    let mut lines = log.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let line = lines.find(|line| line["message"] == "batch handled").unwrap();
    (recorded.0.lock().unwrap().clone(), line["batch.lag_ms"].clone())
}

#[tokio::test]
async fn each_sink_has_the_lag_of_its_own_response() {
    const DELAY: u64 = 700;
    let rig = ReplicationRig::start().await;
    let replicator = replicator(&rig, [SinkFault::IsSlow(Duration::from_millis(DELAY))]).await;
    let (lags, logged) = deliver(&replicator, &[EventBuilder::named("ada", 7, "Ada")], 0).await;
    let [(copy, of_copy), (staging, of_staging)] = &lags[..] else { panic!("{lags:?}") };
    assert_eq!((copy.as_str(), staging.as_str()), ("copy", "staging"));
    assert!(*of_copy >= AGE && *of_staging >= AGE + 700.0, "{lags:?}");
    assert!(*of_copy < *of_staging, "the replica that is fast is not delayed by the slow one: {lags:?}");
    assert_eq!(logged.to_string(), of_staging.floor().to_string(), "the log has the lag of the last replica");
}

#[tokio::test]
async fn lag_of_a_replica_that_fails_grows_and_that_of_the_others_does_not() {
    let rig = ReplicationRig::start().await;
    let replicator = replicator(&rig, [SinkFault::Rejects(vec![7]), SinkFault::Throttles(0)]).await;
    let batch = [EventBuilder::named("ada", 7, "Ada")];
    let mut of_staging = Vec::new();
    for (later, in_copy) in [(0, true), (60, false), (120, false)] {
        let (lags, _) = deliver(&replicator, &batch, later).await;
        assert_eq!(lags.iter().any(|(sink, _)| sink == "copy"), in_copy, "{later}: {lags:?}");
        of_staging.extend(lags.into_iter().filter(|(sink, _)| sink == "staging").map(|(_, lag)| lag));
    }
    let [first, second, third] = of_staging[..] else { panic!("{of_staging:?}") };
    assert!((AGE..AGE + 30_000.0).contains(&first), "{of_staging:?}");
    assert!((61_000.0..91_000.0).contains(&second), "{of_staging:?}");
    assert!((121_000.0..151_000.0).contains(&third), "applied by the third delivery: {of_staging:?}");
}

#[tokio::test]
async fn a_batch_of_which_no_sink_lacks_or_applies_a_change_has_no_lag() {
    let rig = ReplicationRig::start().await;
    let replicator = replicator(&rig, [SinkFault::CannotHold(vec![7])]).await;
    let batch = [EventBuilder::named("ada", 7, "Ada")];
    let (lags, logged) = deliver(&replicator, &batch, 0).await;
    let [(sink, lag)] = &lags[..] else { panic!("the quarantined change is not late: {lags:?}") };
    assert_eq!((sink.as_str(), logged.to_string()), ("copy", lag.floor().to_string()));
    assert_eq!(deliver(&replicator, &batch, 60).await.0.len(), 1, "the other replica has got it since");
    let replayed = deliver(&replicator, &batch, 120).await;
    assert_eq!(replayed, (Vec::new(), Value::Null));
}
