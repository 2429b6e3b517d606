//! Silent connections: neither side closes them, and no response arrives. After a failover or a change of routes, every
//! client that keeps a connection open uses a new one for its next call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::config::StalledStreamProtectionConfig;
use millrace_local::cache::CacheServer;
use millrace_local::clients;
use millrace_sinks::cache::CacheSink;
use millrace_sinks::{Sink, SinkOutcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use crate::cache::servers::at;
use crate::relational::store::{RelationalStore, apply, apply_within, sink};
use crate::replication::events::{EventBuilder, event};
use crate::replication::rig::{ReplicationRig, deliver_batch, invocation_within};
use crate::search::scene::over;

/// A proxy in front of a server, on which connections can be lost without notice.
struct SilenceKind {
    port: u16,
    state: Arc<LinkState>,
}

#[derive(Default)]
struct LinkState {
    connections: AtomicUsize,
    /// Connections up to this number are silent.
    lost: AtomicUsize,
}

impl SilenceKind {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let state = Arc::new(LinkState::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
                if let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await {
                    tokio::spawn(carry(client, server, number, Arc::clone(&shared)));
                }
            }
        });
        Self { port: own, state }
    }

    fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Makes all open connections silent; later ones work.
    fn lose(&self) {
        self.state.lost.store(self.connections(), Ordering::SeqCst);
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, number: usize, state: Arc<LinkState>) {
    let (mut asked, mut received) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                let is_lost = number <= state.lost.load(Ordering::SeqCst);
                if !is_lost && server.write_all(&asked[..length]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut received) => {
                let Ok(length @ 1..) = read else { return };
                let is_lost = number <= state.lost.load(Ordering::SeqCst);
                if !is_lost && client.write_all(&received[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn port_of(url: &str) -> u16 {
    let host = url.split('@').next_back().unwrap().trim_start_matches("http://").trim_start_matches("redis://");
    host.split('/').next().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

fn users(numbers: std::ops::RangeInclusive<u64>) -> Vec<EventBuilder> {
    numbers.map(|number| EventBuilder::named(&format!("u{number}"), number, "Ada")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_of_the_replicator_is_reached_on_another_connection() {
    let server = CacheServer::start().await.unwrap();
    let way = SilenceKind::to(server.port()).await;
    let rig = ReplicationRig::start().await;
    let sink = CacheSink::new(at(&format!("redis://127.0.0.1:{}", way.port)));
    let replicator = rig.replicator_with(vec![Box::new(sink)]);
    assert_eq!(deliver_batch(&replicator, &event(&users(1..=3))).await.identifier(), None);
    assert_eq!(way.connections(), 1);
    // Ends by the sink's own timeout, and by the invocation's, which drops the sink's future.
    for time in [Duration::from_mins(1), Duration::from_millis(400)] {
        way.lose();
        let before = way.connections();
        let response = replicator.handle(&event(&users(4..=6)), &invocation_within(time)).await.unwrap();
        assert_eq!(response.identifier(), Some("4"), "the connection is silent");
        let started = Instant::now();
        assert_eq!(deliver_batch(&replicator, &event(&users(4..=6))).await.identifier(), None);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        assert_eq!(way.connections(), before + 1, "after {time:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_the_cache_that_is_dropped_gives_its_line_up() {
    let server = CacheServer::start().await.unwrap();
    let way = SilenceKind::to(server.port()).await;
    let cache = at(&format!("redis://127.0.0.1:{}", way.port));
    let line = cache.connection().await.unwrap();
    line.get("a").await.unwrap();
    assert!(cache.is_open(&line), "a call that is answered keeps it");
    way.lose();
    assert!(timeout(Duration::from_millis(50), line.get("a")).await.is_err());
    assert!(!cache.is_open(&line));
    cache.connection().await.unwrap().get("a").await.unwrap();
    assert_eq!(way.connections(), 2);
    // The connection's own timeout ends the call if the caller does not stop waiting.
    way.lose();
    let line = cache.connection().await.unwrap();
    assert!(timeout(Duration::from_secs(10), line.get("a")).await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_of_the_replicator_is_reached_on_another_connection() {
    let store = RelationalStore::start().await;
    let port = port_of(&store.url);
    let way = SilenceKind::to(port).await;
    let sink = sink(&store.url.replace(&format!(":{port}/"), &format!(":{}/", way.port)));
    assert_eq!(apply(&sink, &users(1..=3)).await.applied, 3);
    // Ends by the sink's deadline.
    way.lose();
    let outcome = apply_within(&sink, &event(&users(4..=6)), Duration::from_millis(300)).await;
    assert_eq!(outcome.failures.len(), 3);
    assert_eq!(apply(&sink, &users(4..=6)).await.applied, 3);
    assert_eq!(way.connections(), 2);
    // Ends because the caller drops the future.
    way.lose();
    assert!(timeout(Duration::from_millis(300), apply(&sink, &users(7..=9))).await.is_err());
    let again = timeout(Duration::from_secs(5), apply(&sink, &users(7..=9))).await.unwrap();
    assert_eq!(again, SinkOutcome { applied: 3, ..SinkOutcome::default() });
    assert_eq!(way.connections(), 3);
    sink.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_of_search_is_reached_on_another_connection() {
    let store = RelationalStore::start().await;
    assert_eq!(apply(&store.sink, &users(1..=1)).await.applied, 1);
    let port = port_of(&store.url);
    let way = SilenceKind::to(port).await;
    let search = over(&[("POSTGRES_URL", &store.url.replace(&format!(":{port}/"), &format!(":{}/", way.port)))]);
    let question = "/search/users?name_prefix=ad";
    assert_eq!(search.get(question).await.status, 200);
    way.lose();
    assert!(search.get(question).await.status >= 500);
    let started = Instant::now();
    assert_eq!(search.get(question).await.status, 200);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(way.connections(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_aws_is_reached_on_another_connection() {
    let rig = ReplicationRig::start().await;
    let way = SilenceKind::to(port_of(&rig.dynamodb_url)).await;
    let config = clients::dynamodb(&format!("http://127.0.0.1:{}", way.port)).config().to_builder();
    let config = config.retry_config(millrace_shared::aws::retries()).timeout_config(millrace_shared::aws::timeouts());
    let config = config.stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    let client = aws_sdk_dynamodb::Client::from_conf(config.build());
    client.list_tables().send().await.unwrap();
    let before = way.connections();
    way.lose();
    let started = Instant::now();
    client.list_tables().send().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    assert_eq!(way.connections(), before + 1, "the second attempt takes another one");
}
