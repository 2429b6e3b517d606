//! Cache servers for tests: one that tests share, each with its own database, and separate ones that tests can kill.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use millrace_local::cache::CacheServer;
use millrace_shared::cache::{Cache, CacheConnection, CacheSettings, CacheSlot};
use redis::aio::MultiplexedConnection;
use tokio::sync::OnceCell;

static SERVER: OnceCell<CacheServer> = OnceCell::const_new();
static DATABASE: AtomicU32 = AtomicU32::new(0);

/// Returns the URL of a database that no other test uses.
pub(crate) async fn url() -> String {
    let start = || async {
        // The error message says what to install.
        CacheServer::start_with(&["--databases", "4096"]).await.unwrap_or_else(|error| panic!("{error}"))
    };
    let server = SERVER.get_or_init(start).await;
    format!("{}/{}", server.url(), DATABASE.fetch_add(1, Ordering::Relaxed))
}

/// Starts a server in cluster mode with all slots; also returns a connection to it.
///
/// The server listens on a second port, which is 10,000 above the first one and cannot be reserved. If that port is in use
/// or does not exist, the server ends, and another one is started.
pub(crate) async fn cluster_server() -> (CacheServer, MultiplexedConnection) {
    for _ in 0..10 {
        let server = CacheServer::spawn(&["--cluster-enabled", "yes"]).unwrap_or_else(|error| panic!("{error}"));
        let client = redis::Client::open(server.url()).unwrap();
        let connect = async {
            loop {
                match client.get_multiplexed_async_connection().await {
                    Ok(connection) => break connection,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let Ok(mut connection) = tokio::time::timeout(Duration::from_secs(5), connect).await else { continue };
        // The server rejects writes until its slots are assigned.
        let slots = redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16_383).exec_async(&mut connection).await;
        slots.unwrap();
        return (server, connection);
    }
    panic!("none of ten servers in cluster mode accepted a connection within 5 s");
}

/// Returns a cache that no other test uses.
pub(crate) async fn cache() -> Cache {
    at(&url().await)
}

/// The cache at a URL.
pub(crate) fn at(url: &str) -> Cache {
    Cache::new(settings(&[("CACHE_URL", url)]), None)
}

pub(crate) fn settings(variables: &[(&str, &str)]) -> CacheSettings {
    CacheSettings::parse(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
        .unwrap()
        .unwrap()
}

/// Returns the version in the cache entry of a key: 0 for a negative entry, `None` if the table must be read.
pub(crate) async fn cached_version(connection: &CacheConnection, key: &str) -> Option<u64> {
    match connection.get(key).await.unwrap() {
        CacheSlot::Entry(entry) => Some(entry.version),
        CacheSlot::Missing => Some(0),
        CacheSlot::Fenced | CacheSlot::Miss => None,
    }
}

/// Returns the remaining TTL of a key in milliseconds; negative if the key does not exist or never expires.
pub(crate) async fn time_left(url: &str, key: &str) -> i64 {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("PTTL").arg(key).query_async(&mut connection).await.unwrap()
}
